"""Where the members of a sweep are rolled out."""

from collections.abc import Callable

from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data import Dataset, SpaceSpec
from dr3_ray.errors import UserError
from dr3_ray.evaluation.environments import make_environment


def environment_of(wanted: str, data: Dataset, say: Callable[[str], None]) -> str | None:
    """The name of the environment to roll out in, after making one and comparing its spaces with the data's."""
    automatic = wanted == "auto"
    name = data.manifest.environment if automatic else wanted
    if name is None or name == "none":
        return None
    try:
        environment = make_environment(name)
    except UserError as error:
        if not automatic:
            raise
        say(f"no rollouts in {name}: {error}")
        return None
    played = [SpaceSpec.from_gymnasium(space) for space in (environment.observation_space, environment.action_space)]
    environment.close()
    for space, stored, what in zip(played, (data.observation_space, data.action_space), ("observ", "act"), strict=True):
        if (space.kind, space.shapes, space.n) != (stored.kind, stored.shapes, stored.n):
            raise UserError(
                f"environment {name} has other {what}ions than the data set {data.manifest.name}: "
                "name the environment the data come from, or none"
            )
    return name


def playable_in(environment: str | None, form: AlgorithmSpec, wanted: str) -> str | None:
    """The environment, unless the algorithm has no policy of its own to play."""
    if form.act is None and environment is not None and wanted != "auto":
        raise UserError(f"{form.name} on {form.action_kind} actions has no policy to roll out: use environment none")
    return environment if form.act is not None else None
