"""One self-contained web page: headings, short text, tables and pictures, nothing to load.

Tables have a column per model, so that eight fit a window of 1,280 pixels; on a phone every row
becomes a block, with a line per column.
"""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

_SHORT = 16  # characters of a word that is not broken
_PARTS = rf".{{1,{_SHORT}}}?[/_,+:.]|.{{1,{_SHORT}}}"


@dataclass(frozen=True, kw_only=True)
class Model:
    """The head of a model's column, with the model's colour in the figures."""

    label: str
    colour: str  # #rrggbb

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page, shown in the order of the fields; what is empty is left out."""

    heading: str
    text: str = ""  # an empty line parts paragraphs
    points: Sequence[str] = ()  # a list
    columns: Sequence[str | Model] = ()  # heads of the table
    rows: Sequence[Sequence[object]] = ()  # a cell per column, or a Link; the first names the row
    figures: Mapping[str, Figure | bytes] = field(default_factory=dict)  # by caption; bytes: PNG

    @property
    def is_filled(self) -> bool:
        """Whether there is anything below the heading."""
        return any((self.text, self.points, self.rows, self.figures))

    @property
    def sources(self) -> dict[str, str]:
        """The figures as data URIs, by caption."""
        return {caption: _data_uri(figure) for caption, figure in self.figures.items()}


def page(title: str, intro: str, sections: Sequence[Section], *, lead: str = "") -> str:
    """An HTML document that loads nothing and runs no script; every text is escaped.

    Args:
        title: of the document, also its first heading.
        intro: text; an empty line parts paragraphs.
        lead: what matters most, before the intro and larger.
        sections: in order; those that hold nothing are left out.
    """
    environment = Environment(
        loader=PackageLoader("fer_experiments.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"paragraphs": _paragraphs, "words": _words}
    template = environment.get_template("page.html")
    return template.render(title=title, lead=lead, intro=intro, sections=sections)


def _paragraphs(text: str) -> list[str]:
    return [part for part in text.split("\n\n") if part.strip()]


def _words(cell: object) -> list[list[str]]:
    """The words of a cell, each in the parts between which a long one may be broken."""
    return [
        [word] if len(word) <= _SHORT else re.findall(_PARTS, word, re.DOTALL)
        for word in str(cell).split(" ")
    ]


def _data_uri(figure: Figure | bytes) -> str:
    if isinstance(figure, Figure):
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        figure = stream.getvalue()
    return f"data:image/png;base64,{b64encode(figure).decode()}"
