"""LeRobot's data sets of version 3: Parquet tables of states and actions beside videos.

Layout: `meta/info.json` with `features`, `data/chunk-*/file-*.parquet` with `observation.*`, `action`, `episode_index`,
`frame_index`, and where there are rewards `next.reward` and `next.done`
(https://huggingface.co/docs/lerobot/lerobot-dataset-v3). Frames of videos are not taken.
"""

import json
from pathlib import Path
from typing import Any

from dr3_ray.data.importers.columns import mapped
from dr3_ray.data.importers.files import arrow_data, existing
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import ArrowTable
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError, first_line

KNOWN = {
    "actions": "action",
    "rewards": "next.reward",
    "terminateds": "next.done",
    "episode_ids": "episode_index",
    "timesteps": "frame_index",
}


def is_lerobot(path: Path) -> bool:
    """Return whether a folder has the description of a LeRobot data set."""
    return (path / "meta" / "info.json").is_file()


def lerobot_source(path: str, options: Options) -> Source:
    """Return the episodes of a LeRobot data set.

    Raises:
        UserError: it is of another version or has no rewards.
    """
    folder = existing(path)
    info = _info(folder)
    version = str(info.get("codebase_version"))
    if not version.startswith("v3"):
        raise UserError(f"{path} is of LeRobot {version}, and v3 can be read: convert it with LeRobot")
    data = arrow_data(folder / "data", "parquet")
    names, features = data.schema.names, info.get("features", {})
    seen = [name for name in features if name.startswith("observation.") and name in names]
    videos = [name for name, feature in features.items() if feature.get("dtype") in ("video", "image")]
    columns = {"observations": seen} if len(seen) == 1 else {f"observations/{name[12:]}": [name] for name in seen}
    columns |= {ours: [theirs] for ours, theirs in KNOWN.items() if theirs in names}
    if options.columns:
        columns = mapped(names, options.columns)
    if missing := [name for name in ("actions", "rewards") if name not in columns]:
        raise UserError(f"{path} has no {KNOWN[missing[0]]}, without which there is nothing to learn: add that column")
    lost = (f"the frames of {', '.join(videos)} are not taken",) if videos else ()
    provenance = Provenance(source=f"lerobot:{path}", version=version, notes=lost)
    table = ArrowTable(data, columns)
    return table_source(table, options, name=folder.name, provenance=provenance, names=names, guessed=True)


def _info(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "meta" / "info.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} is no LeRobot data set ({first_line(error)}): it has no meta/info.json") from None
