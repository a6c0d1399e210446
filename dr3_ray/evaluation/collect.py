"""Collecting data sets: an online learner plays, and what it saw becomes a replay data set.

The online learner is our own: the objective of an offline algorithm on a buffer that grows (DQN; SAC is continuous CQL
with α = 0). What is named `embedded:` in `RECIPES` comes with the package; MuJoCo's are for making at home, replay and
medium as D4RL (Fu et al., arXiv 2004.07219) defines them. The same command gives the same rows with the same versions
of torch and of this package; other versions give others of the same kind.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from dr3_ray import __version__
from dr3_ray.algorithms.registry import find
from dr3_ray.data import Manifest, Provenance, ShardWriter, SpaceSpec, episode_columns, to_env_actions
from dr3_ray.data.columns import Columns
from dr3_ray.data.shards import now
from dr3_ray.errors import check_known
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.networks.actors import squashed_sample
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from dr3_ray.types import Spaces

GAMMA = 0.99


@dataclass(frozen=True)
class Recipe:
    """A way to collect one data set: the replay of `steps` of learning, or what the policy plays after it.

    `keep` is the share of the rows that is written, drawn uniformly. With `policy_steps`, only that many steps of the
    learned policy are written, played with the noise it explores with.
    """

    environment: str
    algorithm: str
    options: dict[str, Any]
    steps: int
    policy_steps: int = 0
    keep: float = 1.0
    warm_up: int = 1000  # steps of random actions before the first update
    seed: int = 0
    exploration: tuple[float, float, float] = field(default=(1.0, 0.05, 0.3))  # ε: from, to, by this share of the steps


BREAKOUT = Recipe(
    environment="minatar:breakout",
    algorithm="DR3-DQN",
    options={"critic_lr": 2.5e-4, "batch_size": 32, "target_period": 1000, "dr3_coeff": 0.0},
    steps=300_000,
    keep=0.1,
    warm_up=5000,
)
HALFCHEETAH = Recipe(
    environment="gymnasium:HalfCheetah-v5",
    algorithm="DR3-CQL",
    options={
        "cql_alpha": 0.0,
        "dr3_coeff": 0.0,
        "n_sampled_actions": 1,
        "entropy_backup": True,
        "hidden_sizes": [128, 128],
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
        "temperature_lr": 1e-3,
    },
    steps=60_000,
)
OTHER_MINATAR = ("asterix", "freeway", "seaquest", "space_invaders")
RECIPES = {
    "embedded:breakout-replay": BREAKOUT,
    "embedded:pendulum-replay": Recipe(
        environment="gymnasium:Pendulum-v1",
        algorithm="DR3-CQL",
        options={
            "cql_alpha": 0.0,
            "dr3_coeff": 0.0,
            "n_sampled_actions": 1,
            "hidden_sizes": [64, 64],
            "actor_lr": 1e-3,
            "critic_lr": 1e-3,
            "temperature_lr": 1e-3,
        },
        steps=20_000,
    ),
    "halfcheetah-replay": HALFCHEETAH,
    "halfcheetah-medium": replace(HALFCHEETAH, policy_steps=60_000),
    **{f"{game}-replay": replace(BREAKOUT, environment=f"minatar:{game}") for game in OTHER_MINATAR},
}


class Replay:
    """All transitions of the online learner, in memory; a population's data while it grows."""

    def __init__(self, steps: int, observation: np.ndarray, action: np.ndarray):
        self.rows = 0
        self.columns = {
            "observations": np.zeros((steps, *observation.shape), observation.dtype),
            "next_observations": np.zeros((steps, *observation.shape), observation.dtype),
            "actions": np.zeros((steps, *action.shape), action.dtype),
            "rewards": np.zeros(steps, np.float32),
            "terminateds": np.zeros(steps, np.float32),
        }
        self._tensors = {name: torch.from_numpy(column) for name, column in self.columns.items()}

    def __len__(self) -> int:
        return self.rows

    def append(self, **row: Any) -> None:
        """Add one transition."""
        for name, value in row.items():
            self.columns[name][self.rows] = value
        self.rows += 1

    def gather(self, indices: Tensor, columns: Sequence[str]) -> dict[str, Tensor]:
        """Return columns at `indices` [K, B], each [K, B, ...]."""
        rows = {name: self._tensors[name].index_select(0, indices.flatten()) for name in columns}
        return {
            name: (row.float() if row.dtype == torch.bool else row).reshape(*indices.shape, *row.shape[1:])
            for name, row in rows.items()
        }


