"""A sweep from beginning to end: members, packs, Tune."""

import logging
import os
import secrets
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import ray
from ray import tune
from ray._private.services import canonicalize_bootstrap_address
from ray.air._internal import usage
from ray.tune.search import Searcher
from rich.console import Console

from dr3_ray.cluster.files import mirrored
from dr3_ray.cluster.nodes import wait_for_nodes
from dr3_ray.cluster.sharing import share
from dr3_ray.errors import UserError
from dr3_ray.stores import NO_ROOM
from dr3_ray.sweep.asha import Races
from dr3_ray.sweep.callbacks import MemberLog, Watch
from dr3_ray.sweep.checkpoints import claim
from dr3_ray.sweep.directory import RUN, is_run, open_run, read_run, write_json
from dr3_ray.sweep.histories import Histories
from dr3_ray.sweep.index import FINAL, Index, read_index
from dr3_ray.sweep.limit import sweep_limit
from dr3_ray.sweep.loggers import Loggers, check_installed
from dr3_ray.sweep.pack_searcher import PackSearcher
from dr3_ray.sweep.packing import pack_members
from dr3_ray.sweep.progress import SHOWN, SweepProgress
from dr3_ray.sweep.proposals import Proposals, Searches
from dr3_ray.sweep.resume import begun_packs
from dr3_ray.sweep.scores import Scores
from dr3_ray.sweep.spec import Config, Problem, SweepSpec, members, problems
from dr3_ray.sweep.trainable import PackTrainable

PENDING = 200  # trials that Tune asks for ahead of the machines, by which a cluster sees how far to grow


