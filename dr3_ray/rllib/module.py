"""The RLModule: the stacked networks of all members."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.typing import StateDict
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.data import SpaceSpec
from dr3_ray.data.spaces import named_parts, training_spaces
from dr3_ray.errors import UserError
from dr3_ray.member import Member, build_networks
from dr3_ray.networks.members import member_view
from dr3_ray.observations import Observations, each_part
from dr3_ray.population import act
from dr3_ray.types import Spaces


def spaces_of(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> Spaces:
    """What the training core needs to know of two Gymnasium spaces; UserError for those it cannot learn in."""
    return training_spaces(SpaceSpec.from_gymnasium(observation_space), SpaceSpec.from_gymnasium(action_space))


def module_state_of(state: StateDict, rows: Sequence[int]) -> StateDict:
    """These members' part of a module's state; the buffers of `networks` itself are everybody's."""
    return {name: values[list(rows)] if name.count(".") > 1 else values for name, values in state.items()}


class PopulationModule(TorchRLModule, InferenceOnlyAPI):
    """`model_config` holds the algorithm's name, the members' full configurations, the data's spaces, and statistics.

    Inference is deterministic: the greedy action of a critic, the mode of a policy (for a squashed Gaussian tanh of
    the mean, in [−1, 1]). RLlib's own inference calls act with the first member; `act_all` acts with all of them.
    """

    def setup(self) -> None:
        """Build the networks; each member's first weights come from its own seed."""
        self.spaces = spaces_of(self.observation_space, self.action_space)
        if self.spaces != (expected := self.model_config["spaces"]):
            raise UserError(f"the environment has {self.spaces}, the data set {expected}: name one of equal spaces")
        self.spec = find(self.model_config["algorithm"], self.spaces.action_kind)
        members = [Member.from_dict(self.spec, values) for values in self.model_config["members"]]
        statistics = self.model_config.get("observation_statistics")
        self.networks = build_networks(
            self.spec, self.spaces, members, statistics and tuple(each_part(torch.tensor, each) for each in statistics)
        )
        self.n_members = len(members)
        if self.inference_only:
            for name in self._not_for_inference():
                delattr(self.networks, name)  # here, because RLlib 2.60 cannot delete a nested attribute

    def act_all(self, observations: Observations) -> Tensor:
        """Deterministic actions of all members at observations [K, N, *observation], or their parts by name."""
        return act(self.spec, self.networks, observations)

    def policy(self, rows: Sequence[int]) -> Callable[[Observations], Tensor]:
        """`act_all` of these members, with a copy of their parameters, which another process can be sent."""
        return partial(act, self.spec, member_view(self.networks, list(rows)))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        parts = {name: torch.as_tensor(part) for name, part in named_parts(batch[Columns.OBS]).items()}
        seen = {name: part.expand(self.n_members, *part.shape) for name, part in parts.items()}
        return {Columns.ACTIONS: self.act_all(seen.get("", seen))[0]}  # without a name: a plain observation

    def get_state(self, *args: Any, **kwargs: Any) -> StateDict:
        """A copy of the parameters: RLlib's arrays share memory with them and would change with training."""
        return {name: np.copy(values) for name, values in super().get_state(*args, **kwargs).items()}

    def get_non_inference_attributes(self) -> list[str]:
        """Target networks, what belongs to DR3, and the critic where there is an actor, are not needed to act."""
        return [f"networks.{name}" for name in self._not_for_inference()]

    def _not_for_inference(self) -> list[str]:
        names = [name for name, _ in self.networks.named_children()]
        return [
            name for name in names if name.startswith(("target_", "dr3_")) or (name != "actor" and "actor" in names)
        ]
