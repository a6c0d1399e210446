"""Population-based training: trials that copy the best of them and change their numbers, by Tune's schedulers.

Every member is a trial of its own, an RLlib algorithm that Tune knows (`reuse_actors`, checkpoints, restore). All
members meet after each interval, so that everyone gets the same number of updates and is compared at equal age.
"""

import fcntl
import json
import logging
import os
import random
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from ray import tune

from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.cluster.connect import connect
from dr3_ray.cluster.keys import share_keys, take_keys
from dr3_ray.cluster.nodes import wait_for_nodes
from dr3_ray.cluster.pickles import check_trusted
from dr3_ray.cluster.sharing import share
from dr3_ray.compat.ray import replace_callbacks
from dr3_ray.data.mixture_names import absolute_name
from dr3_ray.errors import UserError, check_known, first_line
from dr3_ray.evolution.schedule import SCHEDULE, entry, run_of
from dr3_ray.evolution.schedulers import Bounds, SchedulerName, check_scheduler, distribution, scheduler_of, score_of
from dr3_ray.evolution.snapshots import REMEDY, TRIALS, Copies, check_whole, restore, take_up
from dr3_ray.options import checked
from dr3_ray.process import stopping
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS
from dr3_ray.rllib.algorithm import OfflineAlgorithm
from dr3_ray.rllib.config import CLASSES, OfflineConfig
from dr3_ray.runs.digests import write_manifest
from dr3_ray.runs.keys import MARK, is_marked, mark
from dr3_ray.stores import append_line, write_json
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.callbacks import Watchdog
from dr3_ray.sweep.trials.ray_trials import check_room, fit, room_of
from dr3_ray.sweep.trials.trainable import algorithm_config

ASKED = "evolution.json"
LINEAGE = "lineage.json"
SNAPSHOTS = "1"  # seconds between Tune's snapshots of the experiment, for a restore


class Evolution(NamedTuple):
    """A request for a population; `spec` has one algorithm on one data set, and a seed for each member."""

    spec: SweepSpec
    bounds: Bounds
    seed: int
    scheduler: SchedulerName = "pbt"

    def to_dict(self) -> dict[str, Any]:
        """Return the request as JSON has it, without the fields that may differ when it goes on."""
        apart = {"out", "nodes", "patience", "retries", "parents"}
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
        """The member's name, which is that of its directory: RLlib forgets the name of the trial."""
        return str(self._storage.trial_dir_name) if self._storage else ""

    def setup(self, config: OfflineConfig) -> None:
        """Set up as every algorithm, with the keys of the driver."""
        take_keys()
        super().setup(config)

    def step(self) -> dict[str, Any]:
        """Train one interval and return its result."""
        result = super().step()
        row, member = result["members"]["000"], self.members[0]
        result["score"] = score_of(row)
        result["numbers"] = {name: member[name] for name in numbers_of(self.config.algorithm_name) if name in member}
        result["copied_from"], self.copied_from = self.copied_from, ""
        return result

    def save_checkpoint(self, directory: str) -> None:
        """Save RLlib's checkpoint, and whose it is."""
        super().save_checkpoint(directory)
        (Path(directory) / LINEAGE).write_text(json.dumps({"member": self.name}))
        write_manifest(Path(directory))

    def load_checkpoint(self, directory: str) -> None:
        """Take weights, optimisers and batches of the checkpoint; numbers are those of this trial's config.

        Raises:
            UserError: it is damaged.
        """
        check_whole(Path(directory))
        super().load_checkpoint(directory)
        author = json.loads((Path(directory) / LINEAGE).read_text())["member"]
        self.copied_from = author if author != self.name else ""


class Schedule(tune.Callback):
    """A file of what every member did: Tune's own logs lie on its driver's machine and end with it."""

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Append one line."""
        append_line(run_of(trial) / SCHEDULE, json.dumps(entry(trial, result)))


class Retries(tune.Callback):
    """Starts a member that fails again so many times, as this command asks: Tune keeps what the first one asked."""

    def __init__(self, retries: int) -> None:
        self._retries = retries

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Have every trial know it."""
        for trial in trials:
            trial.max_failures = self._retries


def numbers_of(algorithm: str) -> list[str]:
    """Return the names of an algorithm's numbers: the options that may change while it trains."""
    forms = kinds_of(algorithm).values()
    options = [form.options for form in forms]
    options += [name for name in REGULARIZER_OPTIONS if any(form.has_critic for form in forms)]
    return list(dict.fromkeys(name for option in options for name in option.numbers()))


def check_bounds(algorithm: str, bounds: Bounds) -> None:
    """Check that what is to change are numbers of the algorithm, and that their bounds are bounds.

    Raises:
        UserError: they are not.
    """
    known = numbers_of(algorithm)
    names = set(CLASSES[algorithm].config_class.option_names())
    for name, (low, high) in bounds.items():
        if name in names and name not in known:
            raise UserError(f"{name} is part of the structure, which stays: only numbers change ({', '.join(known)})")
        check_known(f"number of {algorithm}", [name], known)
        for kind in kinds_of(algorithm).values():
            for options in (kind.options, *REGULARIZER_OPTIONS):
                for option in options.__dataclass_fields__.values():
                    if option.name == name:
                        checked(option, low), checked(option, high)
        if not low < high:
            raise UserError(f"{name}: {low:g} to {high:g} is no range: give the lower number first")


