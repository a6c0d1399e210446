"""The figures of a sweep, drawn without a display: one picture per facet and quantity, as SVG and as PNG."""

import base64
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from dr3_ray.errors import UserError
from dr3_ray.quantities import REPORTED, RETURN, Quantity
from dr3_ray.report.files import write_whole
from dr3_ray.report.lines import GRID, INK, MUTED, key, legend, line
from dr3_ray.report.reader import COEFFICIENT
from dr3_ray.stats import Band, bootstrap_band
from dr3_ray.uris import path_here

_DRAWN = ("finished", "running", "cut", "diverged")
WIDTH, HEIGHT = 4.8, 3.3  # inches: text stays readable when the picture is scaled down to a phone
BELOW = 0.4  # inches of the heading above a key
_DECADES, _LEAST = 1e-12, 1e-30  # coefficients that are smaller, of the largest or at all, are drawn at 0
_NAMED = 12  # coefficients that an axis has room for; the others lie between them
STYLE: dict[Any, Any] = {
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
    """A figure as SVG to put into a page, its colours variables of that page, and as PNG on white."""

    name: str
    title: str
    svg: str
    png: bytes
    figure: Figure

    def render(self, kind: str) -> bytes:
        """Return the figure as a file of its own, `svg` or `pdf`, its text as text."""
        file = io.BytesIO()
        with mpl.rc_context(STYLE | {"pdf.fonttype": 42, "svg.hashsalt": self.name}):
            metadata = {"Date": None} if kind == "svg" else {"CreationDate": None}
            self.figure.savefig(file, format=kind, metadata=metadata)
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        """Show it in a notebook."""
        return self.png

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the PNG and return its path.

        Raises:
            UserError: it has another suffix, or cannot be written.
        """
        target = path_here(path) or Path()
        if target.suffix.lower() != ".png":
            raise UserError(f"pictures are saved as PNG, not as '{target}': choose a name that ends with .png")
        return write_whole(target, self.png)


class Pictures(list[Picture]):
    """Figures that a notebook shows one below the other."""

    def _repr_html_(self) -> str:
        shown = (base64.b64encode(picture.png).decode() for picture in self)
        return "".join(f'<img style="max-width: 480px" src="data:image/png;base64,{png}">' for png in shown)


def draw_facet(
    prefix: str, histories: pd.DataFrame, outcomes: pd.DataFrame, summary: pd.DataFrame, colours: dict[float, str]
) -> list[Picture]:
    """Draw the pictures of one facet from its rows of each table; a quantity that was not measured has none.

    `prefix` begins their names, `colours` is the `palette` of the whole run. Settings that were cut short have curves
    that end there, and no place among final returns.
    """
    pictures = []
    final = summary[~summary["cut_short"]]
    for quantity in REPORTED:
        pictures += draw_curves(prefix, quantity, histories, outcomes, colours)
        if quantity.name == RETURN and (final["return_final_n"] > 0).sum() > 1:
            runs = outcomes[outcomes["counted"] & (outcomes["status"] != "cut")]
            with mpl.rc_context(STYLE):
                pictures.append(_against_coefficient(f"{prefix}-return-by-coefficient", runs, final, colours))
    return pictures


def draw_curves(
    prefix: str, quantity: Quantity, histories: pd.DataFrame, outcomes: pd.DataFrame, colours: dict[float, str]
) -> list[Picture]:
    """Draw a quantity of one facet against gradient updates; nothing where it was not measured."""
    if quantity.name not in histories:
        return []
    beside = outcomes.index[(outcomes["status"] == "cut") & ~outcomes["counted"]]
    measured = histories[~histories["member"].isin(beside) & np.isfinite(histories[quantity.name])]
    measured = measured[measured["status"].isin(_DRAWN)]
    if measured.empty:
        return []
    with mpl.rc_context(STYLE):
        return [_curves(f"{prefix}-{picture_name(quantity)}", quantity.label, quantity.name, measured, colours)]


def picture_name(quantity: Quantity) -> str:
    """Return the end of the names of a quantity's pictures."""
    return (quantity.short or quantity.name).lower().replace(" ", "-")


def _curves(name: str, title: str, column: str, measured: pd.DataFrame, colours: dict[float, str]) -> Picture:
    """Draw the interquartile mean with its interval against gradient updates, one curve per coefficient."""
    figure, axes = _canvas()
    curves = measured[measured["status"] != "diverged"]
    ends, least, counts = [], np.inf, set()
    for coefficient, (steps, band) in _bands(curves, column).items():
        axes.plot(steps, band.value, **line(coefficient, colours, len(steps)))
        axes.fill_between(steps, band.low, band.high, color=colours[coefficient], alpha=0.15, linewidth=0)
        ends.append(abs(band.value[-1]))
        least = np.nanmin([least, *band.low, *band.value])
        counts |= set(band.n.tolist())
    diverged = measured[measured["status"] == "diverged"]
    for _, run in diverged.groupby("member"):
        colour = colours[run[COEFFICIENT].iloc[0]]
        ends.append(abs(run[column].iloc[-1]))
        axes.plot(run["step"], run[column], color=colour, linewidth=0.8, marker="x", markevery=[-1], markersize=6)
    if column != RETURN:
        _scale(axes, ends, least)
    axes.set_xlabel("gradient updates")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    subtitle = [f"interquartile mean and 95% interval over {_span(counts)}"] if counts else []
    subtitle += ["\N{MULTIPLICATION SIGN} a run diverged"] if len(diverged) else []
    _title(figure, title, "; ".join(subtitle))
    return _finish(figure, name, title, key(figure, BELOW, sorted(measured[COEFFICIENT].unique()), colours), colours)


def _bands(curves: pd.DataFrame, column: str) -> dict[float, tuple[pd.Index, Band]]:
    """Return steps and band of each coefficient: all are made in one call, which takes half the time."""
    pivots = {
        coefficient: runs.pivot(index="member", columns="step", values=column)
        for coefficient, runs in curves.groupby(COEFFICIENT)
    }
    if not pivots:
        return {}
    most = max(map(len, pivots.values()))
    padded = [np.pad(pivot, ((0, most - len(pivot)), (0, 0)), constant_values=np.nan) for pivot in pivots.values()]
    band = bootstrap_band(np.hstack(padded))
    ends = np.cumsum([pivot.shape[1] for pivot in pivots.values()])[:-1]
    parts = [
        Band(*piece)
        for piece in zip(*(np.split(values, ends) for values in (band.value, band.low, band.high, band.n)), strict=True)
    ]
    return {
        coefficient: (pivot.columns, part) for (coefficient, pivot), part in zip(pivots.items(), parts, strict=True)
    }


def _against_coefficient(name: str, runs: pd.DataFrame, summary: pd.DataFrame, colours: dict[float, str]) -> Picture:
    """Draw final and average return against the coefficient, on an axis that shows 0 and is logarithmic beyond it."""
    figure, axes = _canvas()
    at = summary[COEFFICIENT].to_numpy()
    sizes = np.abs(at[at != 0])
    axes.set_xscale("symlog", linthresh=max(sizes.min(), sizes.max() * _DECADES, _LEAST), linscale=0.7)
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
        dots = runs[[COEFFICIENT, f"return_{when}"]].to_numpy()
        axes.update_datalim(dots[np.isfinite(dots).all(axis=1)])
        axes.plot(*dots.T, ".", color=MUTED, markersize=5, markeredgewidth=0, transform=further)
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
    named = _some(sorted(at))
    axes.set_xticks(named, [f"{c:g}" for c in named])
    axes.tick_params(axis="x", rotation=45 if len(named) > 8 else 0)
    axes.xaxis.set_minor_locator(NullLocator())
    subtitle = f"interquartile mean and 95% interval over {_span(set(summary['runs']) - {0})}"
    title = "Return against coefficient"
    _title(figure, title, subtitle)
    return _finish(figure, name, title, legend(figure, BELOW, handles), colours)


def _scale(axes: Axes, ends: list[float], least: float) -> None:
    """Set a logarithmic axis where one curve would press another flat; linear about 0 if values are not positive.

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


def _some(coefficients: list[float]) -> list[float]:
    """Return as many coefficients as there is room for, evenly spaced, with the first and the last."""
    if len(coefficients) <= _NAMED:
        return coefficients
    return [coefficients[place] for place in np.linspace(0, len(coefficients) - 1, _NAMED).round().astype(int)]


def _span(counts: set[int]) -> str:
    ends = dict.fromkeys([min(counts), max(counts)])
    return "\N{EN DASH}".join(map(str, ends)) + (" run" if max(counts) == 1 else " runs")


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    return figure, figure.add_subplot()


def _title(figure: Figure, title: str, subtitle: str) -> None:
    figure.text(0.01, 1 - 0.05 / HEIGHT, title, fontsize=10.5, fontweight="bold", va="top")
    figure.text(0.01, 1 - 0.26 / HEIGHT, subtitle, fontsize=8, color=MUTED, va="top")


def _finish(figure: Figure, name: str, title: str, keyed: float, colours: dict[float, str]) -> Picture:
    """Leave room for the heading and for `keyed` inches of a key above the axes, then write both formats."""
    figure.set_layout_engine("constrained", rect=(0.004, 0, 0.99, 1 - (BELOW + keyed) / HEIGHT), h_pad=0.03)
    return picture_of(figure, name, title, colours)


def picture_of(figure: Figure, name: str, title: str, colours: dict[float, str]) -> Picture:
    """Return a figure in both formats; `colours` become the variables --c0, --c1 and so on of a page."""
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=200)
    figure.set_layout_engine("none")  # the places of its parts are known now, and take as long as drawing
    with mpl.rc_context({"svg.hashsalt": name}):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(svg, format="svg", transparent=True, metadata=metadata)
    return Picture(name, title, _for_page(svg.getvalue(), title, colours), png.getvalue(), figure)


def _for_page(svg: str, title: str, colours: dict[float, str]) -> str:
    """Return a stand-alone SVG file as an element that scales with the page and takes its colours."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view
    body = re.sub(r"<style.*?</style>", "", body)  # it would apply to the whole page
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # names such as axes_1 would repeat from picture to picture
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    variables = {INK: "--ink", MUTED: "--muted", GRID: "--grid", "#ffffff": "--paper"}
    variables |= {colour: f"--c{place}" for place, colour in enumerate(colours.values()) if colour != INK}
    body = re.sub("|".join(variables), lambda match: f"var({variables[match[0]]})", body)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} {view[0]} role="img" aria-label="{escape(title)}">{body}'
