"""Evaluation: rollouts of all members together, local or on remote runners."""

from functools import partial
from typing import Any

import gymnasium as gym
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import EPISODE_RETURN_MEAN, NUM_EPISODES
from ray.rllib.utils.typing import StateDict
from ray.tune.registry import ENV_CREATOR, _global_registry

from dr3_ray.evaluation.environments import is_ours, make_environment
from dr3_ray.evaluation.processes import Rollouts
from dr3_ray.evaluation.rollout import Make


class PopulationEnvRunner(SingleAgentEnvRunner):
    """Plays `num_episodes` episodes with every member; nothing is kept but returns and lengths.

    The start states are the same at every evaluation and for every member.
    """

    rollout: Rollouts | None = None

    def sample(self, *, num_episodes: int | None = None, **kwargs: Any) -> list[Any]:
        """Log the sum of returns and the number of episodes of each member. Returns no episodes."""
        episodes = num_episodes or 1
        if self.rollout is None or self.rollout.episodes != episodes:
            cpus = self.config.num_cpus_per_env_runner if self.worker_index else self.config.num_cpus_for_main_process
            self.rollout = Rollouts(self._make(), self.module.n_members, episodes, int(cpus))
        first = 1_000_000 * (self.worker_index or 0) + (self.config.seed or 0)
        returns, lengths = self.rollout.play(self.module.policy, range(first, first + episodes))
        for member, row in enumerate(returns):
            key = ("members", f"{member:03d}")
            self.metrics.log_value((*key, "episode_return_sum"), float(row.sum()), reduce="sum")
            self.metrics.log_value((*key, "episodes"), episodes, reduce="sum")
        self.metrics.log_value(EPISODE_RETURN_MEAN, float(returns.mean()), window=1)
        self.metrics.log_value("episode_len_mean", float(lengths.mean()), window=1)
        self.metrics.log_value(NUM_EPISODES, episodes, reduce="sum")
        return []

    def set_state(self, state: StateDict) -> None:
        """Take the given weights, also earlier ones."""
        self._weights_seq_no = 0
        super().set_state(state)

    def _make(self) -> Make:
        """What makes one environment of the kind that RLlib made a vector of."""
        name, env_config = self.config.env, EnvContext(self.config.env_config, self.worker_index or 0)
        if is_ours(name):
            return partial(make_environment, name)
        if isinstance(name, str) and _global_registry.contains(ENV_CREATOR, name):
            return partial(_global_registry.get(ENV_CREATOR, name), env_config)
        return partial(name, env_config) if callable(name) else partial(gym.make, name, **self.config.env_config)

    def stop(self) -> None:
        """Close the environments."""
        if self.rollout is not None:
            self.rollout.close()
        super().stop()
