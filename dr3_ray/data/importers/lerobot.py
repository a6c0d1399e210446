"""LeRobot's data sets of versions 2 and 3: Parquet tables of states and actions beside videos.

Layout: `meta/info.json` with `features` and `fps`, `data/chunk-*/file-*.parquet` with `observation.*`, `action`,
`episode_index`, `frame_index`, `timestamp`, and where there are rewards `next.reward` and `next.done`;
`videos/KEY/chunk-*/file-*.mp4`, each with many episodes, and `meta/episodes/chunk-*/file-*.parquet` with the places in
them: `videos/KEY/{chunk_index, file_index, from_timestamp, to_timestamp}` (https://huggingface.co/docs/lerobot/lerobot-dataset-v3).
A row's frame is the one at `from_timestamp` + `timestamp`. Version 2 has files of an episode each, with names that tell
it: `data/chunk-*/episode_*.parquet` and `videos/chunk-*/KEY/episode_*.mp4`, `chunks_size` of them in a chunk.
"""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dr3_ray.data.importers.columns import mapped
from dr3_ray.data.importers.files import arrow_data, existing
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import ArrowTable, Table
from dr3_ray.data.importers.videos import FilmedTable, Footage, Place
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError, first_line

KNOWN = {
    "actions": "action",
    "rewards": "next.reward",
    "terminateds": "next.done",
    "episode_ids": "episode_index",
    "timesteps": "frame_index",
}
PLACED = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")  # of an episode in the videos of a camera


def is_lerobot(path: Path) -> bool:
    """Return whether a folder has the description of a LeRobot data set."""
    return (path / "meta" / "info.json").is_file()


def lerobot_source(path: str, options: Options) -> Source:
    """Return the episodes of a LeRobot data set.

    Raises:
        UserError: it is of another version, has no rewards, or a video that cannot be read.
    """
    folder = existing(path)
    info = _info(folder)
    version = str(info.get("codebase_version"))
    if not version.startswith(("v2", "v3")):
        raise UserError(f"{path} is of LeRobot {version}, and v2 and v3 can be read: convert it with LeRobot")
    data, features = arrow_data(folder / "data", "parquet"), info.get("features", {})
    videos = [name for name, feature in features.items() if feature.get("dtype") == "video"]
    names = [*data.schema.names, *(name for name in videos if name not in data.schema.names)]
    seen = [name for name in features if name.startswith("observation.") and name in names]
    columns = {"observations": seen} if len(seen) == 1 else {f"observations/{name[12:]}": [name] for name in seen}
    columns |= {ours: [theirs] for ours, theirs in KNOWN.items() if theirs in names}
    if options.columns:
        asked = mapped(names, options.columns)
        named = "observation" in options.columns
        columns = {ours: theirs for ours, theirs in columns.items() if ours.startswith("observations") and not named}
        columns |= {ours: theirs for ours, theirs in asked.items() if named or not ours.startswith("observations")}
    if "actions" not in columns:
        raise UserError(f"{path} has no action, without which there is nothing to learn: add that column")
    if "rewards" not in columns:
        raise UserError(
            f"{path} has no next.reward: add that column, or give --columns reward=0 for behaviour cloning, which "
            "needs no rewards"
        )
    films = {ours: theirs[0] for ours, theirs in columns.items() if set(theirs) & set(videos)}
    for ours, film in films.items():
        _check(ours, columns[ours], features[film])
    table: Table = ArrowTable(data, {ours: theirs for ours, theirs in columns.items() if ours not in films})
    if films:
        table = _filmed(folder, table.columns, films, info)
    provenance = Provenance(source=f"lerobot:{path}", version=version)
    return table_source(table, options, name=folder.name, provenance=provenance, names=names, guessed=True)


def _check(ours: str, theirs: list[str], feature: dict[str, Any]) -> None:
    """Check that a video is one observation.

    Raises:
        UserError: it is something else, or of depths, whose 16 bits a frame of bytes does not hold.
    """
    if len(theirs) > 1 or not ours.startswith("observations"):
        raise UserError(f"{theirs[0]} is a video: name it as a part of its own, observation/NAME={theirs[0]}")
    about = feature.get("info") or {}
    if about.get("video.is_depth_map") or about.get("is_depth_map"):
        raise UserError(
            f"{theirs[0]} is a video of depths, which bytes do not hold: name the observations without it, as in "
            "--columns observation=observation.state"
        )


def _filmed(folder: Path, columns: dict[str, list[str]], films: dict[str, str], info: dict[str, Any]) -> FilmedTable:
    """Return the rows with the frames of videos, `films` by our columns."""
    rate = float(info.get("fps") or 0)
    if not rate > 0:
        raise UserError(f"{folder}/meta/info.json has no fps, by which frames are found: add it")
    data = arrow_data(folder / "data", "parquet")
    own = {FilmedTable.EPISODE: ["episode_index"], FilmedTable.TIME: ["timestamp"]}
    if lacking := [names[0] for names in own.values() if names[0] not in data.schema.names]:
        raise UserError(f"{folder} has no column {lacking[0]}, by which frames are found: add it")
    footage = {ours: Footage(name, rate, _placed(folder, name, info)) for ours, name in films.items()}
    return FilmedTable(ArrowTable(data, columns | own), footage)


def _placed(folder: Path, name: str, info: dict[str, Any]) -> Callable[[int], Place]:
    """Return what says where an episode lies in the videos of a camera."""
    if str(info["codebase_version"]).startswith("v2"):
        return partial(_file_of, folder, name, int(info.get("chunks_size") or 1000))
    return partial(_place, folder, name, _places(folder, name))


def _file_of(folder: Path, name: str, chunk: int, episode: int) -> Place:
    """Return the file of an episode of version 2, which is there from its beginning."""
    place = folder / "videos" / f"chunk-{episode // chunk:03d}" / name / f"episode_{episode:06d}.mp4"
    return Place(place, 0.0, math.inf)


def _places(folder: Path, name: str) -> dict[int, tuple[int, int, float, float]]:
    """Return chunk, file, and first and last second of each episode in the videos of a camera."""
    wanted = ["episode_index", *(f"videos/{name}/{column}" for column in PLACED)]
    table = arrow_data(folder / "meta" / "episodes", "parquet")
    if lacking := [column for column in wanted if column not in table.schema.names]:
        raise UserError(
            f"{folder}/meta/episodes has no {lacking[0]}, by which frames are found: convert it with LeRobot"
        )
    numbers, *columns = (column.to_pylist() for column in table.to_table(columns=wanted).columns)
    return dict(zip(numbers, zip(*columns, strict=True), strict=True))


def _place(folder: Path, name: str, places: dict[int, tuple[int, int, float, float]], episode: int) -> Place:
    if episode not in places:
        raise UserError(f"{folder}/meta/episodes has no episode {episode}, whose rows are in data: copy it again")
    chunk, file, *seconds = places[episode]
    return Place(folder / "videos" / name / f"chunk-{chunk:03d}" / f"file-{file:03d}.mp4", *seconds)


def _info(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "meta" / "info.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} is no LeRobot data set ({first_line(error)}): it has no meta/info.json") from None
