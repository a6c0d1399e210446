"""The Learner: a population, trained in its own loop of gradient steps."""

import json
import platform
import time
from typing import Any

import torch
import tree  # type: ignore[import-untyped]
from ray.rllib.core import COMPONENT_OPTIMIZER, DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.typing import StateDict

from dr3_ray.data import load_dataset
from dr3_ray.errors import UserError
from dr3_ray.training.execution.choice import Execution
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from dr3_ray.training.process import prepare_training
from dr3_ray.training.share import ALONE, Share


def average_over_learners(values: torch.Tensor) -> None:
    """Replace a flat tensor by its mean over the process group that RLlib set up (gloo, or NCCL on GPUs)."""
    torch.distributed.all_reduce(values)  # the sum: gloo knows no mean
    values /= torch.distributed.get_world_size()


def as_lists(metrics: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """Return each metric [K] as numbers."""
    return {name: values.tolist() for name, values in metrics.items()}


class PopulationLearner(TorchLearner):
    """A learner whose `update` makes `updates_per_iteration` gradient steps of every member, and logs once.

    Optimisers, samplers and counters are the population's, so that its state is what a checkpoint needs besides the
    module: RLlib saves both, and a restored run continues bit for bit.
    """

    def build(self) -> None:
        """Build on the assigned GPU, or on the CPU where none was asked for."""
        asked = self.config.num_gpus_per_learner
        if asked and not torch.cuda.is_available():
            raise UserError(f"num_gpus_per_learner = {asked}, but torch finds no GPU on {platform.node()}: set it to 0")
        prepare_training()
        super().build()

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Bind the module's networks to a population, which brings its own optimisers."""
        module = self.module[module_id].unwrapped()
        members = [Member.from_dict(module.spec, values) for values in module.model_config["members"]]
        data = load_dataset(config.input_)
        share = ALONE
        if config.num_learners > 1:
            share = Share(torch.distributed.get_rank(), config.num_learners, average_over_learners)
        how = {"planned": config.planned_updates, "divisor": module.model_config["return_range"]}
        execution: Execution = config.execution
        self.population = Population(
            module.spec, module.networks, members, data, module.spaces, execution, share, **how
        )

    def _make_modules_ddp_if_necessary(self) -> None:
        """Do nothing: torch's wrapper averages the gradients of one backward pass; a population averages its own."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Train, then measure on the probe batch; returns reduced metrics under `default_policy`.

        Raises:
            UserError: rows or episodes are given.
        """
        self._check_is_built()
        given = vars(kwargs["training_data"]) if kwargs.get("training_data") else {}
        if named := [name for name, data in given.items() if data is not None and name != "data_iterators"]:
            raise UserError(f"an offline learner draws its own rows from input_: leave out {named[0]}, or call train()")
        self._weights_seq_no += 1
        population, started = self.population, time.perf_counter()
        trained = as_lists(population.update(self.config.updates_per_iteration))  # waits until a GPU has made them
        elapsed = time.perf_counter() - started
        measured = as_lists(population.probe() | {"diverged": population.diverged.float()})
        for name, values in (trained | measured).items():
            for member, value in enumerate(values):
                self.metrics.log_value((DEFAULT_MODULE_ID, "members", f"{member:03d}", name), value, window=1)
        rate = self.config.updates_per_iteration * len(population.members) / elapsed
        self.metrics.log_value((DEFAULT_MODULE_ID, "updates_per_second"), rate, window=1)
        self.metrics.log_value((DEFAULT_MODULE_ID, "num_updates"), population.step, window=1)
        self._log_trainable_parameters()  # RLlib does it once, and shows NaN from the second result on
        return self.metrics.reduce()

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Any:
        """Refuse: RLlib's stock loop would take one loss of one batch; `update` trains the population."""
        raise TypeError("a PopulationLearner is trained by update(), which draws its own batches")

    def set_state(self, state: StateDict) -> None:
        """Restore, also to an earlier state: RLlib would keep the newer weights and restore the rest.

        Raises:
            UserError: it lacks a part; nothing has changed then.
        """
        if COMPONENT_OPTIMIZER in state:
            self.population.check_state_dict(state[COMPONENT_OPTIMIZER].get("population"))
        self._weights_seq_no = 0
        super().set_state(state)

    def structure(self) -> dict[str, Any]:
        """Return the structure that `dr3_ray.rllib.checkpoint` compares, as JSON has it."""
        population, module = self.population, self.module[DEFAULT_MODULE_ID].unwrapped()
        options = population.members[0].all_options
        shared = {name: value for option in options for name, value in option if name not in option.numbers()}
        structure: dict[str, Any] = {
            "algorithm": module.spec.name,
            "spaces": module.spaces._asdict(),
            "recorded": module.recorded.to_dict(),
            "options": {"members": module.n_members} | shared,
            "tensors": {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()},
        }
        return json.loads(json.dumps(structure))

    def _get_optimizer_state(self) -> StateDict:
        # on the CPU, so that a machine without a GPU can read the checkpoint
        return tree.map_structure(
            lambda value: value.cpu() if isinstance(value, torch.Tensor) else value,
            {"population": self.population.state_dict()},
        )

    def _set_optimizer_state(self, state: StateDict) -> None:
        self.population.load_state_dict(state["population"])