class RunSummary(NamedTuple):
    """What came of a sweep: its directory, how many of its members have which status, and whether it was stopped."""

    path: Path
    statuses: dict[str, int]
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C or SIGTERM, 1 if members failed, else 0."""
        return 130 if self.interrupted else 1 if self.statuses.get("failed") else 0


def run_sweep(
    spec: SweepSpec,
    command: list[str] | None = None,
    force: bool = False,
    searcher: Callable[[Problem], Searcher] | None = None,
) -> RunSummary:
    """Train all members of the sweep that are not finished yet; packs that were begun go on from their checkpoints.

    Connects to the cluster of RAY_ADDRESS, or one that was started on this machine by `ray start`, or else starts Ray
    here. `command` is what the report tells people to type. Ctrl-C and SIGTERM stop cleanly: everything so far can be
    read, and the same sweep goes on with what is missing. `force` goes on by other code or on other data than before.
    `searcher` makes any Tune `Searcher` for a problem. It then proposes the configurations of `spec.search` instead of
    a study: it suggests values of options, flat, and is told the objective's metrics. After an interruption it starts
    anew, and what was trained is known.

    Raises:
        UserError: the sweep cannot be done as asked.
    """
    console = Console(stderr=True)
    check_installed(spec.log)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)

    planned = asked = planned_members(spec, say)
    with open_run(spec, planned, command or sys.argv, force) as index:
        searches = Searches([], Scores(spec.objective))
        if spec.search:
            searches = _take_up(spec, index, searcher, say)
            planned = searches.members
            index.write([member for member in planned if member not in index.records], "pending", configs=planned)
        left = [member for member, record in index.records.items() if record["status"] not in FINAL]
        missing = {member: planned[member] for member in left if member in planned}  # in the order that names packs
        if finished := len(planned) - len(missing):
            console.print(f"{finished} of {len(planned)} runs were done before", highlight=False)
        claim(spec.checkpoints, read_run(spec.out)["id"], str(spec.out.resolve()))
        try:
            with mirrored(spec.out, spec.storage, say):
                interrupted = bool(missing or searches.left) and _train(spec, searches, asked, missing, index, console)
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


def planned_members(spec: SweepSpec, say: Callable[[str], None]) -> dict[str, Config]:
    """All members of a sweep; those of a search as far as they are known, and examples of what it may propose.

    Raises:
        UserError: the sweep cannot be done as asked.
    """
    if spec.search is None:
        return members(spec, say)
    from dr3_ray.sweep.studies import foreseen  # Optuna takes a second to import

    return foreseen(spec, problems(spec, say), read_index(spec.out) if is_run(spec.out) else [])


def _take_up(
    spec: SweepSpec, index: Index, searcher: Callable[[Problem], Searcher] | None, say: Callable[[str], None]
) -> Searches:
    """The searches of a sweep, where they were left."""
    assert spec.search is not None
    scores = Scores(spec.objective, index.records.values(), spec.out)
    if searcher is not None:
        asked = [(problem, searcher(problem)) for problem in problems(spec)]
        return Searches([Proposals(*each, spec.search.trials, scores, say) for each in asked], scores)
    from dr3_ray.sweep.studies import open_studies

    proposals = []
    for study in open_studies(spec, problems(spec), read_run(spec.out)["id"]):
        proposals.append(Proposals(study.problem, study, spec.search.trials, scores, say))
        for trial, options in study.resume():
            proposals[-1].know(options, trial)
    return Searches(proposals, scores)


def _train(
    spec: SweepSpec,
    searches: Searches,
    asked: dict[str, Config],
    missing: dict[str, Config],
    index: Index,
    console: Console,
) -> bool:
    """Train the missing of the members asked for, and what is proposed; whether it was stopped before all were done."""
    configs = {member: record["config"] for member, record in index.records.items()}
    histories = Histories(spec.out, configs, ("algorithm", "dataset", "seed", *read_run(spec.out)["axes"]))
    histories.load(again=missing)
    index.write([member for member in missing if index.status(member) == "failed"], "pending")
    ahead = spec.steps * len(spec.seeds)  # updates of what a search has still to propose, for each configuration
    progress = SweepProgress(
        console,
        {member: record["status"] for member, record in index.records.items()},
        {member: config["steps"] for member, config in missing.items()},
        searches.left * ahead,
    )
    loggers = Loggers(spec.log, spec.out, configs, progress.say)
    histories.listeners += [loggers, searches.scores]

    def enrol(proposed: dict[str, Config]) -> dict[str, Config]:
        index.write([member for member in proposed if member not in index.records], "pending", configs=proposed)
        fresh = {member: config for member, config in proposed.items() if index.status(member) not in FINAL}
        configs.update(proposed)
        missing.update(fresh)
        progress.add({member: config["steps"] for member, config in fresh.items()}, searches.left * ahead)
        return fresh

    log = None
    try:
        alone = connect()  # first, because Ray handles SIGTERM in its own way
        with _stopped_alike(), progress:
            if not alone:
                wait_for_nodes(spec.nodes, {"CPU": spec.cpus, "GPU": spec.gpus}, progress.say, spec.patience)
            else:
                check_room(spec)
            about = [*missing.values(), *(each.problem.about for each in searches.proposals)]
            datasets = {config["data_fingerprint"]: config["dataset"] for config in about}
            sources = share(spec.checkpoints, spec.checkpoint_every != 0, datasets, progress.say)
            again, rest = begun_packs(missing, index.records)
            limit = sweep_limit(spec, asked, sources, slots(spec), progress.say)
            packs = [*again, *pack_members(rest, limit, slots(spec))]
            log = MemberLog(index, histories, progress, searches.ended)
            room = spec.concurrent or slots(spec)
            dealer = PackSearcher(packs, sources, log.expect, searches, enrol, limit=limit, slots=room)
            _train_packs(spec, dealer, log, progress.say)
    except KeyboardInterrupt:  # SIGTERM, or Ctrl-C before Tune had started or a second time
        pass
    finally:
        if log is not None:
            log.flush()
        left = [member for member in missing if index.status(member) in ("pending", "running")]
        index.write([member for member in left if index.status(member) == "running"], "pending", error="interrupted")
        loggers.close()
    return bool(left or searches.left)


def _train_packs(spec: SweepSpec, packs: PackSearcher, log: MemberLog, say: Callable[[str], None]) -> None:
    """One Tune trial for each pack."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one prints whatever `verbose` is
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what matters is said by the log, in one line
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the histories hold what they would write
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(PENDING))
    param_space = {
        **{"cpus": spec.cpus, "gpus": spec.gpus},
        **{"storage": spec.checkpoints, "run": read_run(spec.out)["id"], "checkpoint_every": spec.checkpoint_every},
    }
    tuner = tune.Tuner(
        PackTrainable,
        param_space=param_space,
        tune_config=tune.TuneConfig(
            search_alg=packs,
            scheduler=Races() if spec.halving and spec.pack == 1 else None,
            num_samples=-1,  # as many as the searcher has
            max_concurrent_trials=spec.concurrent,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["pack"]["name"],
            trial_dirname_creator=lambda trial: trial.config["pack"]["name"],
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(spec.out.resolve()),
            failure_config=tune.FailureConfig(max_failures=spec.retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            callbacks=[log, Watch(spec.out, f"{spec.cpus:g} CPUs and {spec.gpus:g} GPUs", say, spec.patience)],
            verbose=0,
        ),
    )
    fit(tuner)


def fit(tuner: tune.Tuner) -> tune.ResultGrid:
    """`tuner.fit()`, of whose callbacks Ray does not count the kinds.

    It would import MLflow and W&B for that, where they are installed, which takes a second and a half.
    """
    with patch.object(usage, "tag_callbacks"):
        return tuner.fit()


def connect() -> bool:
    """Connect to Ray, unless this process already is; whether this started a Ray of its own.

    Raises:
        UserError: the cluster that was asked for does not answer.
    """
    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        address = canonicalize_bootstrap_address(None)  # what ray.init() asks as well
        if address is not None:
            host, _, port = address.rpartition("://")[2].rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()  # Ray would try for minutes
            ray.init(**quiet)
            return False
    except (ConnectionError, TimeoutError, socket.gaierror) as error:
        raise UserError(
            f"no Ray cluster answers ({error}): start it, or unset RAY_ADDRESS and call `ray stop`"
        ) from error
    # A token of its own, because the one that Ray would leave in ~/.ray changes how later clusters start.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # trials share the machine's CPUs
    ray.init("local", include_dashboard=False, **quiet)
    return True


def check_room(spec: SweepSpec) -> None:
    """UserError: a Ray that was started for this sweep, which no machine will join, has not what a trial needs."""
    if spec.nodes > 1:
        raise UserError(f"{spec.nodes} machines need a Ray cluster, and none is here: see docs/clusters.md")
    if not slots(spec):
        raise UserError(f"no machine has {spec.cpus:g} CPUs and {spec.gpus:g} GPUs for a trial: ask for less")


def slots(spec: SweepSpec) -> int:
    """How many trials fit into the cluster at a time, 0 if not even one does; no more than wanted."""
    wanted = {"CPU": spec.cpus, "GPU": spec.gpus}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = sum(
        min(int(machine.get(name, 0) / amount) for name, amount in wanted.items() if amount) for machine in machines
    )
    return min(fits, spec.concurrent or fits)


@contextmanager
def _stopped_alike() -> Iterator[None]:
    """SIGTERM (a machine is taken away) ends a sweep as Ctrl-C does, and Tune's handlers do not outlive it.

    On Ctrl-C Tune first takes down its trials; after SIGTERM there may be no time, and no Ray any more, for that.
    """
    try:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread, which alone may handle signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
