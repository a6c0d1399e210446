"""The contract of a data set and an environment: what is converted between them, and what cannot be.

Networks are trained on observations as the data set holds them, and act in its terms. An environment may differ in
types, in bytes where the data have numbers from 0 to 1, in the number that its choices start from, in the order of
named parts and in parts of its own, and it may take a wider range of actions. Anything else is refused in one line.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Self

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dr3_ray.data import Dataset, SpaceSpec, to_env_actions
from dr3_ray.data.number_types import Array
from dr3_ray.data.spaces import named_parts
from dr3_ray.errors import UserError
from dr3_ray.evaluation.conversion import PartConversion, check_actions, conversion_of

REMEDY = "name the environment the data come from, wrap this one until they agree, or leave it out"


class Recorded(NamedTuple):
    """The spaces that a data set was recorded in, and its name."""

    name: str
    observations: SpaceSpec
    actions: SpaceSpec

    @classmethod
    def of(cls, data: Dataset) -> Self:
        """Return the spaces of an opened data set."""
        return cls(data.manifest.name, data.observation_space, data.action_space)

    def to_gymnasium(self) -> tuple[gym.Space[Any], gym.Space[Any]]:
        """Return the spaces of observations and of actions."""
        return self.observations.to_gymnasium(), self.actions.to_gymnasium()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which `from_dict` reads."""
        named = {"observations": self.observations, "actions": self.actions}
        return {"name": self.name} | {key: space.model_dump(mode="json") for key, space in named.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the inverse of `to_dict`.

        Raises:
            UserError: these are no such values.
        """
        try:
            named = {key: SpaceSpec.model_validate(values[key]) for key in ("observations", "actions")}
            return cls(str(values["name"]), **named)
        except (KeyError, TypeError, ValueError):
            raise UserError("what a checkpoint says of its data's spaces is damaged: take another one") from None


@dataclass(frozen=True)
class Contract:
    """The conversions between an environment and policies trained on a data set; `contract` makes it."""

    where: str
    """The environment, for messages."""
    recorded: Recorded
    parts: dict[str, PartConversion]
    """By name, those of the data; a plain observation is the only part, without a name."""
    action_space: gym.Space[Any]
    """Of the environment."""
    exact: bool
    """Whether numbers mean the same on both sides, those of actions in [−1, 1] as well."""

    def observe(self, observation: Any) -> dict[str, Array] | None:
        """Return the parts of one observation as networks take them; None if a number in it is NaN or infinite.

        Raises:
            UserError: it is no observation of the announced space.
        """
        given, seen = named_parts(observation), {}
        for name, part in self.parts.items():
            values = np.asarray(given[name]) if name in given else None
            if values is None or values.shape != part.shape or values.dtype.kind not in "biuf":
                got = f"{values.dtype} of shape {values.shape}" if values is not None else "nothing"
                raise UserError(
                    f"{self.where} announces observations{_called(name)} of shape {part.shape} and gives {got}: "
                    "correct it"
                )
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                return None
            try:
                seen[name] = part.convert(values)
            except ValueError as error:
                raise UserError(
                    f"{self.where} gives {error} in observations{_called(name)}: correct it, or {REMEDY}"
                ) from None
        return seen

    def playable(self, actions: Array) -> Array:
        """Return which of a policy's actions can be played, as the function `playable`."""
        return playable(self.recorded.actions, actions)

    def actions(self, stored: Array) -> list[Any]:
        """Return playable actions [N] or [N, A] of a policy as the environment takes them, N of them.

        Numbers are in the data's units: ±1 is the end of the range that was recorded, whatever the environment's is.
        """
        if self.recorded.actions.choices is not None:
            return list(to_env_actions(SpaceSpec.of_actions(self.action_space), stored))
        if isinstance(self.action_space, spaces.Discrete):
            return list((stored + self.action_space.start).astype(self.action_space.dtype))
        assert isinstance(self.action_space, spaces.Box)
        played = to_env_actions(self.recorded.actions, np.clip(stored, -1.0, 1.0))
        if np.dtype(self.action_space.dtype).kind in "iu":
            played = np.rint(played)
        # rounded to the environment's type, a number may be beyond its bound by the last digit
        played = np.clip(played.astype(self.action_space.dtype), self.action_space.low, self.action_space.high)
        return [played[number, ...] for number in range(len(played))]


def playable(space: SpaceSpec, actions: Array) -> Array:
    """Return which of a policy's actions [*lead] or [*lead, A] can be played, [*lead]: choices, or finite numbers."""
    if space.n is not None:
        return (actions >= 0) & (actions < space.n)
    return np.asarray(np.isfinite(actions).all(axis=-1))


def contract(
    recorded: Recorded, observation_space: gym.Space[Any], action_space: gym.Space[Any], where: str
) -> Contract:
    """Return the contract of a data set with an environment, called `where` in messages, that has these spaces.

    Raises:
        UserError: they are not provably of the same units and meaning; the line shows both spaces.
    """
    theirs, ours = named_parts(observation_space), recorded.observations.parts
    kinds = {isinstance(observation_space, spaces.Dict), recorded.observations.kind == "dict"}
    if len(kinds) > 1 or recorded.observations.kind == "discrete":
        _refuse(recorded, "observations", observation_space, where, "the kinds differ")
    parts = {}
    for name, spec in ours.items():
        try:
            parts[name] = conversion_of(spec, theirs.get(name))
        except ValueError as error:
            _refuse(recorded, "observations", observation_space, where, f"{error}{name and f' (part {name!r})'}")
    try:
        same = check_actions(recorded.actions, action_space)
    except ValueError as error:
        _refuse(recorded, "actions", action_space, where, str(error))
    plain = theirs.keys() == ours.keys() and all(
        part.scale == 1.0 and (part.trained == np.uint8) == (part.declared == np.uint8) for part in parts.values()
    )
    return Contract(where, recorded, parts, action_space, exact=plain and same)


def check_same(trained: Recorded, recorded: Recorded, where: str) -> None:
    """Check that two data sets mean the same by their numbers; a policy was trained on the first, called `where`.

    Raises:
        UserError: they do not.
    """
    try:
        exact = contract(recorded, *trained.to_gymnasium(), where).exact
    except UserError:
        exact = False
    if not exact:
        theirs, ours = (" and ".join(map(shown, space.to_gymnasium())) for space in (trained, recorded))
        raise UserError(f"{where} has {theirs}, the data set {recorded.name} {ours}: take data of equal spaces")


def contract_in(environment: gym.Env[Any, Any], recorded: Recorded) -> Contract:
    """Return the contract of a data set with an environment that was made.

    Raises:
        UserError: as `contract`.
    """
    return contract(recorded, environment.observation_space, environment.action_space, where_of(environment))


def where_of(environment: gym.Env[Any, Any]) -> str:
    """Name an environment that was made, for messages."""
    return f"environment {environment.spec.id if environment.spec else type(environment.unwrapped).__name__}"


def _called(name: str) -> str:
    return f" {name!r}" if name else ""


def _refuse(recorded: Recorded, what: str, theirs: gym.Space[Any], where: str, why: str) -> NoReturn:
    ours = recorded.observations if what == "observations" else recorded.actions
    stored = shown(ours.to_gymnasium())
    raise UserError(f"{where} has {what} {shown(theirs)}, the data set {recorded.name} {stored}, and {why}: {REMEDY}")


def shown(space: gym.Space[Any]) -> str:
    """Describe a space in one line."""
    return " ".join(str(space).split())
