"""One self-contained web page: headings, short text, tables and pictures, nothing to load."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page, shown in the order of the fields; what is empty is left out."""

    heading: str
    text: str = ""  # an empty line parts paragraphs
    points: Sequence[str] = ()  # a list
    columns: Sequence[str] = ()  # heads of the table
    rows: Sequence[Sequence[object]] = ()  # a cell per column; the first names the row
    figures: Mapping[str, Figure | bytes] = field(default_factory=dict)  # by caption; bytes: PNG

    @property
    def is_filled(self) -> bool:
        """Whether there is anything below the heading."""
        return any((self.text, self.points, self.rows, self.figures))

    @property
    def sources(self) -> dict[str, str]:
        """The figures as data URIs, by caption."""
        return {caption: _data_uri(figure) for caption, figure in self.figures.items()}


def page(title: str, intro: str, sections: Sequence[Section]) -> str:
    """An HTML document that loads nothing and runs no script; every text is escaped.

    Args:
        title: of the document, also its first heading.
        intro: text; an empty line parts paragraphs.
        sections: in order; those that hold nothing are left out.
    """
    environment = Environment(
        loader=PackageLoader("fer_experiments.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["paragraphs"] = _paragraphs
    template = environment.get_template("page.html")
    return template.render(title=title, intro=intro, sections=sections)


def _paragraphs(text: str) -> list[str]:
    return [part for part in text.split("\n\n") if part.strip()]


def _data_uri(figure: Figure | bytes) -> str:
    if isinstance(figure, Figure):
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        figure = stream.getvalue()
    return f"data:image/png;base64,{b64encode(figure).decode()}"
