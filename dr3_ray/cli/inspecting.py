"""`dr3-ray data info`, `list` and `check`: what a data set holds, for people and as JSON."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dr3_ray.cli.document import print_document
from dr3_ray.data.checks import check_dataset
from dr3_ray.data.embedded import embedded_names, embedded_path
from dr3_ray.data.loading import load_dataset
from dr3_ray.data.mixing import Mixing
from dr3_ray.data.mixture import Mixture
from dr3_ray.data.reader import Dataset
from dr3_ray.data.schema import MANIFEST, Manifest
from dr3_ray.data.selected import Selected, subset_of
from dr3_ray.data.spaces import SpaceSpec
from dr3_ray.data.summary import Coverage, Element, Spread, Summary, summarize
from dr3_ray.errors import UserError

BARS = "▁▂▃▄▅▆▇█"
LISTED = 16  # elements that a terminal has room for; --json and `plot` have all
DEEP = 3  # folders below the one that is named, in which data sets are looked for


def show(source: str, as_json: bool) -> None:
    """Print what is in a data set."""
    dataset = load_dataset(source)
    summary = summarize(dataset)
    if as_json:
        document = _document(dataset) | json.loads(summary.model_dump_json())
        print_document(document)
        return
    Console().print(_facts(dataset), _episodes(summary), *_actions(summary.actions), _columns(summary))
    if (share := summary.pairs_in_data) is not None:
        print(
            f"{share:.0%} of the recorded (s\N{PRIME}, a\N{PRIME}) are rows (s, a) themselves: what SARSA backs up from"
        )


def show_all(folder: Path, as_json: bool) -> None:
    """Print the data sets in a folder, and the embedded ones; UserError if there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name one to look for data sets in")
    manifests = [(str(path), Manifest.read(path)) for path in _data_sets(folder)]
    manifests += [(f"embedded:{name}", Manifest.read(embedded_path(name))) for name in embedded_names()]
    if as_json:
        print_document([_entry(source, manifest) for source, manifest in manifests])
        return
    table = Table("rows", "episodes", "mean return", "MB")
    table.add_column("data set", overflow="fold")
    for source, manifest in manifests:
        table.add_row(
            f"{manifest.counts.rows:,}",
            f"{manifest.counts.episodes:,}",
            f"{manifest.statistics['episode_returns'].mean:.5g}",
            f"{_size(manifest) / 1e6:,.1f}",
            escape(source),
        )
    Console().print(table)


def show_checks(source: str, strict: bool, as_json: bool) -> None:
    """Print what the checks find; UserError with `strict`, if it is anything."""
    dataset = load_dataset(source)
    notes, counts = check_dataset(dataset), dataset.manifest.counts
    if as_json:
        warnings = [dict(zip(("check", "message"), note.split(": ", 1), strict=True)) for note in notes]
        print_document({"rows": counts.rows, "episodes": counts.episodes, "warnings": warnings})
    else:
        for note in notes:
            print(f"warning: {note}", file=sys.stderr)
    if strict and notes:
        raise UserError(f"{source} has {len(notes)} warnings: mend the source, or check without --strict")
    if not notes and not as_json:
        print(f"ok: nothing was found in {counts.rows:,} rows of {counts.episodes:,} episodes")


def describe(space: SpaceSpec) -> str:
    """Return a space in words, a line for each part of a dict."""
    if space.spaces is not None:
        return "\n".join(f"{name}: {describe(part)}" for name, part in space.spaces.items())
    if space.low is None or space.high is None:
        return f"Discrete({space.n})" + (f" from {space.start}" if space.start else "")
    if space.size > 8:  # the bounds of each element would fill the page
        low, high = f"{min(space.low):g}", f"{max(space.high):g}"
    else:
        low, high = (f"{bound[0]:g}" if len(bound) == 1 else str(list(bound)) for bound in (space.low, space.high))
    played = f" ({space.env_dtype} in the environment)" if space.env_dtype else ""
    return f"Box{list(space.shape)} of {space.dtype}{played}, {low} to {high}"


def _size(manifest: Manifest) -> int:
    return sum(entry.bytes for entry in manifest.files)


def _data_sets(folder: Path) -> Iterator[Path]:
    """Yield the data sets in a folder, or the folder itself, in the order of their names, without hidden ones."""
    for path, inner, files in os.walk(folder):
        if MANIFEST in files and _readable(Path(path)):
            yield Path(path)
            inner.clear()
        elif len(Path(path).relative_to(folder).parts) == DEEP:
            inner.clear()
        inner[:] = sorted(name for name in inner if not name.startswith("."))


def _readable(path: Path) -> bool:
    """Return whether the manifest is that of a data set; other programs have files of that name, too."""
    try:
        Manifest.read(path)
    except (OSError, UserError):
        return False
    return True


def _entry(source: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "source": source,
        "name": manifest.name,
        "fingerprint": manifest.fingerprint,
        "rows": manifest.counts.rows,
        "episodes": manifest.counts.episodes,
        "bytes": _size(manifest),
        "environment": manifest.environment,
        "observations": describe(manifest.observation_space),
        "actions": describe(manifest.action_space),
        "episode_returns": manifest.statistics["episode_returns"].model_dump(mode="json"),
    }


