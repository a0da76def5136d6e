"""What every figure must be."""

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def drawn(figure: Figure) -> Any:
    """The figure after layout, checked as every caller uses it.

    Any: by Matplotlib's types, what it shows may be all that could ever be drawn.
    """
    assert isinstance(figure, Figure)
    assert 7.5 <= figure.get_figwidth() <= 9
    assert 100 <= figure.dpi <= 120
    assert figure.get_suptitle()
    FigureCanvasAgg(figure).draw()
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    assert stream.getvalue().startswith(b"\x89PNG")
    assert min(text.get_fontsize() for text in all_texts(figure)) >= 9
    return figure


def all_texts(figure):
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def inside(figure, artist):
    box = artist.get_window_extent()
    canvas = figure.bbox
    return (
        box.x0 >= canvas.x0 - 1
        and box.x1 <= canvas.x1 + 1
        and box.y0 >= canvas.y0 - 1
        and box.y1 <= canvas.y1 + 1
    )


def on_canvas(figure):
    """Whether all that is drawn stays on the canvas; ticks out of view are not drawn."""
    box, slack = figure.get_tightbbox(), 1 / figure.dpi  # inches
    width, height = figure.get_size_inches()
    return (
        box.x0 >= -slack
        and box.y0 >= -slack
        and box.x1 <= width + slack
        and box.y1 <= height + slack
    )
