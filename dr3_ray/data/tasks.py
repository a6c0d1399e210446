"""Which task a row of a mixture shows: its one-hot behind a vector, or as a part of the observations beside others."""

from typing import TYPE_CHECKING

from dr3_ray.data.spaces import SpaceSpec

if TYPE_CHECKING:
    from dr3_ray.types import Spaces

TASK = "task"  # the part that is the one-hot
SEEN = "observation"  # the part that is the environment's observation, where that has no parts


def is_vector(space: SpaceSpec) -> bool:
    """Return whether observations are vectors of numbers, which padding and a task can stand behind."""
    return (space.kind, space.dtype, len(space.shape)) == ("box", "float32", 1)


def with_tasks(spaces: "Spaces", observations: SpaceSpec, tasks: int) -> "Spaces":
    """Return the spaces as networks are built for them where observations come with the one-hot of so many tasks."""
    if is_vector(observations):
        return spaces._replace(observation_shape=(observations.size + tasks,))
    shape = spaces.observation_shape
    parts = shape if isinstance(shape, dict) else {SEEN: shape}
    return spaces._replace(observation_shape={**parts, TASK: (tasks,)})
