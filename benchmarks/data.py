"""Data sets on a CPU: rows a second, imports, opening, and one copy for all processes of a machine.

    python benchmarks/data.py [gather import open share] [--d3rlpy PYTHON] [--turns 5] [--json FILE]

Every section compares within the run: contenders are processes with one thread on one core, which take turns. `gather`
draws batches of rows: ours from mapped files, where observations are stored once and in two columns, NumPy's indexing
from arrays in memory, and d3rlpy's buffer if `--d3rlpy` names a Python that has it. `import` reads a file of D4RL's
layout, beside h5py, which reads it into memory. `open` opens a large data set; `share` reads one in several processes
at the same time and adds up the pages of its files, shared ones in parts (Pss).
"""

import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from shared.contest import Contest, Entry, arguments, ratio, write

from dr3_ray.data import Provenance, ShardWriter, SpaceSpec, episode_columns, load_dataset

COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminateds")
FLOATS = SpaceSpec.box(-np.inf, np.inf, (17,)), SpaceSpec.box(-1, 1, (6,))
FRAMES = SpaceSpec.box(0, 255, (84, 84, 4), "uint8"), SpaceSpec.discrete(6)
FIRST = SpaceSpec.box(0, 255, (4, 84, 84), "uint8"), SpaceSpec.discrete(6)  # as Gymnasium stacks them
SMALL = SpaceSpec.box(-np.inf, np.inf, (6,)), SpaceSpec.discrete(3)


class Size(NamedTuple):
    """How many episodes, and rows in each."""

    episodes: int
    rows: int


class Sizes(NamedTuple):
    """Of the data of each section, and how many processes share one."""

    floats: Size = Size(500, 1000)
    frames: Size = Size(8, 1000)
    file: Size = Size(1000, 1000)
    opened: Size = Size(100_000, 100)
    shared: Size = Size(60, 1000)
    processes: int = 8


SMOKE = Sizes(Size(2, 50), Size(2, 50), Size(2, 50), Size(10, 10), Size(1, 50), 2)


def episodes(spaces: tuple[SpaceSpec, SpaceSpec], size: Size) -> Iterator[dict[str, Any]]:
    """Yield episodes of noise, of frames in stacks of four, the newest last."""
    rng, (space, actions) = np.random.default_rng(0), spaces
    for number in range(size.episodes):
        if space.dtype == "uint8":
            frames = rng.integers(0, 256, (size.rows + 4, 84, 84), np.uint8)
            axis = space.shape.index(4)
            seen = np.stack([frames[at : at + size.rows + 1] for at in range(4)], axis + 1)
        else:
            seen = rng.random((size.rows + 1, *space.shape), np.float32)
        choices = actions.n and rng.integers(actions.n, size=size.rows)
        done = choices if actions.n else rng.uniform(-1, 1, (size.rows, *actions.shape)).astype(np.float32)
        rewards = rng.random(size.rows, np.float32)
        ends = {"terminated": False, "truncated": True}
        yield episode_columns(seen, done, rewards, **ends, episode_id=number, gamma=0.99)


def dataset(path: Path, spaces: tuple[SpaceSpec, SpaceSpec], size: Size, once: bool = True) -> Path:
    """Write a data set of noise."""
    about = {"observation_space": spaces[0], "action_space": spaces[1], "gamma": 0.99, "name": path.name}
    with ShardWriter(path, provenance=Provenance(source="noise"), once=once, **about) as writer:  # type: ignore[arg-type]
        for episode in episodes(spaces, size):
            writer.write(episode)
    return path


def arrays(path: Path, spaces: tuple[SpaceSpec, SpaceSpec], size: Size) -> Path:
    """Write the same rows as one NumPy file a column."""
    path.mkdir()
    held = list(episodes(spaces, size))
    for name in (*COLUMNS, "truncateds"):
        np.save(path / f"{name}.npy", np.concatenate([episode[name] for episode in held]))
    return path


def bytes_of(path: Path) -> int:
    """Return the size of all files in a folder."""
    return sum(file.stat().st_size for file in path.iterdir())


