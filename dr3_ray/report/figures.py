"""The figures of a sweep, drawn without a display: one picture per facet and quantity, as SVG and as PNG."""

import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from dr3_ray.report.reader import COEFFICIENT
from dr3_ray.stats import bootstrap_band

CURVES = {
    "episode_return_mean": ("return", "Return of evaluation episodes"),
    "dot_product": ("dot-product", "Dot product φ(s, a)·φ(s\N{PRIME}, a\N{PRIME})"),
    "effective_rank": ("effective-rank", "Effective rank of the features"),
    "q_mean": ("mean-q", "Mean Q on the probe batch"),
    "cosine": ("cosine", "Cosine of φ(s, a) and φ(s\N{PRIME}, a\N{PRIME})"),
}
"""Column of the histories: name of its picture, title."""

INK, MUTED, GRID = "#1b1f27", "#68707d", "#e6e8ed"
WIDTH, HEIGHT = 4.8, 3.3  # inches: text stays readable when the picture is scaled down to a phone
_LEGEND_COLUMNS = 6
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text: it can be searched and takes the page's font
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.xmargin": 0.02,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.borderaxespad": 0,
    "legend.handlelength": 1.7,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
    "legend.labelspacing": 0.35,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True)
class Picture:
    """`svg` is an element to put into a page, its colours variables of that page; `png` is a file on white."""

    name: str
    title: str
    svg: str
    png: bytes


def palette(coefficients: list[float], dark: bool = False) -> dict[float, str]:
    """Colour of every coefficient: 0 in ink, the others along plasma, which orders also without colour vision."""
    low, high = (0.33, 0.95) if dark else (0.06, 0.76)
    others = [c for c in coefficients if c != 0]
    colours = mpl.colormaps["plasma"](np.linspace(low, high, len(others)) if len(others) > 1 else [(low + high) / 2])
    return dict(zip(others, map(to_hex, colours), strict=False)) | ({0.0: INK} if 0 in coefficients else {})


def draw_facet(
    prefix: str, histories: pd.DataFrame, outcomes: pd.DataFrame, summary: pd.DataFrame, colours: dict[float, str]
) -> list[Picture]:
    """The pictures of one facet from its rows of each table; a quantity that was not measured has none.

    `prefix` begins their names, `colours` is the `palette` of the whole run. Settings that were cut short have curves
    that end there, and no place among final returns.
    """
    pictures = []
    beside = outcomes.index[(outcomes["status"] == "cut") & ~outcomes["counted"]]
    histories = histories[~histories["member"].isin(beside)]
    summary = summary[~summary["cut_short"]]
    with mpl.rc_context(_STYLE):
        for column, (name, title) in CURVES.items():
            measured = histories[np.isfinite(histories[column])] if column in histories else histories[:0]
            if len(measured):
                pictures.append(_curves(f"{prefix}-{name}", title, column, measured, colours))
            if name == "return" and (summary["return_final_n"] > 0).sum() > 1:
                runs = outcomes[outcomes["counted"] & (outcomes["status"] != "cut")]
                pictures.append(_against_coefficient(f"{prefix}-return-by-coefficient", runs, summary, colours))
    return pictures


def _curves(name: str, title: str, column: str, measured: pd.DataFrame, colours: dict[float, str]) -> Picture:
    """Interquartile mean with its interval against gradient updates, one curve per coefficient."""
    figure, axes = _canvas()
    curves = measured[measured["status"].isin(["finished", "running", "cut"])]
    ends, least, counts = [], np.inf, set()
    for coefficient, runs in curves.groupby(COEFFICIENT):
        table = runs.pivot(index="member", columns="step", values=column)
        band, colour = bootstrap_band(table), colours[coefficient]
        points: dict[str, Any] = {"marker": "o", "markersize": 2.5} if table.shape[1] <= 30 else {}
        axes.plot(table.columns, band.value, color=colour, **points, **_line(coefficient))
        axes.fill_between(table.columns, band.low, band.high, color=colour, alpha=0.15, linewidth=0)
        ends.append(abs(band.value[-1]))
        least = np.nanmin([least, *band.low, *band.value])
        counts |= set(band.n.tolist())
    diverged = measured[measured["status"] == "diverged"]
    for _, run in diverged.groupby("member"):
        colour = colours[run[COEFFICIENT].iloc[0]]
        ends.append(abs(run[column].iloc[-1]))
        axes.plot(run["step"], run[column], color=colour, linewidth=0.8, marker="x", markevery=[-1], markersize=6)
    if column != "episode_return_mean":
        _scale(axes, ends, least)
    axes.set_xlabel("gradient updates")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    subtitle = [f"interquartile mean and 95% interval over {_span(counts)}"] if counts else []
    subtitle += ["\N{MULTIPLICATION SIGN} a run diverged"] if len(diverged) else []
    legend = {c: colours[c] for c in sorted(measured[COEFFICIENT].unique())}
    handles = [Line2D([], [], color=colour, label=f"{c:g}", **_line(c)) for c, colour in legend.items()]
    handles[0].set_label(f"c₀ = {handles[0].get_label()}")
    return _finish(figure, name, title, "; ".join(subtitle), handles, colours)


