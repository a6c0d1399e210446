"""How curves of different coefficients are told apart, in colour and on grey paper."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, MUTED, GRID = "#1b1f27", "#68707d", "#e6e8ed"
LEGEND = 8  # coefficients that a legend has room for; of more there is a bar of colours
MARKERS = "s^DvPX*"
DASHES = ("-", (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
BASE: dict[str, Any] = {"linestyle": (0, (3.5, 1.5)), "marker": "o", "zorder": 3}
MARKED = 8  # markers on a curve, at most
NAMED = 6  # coefficients that stand at the bar of colours
_COLUMNS = 6  # of a legend


def palette(coefficients: list[float], dark: bool = False) -> dict[float, str]:
    """Return the colour of every coefficient: 0 in ink, the others along plasma, which orders them in grey, too."""
    low, high = (0.33, 0.95) if dark else (0.06, 0.76)
    others = [c for c in coefficients if c != 0]
    colours = mpl.colormaps["plasma"](np.linspace(low, high, len(others)) if len(others) > 1 else [(low + high) / 2])
    return dict(zip(others, map(to_hex, colours), strict=False)) | ({0.0: INK} if 0 in coefficients else {})


def line(coefficient: float, colours: dict[float, str], points: int = MARKED) -> dict[str, Any]:
    """Return colour, dashes and markers of a curve with so many points.

    Up to `LEGEND` coefficients each has a marker of its own, and neighbours have other dashes; 0 is always dashed.
    """
    style: dict[str, Any] = {"color": colours[coefficient]}
    if len(colours) > LEGEND:
        return style | ({"linestyle": BASE["linestyle"], "zorder": BASE["zorder"]} if coefficient == 0 else {})
    place = [c for c in colours if c != 0].index(coefficient) if coefficient else 0
    every = max(1, -(-points // MARKED))
    marks = {"markersize": 3.6, "markevery": (place % every, every)}
    own = BASE if coefficient == 0 else {"linestyle": DASHES[place % len(DASHES)], "marker": MARKERS[place]}
    return style | marks | own


def key(figure: Figure, top: float, coefficients: Sequence[float], colours: dict[float, str]) -> float:
    """Draw a legend of coefficients, or a bar of their colours, below `top`; return its height. Both in inches."""
    height = float(figure.get_figheight())
    if len(colours) <= LEGEND:
        handles = [Line2D([], [], label=f"{c:g}", **line(c, colours)) for c in coefficients]
        handles[0].set_label(f"c₀ = {handles[0].get_label()}")
        return legend(figure, top, handles)
    axes = figure.add_axes((0.02, 1 - (top + 0.16) / height, 0.96, 0.1 / height))
    ordered = sorted(colours)
    axes.bar(range(len(ordered)), 1, width=1, color=[colours[c] for c in ordered])
    _bare(axes, len(ordered))
    named = dict.fromkeys(np.linspace(0, len(ordered) - 1, NAMED).round().astype(int).tolist())
    labels = [f"{ordered[place]:g}" for place in named]
    axes.set_xticks(list(named), [f"c₀ = {labels[0]}", *labels[1:]])
    return 0.4


def legend(figure: Figure, top: float, handles: list[Line2D]) -> float:
    """Draw a legend below `top`, and return its height; both in inches."""
    height = float(figure.get_figheight())
    figure.legend(handles=handles, ncols=_COLUMNS, loc="upper left", bbox_to_anchor=(0.002, 1 - top / height))
    return 0.18 * -(-len(handles) // _COLUMNS) + 0.1


def _bare(axes: Axes, count: int) -> None:
    """Leave of the axes the ticks below alone."""
    axes.set(xlim=(-0.5, count - 0.5), ylim=(0, 1), yticks=[])
    axes.grid(False)
    axes.tick_params(axis="x", length=2, labelsize=8)
    axes.spines[:].set_visible(False)
