"""The trained networks of a sweep, from the last checkpoints of its packs."""

from collections.abc import Iterator
from pathlib import Path

from ray.rllib.core.rl_module.rl_module import RLModule

from dr3_ray.rllib.module import PopulationModule
from dr3_ray.sweep.checkpoints import Checkpoints
from dr3_ray.sweep.directory import read_run, spec_of
from dr3_ray.sweep.identity import canonical
from dr3_ray.sweep.index import Record, read_index

MODULE = "learner_group/learner/rl_module/default_policy"


def trained_modules(run: Path) -> Iterator[tuple[PopulationModule, list[str | None]]]:
    """The networks of each pack that has a checkpoint, and which member of the sweep each of theirs is.

    None: one that is not in the index. UserError: not a run directory, or its storage cannot be used.
    """
    spec, document = spec_of(run), read_run(run)
    packs: dict[str, list[Record]] = {}
    for record in read_index(run):
        if record["pack"]:
            packs.setdefault(record["pack"], []).append(record)
    for name, records in packs.items():
        found: list[PopulationModule] = []
        checkpoints = Checkpoints(spec.checkpoints, name, document["id"])
        checkpoints.load(lambda directory, found=found: found.append(_module(directory)))  # type: ignore[misc]
        for module in found:
            yield module, [_member(trained, records) for trained in module.model_config["members"]]


def _module(directory: str) -> PopulationModule:
    module = RLModule.from_checkpoint(str(Path(directory).resolve() / MODULE))
    assert isinstance(module, PopulationModule)
    return module


def _member(trained: dict[str, object], records: list[Record]) -> str | None:
    """By the configuration, whatever became of the others of its pack."""
    wanted = canonical(_plain(trained))
    for record in records:
        if canonical({name: record["config"].get(name) for name in trained}) == wanted:
            return str(record["member"])
    return None


def _plain(values: dict[str, object]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
