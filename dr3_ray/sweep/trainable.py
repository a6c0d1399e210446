"""One Tune trial: a pack of members, trained by one RLlib Algorithm."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm

from dr3_ray.data.cache import cached
from dr3_ray.rllib import OfflineConfig, config_for
from dr3_ray.stores import is_uri, patiently
from dr3_ray.sweep.checkpoints import Checkpoints
from dr3_ray.sweep.spec import Config

RESULTS = "results.json"
SHARE = 0.05  # of the time may go into checkpoints,
FIRST_COST = 1.0  # and the first one is thought to take so many seconds


class PackTrainable(tune.Trainable):
    """Trains `config["pack"]["members"]`: full configurations of one structure. One step ends with one evaluation.

    A worker process is used for one pack after another: importing RLlib takes far longer than building an algorithm.
    Checkpoints are not Tune's: it knows only those that its driver has seen, and forgets them with its driver. A pack
    goes on from the last one that is in the sweep's storage, whoever starts it and whatever ended it.
    """

    algorithm: Algorithm

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """One process with its share of the machine."""
        return tune.PlacementGroupFactory([{"CPU": config["cpus"], "GPU": config["gpus"]}])

    def setup(self, config: dict[str, Any]) -> None:
        """Build the algorithm, and take up where the pack was left."""
        torch.set_num_threads(max(1, int(config["cpus"])))  # trials share a machine
        members = config["pack"]["members"]
        self.results: list[dict[str, Any]] = []  # of all evaluations
        self.every, self.steps = config["checkpoint_every"], members[0]["steps"]
        self.saved_at, self.cost = time.monotonic(), FIRST_COST
        self.checkpoints = None
        if self.every != 0:
            self.checkpoints = Checkpoints(config["storage"], config["pack"]["name"], config["run"])
        if is_uri(source := members[0]["dataset"]):
            patiently(lambda: cached(source))
        self.algorithm = algorithm_config(members, config["gpus"]).build_algo()
        if self.checkpoints:
            self.checkpoints.load(self.load_checkpoint)
        self.earlier = list(self.results)  # which the driver may not have seen

    def step(self) -> dict[str, Any]:
        """Train up to the next evaluation. `members` lists what was measured of each, `earlier` such results before.

        A list, because Tune keeps statistics of every number that it finds in a dict and saves them again and again.
        """
        earlier, self.earlier = self.earlier, []
        if not self.done:  # it is if only the driver was lost after the last evaluation
            started = time.monotonic()
            result = self.algorithm.train()
            before = self.results[-1]["time_s"] if self.results else 0.0
            self.results.append(
                {
                    "members": [result["members"][key] for key in sorted(result["members"])],
                    "num_updates": result["num_updates"],
                    "updates_per_second": result["updates_per_second"],
                    "time_s": before + time.monotonic() - started,
                }
            )
            if self.checkpoints and self._checkpoint_is_due():
                self._save(self.checkpoints)
        return self.results[-1] | {"earlier": earlier, "done": self.done}

    @property
    def done(self) -> bool:
        """Whether all updates are made."""
        return bool(self.results) and self.results[-1]["num_updates"] >= self.steps

    def save_checkpoint(self, directory: str) -> None:
        """Save everything that training goes on from, and the results so far."""
        self.algorithm.save_to_path(directory)
        (Path(directory) / RESULTS).write_text(json.dumps(self.results))

    def load_checkpoint(self, directory: str) -> None:
        """Go on from a checkpoint."""
        self.algorithm.restore_from_path(directory)
        self.results = json.loads((Path(directory) / RESULTS).read_text())

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Take another pack."""
        self.cleanup()
        self.setup(config)
        return True

    def cleanup(self) -> None:
        """Release data, environments and memory."""
        self.algorithm.stop()

    def _checkpoint_is_due(self) -> bool:
        """After the last update always; before it after so many evaluations, or as often as the time allows."""
        if self.done:
            return True
        if self.every is not None:
            return len(self.results) % self.every == 0
        return time.monotonic() - self.saved_at >= self.cost / SHARE

    def _save(self, checkpoints: Checkpoints) -> None:
        started = time.monotonic()
        kept = {"kept": 1} if self.done else {}
        checkpoints.save(self.results[-1]["num_updates"], self.save_checkpoint, **kept)
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - started


def algorithm_config(members: list[Config], gpus: float = 0.0) -> OfflineConfig:
    """The RLlib config that trains these members together."""
    first = members[0]
    config: OfflineConfig = config_for(first["algorithm"])
    names = {*config.option_names(), "seed"}
    config.offline_data(input_=first["dataset"])
    config.population(
        members=[{name: value for name, value in member.items() if name in names} for member in members],
        updates_per_iteration=first["steps"] // first["evaluations"],
    )
    config.learners(num_gpus_per_learner=gpus)
    if first["environment"]:
        config.environment(env=first["environment"])
        config.evaluation(evaluation_interval=1, evaluation_duration=first["evaluation_episodes"])
    return config
