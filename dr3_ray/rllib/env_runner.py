"""Evaluation: rollouts of all members together, local or on remote runners."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MAX,
    EPISODE_LEN_MEAN,
    EPISODE_LEN_MIN,
    EPISODE_RETURN_MAX,
    EPISODE_RETURN_MEAN,
    EPISODE_RETURN_MIN,
)
from ray.rllib.utils.typing import StateDict

from dr3_ray.errors import UserError
from dr3_ray.evaluation.processes import Rollouts
from dr3_ray.evaluation.rollout import Flags, Make, Played
from dr3_ray.evaluation.turns import SILENT, being_made
from dr3_ray.rllib.episodes import EpisodeCallbacks, are_watched, call

RLLIBS_NAME = "rllib-single-agent-env-v0"  # of what `register_env` was given, in Gymnasium's registry
SEEDS = 1_000_000  # start states of a runner


class StepCounts(NamedTuple):
    """An episode as RLlib counts it: its numbers of steps."""

    number: int

    def env_steps(self) -> int:
        """Return the steps of each member."""
        return self.number

    def agent_steps(self) -> int:
        """Return the steps of the one agent, the same number."""
        return self.number


class PopulationEnvRunner(SingleAgentEnvRunner):
    """A runner that plays episodes with every member from the same start states; it keeps returns and lengths alone.

    The start states are the same at every evaluation, unless `evaluation_force_reset_envs_before_iteration` is False.
    """

    silent = SILENT  # seconds without an answer of an environment until that is said
    rollout: Rollouts | None = None
    played = 0  # episodes of each member since the first start state

    def sample(
        self,
        *,
        num_timesteps: float | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Any]:
        """Play so many episodes with each member, or whole episodes until each has made `num_timesteps` steps.

        Logs each member's sum of returns, number of episodes, and what could not be played. Returns no episodes, but
        the number of steps.
        """
        if explore or random_actions:
            raise UserError("evaluation plays the policy's best actions: explore and random_actions have to be False")
        local = not self.worker_index
        if self.config.evaluation_force_reset_envs_before_iteration if local else force_reset:
            self.played = 0
        rollout = self._rollout(1 if num_timesteps else num_episodes or 1)
        watch = EpisodeCallbacks(self, rollout.here.environments) if rollout.here and are_watched(self.config) else None
        played = self._play(rollout, watch)
        while num_timesteps and (_able(played) & (played.lengths.sum(1) < num_timesteps)).any():
            more = self._play(rollout, watch)
            played = Played(
                np.hstack([played.returns, more.returns]),
                np.hstack([played.lengths, more.lengths]),
                played.no_action | more.no_action,
                np.hstack([played.broken, more.broken]),
            )
        if watch:
            watch.end()
        able = _able(played)
        steps = int(played.lengths.sum(1)[able].min()) if able.any() else int(num_timesteps or 0)
        self._log(played, steps)
        return [StepCounts(steps)]

    def _rollout(self, episodes: int) -> Rollouts:
        """Return environments for so many episodes of each member, in their own processes unless callbacks look on."""
        if self.rollout is not None and self.rollout.episodes != episodes:
            self.rollout.close()
            self.rollout = None
        if self.rollout is None:
            cpus = self.config.num_cpus_per_env_runner if self.worker_index else self.config.num_cpus_for_main_process
            processes = 1 if are_watched(self.config) else int(cpus)
            recorded, members = self.module.recorded, self.module.n_members
            self.rollout = Rollouts(self._make(), recorded, members, episodes, processes, self.silent)
        return self.rollout

    def _play(self, rollout: Rollouts, watch: EpisodeCallbacks | None) -> Played:
        first = SEEDS * (self.worker_index or 0) + (self.config.seed or 0) + self.played
        self.played += rollout.episodes
        return rollout.play(self.module.policy, range(first, first + rollout.episodes), watch)

    def _log(self, played: Played, steps: int) -> None:
        for member, row in enumerate(played.returns):
            sums = {
                "episode_return_sum": float(row.sum()),
                "episodes": len(row),
                "no_action": int(played.no_action[member]),
                "broken_episodes": int(played.broken[member].sum()),
            }
            for name, value in sums.items():
                self.metrics.log_value(("members", f"{member:03d}", name), value, reduce="sum")
        finite = played.returns[np.isfinite(played.returns)]
        returns = finite if finite.size else np.full(1, np.nan)
        for values, mean, low, high in (
            (returns, EPISODE_RETURN_MEAN, EPISODE_RETURN_MIN, EPISODE_RETURN_MAX),
            (played.lengths, EPISODE_LEN_MEAN, EPISODE_LEN_MIN, EPISODE_LEN_MAX),
        ):
            self.metrics.log_value(mean, float(values.mean()), window=1)
            self.metrics.log_value(low, float(values.min()), reduce="min")
            self.metrics.log_value(high, float(values.max()), reduce="max")
        self._increase_sampled_metrics(steps, played.returns.shape[1])

    def apply(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function with this runner; what it raises is raised to the caller, where RLlib ends the process."""
        if self.config.restart_failed_env_runners:
            return super().apply(func, *args, **kwargs)
        return func(self, *args, **kwargs)

    def make_env(self) -> None:
        """Make RLlib's environment, without Gymnasium's warning that RLlib registers it again."""
        gym.registry.pop(RLLIBS_NAME, None)
        with being_made(self._where, self.silent):
            super().make_env()

    @property
    def _where(self) -> str:
        return f"environment {getattr(self.config.env, '__name__', self.config.env)!r}"

    def set_state(self, state: StateDict) -> None:
        """Take the given weights, also earlier ones."""
        self._weights_seq_no = 0
        super().set_state(state)

    def _make(self) -> Make:
        """Return the maker of one environment of the kind that RLlib made a vector of."""
        context = EnvContext(self.config.env_config, self.worker_index or 0, num_workers=self.num_workers)
        name = self.config.env
        create = Algorithm._get_env_id_and_creator(name, self.config)[1] if isinstance(name, str) else name
        make = partial(_made, create, context, self._where, self.silent)
        return partial(self._created, make, context) if are_watched(self.config, ("on_environment_created",)) else make

    def _created(self, make: Make, context: EnvContext) -> gym.Env[Any, Any]:
        environment = make()
        call(self, "on_environment_created", env=environment, env_context=context)
        return environment

    def stop(self) -> None:
        """Close the environments."""
        if self.rollout is not None:
            self.rollout.close()
        super().stop()


def _made(create: Callable[[EnvContext], gym.Env[Any, Any]], context: EnvContext, where: str, silent: float) -> Any:
    """Make an environment, and tell of one that takes long."""
    with being_made(where, silent):
        return create(context)


def _able(played: Played) -> Flags:
    """Return which members can make steps, [K]: their actions are numbers, and some environment was not broken."""
    able: Flags = ~played.no_action & ~played.broken.all(1)
    return able
