"""The Learner: a population, trained in its own loop of gradient steps."""

import time
from typing import Any

from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.typing import StateDict

from dr3_ray.data import load_dataset
from dr3_ray.errors import UserError
from dr3_ray.member import Member
from dr3_ray.population import Population
from dr3_ray.rllib.module import spaces_of


class PopulationLearner(TorchLearner):
    """`update` runs `updates_per_iteration` gradient steps of every member, targets included, and logs once.

    Optimisers, samplers and counters are the population's, so that its state is what a checkpoint needs besides the
    module: RLlib saves both, and a restored run continues bit for bit.
    """

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Bind the module's networks to a population, which brings its own optimisers."""
        module = self.module[module_id].unwrapped()
        members = [Member.from_dict(module.spec, values) for values in module.model_config["members"]]
        data = load_dataset(config.input_)
        expected = spaces_of(data.observation_space.to_gymnasium(), data.action_space.to_gymnasium())
        if module.spaces != expected:
            raise UserError(f"environment {config.env!r} has {module.spaces}, the data set {config.input_} {expected}")
        self.population = Population(module.spec, module.networks, members, data, module.spaces, config.execution)

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Train, then measure on the probe batch; returns reduced metrics under `default_policy`."""
        self._check_is_built()
        self._weights_seq_no += 1
        population, started = self.population, time.perf_counter()
        metrics = population.update(self.config.updates_per_iteration)
        elapsed = time.perf_counter() - started
        metrics = metrics | population.probe() | {"diverged": population.diverged.float()}
        for name, values in metrics.items():
            for member, value in enumerate(values.tolist()):
                self.metrics.log_value((DEFAULT_MODULE_ID, "members", f"{member:03d}", name), value, window=1)
        rate = self.config.updates_per_iteration * len(population.members) / elapsed
        self.metrics.log_value((DEFAULT_MODULE_ID, "updates_per_second"), rate, window=1)
        self.metrics.log_value((DEFAULT_MODULE_ID, "num_updates"), population.step, window=1)
        return self.metrics.reduce()

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Any:
        """Never called: RLlib's stock loop would take one loss of one batch; `update` trains the population."""
        raise TypeError("a PopulationLearner is trained by update(), which draws its own batches")

    def set_state(self, state: StateDict) -> None:
        """Restore, also to an earlier state: RLlib would keep the newer weights and restore the rest."""
        self._weights_seq_no = 0
        super().set_state(state)

    def _get_optimizer_state(self) -> StateDict:
        return {"population": self.population.state_dict()}

    def _set_optimizer_state(self, state: StateDict) -> None:
        self.population.load_state_dict(state["population"])
