"""Rollouts: every member of a population plays its episodes at the same time, one forward pass for all."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dr3_ray.evaluation.contract import Recorded, contract_in
from dr3_ray.evaluation.turns import SILENT, Place, Turns
from dr3_ray.observations import Observations

Returns = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Make = Callable[[], gym.Env[Any, Any]]
Act = Callable[[Observations], Tensor]


class Played(NamedTuple):
    """The results of the episodes of K members, E each."""

    returns: Returns
    """Undiscounted, [K, E]; NaN of an episode that could not be played to its end."""
    lengths: npt.NDArray[np.int64]
    """[K, E]."""
    no_action: Flags
    """Members whose policy gave NaN or infinity for an action, [K]: none of their episodes counts."""
    broken: Flags
    """Episodes in which the environment gave NaN or infinity for an observation or a reward, [K, E]."""


class Watch(Protocol):
    """An observer of played episodes: episode `episode` of member `member`, step by step."""

    def created(self, member: int, episode: int) -> None:
        """Note that an episode is about to begin; its environment is not reset yet."""

    def started(self, member: int, episode: int, observation: Any, info: dict[str, Any]) -> None:
        """Take the first observation of an episode."""

    def stepped(self, member: int, episode: int, action: Any, step: tuple[Any, ...]) -> None:
        """Take a step: the policy's action, and what the environment returned."""


class Rollout:
    """Environments for K members and E episodes each, made once and played as often as wanted.

    Policies were trained on what was `recorded`, and its contract with the environments says what is converted. An
    environment that does not answer for `silent` seconds is told of, and waited for. While `act` is asked, `playing`
    has the numbers of the episodes that it is asked for.

    Raises:
        UserError: the environments do not fit what was recorded.
    """

    def __init__(self, make: Make, recorded: Recorded, members: int, episodes: int, silent: float = SILENT):
        self.environments = [[make() for _ in range(episodes)] for _ in range(members)]
        self.contract = contract_in(self.environments[0][0], recorded)
        self.playing: npt.NDArray[np.int64] = np.arange(episodes)
        self._turns = Turns(self.contract.where, silent)
        self._places = [
            [Place(member if members > 1 else None, episode) for episode in range(episodes)]
            for member in range(members)
        ]

    def play(self, act: Act, seeds: Sequence[int], watch: Watch | None = None) -> Played:
        """Play one episode in each environment.

        `act` maps observations [K, N, *observation], of a Dict space its parts by name, to actions [K, N] or [K, N, A]
        in [−1, 1]. Episode e starts from `seeds[e]` for every member, so that members are compared on equal draws.

        Raises:
            UserError: an observation is none of the environment's own space, or an environment raises something.
        """
        shape = len(self.environments), len(self.environments[0])
        parts = {name: np.zeros((*shape, *part.shape), part.trained) for name, part in self.contract.parts.items()}
        returns, lengths = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        no_action, broken, running = np.zeros(shape[0], bool), np.zeros(shape, bool), np.ones(shape, bool)

        def observe(place: tuple[int, int], observation: Any) -> bool:
            seen = self.contract.observe(observation) or {}
            for name, part in seen.items():
                parts[name][place] = part
            return bool(seen)

        for member in range(shape[0]):
            for episode, seed in zip(range(shape[1]), seeds, strict=True):
                broken[member, episode] = not observe((member, episode), self._reset(member, episode, seed, watch))
        running &= ~broken
        while running.any():
            columns = self.playing = np.flatnonzero(running.any(0))  # episodes that some member still plays
            seen = {name: torch.from_numpy(part[:, columns]) for name, part in parts.items()}
            actions = act(seen.get("", seen)).cpu().numpy()  # the part without a name is a plain observation
            no_action |= (running[:, columns] & ~self.contract.playable(actions)).any(1)
            running[no_action] = False
            rows, places = np.nonzero(running[:, columns])
            chosen = actions[rows, places]
            sent = self.contract.actions(chosen)
            for member, episode, choice, action in zip(
                rows.tolist(), columns[places].tolist(), chosen, sent, strict=True
            ):
                place = member, episode
                turn = self._turns.play(self.environments[member][episode], action, self._places[member][episode])
                if watch:
                    watch.stepped(member, episode, choice, turn)
                returns[place] += turn.reward
                lengths[place] += 1
                running[place] = not (turn.terminated or turn.truncated)
                fine = not running[place] or observe(place, turn.observation)  # the last observation is not acted on
                if not (fine and math.isfinite(returns[place])):
                    broken[place], running[place] = True, False
        broken &= ~no_action[:, None]
        returns[broken | no_action[:, None]] = np.nan
        return Played(returns, lengths, no_action, broken)

    def _reset(self, member: int, episode: int, seed: int, watch: Watch | None) -> Any:
        if watch:
            watch.created(member, episode)
        observation, info = self._turns.begin(self.environments[member][episode], seed, self._places[member][episode])
        if watch:
            watch.started(member, episode, observation, info)
        return observation

    def close(self) -> None:
        """Close all environments."""
        for row in self.environments:
            for environment in row:
                environment.close()  # type: ignore[no-untyped-call]
