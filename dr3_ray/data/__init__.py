"""Data sets: Arrow shards with a manifest, mapped into memory once per machine.

Names are imported on first use, so that the command line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dr3_ray.data.episodes import episode_columns, monte_carlo_returns
    from dr3_ray.data.minari import import_minari
    from dr3_ray.data.reader import Dataset, load_dataset, verify
    from dr3_ray.data.schema import Manifest, Provenance
    from dr3_ray.data.shards import ShardWriter, write_dataset
    from dr3_ray.data.spaces import SpaceSpec, from_env_actions, to_env_actions

_HOME = {
    "Dataset": "reader",
    "Manifest": "schema",
    "Provenance": "schema",
    "ShardWriter": "shards",
    "SpaceSpec": "spaces",
    "episode_columns": "episodes",
    "from_env_actions": "spaces",
    "import_minari": "minari",
    "load_dataset": "reader",
    "monte_carlo_returns": "episodes",
    "to_env_actions": "spaces",
    "verify": "reader",
    "write_dataset": "shards",
}

__all__ = [
    "Dataset",
    "Manifest",
    "Provenance",
    "ShardWriter",
    "SpaceSpec",
    "episode_columns",
    "from_env_actions",
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
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
