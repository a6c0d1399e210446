"""Collecting data sets: an online learner plays, and what it saw becomes a replay data set.

The same command gives the same rows with the same versions of torch and of this package; other versions give
others of the same kind. Killed at any moment, it goes on from its last checkpoint, to the same rows.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dr3_ray import __version__
from dr3_ray.data import Manifest, Provenance, states
from dr3_ray.data.shard_files import SHARD_BYTES, ShardFiles, row_bytes, rows_of
from dr3_ray.data.shards import described, finish, now
from dr3_ray.data.targets import Target, check_target
from dr3_ray.errors import UserError
from dr3_ray.evaluation.journal import SECONDS, Journal, forget
from dr3_ray.evaluation.online import Learning, Player, Told
from dr3_ray.evaluation.quality import MEDIUM_REPLAY, REPLAY
from dr3_ray.evaluation.recipes import RANDOM, Recipe


def collect(
    recipe: Recipe,
    out: Path,
    *,
    command: str = "",
    told: Told | None = None,
    player: Player | None = None,
    seconds: float = SECONDS,
) -> Manifest:
    """Play a recipe and write its data set to the directory `out`; `told` of its progress.

    A checkpoint is written at the end of an episode, `seconds` after the last one at the earliest (0: always). What was
    interrupted goes on from there when the same is collected to the same place.

    Raises:
        UserError: no such environment, spaces without columns, an action of the player that is none, or no place at
            `out`; nothing is left then.
    """
    learning = Learning(recipe, told, player)
    about = described(
        observation_space=learning.recorded.observations,
        action_space=learning.recorded.actions,
        gamma=recipe.gamma,
        name=recipe.name,
        environment=recipe.environment,
        provenance=Provenance(
            source=source_of(recipe, player),
            version=f"dr3-ray {__version__}",
            licence="Apache-2.0",
            details=dict(player.details) if player else {},
        ),
    )
    target, keep = Target(out, _purpose(recipe, player)), False
    try:
        if not target.open():
            check_target(out, _room(learning, about), target.partial.name)
            journal = Journal(target.partial, {"command": command, "created": now()}, seconds)
            with _one_thread():
                _write(target.partial, learning, about, journal)
        forget(target.partial)
        target.commit()
    except UserError:
        raise
    except BaseException:
        keep = True
        raise
    finally:
        target.close(keep)
    manifest = Manifest.read(target.path)
    for note in manifest.provenance.notes:
        warnings.warn(note, stacklevel=2)
    return manifest


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread, as a sweep's trials do."""
    # DQN's 3,000 steps beside other work on two cores: 20 CPU-s, and in two threads that wait for each other 214
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _purpose(recipe: Recipe, player: Player | None) -> str:
    """Say what is collected: what was left of the same goes on."""
    versions = [version(name) for name in ("dr3-ray", "torch", "gymnasium", "numpy")]
    who = player and [player.name, dict(player.details), player.identity]
    return states.dump(["collect", versions, asdict(recipe), who])


def _room(learning: Learning, about: dict[str, Any]) -> int:
    """Return the bytes on disk of all rows, in checkpoints and in the data set."""
    replay, recipe = learning.replay, learning.recipe
    columns = sum(values.nbytes for values in replay.columns)
    rows = (recipe.policy_steps or recipe.steps) * recipe.keep
    return columns + int(rows * row_bytes(about["observation_space"], about["action_space"]))


def _write(folder: Path, learning: Learning, about: dict[str, Any], journal: Journal) -> None:
    """Write all files into a folder, the manifest last."""
    recipe, replay = learning.recipe, learning.replay
    journal.restore(learning)
    notes = _relive(learning)
    learning.save = journal.save
    learning.learn()
    reached = learning.reached()
    learning.play()
    details = about["provenance"].details | (reached.details if reached else {})
    about["provenance"] = about["provenance"].model_copy(update=journal.once | {"details": details})
    spaces = about["observation_space"], about["action_space"]
    files = ShardFiles(folder, "shard-", *spaces, recipe.gamma, rows_of(SHARD_BYTES, *spaces))
    draw = np.random.default_rng([recipe.seed, 1])
    first = learning.learned if recipe.policy_steps else 0
    last = learning.checks[reached.place].step if reached and recipe.quality == MEDIUM_REPLAY else None
    for episode, columns in enumerate(replay.episodes(recipe.gamma, first or 0, last)):
        kept = draw.random(len(columns["rewards"])) < recipe.keep
        if kept.any():
            files.write(columns | {"episode_ids": np.full(len(kept), episode)}, keep=kept)
    files.flush()
    finish(folder, about, files.tally, files.entries, notes)


def _relive(learning: Learning) -> list[str]:
    """Bring the environment to where the replay ends; return what there is to say of it.

    An episode depends on its seed and the actions alone, as Gymnasium has it; the last one, played again, shows it. If
    it does not, everything is played again, without learning.
    """
    episodes, rows = len(learning.replay.ends), len(learning.replay)
    if not episodes or learning.repeats(episodes - 1) or learning.repeats(0):
        return []
    return [
        f"not-repeated: {learning.contract.where} or who plays in it does not repeat episodes from their seeds, and "
        f"this was interrupted after {rows} steps: those that follow are others than without the interruption"
    ]


def source_of(recipe: Recipe, player: Player | None = None) -> str:
    """Say where the rows come from."""
    if player:
        return f"{recipe.steps} steps of {player.name} on {recipe.environment}"
    if recipe.algorithm == RANDOM:
        return f"{recipe.steps} steps of uniformly random actions on {recipe.environment}"
    learner = f"an online {recipe.algorithm} on {recipe.environment}, {recipe.steps} steps"
    if recipe.quality != REPLAY:
        return f"{recipe.quality} data of {learner}"
    return f"{recipe.policy_steps} steps of the policy of {learner}" if recipe.policy_steps else f"replay of {learner}"
