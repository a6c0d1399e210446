"""What published studies share: scales, collected data, and a page whose every number comes from one Parquet file.

A study is a search script (`dr3_ray.cli.script`) whose settings, seeds and rules stand in its file before it is run.
The measurements of all its runs are written as one small Parquet file, and the page is a function of that file alone,
so that a test can write it again.
"""

import inspect
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from matplotlib.figure import Figure
from packs import markdown

from dr3_ray.errors import UserError, check_known
from dr3_ray.stats import Estimate, training_average

COLUMNS = (
    "dot_product", "cosine", "phi_norm", "effective_rank", "q_mean", "td_error", "episode_return_mean", "episodes",
    "dot_product_data", "cosine_data", "next_phi_norm", "seem_eigenvalue", "seem_normalized",
)  # fmt: skip


ScaleOption = Annotated[str, typer.Option(help="smoke, desk or full.")]
ConcurrentOption = Annotated[int | None, typer.Option(min=1, help="Trials at a time.", show_default="all")]


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    updates: int
    evaluations: int
    seeds: int
    collected: int
    """Steps of the online learner whose replay is the data."""

    @classmethod
    def named(cls, name: str, scales: Mapping[str, "Scale"]) -> "Scale":
        """Return the scale of that name.

        Raises:
            UserError: the study has none.
        """
        check_known("scale", [name], scales)
        return scales[name]

    def replay(self, environment: str, folder: Path, settings: Mapping[str, Any] | None = None) -> Path:
        """Return the folder with the whole replay of an online learner in an environment, collected where it lacks.

        `settings` are those of `data collect --learner dqn`; None: the learner is that of Breakout's preset.
        """
        from dr3_ray.evaluation.collect import collect
        from dr3_ray.evaluation.recipes import preset, recipe_of

        if not (folder / "manifest.json").exists():
            print(f"collecting {self.collected:,} steps of {environment} to {folder}", flush=True)
            usual = preset("embedded:breakout-replay", self.collected, environment=environment, keep=1.0)
            recipe = usual if settings is None else recipe_of(environment, steps=self.collected, settings=settings)
            collect(recipe, folder)
        return folder


@dataclass(frozen=True)
class Published:
    """What a study has measured: a row for each run and evaluation, and what it was measured with."""

    histories: pd.DataFrame
    about: dict[str, Any]

    @classmethod
    def of(cls, scale: str, runs: Sequence[Path], subsets: Mapping[str, str], facets: Sequence[str]) -> "Published":
        """Read finished runs of a scale. `subsets` names how the addresses of data sets end, `facets` are axes to keep.

        Raises:
            UserError: members are missing: a study is published whole.
        """
        from dr3_ray.data import load_dataset
        from dr3_ray.data.pairs import share_of_pairs
        from dr3_ray.report.reader import as_label, read_tables
        from dr3_ray.runs.index import read_index

        frames, data, versions = [], {}, {}
        columns = ("time_s", *facets, *COLUMNS)
        for run in (read_tables(path, columns) for path in runs):
            versions = versions or run.info["versions"]
            lost = run.members[~run.members["status"].isin(["finished", "diverged"])]
            if len(lost):
                raise UserError(
                    f"{len(lost)} members of {run.path} are not finished: the same command goes on with them"
                )
            names = {source: _label(source, subsets) for source in run.members["dataset"].unique()}
            frame = run.histories.assign(data=run.histories["dataset"].map(names))
            for facet in (each for each in facets if each not in frame):  # of one value in this run, or of nobody here
                asked = {record["member"]: as_label(record["config"].get(facet)) for record in read_index(run.path)}
                frame[facet] = frame["member"].map(asked)
            frames.append(frame.reindex(columns=["member", "status", "step", "time_s", "algorithm", "data", "dr3_coeff",
                                                 "seed", *facets, *COLUMNS]))  # fmt: skip
            for source, name in names.items():
                if name not in data:
                    opened = load_dataset(source)
                    data[name] = [len(opened), share_of_pairs(opened), opened.fingerprint[:16]]
        histories = pd.concat(frames, ignore_index=True)
        return cls(histories, about_code(scale, data, versions))

    @classmethod
    def read(cls, path: Path) -> "Published":
        """Read what `write` wrote."""
        table = pq.read_table(path)
        return cls(table.to_pandas(), json.loads(table.schema.metadata[b"study"]))

    def write(self, path: Path) -> None:
        """Write all of it as one Parquet file, measurements in float32."""
        table = pa.Table.from_pandas(self.histories, preserve_index=False)
        for place, field in enumerate(table.schema):
            if field.type == pa.float64() and field.name != "dr3_coeff":
                table = table.set_column(place, field.name, table.column(place).cast(pa.float32()))
        table = table.replace_schema_metadata({"study": json.dumps(self.about, sort_keys=True)})
        pq.write_table(table, path, compression="zstd", use_dictionary=True)

    @property
    def core_hours(self) -> float:
        """Hours that the packs took, each on one core."""
        ends = self.histories.groupby("member")["time_s"].max()
        return float(ends.round(1).unique().sum()) / 3600