def _against_coefficient(name: str, runs: pd.DataFrame, summary: pd.DataFrame, colours: dict[float, str]) -> Picture:
    """Final and average return against the coefficient, on an axis that shows 0 and is logarithmic beyond it."""
    figure, axes = _canvas()
    at = summary[COEFFICIENT].to_numpy()
    axes.set_xscale("symlog", linthresh=np.abs(at[at != 0]).min(), linscale=0.7)
    handles = []
    for when, marker, points in (("final", "o", -3), ("average", "D", 3)):
        beside, further = (
            axes.transData + ScaledTranslation(shift / 72, 0, figure.dpi_scale_trans)
            for shift in (points, 2.6 * points)
        )
        value, low, high = (summary[f"return_{when}{bound}"].to_numpy() for bound in ("", "_low", "_high"))
        line: dict[str, Any] = {"color": MUTED, "linewidth": 0.9, "linestyle": "-" if when == "final" else ":"}
        axes.plot(at, value, transform=beside, zorder=1.5, **line)
        # What is drawn beside its place does not count for the limits.
        each = runs[[COEFFICIENT, f"return_{when}"]].to_numpy()
        axes.update_datalim(each[np.isfinite(each).all(axis=1)])
        axes.plot(*each.T, ".", color=MUTED, markersize=5, markeredgewidth=0, transform=further)
        for x, y, bottom, top in zip(at, value, low, high, strict=True):
            style: dict[str, Any] = {"color": colours[x], "markerfacecolor": colours[x] if when == "final" else "white"}
            axes.plot([x, x], [bottom, top], color=colours[x], linewidth=1.4, transform=beside)
            axes.plot(x, y, marker, markersize=5.5, transform=beside, **style)
        face = MUTED if when == "final" else "white"
        label = {"final": "last evaluation", "average": "average over training"}[when]
        handles.append(Line2D([], [], marker=marker, markersize=5.5, markerfacecolor=face, label=label, **line))
    each_run: dict[str, Any] = {"marker": ".", "markersize": 6, "markeredgewidth": 0, "linestyle": "", "color": MUTED}
    handles.append(Line2D([], [], label="each run", **each_run))
    axes.margins(x=0.06)
    axes.autoscale_view()
    axes.set_xlabel("DR3 coefficient c₀")
    axes.set_xticks(at, [f"{c:g}" for c in at])
    axes.tick_params(axis="x", rotation=45 if len(at) > 8 else 0)
    axes.xaxis.set_minor_locator(NullLocator())
    subtitle = f"interquartile mean and 95% interval over {_span(set(summary['runs']) - {0})}"
    return _finish(figure, name, "Return against coefficient", subtitle, handles, colours)


def _scale(axes: Axes, ends: list[float], least: float) -> None:
    """A logarithmic axis where one curve would press another flat, linear about 0 where values are not positive.

    `ends` are the magnitudes that the curves end at, `least` is the least value of all.
    """
    largest, smallest = max(ends), min(filter(None, ends), default=0)
    if largest <= 20 * smallest:
        return
    negligible = 1e-6 * largest  # dead features are next to 0: no decades for them
    if least > negligible:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=max(smallest, negligible))
    axes.yaxis.set_major_formatter(
        lambda value, _: f"{value:g}" if abs(value) < 1e4 else f"{value:.0e}".replace("+0", "")
    )


def _line(coefficient: float) -> dict[str, Any]:
    return {"linestyle": (0, (3.5, 1.5)), "zorder": 3} if coefficient == 0 else {}


def _span(counts: set[int]) -> str:
    ends = dict.fromkeys([min(counts), max(counts)])
    return "\N{EN DASH}".join(map(str, ends)) + (" run" if max(counts) == 1 else " runs")


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    return figure, figure.add_subplot()


def _finish(
    figure: Figure, name: str, title: str, subtitle: str, handles: list[Line2D], colours: dict[float, str]
) -> Picture:
    """Heading and legend above the axes, then both formats."""
    rows = -(-len(handles) // _LEGEND_COLUMNS)
    top = 1 - (0.50 + 0.18 * rows) / HEIGHT
    figure.set_layout_engine("constrained", rect=(0.004, 0, 0.99, top), h_pad=0.03)
    figure.text(0.01, 1 - 0.05 / HEIGHT, title, fontsize=10.5, fontweight="bold", va="top")
    figure.text(0.01, 1 - 0.26 / HEIGHT, subtitle, fontsize=8, color=MUTED, va="top")
    figure.legend(handles=handles, ncols=_LEGEND_COLUMNS, loc="upper left", bbox_to_anchor=(0.002, 1 - 0.4 / HEIGHT))
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=200)
    with mpl.rc_context({"svg.hashsalt": name}):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(svg, format="svg", transparent=True, metadata=metadata)
    return Picture(name, title, _for_page(svg.getvalue(), title, colours), png.getvalue())


def _for_page(svg: str, title: str, colours: dict[float, str]) -> str:
    """A stand-alone SVG file as an element that scales with the page and takes its colours."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view
    body = re.sub(r"<style.*?</style>", "", body)  # it would apply to the whole page
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # names such as axes_1 would repeat from picture to picture
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    variables = {INK: "--ink", MUTED: "--muted", GRID: "--grid", "#ffffff": "--paper"}
    variables |= {colour: f"--c{place}" for place, colour in enumerate(colours.values()) if colour != INK}
    body = re.sub("|".join(variables), lambda found: f"var({variables[found[0]]})", body)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} {view[0]} role="img" aria-label="{title}">{body}'
