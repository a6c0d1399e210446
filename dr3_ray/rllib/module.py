"""The RLModule: the stacked networks of all members."""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.typing import StateDict
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.cluster.pickles import check_trusted
from dr3_ray.data.actions import to_env_actions
from dr3_ray.data.spaces import SpaceSpec, named_parts, training_spaces
from dr3_ray.data.tasks import with_tasks
from dr3_ray.errors import UserError
from dr3_ray.evaluation.contract import Recorded, playable
from dr3_ray.networks.members import member_view
from dr3_ray.observations import Observations, check_bytes, each_part
from dr3_ray.rllib.checkpoint import folder_to_read, folder_to_write, write_constructor
from dr3_ray.runs.plain import is_plain, read_plain, write_plain
from dr3_ray.training.member import Member, build_networks
from dr3_ray.training.population import act
from dr3_ray.training.saved import NAME, description, model_config_of, task_of


def module_state_of(state: StateDict, rows: Sequence[int]) -> StateDict:
    """Return these members' part of a module's state; the buffers of `networks` itself are everybody's."""
    return {name: values[list(rows)] if name.count(".") > 1 else values for name, values in state.items()}


def write_module(folder: Path, plain: dict[str, Any], state: StateDict) -> None:
    """Write a module's plain values, as `PopulationModule.plain` has them, and its state."""
    folder.mkdir(parents=True, exist_ok=True)
    write_plain(folder, NAME, plain | {"state": dict(state)})


class PopulationModule(TorchRLModule, InferenceOnlyAPI):
    """The stacked networks of all members as an RLModule.

    `model_config` holds the algorithm's name, the members' full configurations, what was `recorded`, statistics, and
    the task to act in.
    Inference is deterministic: the greedy action of a critic, the mode of a policy (for a squashed Gaussian tanh of
    the mean, in [−1, 1]). RLlib's own inference calls act with the first member; `act_all` acts with all of them.
    """

    def setup(self) -> None:
        """Build the networks for the data's spaces; each member's first weights come from its own seed."""
        self.recorded = Recorded.from_dict(self.model_config["recorded"])
        self.spaces, task = (
            training_spaces(self.recorded.observations, self.recorded.actions),
            task_of(self.model_config),
        )
        if task is not None:
            self.spaces = with_tasks(self.spaces, self.recorded.observations, len(task))
        self.observation_space, self.action_space = self.recorded.to_gymnasium()
        self.spec = find(self.model_config["algorithm"], self.spaces.action_kind)
        members = [Member.from_dict(self.spec, values) for values in self.model_config["members"]]
        statistics = self.model_config.get("observation_statistics")
        self.networks = build_networks(
            self.spec,
            self.spaces,
            members,
            statistics and tuple(each_part(torch.tensor, array) for array in statistics),
            task,
        )
        self.n_members, self._first = len(members), members[0]
        if self.inference_only:
            for name in self._not_for_inference():
                delattr(self.networks, name)  # here, because RLlib 2.60 cannot delete a nested attribute

    def save_to_path(self, path: Any = None, *, state: Any = None, filesystem: Any = None, **_: Any) -> str:
        """Write a folder without a pickled state, and RLlib's constructor beside it; return its path."""
        path = path or tempfile.mkdtemp()
        with folder_to_write(path, filesystem) as folder:
            (folder / self.METADATA_FILE_NAME).write_text(json.dumps(self.get_metadata()))
            write_module(folder, self.plain(), state or self.get_state())
            write_constructor(folder, type(self), self.get_ctor_args_and_kwargs())
        return os.fspath(path)

    def restore_from_path(
        self, path: Any, *, component: str | None = None, filesystem: Any = None, trust: bool = False, **_: Any
    ) -> None:
        """Take the parameters in such a folder, or with `trust` those that version 0.1 pickled.

        Raises:
            UserError: there are none, damaged ones, or ones that are not trusted.
        """
        with folder_to_read(path, filesystem) as folder:
            if is_plain(folder, NAME):
                return self.set_state(read_plain(folder, NAME)["state"])
            check_trusted(f"the checkpoint in {path}", trust)
            super().restore_from_path(folder)

    @classmethod
    def from_checkpoint(cls, path: Any, filesystem: Any = None, **_: Any) -> Self:
        """Return the module saved in `path`; nothing is unpickled, as `RLModule.from_checkpoint` would."""
        with folder_to_read(path, filesystem) as folder:
            saved = read_plain(folder, NAME)
        observations, actions = (SpaceSpec.model_validate(space).to_gymnasium() for space in saved["spaces"])
        module = cls(
            observation_space=observations,
            action_space=actions,
            inference_only=saved["inference_only"],
            model_config=model_config_of(saved["description"]),
        )
        module.set_state(saved["state"])
        return module

    def plain(self) -> dict[str, Any]:
        """Return the arguments that the module is built from, as plain values."""
        spaces = [SpaceSpec.from_gymnasium(self.observation_space), SpaceSpec.of_actions(self.action_space)]
        return {
            "description": description(self.model_config, self.spaces),
            "inference_only": self.inference_only,
            "spaces": [space.model_dump(mode="json") for space in spaces],
        }

    def act_all(self, observations: Observations) -> Tensor:
        """Return deterministic actions of all members at observations [K, N, *observation], or their parts by name."""
        return act(self.spec, self.networks, observations)

    def policy(self, rows: Sequence[int]) -> Callable[[Observations], Tensor]:
        """Return `act_all` of these members, with a copy of their parameters that another process can be sent."""
        return partial(act, self.spec, member_view(self.networks, list(rows)))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        given, spaces = named_parts(batch.get(Columns.OBS)), self.recorded.observations.parts
        if missing := [name for name in spaces if given.get(name) is None]:
            raise UserError(
                f"the batch has no observations{missing[0] and f'/{missing[0]}'}: give {{'obs': observations}}"
            )
        parts = {name: torch.as_tensor(given[name]) for name in spaces}
        for name, part in parts.items():
            if part.shape[1:] != spaces[name].shape or not part.ndim or not len(part):
                raise UserError(
                    f"observations{name and f'/{name}'} are {tuple(part.shape)}: give a batch of those of shape "
                    f"{spaces[name].shape}"
                )
        check_bytes(parts, {name: space.dtype == "uint8" for name, space in self.recorded.observations.parts.items()})
        seen = {name: part.expand(self.n_members, *part.shape) for name, part in parts.items()}
        actions = self.act_all(seen.get("", seen))[0]  # without a name: a plain observation
        if not playable(self.recorded.actions, actions.cpu().numpy()).all():
            raise UserError("the policy gives NaN or infinity for an action: train it with smaller step sizes")
        if self.recorded.actions.choices is not None:
            actions = torch.from_numpy(to_env_actions(self.recorded.actions, actions.cpu().numpy()))
        return {Columns.ACTIONS: actions.reshape(len(actions), *self.recorded.actions.shape)}

    def get_state(self, *args: Any, **kwargs: Any) -> StateDict:
        """Return a copy of the parameters: RLlib's arrays share memory with them and would change with training."""
        return {name: np.copy(values) for name, values in super().get_state(*args, **kwargs).items()}

    def get_non_inference_attributes(self) -> list[str]:
        """Name what acting does without: targets, regularisers' networks, and the critic where there is an actor."""
        return [f"networks.{name}" for name in self._not_for_inference()]

    def _not_for_inference(self) -> list[str]:
        names = [name for name, _ in self.networks.named_children()]
        if "actor" in names:
            return [name for name in names if name != "actor"]
        return [name for name in names if name.startswith("target_") or self._first.follows_critic(name)]
