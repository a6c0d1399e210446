"""Recorded steps do what they were recorded from, to the bit; what cannot be recorded goes on as it is."""

import logging
import weakref
from collections import Counter
from typing import Any

import pytest
import torch
from torch.fx import graph_module
from torch.utils._python_dispatch import TorchDispatchMode

from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.training import batches
from dr3_ray.training.execution import recordings as recorded
from dr3_ray.training.population import Population
from dr3_ray.types import Spaces, Terms
from tests.training.test_population import assert_equal, different_members, everything

STEPS = 12
aten = torch.ops.aten
pytestmark = pytest.mark.usefixtures("without_shape_checks")


@pytest.fixture(autouse=True)
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "AFTER", 2)


def trained(population: Population) -> dict[str, torch.Tensor]:
    for n in (5, 4, STEPS - 9):
        population.update(n)
    return everything(population)


def replays(population: Population) -> list[Any]:
    return population.recordings.replays


def without_first_steps(spec: AlgorithmSpec, members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In which an objective may be another one."""
    settled = {name: 0 for name, _ in spec.options() if name.endswith("_steps")}
    return [member | settled for member in members]


@pytest.mark.spread(2)
@pytest.mark.parametrize("execution", ["in_turn", "stacked"])
@pytest.mark.parametrize("onednn", [False, True])
def test_replays_are_equal_to_the_bit(
    spec: AlgorithmSpec, execution: str, onednn: bool, make_population: Any, monkeypatch: Any
):
    if onednn:
        monkeypatch.setattr("dr3_ray.networks.products.LEAST", 0)
        monkeypatch.setattr("dr3_ray.networks.products.ONEDNN_IS_FASTER", True)
    members = without_first_steps(spec, different_members(spec, 2))
    ours, theirs = (make_population(spec, members, execution) for _ in range(2))
    theirs.compose(without=["recordings"])
    assert_equal(trained(ours), trained(theirs))
    kinds = len({frozenset(ours.steps.active(step)) for step in range(STEPS)})
    assert len(replays(ours)) == kinds * len(ours.steps.views) and all(replays(ours))


@pytest.mark.parametrize(
    "options",
    [
        {"critic_lr": 1e-3, "dr3_adaptive": "cosine"},
        {"precision": "bf16"},
        {"normalize_observations": True, "n_step": 3, "double_q": True},
        {"srank_coeff": 0.1},
        {"critic_norm": "unit"},
    ],
)
def test_replays_are_equal_with_other_options(options: dict[str, Any], make_population: Any):
    spec = find("DR3-DQN", "discrete")
    members = [options | {"seed": seed} for seed in range(2)]
    ours, theirs = (make_population(spec, members, "stacked") for _ in range(2))
    theirs.compose(without=["recordings"])
    assert_equal(trained(ours), trained(theirs))
    assert all(replays(ours)) and len(replays(ours)) == 1


@pytest.mark.slow
def test_replays_are_equal_on_images_and_named_parts(make_population: Any, monkeypatch: Any):
    monkeypatch.setattr(batches, "PROBE_ROWS", 16)
    spec, spaces = find("DR3-DQN", "discrete"), Spaces({"camera": (8, 8, 3), "state": (2, 2)}, "discrete", 3)
    options = {"encoder": {"camera": "impala"}, "random_crop": 2, "batch_size": 4}
    members = [options | {"seed": seed} for seed in range(2)]
    ours, theirs = (make_population(spec, members, "in_turn", spaces=spaces) for _ in range(2))
    theirs.compose(without=["recordings"])
    assert_equal(trained(ours), trained(theirs))
    assert all(replays(ours)) and len(replays(ours)) == 2


@pytest.mark.parametrize("options", [{"critic_dropout": 0.3}, {"critic_bottleneck": True}, {"critic_norm": "spectral"}])
def test_layers_with_noise_or_a_state_are_not_recorded(options: dict[str, Any], make_population: Any):
    assert make_population(find("DR3-DQN", "discrete"), [options]).recordings is None


def test_first_steps_are_not_recorded(make_population: Any):
    population = make_population(find("DR3-DQN", "discrete"), [{"dr3_coeff": 0.1, "dr3_warmup_steps": 8.0}])
    population.update(8)
    assert not replays(population)
    population.update(4)
    assert all(replays(population)) and replays(population)


def test_what_depends_on_the_data_is_not_recorded(make_population: Any, caplog: Any):
    """Be it seen at once, when a number is asked for, or by the comparison."""
    caplog.set_level(logging.INFO, "dr3_ray")
    population = make_population(find("DR3-DQN", "discrete"), [{"dr3_coeff": 0.1}])
    view, rows = population.steps.views[0], []

    def asks(networks: Any, batch: Any, noise: Any, step: int) -> Any:
        terms, backup = objective(networks, batch, noise, step)
        return (terms if float(batch.rewards.sum()) > 0.0 else Terms(terms.losses, terms.metrics)), backup

    def counts(networks: Any, batch: Any, noise: Any, step: int) -> Any:
        rows.append(batch)
        terms, backup = objective(networks, batch, noise, step)
        return Terms({name: loss * len(rows) for name, loss in terms.losses.items()}, terms.metrics), backup

    objective = view.objective
    for changed, why in ((asks, "asks for a number"), (counts, "depend on the data")):
        view.objective = changed
        population.compose()
        population.update(STEPS)
        assert replays(population) == [None]
        assert why in caplog.messages[-1]


@pytest.mark.spread(2)
@pytest.mark.parametrize("execution", ["in_turn", "stacked"])
def test_a_penalty_without_weight_takes_no_operation(critic_spec: AlgorithmSpec, execution: Any, make_population: Any):
    members = without_first_steps(critic_spec, [{"seed": seed, "dr3_coeff": 0.0} for seed in range(2)])
    ours = make_population(critic_spec, members, execution)
    base = make_population(critic_spec, members, execution, regularized=False)
    metrics, known = ours.update(STEPS), base.update(STEPS)
    assert known.keys() == metrics.keys() - {"dr3_penalty", "loss_dr3"} and metrics["dr3_penalty"].all()
    zero = Counter({aten.zeros.default: len(replays(ours)), aten.add.Tensor: len(replays(ours))})  # a loss of it
    assert operations_of_steps(ours) == operations_of_steps(base) + zero


class Operations(TorchDispatchMode):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[Any] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.made[operation] += 1
        return operation(*args, **(kwargs or {}))


def operations_of_steps(population: Population) -> Counter[Any]:
    """The operations of one recorded step of each kind, of which nobody asks for the metrics."""
    (batch, noise), *_ = population.steps.batches.stream(population.steps.views[0].rows, 1)
    with Operations() as operations:
        for replay in replays(population):
            replay.gradients(batch, noise)
    return operations.made


def test_a_population_that_lost_members_records_anew(make_population: Any):
    spec = find("DR3-IQL", "continuous")
    population = make_population(spec, different_members(spec, 3), "stacked")
    population.update(STEPS)
    kept, plain = population.keep([0, 2]), population.keep([0, 2])
    plain.compose(without=["recordings"])
    assert_equal(trained(kept), trained(plain))
    assert all(replays(kept)) and replays(kept)


def test_parameters_that_are_loaded_are_those_that_replays_see(make_population: Any):
    spec = find("DR3-DQN", "discrete")
    ours, theirs = (make_population(spec, [{"seed": seed}], "stacked") for seed in (0, 1))
    ours.update(STEPS), theirs.update(STEPS)
    ours.networks.load_state_dict(theirs.networks.state_dict())
    ours.load_state_dict(theirs.state_dict())
    theirs.compose(without=["recordings"])
    assert replays(ours)
    assert_equal(trained(ours), trained(theirs))


def test_a_recording_leaves_nothing_behind(make_population: Any):
    """In a process that trains one trial after the other."""
    population = make_population(find("DR3-DQN", "discrete"))
    kept = len(graph_module._loader.eval_cache)
    population.update(STEPS)
    [replay] = replays(population)
    functions = [each.__closure__[0].cell_contents.func for each in (replay._all, replay.gradients)]
    kept_by = [weakref.ref(each) for each in functions]
    del replay, functions
    population.compose(without=["recordings"])
    assert not any(each() for each in kept_by) and len(graph_module._loader.eval_cache) == kept
