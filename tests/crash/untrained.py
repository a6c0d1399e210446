"""Trials that train nothing, in the process of the sweep: what it writes and reads is real, and a sweep takes 0.1 s."""

import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from ray.tune.search import Searcher

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.errors import UserError
from dr3_ray.runs.directory import read_run
from dr3_ray.runs.identity import LENGTH, canonical
from dr3_ray.runs.plain import read_plain, write_plain
from dr3_ray.sweep.search.pack_searcher import PackSearcher
from dr3_ray.sweep.spec.spec import Config, SweepSpec
from dr3_ray.sweep.trials.callbacks import MemberLog
from dr3_ray.sweep.trials.trainable import PackTrainable
from dr3_ray.training.inheriting import Beginning
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from dr3_ray.training.saved import NAME, PLACE

STATE = f"{PLACE}/{NAME}.json"  # of an algorithm, in a checkpoint
DIVERGES = 4  # of 256 members, at every evaluation
SLOTS = 2


@cache
def measured_names(algorithm: str, dataset: str) -> tuple[str, ...]:
    """Return the names of everything that is measured of a member of this algorithm on this data set."""
    data = load_dataset(dataset)
    form = find(algorithm, data.spaces.action_kind)
    tiny = {"hidden_sizes": [4, 4], "batch_size": 4}
    population = Population.of(form, [Member.from_dict(form, tiny)], data, data.spaces)
    return tuple(sorted({**population.update(1), **population.probe()}))


class Untrained:
    """Stands for an `OfflineAlgorithm`: a member's parameters are a digest of its configuration and its updates.

    How long it is to be trained counts for nothing, as in training, and neither does where the data lie.
    """

    def __init__(self, members: Sequence[Config], updates: int) -> None:
        self.members, self.updates, self.num_updates = list(members), updates, 0
        unseen = dict.fromkeys(("dataset", *LENGTH))
        self.states = [_digest(canonical({**each, **unseen})) for each in members]

    def begin_from(self, beginnings: Sequence[Beginning], anew: Sequence[bool]) -> None:
        """Go on from the parents' networks."""
        for place, each in enumerate(beginnings):
            read = sum(float(values.double().sum()) for values in each.networks.values())
            self.states[place] = _digest(f"{self.states[place]} {each.name} {read:.6f}")

    def train(self) -> dict[str, Any]:
        """Move every member on, and return what an `OfflineAlgorithm` returns."""
        self.num_updates += self.updates
        self.states = [_digest(state) for state in self.states]
        rows = {f"{place:03d}": self._row(place) for place in range(len(self.members))}
        return {"members": rows, "num_updates": self.num_updates, "updates_per_second": 1234.5}

    def _row(self, place: int) -> dict[str, Any]:
        config, state = self.members[place], self.states[place]
        diverged = int(state[:2], 16) < DIVERGES
        names = measured_names(config["algorithm"], config["dataset"])
        row: dict[str, Any] = {
            name: math.nan if diverged else int(_digest(state + name)[:6], 16) / 1e6 for name in names
        }
        return row | {"diverged": diverged, "seed": config["seed"], "dr3_coeff": config["dr3_coeff"]}

    def keep(self, rows: Sequence[int]) -> Self:
        """Go on with these members alone."""
        self.members = [self.members[row] for row in rows]
        self.states = [self.states[row] for row in rows]
        return self

    def save_to_path(self, directory: str, constructors: bool) -> None:
        """Write everything that it goes on from."""
        folder = Path(directory) / PLACE
        folder.mkdir(parents=True)
        write_plain(folder, NAME, {"states": self.states, "num_updates": self.num_updates})

    def restore_from_path(self, directory: str, trust: bool) -> None:
        """Read what was written."""
        document = read_plain(Path(directory) / PLACE, NAME)
        assert len(document["states"]) == len(self.members)
        self.states, self.num_updates = document["states"], document["num_updates"]

    def stop(self) -> None:
        """Nothing is held."""


