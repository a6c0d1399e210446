"""Population-based training: trials that copy the best of them and change their numbers, by Tune's schedulers.

Every member is a trial of its own, an RLlib algorithm that Tune knows (`reuse_actors`, checkpoints, restore). All
members meet after each interval, so that everyone gets the same number of updates and is compared at equal age.
"""

import fcntl
import json
import logging
import os
import random
import signal
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from ray import tune

from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.cluster.nodes import wait_for_nodes
from dr3_ray.cluster.sharing import share
from dr3_ray.errors import UserError
from dr3_ray.member import REGULARIZERS
from dr3_ray.options import checked
from dr3_ray.rllib.algorithm import OfflineAlgorithm
from dr3_ray.rllib.algorithms import CLASSES
from dr3_ray.rllib.config import OfflineConfig
from dr3_ray.sweep.directory import write_json
from dr3_ray.sweep.mistakes import check_known
from dr3_ray.sweep.run import check_room, connect, fit
from dr3_ray.sweep.schedule import SCHEDULE, entry
from dr3_ray.sweep.schedulers import Bounds, SchedulerName, check_scheduler, distribution, scheduler_of, score_of
from dr3_ray.sweep.spec import SweepSpec, members
from dr3_ray.sweep.trainable import algorithm_config

ASKED = "evolution.json"
TRIALS = "trials"
LINEAGE = "lineage.json"
SNAPSHOTS = "1"  # seconds between Tune's snapshots of the experiment, of which a restore goes on


class Evolution(NamedTuple):
    """What a population is asked for. `spec` has one algorithm on one data set, and a seed for each member."""

    spec: SweepSpec
    bounds: Bounds
    seed: int
    scheduler: SchedulerName = "pbt"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, without what may differ when it goes on."""
        apart = {"out", "nodes", "patience", "retries"}
        document = {"bounds": self.bounds, "seed": self.seed, "scheduler": self.scheduler}
        return json.loads(json.dumps(document | {"spec": self.spec.model_dump(mode="json", exclude=apart)}))


class Evolving(OfflineAlgorithm):
    """One member of a population.

    Its results add `score`, `numbers` (what it trains with) and `copied_from`: the member whose checkpoint it went on
    from, if that was another's. Who wrote a checkpoint stands in it, so that this survives whatever stops the run.
    """

    copied_from = ""

    @property
    def name(self) -> str:
        """The member's, which is that of its directory: RLlib forgets the name of the trial."""
        return str(self._storage.trial_dir_name) if self._storage else ""

    def step(self) -> dict[str, Any]:
        """One interval."""
        result = super().step()
        row, member = result["members"]["000"], self.members[0]
        result["score"] = score_of(row)
        result["numbers"] = {name: member[name] for name in numbers_of(self.config.algorithm_name) if name in member}
        result["copied_from"], self.copied_from = self.copied_from, ""
        return result

    def save_checkpoint(self, directory: str) -> None:
        """RLlib's, and whose it is."""
        super().save_checkpoint(directory)
        (Path(directory) / LINEAGE).write_text(json.dumps({"member": self.name}))

    def load_checkpoint(self, directory: str) -> None:
        """Take weights, optimisers and batches of the checkpoint; numbers are those of this trial's config."""
        super().load_checkpoint(directory)
        author = json.loads((Path(directory) / LINEAGE).read_text())["member"]
        self.copied_from = author if author != self.name else ""


