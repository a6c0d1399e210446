"""A sweep from Python, from its specification to its results."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from dr3_ray.errors import UserError

if TYPE_CHECKING:
    from ray.tune.search import Searcher

    from dr3_ray.report.sweep import Sweep
    from dr3_ray.sweep.spec.problems import Problem
    from dr3_ray.sweep.spec.spec import SweepSpec


def run_sweep(
    spec: SweepSpec | str | os.PathLike[str],
    force: bool = False,
    searcher: Callable[[Problem], Searcher] | None = None,
    trust: bool = False,
    steps: int | None = None,
    evaluations: int | None = None,
) -> Sweep:
    """Train all members of a sweep that are not finished yet; packs that were begun go on from their checkpoints.

    It connects to the cluster of RAY_ADDRESS, or to a Ray that `ray start` started on this machine, or else starts Ray
    here. Ctrl-C and SIGTERM stop it cleanly: the same call goes on with what is missing.

    Args:
        spec: What to train, and where to write it; or the run directory, or storage, of a sweep to go on with.
        force: Go on by other code or on other data than before.
        searcher: Makes a Tune `Searcher` for a problem, which proposes configurations instead of a study. It suggests
            values of options and is told the metrics of the objective. After an interruption it starts anew.
        trust: Go on from checkpoints of version 0.1 too, which are pickles: whoever made them can run code here.
        steps: Of a run that is gone on with: train its members longer, from where they were left, to so many updates.
        evaluations: With `steps`; by default as far apart as they were.

    Raises:
        UserError: the sweep cannot be done as asked.
    """
    from dr3_ray.sweep.directory import resumed
    from dr3_ray.sweep.run import train_sweep  # and Ray with it, without which reports are read

    if isinstance(spec, str | os.PathLike):
        spec = resumed(os.fspath(spec), steps, evaluations, trust)
    elif steps is not None or evaluations is not None:
        raise UserError(
            "steps and evaluations belong to a run that is gone on with: give its directory, or a SweepSpec"
        )

    done = train_sweep(spec, force=force, searcher=searcher, trust=trust)
    from dr3_ray.report.sweep import Sweep  # training does not wait for pandas and matplotlib

    return Sweep(done.path, done.interrupted)
