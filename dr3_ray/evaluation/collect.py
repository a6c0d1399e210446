"""Collecting data sets: an online learner plays, and what it saw becomes a replay data set.

The same command gives the same rows with the same versions of torch and of this package; other versions give
others of the same kind.
"""

from functools import partial
from pathlib import Path

import numpy as np

from dr3_ray import __version__
from dr3_ray.data import Manifest, Provenance, ShardWriter
from dr3_ray.data.shards import now
from dr3_ray.evaluation.online import Learning, Player, Told
from dr3_ray.evaluation.quality import MEDIUM_REPLAY, REPLAY
from dr3_ray.evaluation.recipes import RANDOM, Recipe


def collect(
    recipe: Recipe, out: Path, *, command: str = "", told: Told | None = None, player: Player | None = None
) -> Manifest:
    """Play a recipe and write its data set to the directory `out`; `told` of its progress.

    Raises:
        UserError: no such environment, spaces without columns, an action of the player that is none, or no place at
            `out`, where nothing is left then.
    """
    learning = Learning(recipe, told, player)
    writer = partial(
        ShardWriter,
        out,
        observation_space=learning.recorded.observations,
        action_space=learning.recorded.actions,
        gamma=recipe.gamma,
        name=recipe.name,
        environment=recipe.environment,
    )
    provenance = Provenance(
        source=source_of(recipe, player),
        version=f"dr3-ray {__version__}",
        licence="Apache-2.0",
        command=command,
        created=now(),
        details=dict(player.details) if player else {},
    )
    writer(provenance=provenance)  # what cannot be written is refused before anything is played
    learning.learn()
    reached = learning.reached()
    learning.play()
    if reached:
        provenance = provenance.model_copy(update={"details": provenance.details | reached.details})
    with writer(provenance=provenance) as shards:
        draw = np.random.default_rng([recipe.seed, 1])
        first = learning.learned if recipe.policy_steps else 0
        last = learning.checks[reached.place].step if reached and recipe.quality == MEDIUM_REPLAY else None
        for episode, columns in enumerate(learning.replay.episodes(recipe.gamma, first or 0, last)):
            kept = draw.random(len(columns["rewards"])) < recipe.keep
            if kept.any():
                shards.write(columns | {"episode_ids": np.full(len(kept), episode)}, keep=kept)
    return shards.manifest


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