class Schedule(tune.Callback):
    """Appends what every member did to a file: what Tune logs lies on its driver's machine and ends with it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """One line."""
        with open(self.path, "a") as file:
            file.write(json.dumps(entry(trial, result)) + "\n")


def numbers_of(algorithm: str) -> list[str]:
    """The options of an algorithm that are numbers: all that may change while it trains."""
    forms = kinds_of(algorithm).values()
    options = [form.options for form in forms]
    options += [each for each in REGULARIZERS if any(form.has_critic for form in forms)]
    return list(dict.fromkeys(name for each in options for name in each.numbers()))


def check_bounds(algorithm: str, bounds: Bounds) -> None:
    """UserError: something to change is not a number of the algorithm, or its bounds are none."""
    known = numbers_of(algorithm)
    names = set(CLASSES[algorithm].config_class.option_names())
    for name, (low, high) in bounds.items():
        if name in names and name not in known:
            raise UserError(f"{name} is part of the structure, which stays: only numbers change ({', '.join(known)})")
        check_known(f"number of {algorithm}", [name], known)
        if not low < high:
            raise UserError(f"{name}: {low:g} to {high:g} is no range: give the lower number first")
        for kind in kinds_of(algorithm).values():
            for options in (kind.options, *REGULARIZERS):
                for option in options.__dataclass_fields__.values():
                    if option.name == name:
                        checked(option, low), checked(option, high)


def evolve(asked: Evolution) -> tune.ResultGrid:
    """Train the population, or go on with it. After SIGTERM or Ctrl-C members are left short of their steps.

    Raises:
        UserError: it cannot be done as asked.
    """
    spec, out = asked.spec, asked.spec.out.resolve()
    configs = list(members(spec).values())
    if not configs[0]["environment"]:
        raise UserError("members are compared by their returns: install the data's environment, or name --environment")
    check_bounds(spec.algorithms[0], asked.bounds)
    check_scheduler(asked.scheduler)
    alone = connect()
    if alone:
        check_room(spec)
    lock = claim(out, asked)
    if not alone:
        wait_for_nodes(spec.nodes, {"CPU": spec.cpus, "GPU": spec.gpus}, print, spec.patience)
        found = share(str(out), True, {configs[0]["data_fingerprint"]: configs[0]["dataset"]}, print)
        configs = [config | {"dataset": found[config["data_fingerprint"]]} for config in configs]
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = SNAPSHOTS
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    random.seed(asked.seed), np.random.seed(asked.seed)  # which Tune's schedulers draw from
    trainable = type(f"Evolving{configs[0]['algorithm']}", (Evolving, CLASSES[configs[0]["algorithm"]]), {})
    # as on Ctrl-C Tune then takes a snapshot; by itself it takes none on SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    if tune.Tuner.can_restore(str(out / TRIALS)):
        tuner = tune.Tuner.restore(str(out / TRIALS), trainable, resume_unfinished=True, resume_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=_space(asked, configs),
            tune_config=tune.TuneConfig(
                scheduler=scheduler_of(asked.scheduler, asked.bounds, out / SCHEDULE),
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name=TRIALS,
                storage_path=str(out),
                stop={"num_updates": spec.steps},
                failure_config=tune.FailureConfig(max_failures=spec.retries),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=4),  # copies may be taken from one before the last
                callbacks=[Schedule(out / SCHEDULE)],
                verbose=0,
            ),
        )
    with lock:
        return fit(tuner)


def claim(out: Path, asked: Evolution) -> IO[str]:
    """Write what is asked for into a new directory, and lock it while the file that is returned is open.

    Raises:
        UserError: the directory is another's, in use, or was begun with something else.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = out / ASKED
        if not file.exists():
            if any(out.iterdir()):
                raise UserError(f"{out} exists and is not a population's: choose another --out, or remove it first")
            write_json(file, asked.to_dict())
        lock = open(file)  # noqa: SIM115 - the caller closes it
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before, now = json.load(lock), asked.to_dict()
    except BlockingIOError:
        raise UserError(f"a population is being trained in {out}: wait for its end, or use another --out") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{out} cannot be used as run directory: {error}") from error
    pairs = {**{name: (before.get(name), now[name]) for name in now if name != "spec"}}
    pairs |= {name: (before["spec"].get(name), value) for name, value in now["spec"].items()}
    if different := [f"{name} {was} then, {is_} now" for name, (was, is_) in pairs.items() if was != is_]:
        raise UserError(f"{out} was begun with other options ({'; '.join(different)}): use another --out")
    return lock


def _space(asked: Evolution, configs: list[dict[str, Any]]) -> OfflineConfig:
    """The config of all members: their options at the top, where schedulers change them, and a seed for each."""
    config = algorithm_config(configs[:1], asked.spec.cpus, asked.spec.gpus)
    (first,) = config.members
    for name in config.option_names():
        setattr(config, name, first.get(name))
    for name, bounds in asked.bounds.items():
        setattr(config, name, distribution(*bounds))
    config.members = tune.grid_search([[{"seed": each["seed"]}] for each in configs])
    return config


def _name(trial: Any) -> str:
    return f"member-{trial.config['members'][0]['seed']:03d}"
