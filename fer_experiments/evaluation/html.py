"""One self-contained web page: headings, short text, tables and pictures, nothing to load."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

_TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 920px; margin: 0 auto;
       padding: 0 16px 48px; overflow-wrap: break-word; }
h1 { font-size: 1.7em; line-height: 1.25; margin: 1em 0 .4em; }
h2 { font-size: 1.25em; margin: 2em 0 .4em; padding-top: .6em; border-top: 1px solid #ddd; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9em; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .8em; border-bottom: 1px solid #ddd; text-align: right;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
tbody th { font-weight: normal; white-space: normal; min-width: 7em; }
figure { margin: 1em 0; }
img { max-width: 100%; min-width: 640px; height: auto; }
figcaption { font-size: .9em; color: #555; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for paragraph in intro | paragraphs %}
<p>{{ paragraph }}</p>
{% endfor %}
{% for section in sections %}
<section>
<h2>{{ section.heading }}</h2>
{% for paragraph in section.text | paragraphs %}
<p>{{ paragraph }}</p>
{% endfor %}
{% if section.points %}
<ul>
{% for point in section.points %}
<li>{{ point }}</li>
{% endfor %}
</ul>
{% endif %}
{% if section.rows %}
<div class="wide"><table>
<thead><tr>{% for name in section.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in section.rows %}
<tr>{% for cell in row %}
{% if loop.first %}<th scope="row">{{ cell }}</th>{% else %}<td>{{ cell }}</td>{% endif %}
{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endif %}
{% for caption, source in section.sources.items() %}
<figure>
<div class="wide"><img src="{{ source }}" alt="{{ caption }}"></div>
<figcaption>{{ caption }}</figcaption>
</figure>
{% endfor %}
</section>
{% endfor %}
</body>
</html>
"""


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
    def sources(self) -> dict[str, str]:
        """The figures as data URIs, by caption."""
        return {caption: _data_uri(figure) for caption, figure in self.figures.items()}


def page(title: str, intro: str, sections: Sequence[Section]) -> str:
    """An HTML document that loads nothing and runs no script; every text is escaped.

    Args:
        title: of the document, also its first heading.
        intro: text; an empty line parts paragraphs.
        sections: in order.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["paragraphs"] = _paragraphs
    template = environment.from_string(_TEMPLATE)
    return template.render(title=title, intro=intro, sections=sections)


def _paragraphs(text: str) -> list[str]:
    return [part for part in text.split("\n\n") if part.strip()]


def _data_uri(figure: Figure | bytes) -> str:
    if isinstance(figure, Figure):
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
        figure = stream.getvalue()
    return f"data:image/png;base64,{b64encode(figure).decode()}"
