"""A trained policy that takes its environment's observations and gives its environment's actions."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dr3_ray.data.actions import from_env_actions
from dr3_ray.data.spaces import named_parts
from dr3_ray.errors import UserError, first_line
from dr3_ray.evaluation.contract import Recorded, contract, contract_in
from dr3_ray.evaluation.fqe import played_value
from dr3_ray.networks.members import member_view
from dr3_ray.observations import Observations
from dr3_ray.training.normalization import as_trained
from dr3_ray.training.population import act
from dr3_ray.training.saved import Trained

Array = npt.NDArray[Any]


class Policy:
    """A trained member: observations, normalised where it was trained so, to actions in its environment's units.

    `config` is the member's full configuration, or of a bare checkpoint its options; `chosen` says in a sentence how it
    was chosen among others.
    """

    def __init__(
        self, trained: Trained, row: int = 0, config: Mapping[str, Any] = MappingProxyType({}), chosen: str = ""
    ) -> None:
        """Take the member at a `row` of what was `trained`; `config` is what a run knows of it beyond its options.

        Raises:
            UserError: its algorithm only evaluates the behaviour policy, or it diverged.
        """
        self.spec, self.recorded, self.chosen = trained.spec, Recorded.from_dict(trained.recorded), chosen
        self.config: dict[str, Any] = {**trained.members[row], **config}
        self._scale: float = trained.members[row].get("reward_scale", 1.0) / trained.return_range
        if self.spec.act is None:
            raise UserError(f"{self.spec.name} on these actions evaluates the data's policy, and has none of its own")
        self.networks: Any = member_view(trained.networks, [row]).eval().requires_grad_(False)
        if not all(bool(parameter.isfinite().all()) for parameter in self.networks.parameters()):
            raise UserError("this member diverged, its parameters are not finite: choose another one")
        self._contract = contract(self.recorded, *self.recorded.to_gymnasium(), "this policy")

    @property
    def observation_space(self) -> gym.Space[Any]:
        """The space of observations, as the data were recorded in."""
        return self.recorded.to_gymnasium()[0]

    @property
    def action_space(self) -> gym.Space[Any]:
        """The space of actions, as the data were recorded in."""
        return self.recorded.to_gymnasium()[1]

    def act(self, observation: Any, sample: bool = False, generator: torch.Generator | None = None) -> Any:
        """Choose the action of one observation, or of a batch of N.

        Args:
            observation: [*observation] or [N, *observation], of a Dict space its parts by name; the environment's own.
            sample: Draw from the policy's distribution, instead of its mode.
            generator: What `sample` draws from; None: torch's own.

        Returns:
            An action of the environment's space, or N of them in an array.

        Raises:
            UserError: no observation of this space, an action that is NaN, or nothing to `sample` from.
        """
        seen, batched = self._seen(observation)
        with torch.no_grad():
            actions = self._sampled(seen, generator) if sample else act(self.spec, self.networks, seen)
        stored = actions[0].numpy()
        if not self._contract.playable(stored).all():
            raise UserError("the policy gives NaN or infinity for an action: it has diverged, choose another one")
        played = self._contract.actions(stored)
        return np.stack(played) if batched else played[0]

    def in_environment(
        self, environment: gym.Env[Any, Any], sample: bool = False, generator: torch.Generator | None = None
    ) -> Callable[[Any], Any]:
        """Return a function of an environment's observation that chooses the environment's action.

        The environment may differ from the data as it may in evaluation; `sample` and `generator` are those of `act`.

        Raises:
            UserError: it does not fit the data.
        """
        agreed = contract_in(environment, self.recorded)

        def choose(observation: Any) -> Any:
            parts = agreed.observe(observation)
            if parts is None:
                raise UserError(f"{agreed.where} gives NaN or infinity in an observation: correct it")
            given = {name: torch.from_numpy(np.asarray(part))[None, None] for name, part in parts.items()}
            seen = given.get("", given)
            with torch.no_grad():
                actions = self._sampled(seen, generator) if sample else act(self.spec, self.networks, seen)
            stored = actions[0].numpy()
            if not agreed.playable(stored).all():
                raise UserError("the policy gives NaN or infinity for an action: it has diverged, choose another one")
            return agreed.actions(stored)[0]

        return choose

    def q(self, observation: Any, action: Any) -> Array:
        """Evaluate Q(s, a): the least of several critics, the mean of heads or quantiles; [N], or one number.

        In the data's unit of reward, whatever `reward_scale` and `reward_scaling` were; of rewards that were shifted or
        cut it is the value of those.

        Raises:
            UserError: no observation or action of these spaces, or the algorithm has no critic.
        """
        seen, actions, batched = self._pairs(observation, action)
        with torch.no_grad():
            values = played_value(self.networks.critic, as_trained(self.networks, seen), actions).amin(1)[0].numpy()
        scaled: Array = values / self._scale
        return scaled if batched else scaled[0]

    def features(self, observation: Any, action: Any) -> Array:
        """Return φ(s, a), the input of the last layer of each of C critics: [N, C, F], or [C, F].

        Raises:
            UserError: no observation or action of these spaces, or the algorithm has no critic.
        """
        seen, actions, batched = self._pairs(observation, action)
        with torch.no_grad():
            phi: Tensor = self.networks.critic.features(as_trained(self.networks, seen), actions)
        rows = phi[0].movedim(0, 1).numpy()
        return rows if batched else rows[0]

    def _seen(self, observation: Any) -> tuple[Observations, bool]:
        """Return observations as the networks take them, [1, N, *observation], and whether a batch was given."""
        given, parts, batched = named_parts(observation), {}, set()
        for name, part in self._contract.parts.items():
            values = _array(given.get(name), f"observation{name and f' {name!r}'}")
            ahead = values.ndim - len(part.shape)
            what = f"observation{name and f' {name!r}'}"
            if name not in given or values.shape[ahead:] != part.shape or ahead not in (0, 1):
                shape = f"shape {values.shape}" if name in given else "nothing"
                raise UserError(f"{what} has {shape}: give shape {part.shape}, or {('N', *part.shape)} for a batch")
            if values.size == 0:
                raise UserError(f"{what} is an empty batch: give at least one")
            if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
                raise UserError(f"{what} is not of finite numbers: correct it")
            try:
                parts[name] = torch.from_numpy(np.atleast_1d(part.convert(values)))
            except ValueError as error:
                raise UserError(f"{what} has {str(error).rstrip(',')}: correct it") from None
            batched.add(ahead == 1)
            if ahead == 0:
                parts[name] = parts[name].reshape(1, *part.shape)
            parts[name] = parts[name].unsqueeze(0)
        if len(batched) > 1 or len({len(part[0]) for part in parts.values()}) > 1:
            raise UserError("the parts of the observation are not equally many: give all of them, or a batch of each")
        return parts.get("", parts), batched.pop()

    def _pairs(self, observation: Any, action: Any) -> tuple[Observations, Tensor, bool]:
        if not self.spec.has_critic:
            raise UserError(f"{self.spec.name} has no critic: it can only `act`")
        seen, batched = self._seen(observation)
        actions = _array(action, "action")
        rows = next(iter(seen.values())).shape[1] if isinstance(seen, dict) else seen.shape[1]
        shape = (*((rows,) if batched else ()), *self.recorded.actions.shape)
        if actions.shape != shape:
            raise UserError(f"action has shape {actions.shape}: give {shape}, one for each observation")
        stored = from_env_actions(self.recorded.actions, actions if batched else actions[None])
        return seen, torch.from_numpy(stored).unsqueeze(0), batched

    def _sampled(self, seen: Observations, generator: torch.Generator | None) -> Tensor:
        draw = getattr(getattr(self.networks, "actor", None), "sample", None)
        if draw is None:
            raise UserError(f"{self.spec.name} has a deterministic policy: leave out `sample`")
        actions: Tensor = draw(as_trained(self.networks, seen), generator)
        return actions


def _array(values: Any, what: str) -> Array:
    """Return values as an array, tensors too.

    Raises:
        UserError: rows have different lengths.
    """
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{what} is no array ({first_line(error)}): correct it") from None