class UntrainedPack(PackTrainable):
    """A trial of a sweep, its checkpoints included, around an algorithm that does not train."""

    def build_algorithm(self, members: list[Config], cpus: float, gpus: float) -> Any:
        return Untrained(members, members[0]["steps"] // members[0]["evaluations"])


class InTurn:
    """Two trials at a time take their steps in turn, in this process. `fails` are the steps, of all, that raise.

    They train nothing, unless `pack` is the trial that does.
    """

    def __init__(self, fails: Collection[int] = (), pack: type[PackTrainable] = UntrainedPack) -> None:
        self._fails, self._steps, self._pack = fails, 0, pack

    def connect(self, spec: SweepSpec) -> None:
        """Nothing has to be reached."""

    def wait(self, spec: SweepSpec, say: Callable[[str], None]) -> int:
        """There is always room."""
        return min(SLOTS, spec.concurrent or SLOTS)

    def share(
        self, spec: SweepSpec, datasets: dict[str, str], environments: set[str], say: Callable[[str], None]
    ) -> dict[str, str]:
        """Trials see what this process sees."""
        return datasets

    def train(self, spec: SweepSpec, packs: PackSearcher, log: MemberLog, say: Callable[[str], None]) -> None:
        """Do what Tune does, with as many attempts for every pack as `spec.retries` allow."""
        going: list[_Trial] = []
        number, over, slots = 0, False, self.wait(spec, say)
        while not over or going:
            while not over and len(going) < slots:
                name = f"trial-{number}"
                config = packs.suggest(name)
                if config is None or config == Searcher.FINISHED:
                    over = config == Searcher.FINISHED
                    break
                number += 1
                going.append(_Trial(name, config | self._common(spec), spec.retries, self._pack))
                log.on_trial_start(0, [], going[-1])  # type: ignore[arg-type]
            for trial in list(going):
                if self._step(trial, spec, log):
                    going.remove(trial)
                    packs.on_trial_complete(trial.name, trial.last_result, trial.failed)
            log.on_step_end(0, [])

    def _common(self, spec: SweepSpec) -> dict[str, Any]:
        places = {"storage": spec.checkpoints, "run": read_run(spec.out)["id"]}
        how = {"checkpoint_every": spec.checkpoint_every, "keep_checkpoints": spec.keep_checkpoints}
        return {"cpus": 1, "gpus": 0, **how, **places}

    def _step(self, trial: "_Trial", spec: SweepSpec, log: MemberLog) -> bool:
        """Take one step; whether it was the last."""
        self._steps += 1
        try:
            if self._steps in self._fails:
                raise RuntimeError("this step was to fail")
            result = trial.step()
        except (OSError, RuntimeError, UserError) as error:
            return self._attempt_again(trial, error, spec, log)
        log.on_trial_result(0, [], trial, result)  # type: ignore[arg-type]
        if result["done"]:
            log.on_trial_complete(0, [], trial)  # type: ignore[arg-type]
        return bool(result["done"])

    def _attempt_again(self, trial: "_Trial", error: Exception, spec: SweepSpec, log: MemberLog) -> bool:
        """Tell of what a step raised; whether that was the last attempt."""
        trial.error, trial.pack = error, None
        trial.error_file = str(spec.out.parent / f"{spec.out.name}-{trial.name}.txt")
        Path(trial.error_file).write_text(f"Failure # 1\n{error}")
        if trial.attempts:
            trial.attempts -= 1
            log.on_trial_recover(0, [], trial)  # type: ignore[arg-type]
            return False
        trial.failed = True
        log.on_trial_error(0, [], trial)  # type: ignore[arg-type]
        return True


class _Trial(SimpleNamespace):
    """What a sweep's callbacks look at of a trial of Tune."""

    def __init__(self, name: str, config: dict[str, Any], attempts: int, made: type[PackTrainable]) -> None:
        super().__init__(name=name, config=config, attempts=attempts, last_result=None, failed=False, error_file=None)
        self.made, self.pack = made, None
        self.error: Exception | None = None

    def get_pickled_error(self) -> Exception | None:
        """What it raised last."""
        return self.error

    def step(self) -> dict[str, Any]:
        """Set up where that is still to be done, and go on."""
        if self.pack is None:
            self.pack = object.__new__(self.made)  # Tune's constructor makes folders in the home directory
            self.pack.setup(self.config)
        self.last_result = self.pack.step()
        return self.last_result


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
