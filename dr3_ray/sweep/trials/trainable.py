"""One Tune trial: a pack of members, trained by one RLlib Algorithm."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray import tune

from dr3_ray.cluster.keys import take_keys
from dr3_ray.data.cache import cached
from dr3_ray.data.mixture_names import names_in
from dr3_ray.evaluation.turns import tell_by
from dr3_ray.process.memory import seldom_search_for_cycles
from dr3_ray.remote import patiently
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.identity import OF_PARENT, PARENT, configurations, member_id
from dr3_ray.runs.results import MEMBERS, RESULTS
from dr3_ray.sweep.ends import read_beginning
from dr3_ray.sweep.spec.halving import Race
from dr3_ray.sweep.spec.names import REGULAR
from dr3_ray.sweep.spec.spec import Config
from dr3_ray.sweep.trials.unanswered import leave_word
from dr3_ray.uris import is_uri

if TYPE_CHECKING:
    from dr3_ray.rllib import OfflineConfig
    from dr3_ray.rllib.algorithm import OfflineAlgorithm

USED_TO = {"observation_statistics": "normalize_observations", "return_range": "reward_scaling"}
"""What networks are used to of their parents' data, and the option by which they are."""
SHARE = 0.05  # of the time may go into checkpoints,
FIRST_COST = 1.0  # and the first one is thought to take so many seconds