@stopping.stoppable()
def evolve(asked: Evolution, trust: bool = False) -> tune.ResultGrid:
    """Train the population, or go on with it.

    After SIGTERM or Ctrl-C members are left short of their steps. It goes on from what Tune has pickled: in a directory
    that this user made, or with `trust` in any.

    Raises:
        UserError: it cannot be done as asked.
    """
    spec, out = asked.spec, asked.spec.out.resolve()
    if spec.parents:
        raise UserError("a population begins with members of its own: leave out parents")
    configs = list(members(spec).values())
    if not configs[0]["environment"]:
        raise UserError("members are compared by their returns: install the data's environment, or name --environment")
    check_bounds(spec.algorithms[0], asked.bounds)
    if not 0 <= asked.seed < 2**32:
        raise UserError(f"seed {asked.seed} of what the scheduler draws: give one from 0 to {2**32 - 1}")
    check_scheduler(asked.scheduler)
    alone = connect()
    share_keys(spec.model_dump_json())
    if alone:
        check_room(spec)
    with claim(out, asked) as lock:
        goes_on = take_up(out, print)
        if goes_on:
            check_trusted(f"the population in {out}", trust or is_marked(out, json.load(lock).get(MARK)))
        if not alone:
            wait_for_nodes(spec.nodes, {"CPU": spec.cpus, "GPU": spec.gpus}, print, spec.patience)
            places = share(str(out), True, {configs[0]["data_fingerprint"]: configs[0]["dataset"]}, print)
            configs = [config | {"dataset": places[config["data_fingerprint"]]} for config in configs]
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
        os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = SNAPSHOTS
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "0"  # `known` reads them; a sweep before may have none
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        random.seed(asked.seed), np.random.seed(asked.seed)  # which Tune's schedulers draw from
        trainable = type(f"Evolving{configs[0]['algorithm']}", (Evolving, CLASSES[configs[0]["algorithm"]]), {})
        try:
            tuner = restore(out, trainable, print) if goes_on else _begun(asked, configs, trainable, out)
            # those of this command: an experiment that is restored has pickled those of the first one
            watchdog = Watchdog(stopping.command_line(), room_of(spec), print, spec.patience)
            replace_callbacks(tuner, [Schedule(), Copies(), Retries(spec.retries), watchdog])
            return fit(tuner, print)
        except KeyboardInterrupt:  # a signal, but for a first Ctrl-C once Tune has started
            if what := stopping.lost():
                raise UserError(f"{what}: the same command goes on") from None
            raise


def _begun(asked: Evolution, configs: list[dict[str, Any]], trainable: type, out: Path) -> tune.Tuner:
    """Return an experiment of Tune's with all members."""
    spec = asked.spec
    return tune.Tuner(
        trainable,
        param_space=_space(asked, configs),
        tune_config=tune.TuneConfig(
            scheduler=scheduler_of(asked.scheduler, asked.bounds),
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name=TRIALS,
            storage_path=str(out),
            stop={"num_updates": spec.steps},
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4),  # copies may be taken from one before the last
            verbose=0,
        ),
    )


def claim(out: Path, asked: Evolution) -> IO[str]:
    """Write the request into a new directory, and lock it while the returned file is open.

    Raises:
        UserError: the directory is another's, in use, or was begun with something else.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = out / ASKED
        if not file.exists():
            if (out / TRIALS).exists() or (out / SCHEDULE).exists():
                raise UserError(f"{file} is missing, which says what the population was begun with: {REMEDY}")
            if any(out.iterdir()):
                raise UserError(f"{out} exists and is not a population's: choose another --out, or remove it first")
            write_json(file, asked.to_dict() | {MARK: mark(out)})
        lock = open(file)  # noqa: SIM115 - the caller closes it
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before, now = json.loads(lock.read()), asked.to_dict()
        lock.seek(0)
    except BlockingIOError:
        raise UserError(f"a population is being trained in {out}: wait for its end, or use another --out") from None
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{out} cannot be used as run directory: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({first_line(error)}): {REMEDY}") from None
    if not (isinstance(before, dict) and isinstance(before.get("spec"), dict)):
        raise UserError(f"{file} is damaged at spec: {REMEDY}")
    pairs = {**{name: (before.get(name), now[name]) for name in now if name != "spec"}}
    # version 0.1 wrote data sets as they were typed
    datasets = before["spec"].get("datasets")
    if not (isinstance(datasets, list) and all(isinstance(source, str) for source in datasets)):
        raise UserError(f"{file} is damaged at datasets: {REMEDY}")
    before["spec"]["datasets"] = list(map(absolute_name, datasets))
    pairs |= {name: (before["spec"].get(name), value) for name, value in now["spec"].items()}
    if different := [f"{name} {was} then, {is_} now" for name, (was, is_) in pairs.items() if was != is_]:
        raise UserError(f"{out} was begun with other options ({'; '.join(different)}): use another --out")
    return lock


def _space(asked: Evolution, configs: list[dict[str, Any]]) -> OfflineConfig:
    """Return the config of all members: their options at the top, where schedulers change them, and a seed for each."""
    config = algorithm_config(configs[:1], asked.spec.cpus, asked.spec.gpus)
    (first,) = config.members
    for name in config.option_names():
        setattr(config, name, first.get(name))
    for name, bounds in asked.bounds.items():
        setattr(config, name, distribution(*bounds))
    config.members = tune.grid_search([[{"seed": config["seed"]}] for config in configs])
    return config


def _name(trial: Any) -> str:
    return f"member-{trial.config['members'][0]['seed']:03d}"
