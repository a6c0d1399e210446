"""One Tune trial: a pack of members, trained by one RLlib Algorithm."""

from typing import Any

import torch
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm

from dr3_ray.rllib import OfflineConfig, config_for
from dr3_ray.sweep.spec import Config


class PackTrainable(tune.Trainable):
    """Trains `config["pack"]["members"]`: full configurations of one structure. One step ends with one evaluation.

    A worker process is used for one pack after another: importing RLlib takes far longer than building an algorithm.
    """

    algorithm: Algorithm

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """One process with its share of the machine."""
        return tune.PlacementGroupFactory([{"CPU": config["cpus"], "GPU": config["gpus"]}])

    def setup(self, config: dict[str, Any]) -> None:
        """Build the algorithm."""
        torch.set_num_threads(max(1, int(config["cpus"])))  # trials share a machine
        self.algorithm = algorithm_config(config["pack"]["members"], config["gpus"]).build_algo()

    def step(self) -> dict[str, Any]:
        """Train up to the next evaluation. `members` lists what was measured of each.

        A list, because Tune keeps statistics of every number that it finds in a dict and saves them again and again.
        """
        result = self.algorithm.train()
        members = [result["members"][f"{position:03d}"] for position in range(len(result["members"]))]
        return {"members": members} | {name: result[name] for name in ("num_updates", "updates_per_second")}

    def save_checkpoint(self, directory: str) -> None:
        """Save everything that training goes on from."""
        self.algorithm.save_to_path(directory)

    def load_checkpoint(self, directory: str) -> None:
        """Go on from a checkpoint."""
        self.algorithm.restore_from_path(directory)

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Take another pack."""
        self.cleanup()
        self.setup(config)
        return True

    def cleanup(self) -> None:
        """Release data, environments and memory."""
        self.algorithm.stop()


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
