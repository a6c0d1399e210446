"""Observations minus their mean, over their standard deviation, both of the data.

Bytes are left alone: networks divide them by 255. The statistics are buffers of the networks, so that a checkpoint made
for inference carries them. They are applied once a batch, before any network or regulariser sees it.
"""

import torch
from torch import Tensor, nn

from dr3_ray.data.n_step import Rows
from dr3_ray.data.number_types import Array
from dr3_ray.data.tasks import SEEN, TASK
from dr3_ray.errors import UserError
from dr3_ray.observations import Observations, each_part
from dr3_ray.types import Spaces

BEHIND = "observation_task"  # the buffer with the task of a mixture's target, where it stands behind vectors
EPSILON = 1e-3  # added to the standard deviation, as in TD3+BC and CORL
ROWS_AT_ONCE = 65_536
BYTES_AT_ONCE = 2**30  # of them, where they have images beside numbers

Statistics = tuple[Observations, Observations]  # mean and standard deviation, each [*observation], of every part


def observation_statistics(data: Rows) -> Statistics:
    """Return mean and (population) standard deviation of every component over all rows, in float64.

    Of a dict observation, those of the parts that are not bytes. Tasks of a mixture stay as they are: 0 and 1 − ε.

    Raises:
        UserError: nothing else is left.
    """
    tasks = getattr(data, "tasks", 0)
    at_once = min(ROWS_AT_ONCE, max(1, BYTES_AT_ONCE // getattr(data, "row_bytes", 1)))
    batches = torch.split(torch.arange(len(data)), at_once)

    def floats(rows: Tensor) -> Observations:
        """Return the observations of these rows, without parts that are bytes."""
        observations: Observations = data.gather(rows, ("observations",))["observations"]
        if isinstance(observations, dict):
            kept = {name: part for name, part in observations.items() if part.dtype != torch.uint8}
            observations = {name: part for name, part in kept.items() if not (tasks and name == TASK)}
        if (isinstance(observations, Tensor) and observations.dtype == torch.uint8) or not len(observations):
            raise UserError("normalize_observations has no effect on bytes, which are divided by 255: leave it out")
        return observations

    def mean(centers: Observations, power: int) -> Observations:
        """Return the mean of (observation − center)^power over the data, part by part."""
        sums = [
            each_part(lambda part, center: (part.double() - center).pow(power).sum(0), floats(rows), centers)
            for rows in batches
        ]
        return each_part(lambda *parts: torch.stack(parts).sum(0) / len(data), *sums)  # type: ignore[no-any-return]

    zeros = each_part(lambda part: torch.zeros(part.shape[1:]), floats(batches[0][:1]))
    center = mean(zeros, 1)
    scale: Observations = each_part(Tensor.sqrt, mean(center, 2))
    if tasks and isinstance(center, Tensor) and isinstance(scale, Tensor):
        center[-tasks:], scale[-tasks:] = 0.0, 1.0 - EPSILON
    return center, scale


def normalize_by(networks: nn.Module, statistics: Statistics) -> None:
    """Give these networks the statistics that `normalized` uses from now on."""
    mean, std = statistics
    for name, value in mean.items() if isinstance(mean, dict) else [("", mean)]:
        scale = std[name] if isinstance(std, dict) else std
        networks.register_buffer(_buffer("mean", name), value.to(torch.get_default_dtype()))
        networks.register_buffer(_buffer("scale", name), scale.to(torch.get_default_dtype()) + EPSILON)


def act_in(networks: nn.Module, spaces: Spaces, task: Tensor | Array | None) -> None:
    """Give these networks the one-hot [tasks] of the task that `as_trained` adds to observations; None: nothing."""
    if task is not None:
        apart = isinstance(spaces.observation_shape, dict)
        name = _buffer("task", TASK) if apart else BEHIND
        networks.register_buffer(name, torch.as_tensor(task, dtype=torch.get_default_dtype()))


def as_trained(networks: nn.Module, observations: Observations) -> Observations:
    """Return observations of the environment [K, B, *observation] as the networks were trained on them.

    With the task that they act in where they were told which, and normalised.
    """
    behind, apart = (getattr(networks, name, None) for name in (BEHIND, _buffer("task", TASK)))
    if behind is not None and isinstance(observations, Tensor):
        observations = torch.cat([observations, behind.expand(*observations.shape[:-1], -1)], dim=-1)
    if apart is not None:
        parts = observations if isinstance(observations, dict) else {SEEN: observations}
        observations = {**parts, TASK: apart.expand(*next(iter(parts.values())).shape[:2], -1)}
    return normalized(networks, observations)


def normalized(networks: nn.Module, observations: Observations) -> Observations:
    """Return (s − mean) / (std + ε) where the networks have statistics, else s; observations [*batch, *observation]."""
    if isinstance(observations, dict):
        return {name: _normalized(networks, name, part) for name, part in observations.items()}
    return _normalized(networks, "", observations)


def _normalized(networks: nn.Module, name: str, part: Tensor) -> Tensor:
    mean = getattr(networks, _buffer("mean", name), None)
    return part if mean is None else (part - mean) / getattr(networks, _buffer("scale", name))


def _buffer(statistic: str, name: str) -> str:
    return f"observation_{statistic}" + (f"/{name}".replace(".", "/") if name else "")