class PackTrainable(tune.Trainable):
    """A Tune trainable of `config["pack"]["members"]`, full configurations of one structure, with an evaluation a step.

    A worker process is used for one pack after another: importing RLlib takes far longer than building an algorithm.
    With halving, members are cut out of the pack at its rungs; their places in later results are None.

    Checkpoints are not Tune's: it knows only those that its driver has seen, and forgets them with its driver. A pack
    goes on from the last one that is in the sweep's storage, whoever starts it and whatever ended it.
    """

    algorithm: OfflineAlgorithm

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Ask for one process with its share of the machine."""
        return tune.PlacementGroupFactory([{"CPU": config["cpus"], "GPU": config["gpus"]}])

    def setup(self, config: dict[str, Any]) -> None:
        """Build the algorithm, and take up where the pack was left."""
        seldom_search_for_cycles()  # before RLlib is imported
        take_keys()
        torch.set_num_threads(max(1, int(config["cpus"])))  # trials share a machine
        members = config["pack"]["members"]
        self.results: list[dict[str, Any]] = []  # of all evaluations
        self.trust = config.get("trust", False)  # checkpoints that are pickles
        self.hashes = [member_id(member) for member in members]
        self.every, self.steps = config["checkpoint_every"], members[0]["steps"]
        self.updates = self.steps // members[0]["evaluations"]  # between two evaluations
        self.stay = kept_at(members[0]["steps"], members[0]["evaluations"], config.get("keep_checkpoints", 1))
        self.places, self.configurations = range(len(members)), configurations(members)
        self.race = Race.of(members[0])
        self.rungs = self.race.rungs(members[0]["evaluations"]) if self.race and len(members) > 1 else []
        self.saved_at, self.cost = time.monotonic(), FIRST_COST
        self.checkpoints = None
        if self.every != 0:
            self.checkpoints = Checkpoints(config["storage"], config["pack"]["name"], config["run"])
        for source in filter(is_uri, names_in(members[0]["dataset"])):
            patiently(partial(cached, source))
        self.parents = [
            read_beginning(config["storage"], config["run"], member[PARENT]) for member in members if PARENT in member
        ]
        if ray.is_initialized():
            tell_by(leave_word(config["pack"]["name"], lambda: [self.hashes[place] for place in self.left]))
        self.algorithm = self.build_algorithm(members, config["cpus"], config["gpus"])
        self._take_up(config)
        self.earlier = list(self.results)  # which the driver may not have seen

    def _take_up(self, config: dict[str, Any]) -> None:
        """Go on from the pack's last checkpoint, where the pack of shorter members was left, or where parents ended."""
        if self.checkpoints:
            self.checkpoints.load(self.load_checkpoint)
        if (origin := config["pack"].get("origin")) and not self.results:
            shorter = Checkpoints(config["storage"], origin, config["run"])
            if self.checkpoints:
                self.checkpoints.adopt(shorter, self.stay, self._sign)
            (self.checkpoints or shorter).load(self.load_checkpoint, mend=False)
        if self.parents and not self.results:
            anew = [any(f"{OF_PARENT}{name}" in member for name in REGULAR) for member in config["pack"]["members"]]
            self.algorithm.begin_from([beginning for beginning, _ in self.parents], anew)

    def build_algorithm(self, members: list[Config], cpus: float, gpus: float) -> OfflineAlgorithm:
        """Build the algorithm that trains these members."""
        kind = self.parents[0][1] if self.parents else {}
        return algorithm_config(members, cpus, gpus, kind).build_algo()

    def step(self) -> dict[str, Any]:
        """Train up to the next evaluation.

        `members` lists the measurements of each, `cut` the places of those that are cut out after it, `evaluations`
        is its number, and `earlier` lists such results before.
        A list, because Tune keeps statistics of every number that it finds in a dict and saves them again and again.
        """
        earlier, self.earlier = self.earlier, []
        if not self.done:  # it is if only the driver was lost after the last evaluation
            started = time.monotonic()
            before = self.results[-1]["time_s"] if self.results else 0.0
            self.results.append(self._evaluated())
            if len(self.results) in self.rungs and not self.done:
                self._cut()
            self.results[-1]["time_s"] = before + time.monotonic() - started
            if self.checkpoints and self._checkpoint_is_due():
                self._save(self.checkpoints)
        progress = {"earlier": earlier, "done": self.done, "evaluations": len(self.results)}
        return self.results[-1] | progress

    @property
    def done(self) -> bool:
        """Whether all updates are made, or nobody is left to make them."""
        if not self.results:
            return False
        last = self.results[-1]
        return last["num_updates"] >= self.steps or all(last["members"][place]["diverged"] for place in self.left)

    @property
    def left(self) -> list[int]:
        """The places of the members that are not cut."""
        if not self.results:
            return list(self.places)
        last = self.results[-1]
        return [place for place, row in enumerate(last["members"]) if row is not None and place not in last["cut"]]

    def _evaluated(self) -> dict[str, Any]:
        """Train, and return the measurements of the members that are left."""
        left, result = self.left, self.algorithm.train()
        rows = [result["members"][key] for key in sorted(result["members"])]
        measured = dict(zip(left, rows, strict=True))
        return {
            "members": [measured.get(place) for place in self.places],
            "num_updates": result["num_updates"],
            "updates_per_second": result["updates_per_second"],
            "cut": [],
        }

    def _cut(self) -> None:
        """Go on without the losers of this rung."""
        last, before = self.results[-1], self.left
        racing = [[place for place in places if place in before] for places in self.configurations]
        assert self.race is not None
        last["cut"] = self.race.losers(list(filter(None, racing)), {place: last["members"][place] for place in before})
        if last["cut"]:
            self.algorithm = self.algorithm.keep([row for row, place in enumerate(before) if place in self.left])

    def save_checkpoint(self, directory: str) -> None:
        """Save everything that training goes on from, and the results so far."""
        self.algorithm.save_to_path(directory, constructors=False)
        (Path(directory) / RESULTS).write_text(json.dumps(self.results))
        self._sign(directory)

    def _sign(self, directory: str) -> None:
        """Write whose checkpoint it is."""
        (Path(directory) / MEMBERS).write_text(json.dumps(self.hashes))

    def load_checkpoint(self, directory: str) -> None:
        """Go on from a checkpoint, with the members that were left.

        That of shorter members may have evaluations between ours, and may have ended where we cut.
        """
        results = json.loads((Path(directory) / RESULTS).read_text())
        self.results = [result for result in results if result["num_updates"] % self.updates == 0]
        if any(result["cut"] for result in self.results):
            self.algorithm = self.algorithm.keep(self.left)
        self.algorithm.restore_from_path(directory, trust=self.trust)
        if len(self.results) in self.rungs and not self.results[-1]["cut"] and not self.done:
            self._cut()

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Take another pack."""
        self.cleanup()
        self.setup(config)
        return True

    def cleanup(self) -> None:
        """Release data, environments and memory."""
        self.algorithm.stop()

    def _checkpoint_is_due(self) -> bool:
        """Return whether to save: after the last update and where one stays, else after evaluations or seconds."""
        if self.done or self.results[-1]["num_updates"] in self.stay:
            return True
        if self.every is not None:
            return len(self.results) % self.every == 0
        return time.monotonic() - self.saved_at >= self.cost / SHARE

    def _save(self, checkpoints: Checkpoints) -> None:
        started = time.monotonic()
        kept = {"kept": 1} if self.done else {}
        checkpoints.save(self.results[-1]["num_updates"], self.save_checkpoint, stay=self.stay, **kept)
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - started


def kept_at(steps: int, evaluations: int, keep: int) -> frozenset[int]:
    """Return the updates after which checkpoints stay: so many evaluations, evenly spaced, the last one among them."""
    every = steps // evaluations
    return frozenset(every * -(-evaluations * number // keep) for number in range(1, keep + 1))


def algorithm_config(
    members: list[Config], cpus: float, gpus: float, kind: Mapping[str, Any] = MappingProxyType({})
) -> OfflineConfig:
    """Return the RLlib config that trains these members together, where they have parents, as these of a `kind`."""
    from dr3_ray.rllib import config_for  # RLlib takes a second to import, and the driver of a sweep needs none of it

    first = members[0]
    config: OfflineConfig = config_for(first["algorithm"])
    names = {*config.option_names(), "seed"}
    config.offline_data(input_=first["dataset"])
    config.population(
        members=[{name: value for name, value in member.items() if name in names} for member in members],
        updates_per_iteration=first["steps"] // first["evaluations"],
        planned_updates=first["steps"],
        inherited={
            name: kind[name]
            for name, option in USED_TO.items()
            if kind.get(name) is not None and f"{OF_PARENT}{option}" not in first
        },
    )
    config.learners(num_gpus_per_learner=gpus).resources(num_cpus_for_main_process=cpus)
    config.debugging(log_sys_usage=False)  # whose thread would have every pack wait 0.7 s for its end
    if first["environment"]:
        config.environment(env=first["environment"])
        config.evaluation(evaluation_interval=1, evaluation_duration=first["evaluation_episodes"])
    return config
