"""An online learner in its environment: it plays, learns from all that it saw, and keeps that."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.data import SpaceSpec, from_env_actions
from dr3_ray.data.number_types import Array
from dr3_ray.data.spaces import named_parts, training_spaces
from dr3_ray.errors import UserError, first_line
from dr3_ray.evaluation.contract import Recorded, contract_in
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.evaluation.quality import REPLAY, Check, Reached, reached
from dr3_ray.evaluation.recipes import UNTAUGHT, Recipe, member_of
from dr3_ray.evaluation.replay import Replay
from dr3_ray.evaluation.turns import SILENT, Place, Turn, Turns
from dr3_ray.networks.actors import squashed_sample
from dr3_ray.observations import Observations
from dr3_ray.training.normalization import as_trained
from dr3_ray.training.population import Population

CHECK_EPISODES, CHECK_STEPS = 5, 10_000  # whose mean return is a check, and the most steps of one
CHECK_SEED = 10**9  # of the first of them, whatever the recipe's seed is
LARGEST = float(np.finfo(np.float32).max)  # of what a row holds for a reward
TOLD = 100  # steps between two reports of progress
RECENT = 20  # episodes whose mean return is reported

Told = Callable[[int, float | None], None]
"""Is told how many steps were played, and the mean return of recent episodes."""
Save = Callable[["Learning"], None]
"""Is called at the end of each episode."""


class Player(NamedTuple):
    """Somebody who plays in a learner's place."""

    name: str
    """As it was given."""
    label: str
    """What the data set is called by."""
    begin: Callable[[gym.Env[Any, Any], int], Callable[[Any], Any]]
    """Returns, for an episode by its number, a function of the observation that chooses the environment's action."""
    details: Mapping[str, str] = MappingProxyType({})
    """What the data set's provenance tells of it."""
    identity: str = ""
    """A digest of what its actions depend on."""