def contest(entries: dict[str, Entry], updates: int, options: Any, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what the contenders answered in each turn."""
    with Contest(entries, None, options.core, {"updates": updates}, folder) as found:
        return found.take_turns(options.turns)


def gather(folder: Path, sizes: Sizes, options: Any) -> dict[str, Any]:
    """Batches a second of 256 rows of floats and of 32 of frames."""
    figures = {}
    for label, spaces, size, batch, stack in (
        ("256 x (17+6) floats", FLOATS, sizes.floats, 256, 1),
        ("32 x 84x84x4 frames", FRAMES, sizes.frames, 32, 4),
        ("32 x 4x84x84 frames", FIRST, sizes.frames, 32, 4),
    ):
        place = folder / label.split()[2]
        place.mkdir()
        paths = {f"ours, {way}": dataset(place / way, spaces, size, way == "once") for way in ("once", "twice")}
        asked = {
            "batch": batch,
            "columns": COLUMNS,
            "stack": stack,
            "arrays": str(arrays(place / "arrays", spaces, size)),
        }
        entries = {
            name: Entry("rows.py", asked=asked | {"who": "ours", "dataset": str(path)}) for name, path in paths.items()
        }
        entries["numpy"] = Entry("rows.py", asked=asked | {"who": "numpy"})
        if options.d3rlpy:
            slower = 1 if options.smoke else 20
            entries["d3rlpy"] = Entry("rows.py", options.d3rlpy, slower=slower, asked=asked | {"who": "d3rlpy"})
        updates = 2 if options.smoke else 4000 if stack == 1 else 1000
        turns = contest(entries, updates, options, place)
        rates = {name: [turn["updates"] / turn["cpu"] for turn in found] for name, found in turns.items()}
        for name, rate in rates.items():
            kept = f"{bytes_of(paths[name]) / (size.episodes * size.rows):10,.0f} B a row" if name in paths else ""
            told = f"{statistics.median(rate):12,.0f}/s   ×{ratio(rate, rates['numpy']):5.2f} numpy"
            print(f"{label:22}{name:14}{told}{kept}", flush=True)
        figures[label] = {"rates": rates, "bytes": {name: bytes_of(path) for name, path in paths.items()}}
        shutil.rmtree(place)
    return figures


def imported(folder: Path, sizes: Sizes, options: Any) -> dict[str, Any]:
    """Seconds and peak memory of an import, and of reading the same file, compressed as D4RL's are, and plain."""
    figures = {}
    rng, rows = np.random.default_rng(0), sizes.file.episodes * sizes.file.rows
    seen = rng.normal(size=(rows, 17)).astype(np.float32)
    columns = {
        "observations": seen,
        "next_observations": np.roll(seen, -1, 0),
        "actions": rng.uniform(-1, 1, (rows, 6)).astype(np.float32),
        "rewards": rng.random(rows, np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(1, rows + 1) % sizes.file.rows == 0,
    }
    megabytes = sum(values.nbytes for values in columns.values()) / 1e6
    for kind in ("gzip", "plain"):
        file = folder / f"{kind}.hdf5"
        with h5py.File(file, "w") as made:
            for name, values in columns.items():
                made.create_dataset(name, data=values, compression="gzip" if kind == "gzip" else None)
        asked = {"file": str(file), "out": str(folder / "imported")}
        turns = contest(
            {who: Entry("reading.py", asked=asked | {"who": who}) for who in ("import", "h5py")}, 1, options, folder
        )
        rates = {who: [megabytes / turn["wall"] for turn in found] for who, found in turns.items()}
        for who, found in turns.items():
            told = f"{statistics.median(rates[who]):8,.0f} MB/s   ×{ratio(rates[who], rates['h5py']):5.2f} h5py"
            label = f"{megabytes:,.0f} MB, {kind}"
            print(f"{label:22}{who:14}{told}   peak {found[-1]['most_mib']:,.0f} MiB", flush=True)
        figures[kind] = {"megabytes": megabytes, "turns": turns}
    return figures


def opened(folder: Path, sizes: Sizes, options: Any) -> dict[str, Any]:
    """Seconds to open a data set of many rows and episodes, in a process that has opened it before."""
    path = dataset(folder / "large", SMALL, sizes.opened)
    turns = contest(
        {"open": Entry("reading.py", asked={"who": "open", "dataset": str(path)})}, 1, options, folder
    )["open"]  # fmt: skip
    seconds = [turn["wall"] for turn in turns]
    rows, count = sizes.opened.episodes * sizes.opened.rows, sizes.opened.episodes
    label = f"{rows:,} rows of {count:,} episodes, {bytes_of(path) / 1e6:,.0f} MB"
    print(f"{label:50}opened in {statistics.median(seconds):.3f} s", flush=True)
    shutil.rmtree(path)
    return {"seconds": seconds}


def shared(folder: Path, sizes: Sizes, options: Any) -> dict[str, Any]:
    """MiB of the files of one data set in all processes that have read it, by its size."""
    path = dataset(folder / "shared", FRAMES, sizes.shared)
    asked = {"who": "read", "dataset": str(path)}
    entries = {str(number): Entry("reading.py", asked=asked) for number in range(sizes.processes)}
    with Contest(entries, None, None, {"updates": 1}, folder) as found:
        for contender in found.contenders.values():
            contender.turn()
        pages = sum(contender.turn()["mapped_pss_mib"] for contender in found.contenders.values())
    size = sum(entry.bytes for entry in load_dataset(path).manifest.files) / 2**20
    label = f"{size:,.0f} MiB in {sizes.processes} processes"
    print(f"{label:50}{pages:,.0f} MiB resident (Pss), {pages / size:.2f} copies", flush=True)
    shutil.rmtree(path)
    return {"mib": size, "pss_mib": pages, "processes": sizes.processes}


SECTIONS: dict[str, Callable[[Path, Sizes, Any], dict[str, Any]]] = {
    "gather": gather,
    "import": imported,
    "open": opened,
    "share": shared,
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="all without a name")
    parser.add_argument("--d3rlpy", help="a Python that has d3rlpy")
    options = parser.parse_args()
    figures = {}
    for name in options.sections or SECTIONS:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = SECTIONS[name](Path(folder), SMOKE if options.smoke else Sizes(), options)
    write(options.json, figures)


if __name__ == "__main__":
    main()
