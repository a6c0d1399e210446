"""The networks of a checkpoint, with all that is needed to build them again: read without running code, without Ray."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.errors import UserError, first_line
from dr3_ray.networks.members import members_together
from dr3_ray.observations import each_part
from dr3_ray.runs.plain import DAMAGES, read_plain
from dr3_ray.training.member import Member, build_networks, check_members
from dr3_ray.types import Spaces

PLACE = "learner_group/learner/rl_module/default_policy"  # in an algorithm's checkpoint, where RLlib has it
NAME = "module_state"
STATE, METADATA = "algorithm_state", "rllib_checkpoint.json"  # and the state of all else, and what is told of both
PREFIX = "networks."  # of parameters in RLlib's module


class Trained(NamedTuple):
    """K trained members: their algorithm, spaces, full configurations, and stacked networks on the CPU."""

    spec: AlgorithmSpec
    spaces: Spaces
    members: list[dict[str, Any]]
    networks: nn.Module
    recorded: dict[str, Any]
    """The spaces of the data, as `evaluation.contract.Recorded.to_dict` writes them."""
    return_range: float = 1.0
    """What rewards were divided by in training, beside the option `reward_scale`."""


def description(model_config: dict[str, Any], spaces: Spaces) -> dict[str, Any]:
    """Describe a module's networks as plain values, by which they are built again."""
    plain = ("algorithm", "members", "observation_statistics", "recorded", "task", "return_range")
    kept = {name: model_config[name] for name in plain if name in model_config}
    return kept | {"spaces": spaces._asdict()}


def model_config_of(described: dict[str, Any]) -> dict[str, Any]:
    """Return the `model_config` that `description` described."""
    return described | {"spaces": Spaces(**described["spaces"])}


def task_of(model_config: dict[str, Any]) -> torch.Tensor | None:
    """Return the one-hot of the task that a module acts in; None: it was trained without."""
    task = model_config.get("task")
    return None if task is None else torch.tensor(task)


def read_networks(checkpoint: Path) -> Trained:
    """Read the networks of a checkpoint with their members; nothing is unpickled.

    Raises:
        UserError: the checkpoint is damaged, or there is none.
    """
    saved = read_plain(checkpoint / PLACE, NAME)
    try:
        config = model_config_of(saved["description"])
        spec = find(config["algorithm"], config["spaces"].action_kind)
        members = [Member.from_dict(spec, values) for values in config["members"]]
        statistics = config["observation_statistics"]
        tensors = statistics and tuple(each_part(torch.tensor, array) for array in statistics)
        networks = build_networks(spec, config["spaces"], members, tensors, task_of(config))
        state = {name.removeprefix(PREFIX): torch.as_tensor(values) for name, values in saved["state"].items()}
        networks.load_state_dict(state)
    except (UserError, RuntimeError, *DAMAGES) as error:
        raise UserError(f"{checkpoint} holds no networks that can be built ({first_line(error)})") from None
    recorded, divisor = config.get("recorded", {}), config.get("return_range", 1.0)
    return Trained(spec, config["spaces"], config["members"], networks, recorded, divisor)


def join(trained: Sequence[Trained], most: int) -> list[tuple[Trained, list[int]]]:
    """Put members of several checkpoints into as few stacks of networks as they fit in, of at most so many each.

    Returns each stack with the places of those that are in it, one after the other. Only what can be one pack is put
    together: one algorithm, one structure, and the same statistics of observations.
    """
    groups: list[list[int]] = []
    for place, one in enumerate(trained):
        for group in groups:
            several = [trained[network] for network in group] + [one]
            if sum(len(network.members) for network in several) <= most and _may_join(several):
                group.append(place)
                break
        else:
            groups.append([place])
    return [(_joined([trained[place] for place in group]), group) for group in groups]


def _may_join(several: Sequence[Trained]) -> bool:
    first, last = several[0], several[-1]
    same = first.spec is last.spec and first.spaces == last.spaces and first.return_range == last.return_range
    ours, theirs = _of_everybody(first), _of_everybody(last)
    if not same or ours.keys() != theirs.keys():
        return False
    try:
        check_members(first.spec, first.spaces, _members_of(several))
    except UserError:
        return False
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def _of_everybody(trained: Trained) -> dict[str, torch.Tensor]:
    """Return the buffers without a dimension of members: what observations are normalised by, and the task."""
    return {name: buffer for name, buffer in trained.networks.named_buffers() if "." not in name}


def _members_of(several: Sequence[Trained]) -> list[Member]:
    return [Member.from_dict(networks.spec, values) for networks in several for values in networks.members]


def _joined(several: Sequence[Trained]) -> Trained:
    """Return the networks of several checkpoints, stacked."""
    first = several[0]
    networks = members_together([networks.networks for networks in several]) if len(several) > 1 else first.networks
    return first._replace(members=[values for networks in several for values in networks.members], networks=networks)