def _document(dataset: Dataset) -> dict[str, Any]:
    """Return what the manifest says, but for files and statistics."""
    manifest = dataset.manifest
    left_out = {"format", "counts", "shards", "episodes", "statistics", "digests", "parts"}
    said = manifest.model_dump_json(exclude=left_out, exclude_none=True)  # where infinite bounds are text
    return {
        "path": _place(dataset),
        "subset": str(dataset.subset) if isinstance(dataset, Selected) else None,
        "fingerprint": dataset.fingerprint,
        "bytes": _size(manifest),
        "shards": len(manifest.shards),
        **json.loads(said),
    }


def _place(dataset: Dataset) -> str:
    """Return the folder of a data set, or the name of a mixture."""
    return str(dataset.name if isinstance(dataset, Mixture) else dataset.path)


def _shares(mixing: Mixing) -> str:
    """Return a line for each part of a mixture: its share of a batch, and its rows."""
    return "\n".join(
        f"{name}: {' to '.join(f'{float(100 * share):.4g}%' for share in shares)}, of {rows:,} rows"
        for name, shares, rows in zip(mixing.names, zip(*mixing.shares, strict=True), mixing.rows, strict=True)
    )


def _facts(dataset: Dataset) -> Table:
    manifest, counts, provenance = dataset.manifest, dataset.manifest.counts, dataset.manifest.provenance
    facts = {
        "path": _place(dataset),
        "subset": subset_of(dataset),
        "shares of a batch": _shares(dataset.mixing) if dataset.mixing else "",
        "rows": f"{counts.rows:,} in {len(manifest.shards)} shard(s), {_size(manifest) / 1e6:,.1f} MB",
        "episodes": f"{counts.episodes:,}" + ("" if manifest.complete_episodes else ", their rows a subsample"),
        "episode ends": f"{counts.terminateds:,} terminated, {counts.truncateds:,} truncated",
        "observations": describe(manifest.observation_space),
        "actions": describe(manifest.action_space),
        "gamma": f"{manifest.gamma} (of the Monte-Carlo returns)",
        "environment": manifest.environment or "none to roll out in",
        "fingerprint": dataset.fingerprint[:16],
        "columns": ", ".join(dataset.columns),
    }
    facts |= {key: getattr(provenance, key) for key in ("source", "version", "licence", "command", "created")}
    facts |= provenance.details
    facts |= {"note": " · ".join(provenance.notes)} if provenance.notes else {}
    facts |= {"manifest": manifest.note} if manifest.note else {}
    table = Table("", escape(manifest.name))
    for key, value in ((key, value) for key, value in facts.items() if value):
        table.add_row(key.replace("_", " "), escape(value))
    return table


def _episodes(summary: Summary) -> Table:
    """Quantiles and a histogram of returns and lengths; narrow enough for 80 characters."""
    table = Table("episodes", "return", summary.length_of)
    spreads = (summary.returns, summary.lengths)
    for name in ("mean", "min", *summary.returns.quantiles, "max"):
        values = (spread.quantiles[name] if name in spread.quantiles else getattr(spread, name) for spread in spreads)
        table.add_row(name if name.isalpha() else f"{float(name):.0%}", *(f"{value:.5g}" for value in values))
    table.add_row("histogram", *map(_bars, spreads))
    return table


def _bars(spread: Spread) -> str:
    """Return a histogram as one line; a bin with an episode is never empty."""
    most = max(spread.counts)
    return "".join(BARS[-(-count * (len(BARS) - 1) // most)] if count else " " for count in spread.counts)


def _actions(coverage: Coverage) -> Iterator[Table | str]:
    if coverage.counts is not None:
        total, never = sum(coverage.counts.values()), sum(not count for count in coverage.counts.values())
        often = sorted(coverage.counts.items(), key=lambda pair: -pair[1])[:LISTED]
        table = Table("action", "rows", "share")
        for action, count in sorted(often):
            table.add_row(str(action), f"{count:,}", f"{count / total:.1%}")
        yield table
        if never:
            yield f"{never} of the actions are in no row"
        return
    table = Table("action", "min", "max", "bounds", "rows at the lower", "rows at the upper")
    for name, element in list((coverage.elements or {}).items())[:LISTED]:
        bounds = f"{element.low:g} to {element.high:g}"
        shares = (f"{share:.1%}" for share in (element.at_low or 0.0, element.at_high or 0.0))
        table.add_row(name, f"{element.min:.5g}", f"{element.max:.5g}", bounds, *shares)
    yield table
    yield f"{coverage.at_bounds:.1%} of the rows have an action at one of its bounds"


def _columns(summary: Summary) -> Table:
    """Statistics of columns, and ranges of their elements where these are few."""
    table = Table("statistics", "min", "max", "mean", "std")
    for column, values in summary.columns.items():
        table.add_row(
            escape(column), *(f"{statistic:.6g}" for statistic in (values.min, values.max, values.mean, values.std))
        )
    elements: dict[str, Element] = summary.elements if len(summary.elements) <= LISTED else {}
    for name, element in elements.items():
        table.add_row(escape(name), f"{element.min:.6g}", f"{element.max:.6g}", "", "")
    return table