def returns_of(run: pd.DataFrame) -> dict[str, float]:
    """Return final and average return and unlearning of a run's rows, in the order of steps; a diverged one ends at 0.

    `final` is the mean of the last two evaluations, `unlearning` the highest mean of two neighbours less `final`.
    """
    returns = run["episode_return_mean"].to_numpy(float)
    pairs = (returns[1:] + returns[:-1]) / 2
    final = 0.0 if run.iloc[-1]["status"] == "diverged" else pairs[-1]
    return {"final": final, "average": training_average(run["step"], returns), "unlearning": pairs.max() - final}


def about_code(
    scale: str, data: Mapping[str, Any] | None = None, code: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return what a page says of how it was made; `code`: the versions of whoever trained, by default those of now."""
    from dr3_ray.sweep.resume import versions

    return {"scale": scale, "data": data or {}, "versions": code or versions(), "machine": _machine()}


def publish(
    name: str,
    found: Published,
    page: Callable[[Published], str],
    draw: Callable[[Published], Figure],
    folder: Path,
) -> str:
    """Write NAME.md, NAME.svg and NAME.parquet to a folder, and return the page."""
    from dr3_ray.report.figures import STYLE, mpl

    folder.mkdir(parents=True, exist_ok=True)
    found.write(folder / f"{name}.parquet")
    again = Published.read(folder / f"{name}.parquet")  # the numbers of the page are those of the file
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        draw(again).savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    text = page(again)
    (folder / f"{name}.md").write_text(text)
    return text


def verdict(estimate: Estimate, bound: float, above: bool) -> str:
    """Say on which side of a claim's bound its interval lies."""
    if not estimate.has_interval or estimate.low <= bound <= estimate.high:
        return "is undecided"
    return "holds" if (estimate.low > bound) == above else "fails"


def interval(estimate: Estimate, digits: int = 2) -> str:
    """Return an estimate with its interval, to so many digits behind the point; – for none, as of a constant's rank."""
    if math.isnan(estimate.value):
        return "–"
    value, low, high = (f"{each:.{digits}f}" for each in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]" if estimate.has_interval else value


def tallied(claims: Sequence[Any], verdicts: Sequence[tuple[Any, str]]) -> str:
    """Return the answer in one line a claim: how often it holds, fails and is undecided. A claim `said` something."""
    lines = []
    for claim in claims:
        own = [found for other, found in verdicts if other is claim]
        counts = ", ".join(f"{own.count(each)} {each.split()[-1]}" for each in ("holds", "fails", "is undecided"))
        lines.append(f"- {claim.said}: {counts}, of {len(own)} comparisons.")
    return "\n".join(lines)


def made_with(name: str, found: Published) -> str:
    """Say with what command, code, data and machine a study was run."""
    versions = found.about["versions"]
    code = f"code {versions.get('code', 'unknown')}, " if versions.get("code") else ""
    sets = [f"{label}: {rows:,} rows, `{digest}`" for label, (rows, _, digest) in found.about["data"].items()]
    data = f" Data: {'; '.join(sets)}." if sets else ""
    return (
        f"`dr3-ray reproduce {name} --scale {found.about['scale']}`, with dr3-ray {versions['dr3-ray']} ({code}torch "
        f"{versions['torch']}), {found.core_hours:.1f} hours of one core of {found.about['machine']}.{data}"
    )


def ending(name: str, document: str | None, found: Published, more: str = "") -> str:
    """Return the end of a study's page: what its document fixed beforehand, behind its question and command, and how.

    `more` is said of the run.
    """
    _, _, fixed = inspect.cleandoc(document or "").split("\n\n", 2)
    return f"""## Fixed beforehand

{fixed}

## Run again

{made_with(name, found)}{more} All measurements: [{name}.parquet]({name}.parquet)."""


def shares(found: Published) -> str:
    """Return the table of the rows of each data set, and of the share of its (s′, a′) that are rows."""
    return markdown(
        ["data", "rows", "share of (s′, a′) that are rows"],
        [[name, f"{rows:,}", f"{share:.2f}"] for name, (rows, share, _) in found.about["data"].items()],
    )


def _label(source: str, subsets: Mapping[str, str]) -> str:
    """Return the name of the longest end that an address has."""
    return max((name for name, end in subsets.items() if source.endswith(end)), key=lambda name: len(subsets[name]))


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or 'an unknown processor'}, shared with other work"
