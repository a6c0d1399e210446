"""Where a sweep trains its packs: trials of Ray Tune, on a cluster or on this machine."""

import logging
import os
from collections.abc import Callable
from typing import Protocol

import ray
from ray import tune

from dr3_ray.cluster.connect import connect
from dr3_ray.cluster.environments import publish
from dr3_ray.cluster.keys import share_keys
from dr3_ray.cluster.nodes import wait_for_nodes
from dr3_ray.cluster.sharing import share
from dr3_ray.compat.ray import uncounted
from dr3_ray.errors import UserError
from dr3_ray.evaluation.turns import SILENT
from dr3_ray.process import stopping
from dr3_ray.runs.directory import id_of
from dr3_ray.sweep.search.pack_searcher import PackSearcher
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.asha import Races
from dr3_ray.sweep.trials.callbacks import MemberLog, Watchdog
from dr3_ray.sweep.trials.trainable import PackTrainable
from dr3_ray.sweep.trials.unanswered import Listener

PENDING = 200  # trials that Tune asks for ahead of the machines, by which a cluster sees how far to grow

Say = Callable[[str], None]


class Trials(Protocol):
    """A place where a sweep trains its packs, one trial for each."""

    def connect(self, spec: SweepSpec) -> None:
        """Reach the machines.

        Raises:
            UserError: they do not answer.
        """

    def wait(self, spec: SweepSpec, say: Say) -> int:
        """Wait until there is room; return how many trials fit at a time.

        Raises:
            UserError: there will be none.
        """

    def share(self, spec: SweepSpec, datasets: dict[str, str], environments: set[str], say: Say) -> dict[str, str]:
        """Return where trials find each data set, both by fingerprint; environments are known to them by name.

        Raises:
            UserError: a machine cannot see a data set.
        """

    def train(self, spec: SweepSpec, packs: PackSearcher, log: MemberLog, say: Say) -> None:
        """Train every pack that `packs` deals out, and tell the log of it."""


class RayTrials:
    """Trials of Ray Tune on the machines of a Ray cluster, or on a Ray that is started here.

    Each is a `trainable`; with `trust` it goes on from checkpoints that are pickles. Environments that do not answer
    are told of after `silent` seconds.
    """

    def __init__(
        self, trust: bool = False, trainable: type[tune.Trainable] = PackTrainable, silent: float = SILENT
    ) -> None:
        self._trust, self._trainable, self._silent = trust, trainable, silent

    def connect(self, spec: SweepSpec) -> None:
        """Reach a cluster, or start Ray on this machine alone."""
        self._alone = connect()
        share_keys(spec.model_dump_json())

    def wait(self, spec: SweepSpec, say: Say) -> int:
        """Wait for the machines of a cluster, or check the room on this one."""
        if not self._alone:
            wait_for_nodes(spec.nodes, {"CPU": spec.cpus, "GPU": spec.gpus}, say, spec.patience)
        else:
            check_room(spec)
        return slots(spec)

    def share(self, spec: SweepSpec, datasets: dict[str, str], environments: set[str], say: Say) -> dict[str, str]:
        """Put data into the storage that some machine does not see, and tell Ray what this script has registered."""
        for environment in environments:
            publish(environment)
        return share(spec.checkpoints, spec.checkpoint_every != 0 or bool(spec.parents), datasets, say)

    def train(self, spec: SweepSpec, packs: PackSearcher, log: MemberLog, say: Say) -> None:
        """Have Tune run one trial for each pack."""
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one prints whatever `verbose` is
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what matters is said by the log, in one line
        os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the histories hold what they would write
        os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(PENDING))
        param_space = {
            **{"cpus": spec.cpus, "gpus": spec.gpus, "trust": self._trust},
            **{"storage": spec.checkpoints, "run": id_of(spec.out), "checkpoint_every": spec.checkpoint_every},
            "keep_checkpoints": spec.keep_checkpoints,
        }
        tuner = tune.Tuner(
            self._trainable,
            param_space=param_space,
            tune_config=tune.TuneConfig(
                search_alg=packs,
                scheduler=Races.of(spec.out) if spec.halving and spec.pack == 1 else None,
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
                callbacks=[
                    log,
                    Listener(log, self._silent),
                    Watchdog(stopping.resuming(spec.out), room_of(spec), say, spec.patience),
                ],
                verbose=0,
            ),
        )
        fit(tuner, say)


def fit(tuner: tune.Tuner, say: Say) -> tune.ResultGrid:
    """Return `tuner.fit()`, without Ray's count of kinds of callbacks, which takes a second and a half.

    `say` is told when the first Ctrl-C was heard, after which Tune ends in its own time.
    """
    with uncounted(), stopping.interrupts_handled(lambda: say("stopping: writing what is known")):
        return tuner.fit()


def room_of(spec: SweepSpec) -> str:
    """Say what a trial needs."""
    return f"{spec.cpus:g} CPUs and {spec.gpus:g} GPUs"


def check_room(spec: SweepSpec) -> None:
    """Check that a Ray that was started for this sweep, which no machine will join, has room for a trial.

    Raises:
        UserError: it has not.
    """
    if spec.nodes > 1:
        raise UserError(f"{spec.nodes} machines need a Ray cluster, and none is here: see docs/clusters.md")
    if not slots(spec):
        raise UserError(f"no machine has {room_of(spec)} for a trial: ask for less")


def slots(spec: SweepSpec) -> int:
    """Return how many trials fit into the cluster at a time, 0 if not even one does; no more than wanted."""
    wanted = {"CPU": spec.cpus, "GPU": spec.gpus}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = sum(
        min(int(machine.get(name, 0) / amount) for name, amount in wanted.items() if amount) for machine in machines
    )
    return min(fits, spec.concurrent or fits)
