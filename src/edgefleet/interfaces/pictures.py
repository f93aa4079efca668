"""Pictures: PNGs that a notebook shows, drawn by matplotlib.

The same facts and the same matplotlib give the same bytes. Nothing here touches matplotlib's global
state or needs a display.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import MissingExtraError

if TYPE_CHECKING:
    import os

# Told apart by every kind of eye: Paul Tol's "bright" scheme, https://personal.sron.nl/~pault/
BLUE, RED, GREY, INK = "#4477aa", "#cc3311", "#999999", "#222222"
YELLOW = "#ccbb44"
DPI = 130


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG, which a notebook shows.

    Attributes:
        png: its bytes.
    """

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png


def new_figure(title: str, width: float, height: float) -> Any:  # noqa: ANN401 - matplotlib has no types
    """An empty figure with a title, so many inches wide and high, and a canvas to draw it on.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - its parts may be loaded without it
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - optional
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415
    except ImportError as error:
        msg = "a plot needs the matplotlib library, which cannot be imported"
        cure = "install it with: pip install 'edgefleet[plot]'"
        raise MissingExtraError(msg, cure=cure) from error

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
    return figure


def picture_of(figure: Any, path: str | os.PathLike[str] | None = None) -> Picture:  # noqa: ANN401 - matplotlib has no types
    """The figure as a picture.

    Args:
        figure: of matplotlib.
        path: of a PNG file to write as well.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    picture = Picture(buffer.getvalue())
    if path is not None:
        Path(path).write_bytes(picture.png)
    return picture
