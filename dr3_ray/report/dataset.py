"""The page of a data set: what it holds, as one picture and in tables; it opens without a network."""

import os
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from dr3_ray.data.reader import Dataset
from dr3_ray.data.selected import subset_of
from dr3_ray.data.summary import Coverage, Element, Spread, Summary, summarize
from dr3_ray.errors import UserError
from dr3_ray.report.figures import HEIGHT, STYLE, WIDTH, Picture, picture_of
from dr3_ray.report.files import write_whole
from dr3_ray.report.lines import MUTED
from dr3_ray.report.pages import template

BAR, BAR_DARK = "#2f4fd0", "#9db2ff"
DRAWN = 40  # elements of a panel that have room beside each other


class Plot(NamedTuple):
    """Where the picture and the page are."""

    png: Path
    page: Path


def plot_dataset(dataset: Dataset, out: Path) -> Plot:
    """Write OUT.png and OUT.html, in place of those that are there; UserError if they cannot be written."""
    target = _targets(out)
    summary, manifest = summarize(dataset), dataset.manifest
    name = f"{manifest.name} ({dataset.subset})" if dataset.subset else manifest.name
    picture = draw(summary, name)
    origin = manifest.provenance
    facts = {key: getattr(origin, key) for key in ("source", "version", "licence", "command", "created")}
    facts |= origin.details | {
        "subset": subset_of(dataset),
        "fingerprint": dataset.fingerprint,
        "environment": manifest.environment,
    }
    page = template("dataset.html.j2").render(
        name=name,
        colours={"light": [f"--c0: {BAR}"], "dark": [f"--c0: {BAR_DARK}"]},
        summary=summary,
        svg=Markup(picture.svg),
        png=target.png.name,
        spreads={"return": summary.returns, f"length ({summary.length_of})": summary.lengths},
        notes=origin.notes,
        facts={key: value for key, value in facts.items() if value},
    )
    return Plot(write_whole(target.png, picture.png), write_whole(target.page, page.encode()))


def _targets(out: Path) -> Plot:
    """Return which files to write; UserError if `out` has no name for them, or a folder has one of these names."""
    suffix = out.suffix.lower()
    base = out.with_suffix("") if suffix in (".png", ".html") else out
    if base is out and suffix[1:] in {*FigureCanvasBase.filetypes, "htm", "gif"}:
        raise UserError(f"a plot is a .png and a .html, not a {suffix}: leave {suffix} out of the name {out}")
    if base.name in ("", ".."):
        raise UserError(f"{out} is a folder: add a name for the picture and the page, such as {out / 'plot'}")
    target = Plot(*(base.with_name(f"{base.name}{suffix}") for suffix in (".png", ".html")))
    for path in target:
        if os.path.isdir(path):  # False, too, of what no file can be called
            raise UserError(f"{path} is a folder: choose another name, or remove it first")
    return target


def draw(summary: Summary, name: str) -> Picture:
    """Draw returns, lengths, actions and ranges of a data set, side by side and in two rows."""
    with mpl.rc_context(STYLE | {"text.parse_math": False}):  # names may have a $
        figure = Figure(figsize=(2 * WIDTH, 2 * HEIGHT), layout="constrained")
        figure.suptitle(name)
        panels = figure.subplots(2, 2)
        _histogram(panels[0, 0], summary.returns, "Return of an episode")
        _histogram(panels[0, 1], summary.lengths, f"Length of an episode ({summary.length_of})")
        _actions(panels[1, 0], summary.actions)
        _ranges(panels[1, 1], summary)
        return picture_of(figure, "dataset", f"Returns, lengths, actions and ranges of {name}", {0.0: BAR})


def _histogram(axes: Axes, spread: Spread, title: str) -> None:
    edges = np.asarray(spread.edges)
    axes.bar(edges[:-1], spread.counts, width=np.diff(edges), align="edge", color=BAR)
    axes.set_title(title, loc="left")
    axes.set_ylabel("episodes")


def _actions(axes: Axes, coverage: Coverage) -> None:
    """Draw the share of each action, or the range of each element between its bounds."""
    if coverage.counts is not None:
        total = sum(coverage.counts.values())
        axes.set_title("Share of each action", loc="left")
        places = range(len(coverage.counts))
        axes.bar(places, [count / total for count in coverage.counts.values()], color=BAR)
        if len(coverage.counts) <= DRAWN:
            axes.set_xticks(places, list(map(str, coverage.counts)))
        return
    axes.set_title("Range of actions within their bounds, from -1 to 1", loc="left")
    _lines(axes, {name: _within_bounds(element) for name, element in (coverage.elements or {}).items()})
    axes.set_ylim(-1.05, 1.05)


def _ranges(axes: Axes, summary: Summary) -> None:
    """Draw the range of each element of the observations, or of columns where these have too many."""
    axes.set_title("Range of observations" if summary.elements else "Range of columns", loc="left")
    drawn = summary.elements or summary.columns
    _lines(axes, {name: (array.min, array.max) for name, array in drawn.items()})
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _lines(axes: Axes, ends: dict[str, tuple[float, float]]) -> None:
    """Draw a vertical line from the first to the second number of each; names where there is room."""
    low, high = np.array(list(ends.values())).T if ends else np.empty((2, 0))
    places = np.arange(len(ends))
    axes.vlines(places, low, high, color=BAR, linewidth=4 if len(ends) <= DRAWN else 1)
    axes.scatter(np.tile(places, 2), [*low, *high], s=6, color=BAR)
    if len(ends) <= DRAWN:
        axes.set_xticks(places, list(ends), rotation=45, ha="right")
    axes.axhline(0, color=MUTED, linewidth=0.5)


def _within_bounds(element: Element) -> tuple[float, float]:
    low, high = element.low or 0.0, element.high or 0.0
    centre, half = (low + high) / 2, (high - low) / 2 or 1.0
    return (element.min - centre) / half, (element.max - centre) / half
