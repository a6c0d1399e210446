"""RLlib's callbacks around the episodes of an evaluation."""

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils import force_list

ON_EPISODE = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")
WATCHING = (*ON_EPISODE, "on_sample_end", "on_environment_created")


def are_watched(config: Any, names: Sequence[str] = WATCHING) -> bool:
    """Return whether a callback of one of these names looks on while episodes are played."""
    return any(
        getattr(config, f"callbacks_{name}")
        or any(
            getattr(callbacks, name) is not getattr(RLlibCallback, name)
            for callbacks in force_list(config.callbacks_class)
        )
        for name in names
    )


class Environments:
    """The played environments, as RLlib's callbacks know a vector of them; `envs[env_index]` is an episode's own."""

    def __init__(self, rows: Sequence[Sequence[gym.Env[Any, Any]]]):
        self.envs = [environment for row in rows for environment in row]
        self.num_envs = len(self.envs)


class EpisodeCallbacks:
    """A watch that makes RLlib's episodes and calls the callbacks; `custom_data["member"]` says whose each is."""

    def __init__(self, runner: SingleAgentEnvRunner, rows: Sequence[Sequence[gym.Env[Any, Any]]]):
        self.runner, self.environments, self.columns = runner, Environments(rows), len(rows[0])
        self.playing: dict[int, SingleAgentEpisode] = {}
        self.finished: list[SingleAgentEpisode] = []

    def created(self, member: int, episode: int) -> None:
        """Call `on_episode_created`."""
        space = self.environments.envs[0]
        made = SingleAgentEpisode(observation_space=space.observation_space, action_space=space.action_space)
        made.custom_data["member"] = member
        self.playing[self._index(member, episode)] = made
        self._call("on_episode_created", member, episode)

    def started(self, member: int, episode: int, observation: Any, info: dict[str, Any]) -> None:
        """Call `on_episode_start`."""
        self.playing[self._index(member, episode)].add_env_reset(observation=copy.deepcopy(observation), infos=info)
        self._call("on_episode_start", member, episode)

    def stepped(self, member: int, episode: int, action: Any, step: tuple[Any, ...]) -> None:
        """Call `on_episode_step`, and `on_episode_end` after the last one."""
        observation, reward, terminated, truncated, info = step
        playing = self.playing[self._index(member, episode)]
        playing.add_env_step(
            copy.deepcopy(observation), action, float(reward), info, terminated=terminated, truncated=truncated
        )
        self._call("on_episode_step", member, episode)
        if playing.is_done:
            self._call("on_episode_end", member, episode, prev_episode_chunks=[])
            self.finished.append(playing.to_numpy() if self.runner.config.episodes_to_numpy else playing)

    def end(self) -> None:
        """Call `on_sample_end`, with all episodes."""
        call(self.runner, "on_sample_end", samples=self.finished)

    def _index(self, member: int, episode: int) -> int:
        return member * self.columns + episode

    def _call(self, name: str, member: int, episode: int, **more: Any) -> None:
        index = self._index(member, episode)
        call(
            self.runner,
            name,
            episode=self.playing[index],
            env=self.environments,
            rl_module=self.runner.module,
            env_index=index,
            **more,
        )


def call(runner: SingleAgentEnvRunner, name: str, **arguments: Any) -> None:
    """Call the callbacks of this runner that are named `name`."""
    make_callback(
        name,
        callbacks_objects=runner._callbacks,
        callbacks_functions=getattr(runner.config, f"callbacks_{name}"),
        kwargs={"env_runner": runner, "metrics_logger": runner.metrics, **arguments},
    )