class Learning:
    """The course of a recipe: what was played so far, and the learner as it is now.

    Episode n starts from the recipe's seed + n. Between two episodes, `replay`, `policies` and `state` are all that
    the rest depends on.

    Raises:
        UserError: the environment cannot be made, or its spaces have no columns.
    """

    def __init__(self, recipe: Recipe, told: Told | None = None, player: Player | None = None, silent: float = SILENT):
        """Begin; an environment that does not answer for `silent` seconds is told of, and waited for."""
        self.recipe, self._told, self._player = recipe, told, player
        self.save: Save = lambda learning: None
        self.environment = make_environment(recipe.environment)
        observations = SpaceSpec.from_gymnasium(self.environment.observation_space)
        actions = SpaceSpec.of_actions(self.environment.action_space)
        self.spaces = training_spaces(observations, actions)
        self.contract = contract_in(self.environment, Recorded(recipe.name, observations, actions))
        self._turns, self._place = Turns(self.contract.where, silent), Place()
        self.rng = np.random.default_rng(recipe.seed)
        self.replay = Replay(recipe.steps + recipe.policy_steps, self.contract)
        self.population: Population | None = None
        self._returns = list[float]()
        self.checks, self.policies = list[Check](), list[dict[str, Tensor]]()  # as many
        self.learned: int | None = None  # steps of learning, once it is over

    @property
    def recorded(self) -> Recorded:
        """The spaces of the rows."""
        return self.contract.recorded

    def learn(self) -> None:
        """Play all steps of learning, or those up to the return asked for; the last episode may be cut short."""
        if self._is_checked and not self.checks:
            self._check()
        while self.learned is None and len(self.replay) < self.recipe.steps:
            self._episode(self.recipe.steps)
        if self.learned is None:
            self.learned = len(self.replay)

    def play(self) -> None:
        """Play the steps of the policy, which learns no more; the last episode may be cut short."""
        assert self.learned is not None
        total = self.learned + self.recipe.policy_steps
        while len(self.replay) < total:
            self._episode(total)

    def reached(self) -> Reached | None:
        """Return what gives the data their quality, and become the policy of then; None: the replay needs nothing.

        Raises:
            UserError: the learner did not reach it.
        """
        if not self._is_checked:
            return None
        step = reached(self.recipe.quality, self.checks, self.recipe.medium_return, self.recipe.warm_up)
        if self.population is not None:
            self.population.networks.load_state_dict(self.policies[step.place])
        return step

    @property
    def _is_checked(self) -> bool:
        return self.recipe.quality != REPLAY

    def _check(self) -> None:
        """Play a few episodes without noise, elsewhere, and keep the policy and its mean return."""
        gained, environment = np.zeros(CHECK_EPISODES), make_environment(self.recipe.environment)
        rng = np.random.default_rng(CHECK_SEED)
        for episode in range(CHECK_EPISODES):
            seen = self._seen(self._turns.begin(environment, CHECK_SEED + episode)[0])
            for _ in range(CHECK_STEPS):
                action = self._uniform(rng) if self.population is None else self.population.act(seen)[0, 0].numpy()
                sent = self.contract.actions(np.asarray(action)[None])[0]
                turn = self._turns.play(environment, sent)
                gained[episode] += turn.reward
                if turn.terminated or turn.truncated:
                    break
                seen = self._seen(turn.observation)
        environment.close()  # type: ignore[no-untyped-call]
        self.checks.append(Check(len(self.replay), float(gained.mean())))
        networks = self.population.networks.state_dict() if self.population else {}
        self.policies.append({name: values.clone() for name, values in networks.items()})

    def _check_in_time(self) -> bool:
        """Check the policy now and then, and after the last step; return whether it is what was asked for."""
        rows, recipe = len(self.replay), self.recipe
        if not self._is_checked or (rows % max(1, recipe.steps // recipe.checks) and rows != recipe.steps):
            return False
        self._check()
        wanted = recipe.medium_return
        return wanted is not None and rows > recipe.warm_up and self.checks[-1].gained >= wanted

    def state(self) -> dict[str, Any]:
        """Return what is known between two episodes besides `replay` and `policies`, as `write_plain` takes it."""
        population = self.population
        return {
            "ends": self.replay.ends,
            "rng": self.rng.bit_generator.state,
            "returns": self._returns[-RECENT:],
            "checks": [tuple(check) for check in self.checks],
            "learned": self.learned,
            "population": population and [population.networks.state_dict(), population.state_dict()],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; `replay` has its rows and `policies` are there."""
        rows, self.replay.ends = len(self.replay), state["ends"]
        self.rng.bit_generator.state = state["rng"]
        self._returns, self.learned = state["returns"], state["learned"]
        self.checks = [Check(*check) for check in state["checks"]]
        if state["population"]:
            self.replay.rows = self.recipe.warm_up  # as when it was new
            self.population = self._new_population()
            self.replay.rows = rows
            networks, rest = state["population"]
            self.population.networks.load_state_dict(networks)
            self.population.load_state_dict(rest)
        self._tell()

    def repeats(self, first: int) -> bool:
        """Play the episodes from number `first` on once more in a new environment; return whether they are the same.

        What was played is then known to the environment, and to a player, if they keep something of it.
        """
        self.environment = make_environment(self.recipe.environment)
        replay = self.replay
        for number in range(first, len(replay.ends)):
            observation, choose = self._begin(number)
            for row in range(replay.ends[number - 1][0] if number else 0, replay.ends[number][0]):
                given, stored = copied(observation), replay.numbers["actions"][row]
                action = self._given(choose, observation) if choose else stored
                observation, reward, terminated, _, _ = self._step(action)
                numbers = {"actions": action, "rewards": reward, "terminateds": terminated}
                if not replay.has(row, given, copied(observation), **numbers):
                    return False
        return True

    def _begin(self, number: int) -> tuple[Any, Callable[[Any], Any] | None]:
        """Return the first observation of an episode, and the player's function, if one plays."""
        choose = self._player.begin(self.environment, number) if self._player else None
        self._place = Place(episode=number)
        return self._turns.begin(self.environment, self.recipe.seed + number, self._place)[0], choose

    def _step(self, action: Array) -> Turn:
        """Return what the environment answers to a stored action."""
        return self._turns.play(self.environment, self.contract.actions(action[None])[0], self._place)

    def _episode(self, until: int) -> None:
        """Play an episode, or as much of it as there are rows `until` this one."""
        replay, gained, over = self.replay, 0.0, False
        observation, choose = self._begin(len(replay.ends))
        seen, given = self._seen(observation), copied(observation)
        while not over and len(replay) < until:
            action = self._given(choose, observation) if choose else self._choose(seen)
            observation, reward, terminated, truncated, _ = self._step(action)
            if not abs(reward) <= LARGEST:  # NaN neither
                raise UserError(f"{self.contract.where} gives the reward {reward} at step {len(replay)}: correct it")
            seen, after = self._seen(observation), copied(observation)
            replay.append(given, after, actions=action, rewards=reward, terminateds=terminated)
            given, gained, over = after, gained + reward, terminated or truncated
            if self.learned is None:
                self._update()
                if self._check_in_time():
                    self.learned = until = len(replay)
            if len(replay) % TOLD == 0:
                self._tell()
        replay.ends.append((len(replay), terminated))
        self._returns.append(gained)
        self.save(self)

    def _tell(self) -> None:
        if self._told:
            self._told(len(self.replay), float(np.mean(self._returns[-RECENT:])) if self._returns else None)

    def _given(self, choose: Callable[[Any], Any], observation: Any) -> Array:
        """Return the player's action as it is stored.

        Raises:
            UserError: it is none of the environment's; says at which step.
        """
        assert self._player
        where = f"{self._player.name} at step {len(self.replay)}"
        try:
            action = np.asarray(choose(observation))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        except Exception as error:  # of whoever wrote it
            raise UserError(f"{where} raises {first_line(error)}") from error
        space = self.recorded.actions
        if action.shape != space.shape:
            raise UserError(f"{where} gives an action of shape {action.shape}: return one of shape {space.shape}")
        try:
            stored: Array = from_env_actions(space, action[None])[0]
        except UserError as error:
            raise UserError(f"{where}: {str(error).rpartition(':')[0] or error}: return another action") from None
        return np.asarray(stored)

    def _seen(self, observation: Any) -> Observations:
        """Return an observation as networks take it, [1, 1, *observation]."""
        parts = self.contract.observe(observation)
        if parts is None:
            raise UserError(
                f"{self.contract.where} gives NaN or infinity in an observation at step {len(self.replay)}: correct it"
            )
        seen = {name: torch.from_numpy(np.asarray(part))[None, None] for name, part in parts.items()}
        return seen.get("", seen)

    def _choose(self, seen: Observations) -> Array:
        """Return a stored action: ε-greedy, or a sample of the policy; uniform before training."""
        action, population = self._action(seen), self.population
        if population is not None and not self.contract.playable(action[None])[0]:
            raise UserError(f"the learner has diverged by step {len(self.replay)}: take smaller step sizes (--set)")
        return action

    def _action(self, seen: Observations) -> Array:
        population, n = self.population, self.spaces.n_actions
        if self.spaces.action_kind == "discrete":
            progress = len(self.replay) / self.recipe.steps if self.learned is None else 1.0
            if population is None or self.rng.random() < epsilon(self.recipe, progress):
                return self._uniform(self.rng)
            return np.asarray(population.act(seen).item(), np.int64)
        if population is None:
            return self._uniform(self.rng)
        noise = torch.from_numpy(self.rng.standard_normal((1, 1, n)).astype(np.float32))
        with torch.no_grad():
            mean, log_std = population.networks.actor(as_trained(population.networks, seen))  # type: ignore[operator]
            return squashed_sample(mean, log_std, noise)[0][0, 0].numpy()

    def _uniform(self, rng: np.random.Generator) -> Array:
        n = self.spaces.n_actions
        if self.spaces.action_kind == "discrete":
            return np.asarray(rng.integers(n), np.int64)
        return rng.uniform(-1.0, 1.0, n).astype(np.float32)

    def _update(self) -> None:
        """Begin to learn after the warm-up, and go on with each step until the last."""
        rows, recipe = len(self.replay), self.recipe
        if recipe.algorithm in UNTAUGHT:
            return
        if rows == recipe.warm_up:
            self.population = self._new_population()
        elif self.population is not None:
            self.population.steps.batches.sampler.rows = [rows]
            self.population.update(1)

    def _new_population(self) -> Population:
        kind = self.spaces.action_kind
        spec = find(self.recipe.algorithm, kind)
        return Population.of(spec, [member_of(self.recipe, kind)], self.replay, self.spaces)


def copied(observation: Any) -> dict[str, Array]:
    """Return the parts of an observation on memory of their own, which the environment's next step leaves alone."""
    return {name: np.array(part) for name, part in named_parts(observation).items()}


def epsilon(recipe: Recipe, progress: float) -> float:
    """Return the share of random actions, falling linearly."""
    first, last, by = recipe.exploration
    return last + (first - last) * max(0.0, 1.0 - progress / by)