def collect(name: str, out: Path, *, steps: int | None = None, command: str = "") -> Manifest:
    """Play the recipe `name` and write its data set to the directory `out`. `steps` shortens it."""
    check_known("recipe", [name], RECIPES)
    recipe = RECIPES[name]
    if steps:
        recipe = replace(recipe, steps=steps, policy_steps=min(steps, recipe.policy_steps))
    environment = make_environment(recipe.environment)
    observation_space = SpaceSpec.from_gymnasium(environment.observation_space)
    action_space = SpaceSpec.of_actions(environment.action_space)
    writer = ShardWriter(
        out,
        observation_space=observation_space,
        action_space=action_space,
        gamma=GAMMA,
        name=name.removeprefix("embedded:"),
        environment=recipe.environment,
        provenance=Provenance(
            source=source_of(recipe),
            version=f"dr3-ray {__version__}",
            licence="Apache-2.0",
            command=command,
            created=now(),
        ),
    )
    with writer:
        draw = np.random.default_rng([recipe.seed, 1])
        for episode, columns in enumerate(play(environment, recipe, action_space)):
            kept = draw.random(len(columns["rewards"])) < recipe.keep
            if kept.any():
                writer.write(columns | {"episode_ids": np.full(len(kept), episode)}, keep=kept)
    return writer.manifest


def source_of(recipe: Recipe) -> str:
    """Say where the rows come from."""
    learner = f"an online {recipe.algorithm} on {recipe.environment}, {recipe.steps} steps"
    return f"{recipe.policy_steps} steps of the policy of {learner}" if recipe.policy_steps else f"replay of {learner}"


def play(environment: gym.Env[Any, Any], recipe: Recipe, action_space: SpaceSpec) -> Iterator[Columns]:
    """Learn online, then play the policy; yield the columns of each episode as it ends.

    The last episode of either part may be cut short. With `policy_steps`, the episodes of the learning are left out.
    """
    spec = find(recipe.algorithm, "discrete" if action_space.kind == "discrete" else "continuous")
    member = Member.from_dict(spec, recipe.options | {"gamma": GAMMA, "seed": recipe.seed})
    n_actions = action_space.n or action_space.size
    dtype = environment.observation_space.dtype  # which the first observation may not have
    observation = environment.reset(seed=recipe.seed)[0].astype(dtype)
    spaces = Spaces(observation.shape, spec.action_kind, n_actions)
    rng = np.random.default_rng(recipe.seed)
    total = recipe.steps + recipe.policy_steps
    replay = Replay(total, observation, np.zeros(() if action_space.n else (n_actions,), action_space.dtype))
    population: Population | None = None
    start, resets = 0, 0
    for step in range(total):
        action = act(population, spec.action_kind, observation, n_actions, rng, epsilon(recipe, step / recipe.steps))
        given, reward, terminated, truncated, _ = environment.step(to_env_actions(action_space, action))
        next_observation = given.astype(dtype)
        replay.append(
            observations=observation,
            actions=action,
            rewards=reward,
            next_observations=next_observation,
            terminateds=terminated,
        )
        observation = next_observation
        if step + 1 == recipe.warm_up:
            population = Population.of(spec, [member], replay, spaces)
        elif population is not None and step < recipe.steps:
            population.steps.batches.sampler.rows = [len(replay)]
            population.update(1)
        if terminated or truncated or step + 1 in (recipe.steps, total):
            rows = slice(start, step + 1)
            if start >= recipe.steps or not recipe.policy_steps:
                yield episode_columns(
                    np.concatenate([replay.columns["observations"][rows], next_observation[None]]),
                    replay.columns["actions"][rows],
                    replay.columns["rewards"][rows],
                    terminated=terminated,
                    truncated=not terminated,
                    episode_id=resets,
                    gamma=GAMMA,
                )
            start, resets = step + 1, resets + 1
            observation = environment.reset(seed=recipe.seed + resets)[0].astype(dtype)


def epsilon(recipe: Recipe, progress: float) -> float:
    """Return the share of random actions, falling linearly."""
    first, last, by = recipe.exploration
    return last + (first - last) * max(0.0, 1.0 - progress / by)


def act(
    population: Population | None,
    kind: str,
    observation: np.ndarray,
    n_actions: int,
    rng: np.random.Generator,
    eps: float,
) -> Any:
    """Choose an action: ε-greedy of discrete ones, a sample of a policy on continuous ones; uniform before training."""
    if kind == "discrete":
        if population is None or rng.random() < eps:
            return np.int64(rng.integers(n_actions))
        return np.int64(population.act(torch.from_numpy(observation)[None, None]).item())
    if population is None:
        return rng.uniform(-1.0, 1.0, n_actions).astype(np.float32)
    noise = torch.from_numpy(rng.standard_normal((1, 1, n_actions)).astype(np.float32))
    with torch.no_grad():
        mean, log_std = population.networks.actor(torch.from_numpy(observation)[None, None])  # type: ignore[operator]
        return squashed_sample(mean, log_std, noise)[0][0, 0].numpy()
