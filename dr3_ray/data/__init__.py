"""Data sets: Arrow shards with a manifest, mapped into memory once per machine.

Names are imported on first use, so that the command line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dr3_ray.data.actions import from_env_actions, to_env_actions
    from dr3_ray.data.episodes import episode_columns, monte_carlo_returns
    from dr3_ray.data.exporters import export_dataset
    from dr3_ray.data.importers.arrays import from_arrays, from_dataframe, from_episodes
    from dr3_ray.data.importers.minari import import_minari
    from dr3_ray.data.loading import load_dataset
    from dr3_ray.data.reader import Dataset
    from dr3_ray.data.schema import Manifest, Provenance
    from dr3_ray.data.shards import ShardWriter, write_dataset
    from dr3_ray.data.spaces import SpaceSpec
    from dr3_ray.data.verification import verify
    from dr3_ray.rllib.ray_data import as_ray_dataset

_HOME = {
    "Dataset": "reader",
    "Manifest": "schema",
    "Provenance": "schema",
    "ShardWriter": "shards",
    "SpaceSpec": "spaces",
    "as_ray_dataset": ".rllib.ray_data",  # beside this package: nothing in it imports Ray
    "episode_columns": "episodes",
    "export_dataset": "exporters",
    "from_arrays": "importers.arrays",
    "from_dataframe": "importers.arrays",
    "from_env_actions": "actions",
    "from_episodes": "importers.arrays",
    "import_minari": "importers.minari",
    "load_dataset": "loading",
    "monte_carlo_returns": "episodes",
    "to_env_actions": "actions",
    "verify": "verification",
    "write_dataset": "shards",
}

__all__ = [
    "Dataset",
    "Manifest",
    "Provenance",
    "ShardWriter",
    "SpaceSpec",
    "as_ray_dataset",
    "episode_columns",
    "export_dataset",
    "from_arrays",
    "from_dataframe",
    "from_env_actions",
    "from_episodes",
    "import_minari",
    "load_dataset",
    "monte_carlo_returns",
    "to_env_actions",
    "verify",
    "write_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
