"""Where the members of a sweep are rolled out."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.cluster.environments import make_known
from dr3_ray.data import Dataset
from dr3_ray.errors import UserError
from dr3_ray.evaluation.contract import Recorded, contract
from dr3_ray.evaluation.environments import module_of
from dr3_ray.runs.keys import is_marked
from dr3_ray.trust.text import printable


def environment_of(wanted: str, data: Dataset, say: Callable[[str], None]) -> str | None:
    """Return the name of the environment to roll out in, after making one and finding its contract with the data.

    The data's own is left out, with a line, where it cannot be played.

    Raises:
        UserError: an environment that was asked for cannot be played.
    """
    automatic = wanted == "auto"
    name = data.manifest.environment if automatic else wanted
    if name is None or name == "none":
        return None
    if automatic and (module := module_of(name)):
        say(printable(
            f"no rollouts in {name}: it imports {module}, which data alone may not ask for: "
            f"give --environment {name} if you trust that module"
        ))  # fmt: skip
        return None
    try:
        with closing(make_known(name)) as environment:
            spaces = environment.observation_space, environment.action_space
        contract(Recorded.of(data), *spaces, f"environment {name}")
    except UserError as error:
        if not automatic:
            raise
        say(f"no rollouts in {name}: {error}")
        return None
    return name


def check_resumed(environment: str, run: Path, mark: object, trust: bool) -> None:
    """Check that to resume a run directory imports no modules of its choice, unless it is this user's.

    These are the module of an environment that it asks for, and whatever lies in it if the command is given from there:
    Ray's workers look for modules in the folder of their driver. `mark` is this user's mark in its `run.json`.

    Raises:
        UserError: it would, and the directory may be another's.
    """
    module, inside = module_of(environment), Path.cwd().is_relative_to(run.resolve())
    if trust or not (module or inside) or is_marked(run, mark):
        return
    unknown = "and nothing shows that you made that directory"
    if module:
        raise UserError(
            f"{run} asks for environment {environment}, which imports {module}, {unknown}: "
            "give --trust if you trust whoever did"
        )
    raise UserError(
        f"Ray would look for modules in {Path.cwd()}, which is part of a run directory, {unknown}: "
        "go to another one, or give --trust if you trust whoever did"
    )


def playable_in(environment: str | None, form: AlgorithmSpec, wanted: str) -> str | None:
    """Return the environment, unless the algorithm has no policy of its own to play."""
    if form.act is None and environment is not None and wanted != "auto":
        raise UserError(f"{form.name} on {form.action_kind} actions has no policy to roll out: use environment none")
    return environment if form.act is not None else None
