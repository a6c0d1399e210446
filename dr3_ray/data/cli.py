"""`dr3-ray data`: import, collect, inspect, verify and cache data sets."""

import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dr3_ray.errors import UserError

if TYPE_CHECKING:
    from dr3_ray.data.spaces import SpaceSpec

app = typer.Typer(help="Import, collect, inspect, verify and cache data sets.")

Source = Annotated[str, typer.Argument(help="The directory of a data set, its URI, or embedded:NAME.")]


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="minari:ID, on this machine or on the Minari server.")],
    out: Annotated[Path, typer.Option("--out", help="Directory to write, new or empty.")],
    gamma: Annotated[float, typer.Option(help="Discount of the Monte-Carlo returns.")] = 0.99,
    name: Annotated[str | None, typer.Option(help="Name of the data set (default: its id).")] = None,
    clip_actions: Annotated[
        bool, typer.Option("--clip-actions", help="Move actions outside the action space to its bounds.")
    ] = False,
    flatten: Annotated[
        bool, typer.Option("--flatten", help="Make one vector of a Dict of observations, instead of named parts.")
    ] = False,
) -> None:
    """Convert a data set of another library."""
    if not source.startswith("minari:"):
        raise UserError(f"cannot import {source!r}: write minari:ID, such as minari:D4RL/pen/human-v2")
    from dr3_ray.data.minari import import_minari

    command = shlex.join(["dr3-ray", *sys.argv[1:]])
    with warnings.catch_warnings():  # ours are in the manifest's notes, those of Minari are about its own use
        warnings.simplefilter("ignore")
        try:
            manifest = import_minari(
                source.removeprefix("minari:"),
                out,
                gamma=gamma,
                clip_actions=clip_actions,
                name=name,
                flatten=flatten,
                command=command,
            )
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror or error}") from None
    for note in manifest.provenance.notes:
        print(f"warning: {note}", file=sys.stderr)
    print(f"{manifest.counts.rows} steps of {manifest.counts.episodes} episodes written to {out}")


@app.command()
def collect(
    source: Annotated[str, typer.Argument(help="embedded:NAME or halfcheetah-replay, halfcheetah-medium.")],
    out: Annotated[Path, typer.Option("--out", help="Directory to write, new or empty.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Environment steps (default: as it was made).")] = None,
) -> None:
    """Make a data set: an online learner plays, and its replay or its policy's episodes are written. Takes minutes."""
    from dr3_ray.evaluation.collect import collect as collect_replay

    manifest = collect_replay(source, out, steps=steps, command=shlex.join(["dr3-ray", *sys.argv[1:]]))
    returns = manifest.statistics["episode_returns"]
    print(f"{manifest.counts.rows} rows of {manifest.counts.episodes} episodes written to {out}")
    print(f"return of an episode: mean {returns.mean:.1f}, best {returns.max:.1f}")


@app.command()
def info(source: Source) -> None:
    """Print what is in a data set."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from dr3_ray.data.reader import load_dataset

    dataset = load_dataset(source)
    manifest, counts = dataset.manifest, dataset.manifest.counts
    size = sum(entry.bytes for entry in (*manifest.shards, manifest.episodes))
    facts = {
        "path": str(dataset.path),
        "rows": f"{counts.rows:,} in {len(manifest.shards)} shard(s), {size / 1e6:,.1f} MB",
        "episodes": f"{counts.episodes:,}"
        + ("" if manifest.complete_episodes else ", of which the rows are a subsample"),
        "episode ends": f"{counts.terminateds:,} terminated, {counts.truncateds:,} truncated",
        "observations": _describe(manifest.observation_space),
        "actions": _describe(manifest.action_space),
        "gamma": f"{manifest.gamma} (of the Monte-Carlo returns)",
        "environment": manifest.environment or "none to roll out in",
        "fingerprint": dataset.fingerprint[:16],
        "columns": ", ".join(dataset.columns),
    }
    provenance = manifest.provenance
    facts |= {key: getattr(provenance, key) for key in ("source", "version", "licence", "command", "created")}
    facts |= provenance.details
    facts |= {"note": " · ".join(provenance.notes)} if provenance.notes else {}
    console = Console()
    table = Table("", escape(manifest.name))
    for key, value in ((key, value) for key, value in facts.items() if value):
        table.add_row(key.replace("_", " "), escape(value))
    statistics = Table("statistics", "min", "max", "mean", "std")
    for column, values in manifest.statistics.items():
        statistics.add_row(column, *(f"{value:.6g}" for value in (values.min, values.max, values.mean, values.std)))
    console.print(table, statistics)


@app.command()
def verify(source: Source) -> None:
    """Compare the contents of every file with the checksums in the manifest."""
    from dr3_ray.data.reader import load_dataset
    from dr3_ray.data.reader import verify as verify_contents

    dataset = load_dataset(source)
    verify_contents(dataset)
    print(f"ok: {len(dataset):,} rows in {len(dataset.manifest.shards)} shard(s) are as they were written")


@app.command()
def cache(
    prune: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Remove what was not used for so many days; 0: all.")
    ] = None,
) -> None:
    """Show or prune this machine's copies of data sets from URIs; DR3_RAY_CACHE names another folder for them."""
    import time

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from dr3_ray.data.cache import cache_folder, contents
    from dr3_ray.data.cache import prune as remove

    if prune is not None:
        gone = remove(prune * 86_400)
        print(f"removed {len(gone)} data sets, {sum(each.size for each in gone) / 1e6:,.1f} MB")
    table = Table("data set", "fingerprint", "MB", "used", title=escape(str(cache_folder())), title_justify="left")
    for each in contents():
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.used))
        table.add_row(escape(each.manifest.name), each.path.name[:16], f"{each.size / 1e6:,.1f}", used)
    Console().print(table if table.row_count else f"{cache_folder()} is empty", soft_wrap=True, highlight=False)


def _describe(space: "SpaceSpec") -> str:
    if space.spaces is not None:
        return "\n".join(f"{name}: {_describe(part)}" for name, part in space.spaces.items())
    if space.low is None or space.high is None:
        return f"Discrete({space.n})" + (f" from {space.start}" if space.start else "")
    if space.size > 8:  # the bounds of each element would fill the page
        low, high = f"{min(space.low):g}", f"{max(space.high):g}"
    else:
        low, high = (f"{bound[0]:g}" if len(bound) == 1 else str(list(bound)) for bound in (space.low, space.high))
    return f"Box{list(space.shape)} of {space.dtype}, {low} to {high}"
