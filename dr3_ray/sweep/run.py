"""A sweep from beginning to end."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ray.tune.search import Searcher
from rich.console import Console

from dr3_ray.errors import UserError
from dr3_ray.process import stopping
from dr3_ray.runs.directory import RUN, id_of, read_run
from dr3_ray.runs.index import Index
from dr3_ray.runs.mirror import check_storage, mirrored
from dr3_ray.runs.status import SHOWN
from dr3_ray.runs.storage import claim
from dr3_ray.stores import NO_ROOM, write_json
from dr3_ray.sweep.directory import PARENTS, open_run
from dr3_ray.sweep.driver import Driver
from dr3_ray.sweep.ends import adopt
from dr3_ray.sweep.parents import Parent, document_of, find_parents, known_parents, with_names
from dr3_ray.sweep.plan import planned_members, unfinished
from dr3_ray.sweep.resume import unseen_packs
from dr3_ray.sweep.search.proposals import Proposals, Searches
from dr3_ray.sweep.search.scores import MemberScores
from dr3_ray.sweep.search.study_files import check_study
from dr3_ray.sweep.spec.problems import Problem, problems
from dr3_ray.sweep.spec.spec import Config, SweepSpec
from dr3_ray.sweep.trials.loggers import check_installed
from dr3_ray.sweep.trials.ray_trials import RayTrials, Trials


class RunSummary(NamedTuple):
    """The result of a sweep: its directory, how many of its members have which status, and whether it was stopped."""

    path: Path
    statuses: dict[str, int]
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C or SIGTERM, 1 if members failed, else 0."""
        return 130 if self.interrupted else 1 if self.statuses.get("failed") else 0


@stopping.stoppable()
def train_sweep(
    spec: SweepSpec,
    command: list[str] | None = None,
    force: bool = False,
    searcher: Callable[[Problem], Searcher] | None = None,
    trust: bool = False,
    trials: Trials | None = None,
) -> RunSummary:
    """Train all unfinished members of a sweep; begun packs go on from their checkpoints.

    It connects to the cluster of RAY_ADDRESS, or one that was started on this machine by `ray start`, or else starts
    Ray here. Ctrl-C and SIGTERM stop it cleanly: the rows so far can be read, and the same sweep goes on with the
    missing ones.

    Args:
        spec: The sweep.
        command: The command that the report tells people to type.
        force: Go on by other code or on other data than before.
        searcher: A maker of any Tune `Searcher` for a problem. It proposes the configurations of `spec.search` instead
            of a study: it suggests values of options, flat, and is told the objective's metrics. After an interruption
            it starts anew; the members trained before are known.
        trust: Go on from checkpoints of version 0.1 too, which are pickles: whoever made them can run code here.
        trials: Where the packs are trained; by default on Ray.

    Returns:
        The run directory, how many members have which status, and whether the sweep was stopped.

    Raises:
        UserError: the sweep cannot be done as asked.
    """
    console = Console(stderr=True)
    check_installed(spec.log)
    check_storage(spec.out, spec.storage)
    check_study(spec.search)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)

    parents = find_parents(spec, say)
    spec = with_names(spec, parents)
    planned = asked = planned_members(spec, say, force, parents)
    with open_run(spec, planned, command or sys.argv, force, say) as index:
        searches = Searches([], MemberScores(spec.objective))
        if spec.search:
            searches = _take_up(spec, index, searcher, say)
            planned = searches.members
            index.write([member for member in planned if member not in index.records], "pending", configs=planned)
        missing = unfinished(planned, index.records.values())
        if finished := len(planned) - len(missing):
            console.print(f"{finished} of {len(planned)} runs were done before", highlight=False)
        run = id_of(spec.out)
        claim(spec.checkpoints, run, str(spec.out.resolve()))
        if parents:
            _keep_parents(spec, run, parents, missing)
        if lost := unseen_packs(spec, index.records.values()):
            say(f"{spec.checkpoints} has no checkpoint of {len(lost)} packs that were begun: they begin again")
        try:
            with mirrored(spec.out, spec.storage, say):
                interrupted = False
                if missing or searches.left:
                    driver = Driver(spec, asked, missing, index, searches, trials or RayTrials(trust), console)
                    interrupted = driver.train(trust)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise UserError(
                f"no room left in {spec.out} ({os.strerror(error.errno)}): make some, and resume"
            ) from error
        if spec.search and not searches.left:
            write_json(spec.out / RUN, read_run(spec.out) | {"foreseen": len(searches.members)})
        counts = Counter(index.records[member]["status"] for member in {**planned, **searches.members})
    return RunSummary(spec.out, {status: counts[status] for status in SHOWN if counts[status]}, interrupted)


def _keep_parents(spec: SweepSpec, run: str, parents: Sequence[Parent], missing: Mapping[str, Config]) -> None:
    """Write down the parents of a sweep, and copy the ends from which its missing members begin."""
    known = {parent.name: parent for parent in (*known_parents(spec).values(), *parents)}
    write_json(spec.out / RUN, read_run(spec.out) | {PARENTS: document_of(known.values())})
    adopt(spec, run, parents, missing.values())


def _take_up(
    spec: SweepSpec, index: Index, searcher: Callable[[Problem], Searcher] | None, say: Callable[[str], None]
) -> Searches:
    """Return the searches of a sweep, where they were left."""
    assert spec.search is not None
    scores = MemberScores(spec.objective, index.records.values(), spec.out)
    if searcher is not None:
        asked = [(problem, searcher(problem)) for problem in problems(spec)]
        return Searches([Proposals(*name, spec.search.trials, scores, say) for name in asked], scores)
    from dr3_ray.sweep.search.studies import taken_up

    return Searches(taken_up(spec, problems(spec), id_of(spec.out), scores, say), scores)
