"""`compile=True`: what is decided, by which times, and that it changes nothing but rounding."""

import contextlib
import itertools
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dr3_ray.algorithms.registry import find
from dr3_ray.data.sampler import CountingSampler
from dr3_ray.training.execution import compiler as compiled
from dr3_ray.training.execution import inductor
from dr3_ray.training.population import Population

pytestmark = pytest.mark.usefixtures("without_shape_checks")
STEPS = 40  # more than four times those that are timed


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for what torch's compiler has made: one test takes it up from another."""
    return str(tmp_path_factory.mktemp("inductor"))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    monkeypatch.setattr(compiled, "TIMED", 4)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", cache)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the package has logged; torch's compiler logs as well, the first time in a process."""
    caplog.set_level(logging.INFO, "dr3_ray")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "dr3_ray"]


@pytest.fixture
def make(make_population: Any) -> Any:
    def dqn(compile: bool = True, members: int = 2, execution: str = "stacked") -> Population:
        options = [{"compile": compile, "seed": seed} for seed in range(members)]
        return make_population(find("DR3-DQN", "discrete"), options, execution, torch.float64)

    return dqn


def on_a_clock(population: Population, monkeypatch: pytest.MonkeyPatch, plain: float, compiled_: float) -> None:
    """Four steps take so many seconds by it, and compiling takes 3."""
    now = itertools.accumulate(
        itertools.repeat(None), lambda at, _: at + (compiled_ if population.compiler.on else plain), initial=0.0
    )
    monkeypatch.setattr(compiled.time, "perf_counter", lambda: next(now))


@pytest.mark.slow
@pytest.mark.parametrize(("c0", "functions"), [((0.1, 0.2), 1), ((0.0, 0.1), 2), ((0.0, 0.0), 1)])
def test_members_without_a_weight_are_compiled_apart(
    c0: tuple[float, ...], functions: int, make_population: Any, monkeypatch: Any, said: Any
):
    members = [{"compile": True, "dr3_coeff": each} for each in c0]
    population = make_population(find("DR3-DQN", "discrete"), members, "in_turn", torch.float64)
    on_a_clock(population, monkeypatch, 50.0, 10.0)
    population.update(STEPS)
    [took, updates] = re.search(r"took ([\d.]+) s, made good by (\d+) updates", *said()).groups()
    assert float(updates) == pytest.approx(functions * float(took) / 20.0, abs=0.5)  # an update of both takes 20 s less


def parameters(population: Population) -> torch.Tensor:
    return torch.cat([part.values for part in population.steps.parts.values()], dim=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("planned", "chosen", "execution"), [(1000, True, "stacked"), (10, False, "stacked"), (1000, True, "in_turn")]
)
def test_the_faster_one_goes_on_if_it_pays(
    planned: int, chosen: bool, execution: str, make: Any, monkeypatch: Any, said: Any
):
    population, plain = make(execution=execution), make(False, execution=execution)
    population.compiler.planned = planned
    on_a_clock(population, monkeypatch, 5.0, 1.0)
    for each in (population, plain):
        each.update(STEPS)
    assert population.compiler.choice is chosen
    [message] = said()
    assert message.startswith("compile: an update takes 1.25e+03 ms, compiled 250, and compiling took ")
    assert message.endswith(f": {'' if chosen else 'not '}compiled for {planned:,} updates")
    torch.testing.assert_close(parameters(population), parameters(plain), rtol=1e-9, atol=1e-12)
    assert population.step == STEPS and population.metrics.keys() == plain.metrics.keys()

    resumed = make(execution=execution)
    resumed.networks.load_state_dict(population.networks.state_dict())
    resumed.load_state_dict(population.state_dict())
    assert resumed.compiler.choice is chosen
    for each in (population, resumed):
        each.update(STEPS)
    assert torch.equal(parameters(population), parameters(resumed)) and len(said()) == 1


@pytest.mark.slow
def test_counted_draws_go_on_where_they_were(make: Any, monkeypatch: Any):
    """On a GPU they are counted: a decision within many steps is no reason to draw some again."""
    population, plain = make(), make(False)
    for each in (population, plain):
        known = each.steps.batches.sampler
        each.steps.batches.sampler = CountingSampler(known.rows, known.batch_size, known.noise, [0, 1], torch.float64)
    on_a_clock(population, monkeypatch, 5.0, 1.0)
    for each in (population, plain):
        each.update(STEPS)
    assert population.compiler.choice is True
    assert torch.equal(population.steps.batches.sampler._steps, plain.steps.batches.sampler._steps)
    torch.testing.assert_close(parameters(population), parameters(plain), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_what_is_slower_is_left_alone(make: Any, monkeypatch: Any, said: Any):
    population = make()
    on_a_clock(population, monkeypatch, 1.0, 5.0)
    population.update(STEPS)
    [message] = said()
    assert population.compiler.choice is False and "made good" not in message


def test_without_a_compiler_training_goes_on_as_it_is(make: Any, monkeypatch: Any, said: Any):
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(inductor, "compile_graph", broken)
    monkeypatch.setattr(inductor, "_compiled", {})
    population, plain, resumed = make(), make(False), make()
    resumed.compiler.choice = True
    for each in (population, plain, resumed):
        each.update(STEPS)
    why, decided, *on_resuming = said()
    assert why == "steps are not compiled (RuntimeError: no C++ compiler): they go on as they are"
    assert "some steps cannot be compiled: not compiled for 100,000 updates" in decided
    assert on_resuming == [why, "compile: some steps cannot be compiled: not compiled from here on"]
    assert population.compiler.choice is False and resumed.compiler.choice is False
    assert torch.equal(parameters(population), parameters(plain))
    assert torch.equal(parameters(resumed), parameters(plain))


class FailingGraphs:
    """As on a GPU, but that nothing that is compiled can be recorded, which shows after some steps."""

    def __init__(self, run: Any, steps: Any, switch: Any):
        self._run, self._switch = run, switch

    def __call__(self, view: Any, first: int, n_steps: int) -> Any:
        if self._switch.on:
            self._run(view, first, 20)
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return self._run(view, first, n_steps)

    one_stream = contextlib.nullcontext


@pytest.mark.slow
def test_what_cannot_be_recorded_on_a_gpu_goes_on_as_it_is(make: Any, said: Any):
    population, plain, resumed = make(), make(False), make()
    for each in (population, resumed):
        each.compose(graphs=FailingGraphs)
    resumed.compiler.choice = True
    for each in (population, plain, resumed):
        each.update(STEPS)
        each.update(STEPS)
    decided, on_resuming = said()
    why = "compiling failed (RuntimeError: operation not permitted when stream is capturing)"
    assert decided.endswith(f", and {why}: not compiled for 100,000 updates")
    assert on_resuming == f"compile: {why}: not compiled from here on"
    for each in (population, resumed):
        assert each.compiler.choice is False and torch.equal(parameters(each), parameters(plain))
        assert each.state_dict()["sampler"]["generators"][0].equal(plain.state_dict()["sampler"]["generators"][0])


@pytest.mark.slow
def test_what_is_too_long_or_does_something_else_is_not_compiled(make: Any, monkeypatch: Any, said: Any):
    population = make()
    population.compiler.choice = True
    monkeypatch.setattr(inductor, "MOST", 10)
    population.update(1)
    assert "operations, of at most 10 that are compiled" in said()[0]
    monkeypatch.undo()
    wrong = make()
    wrong.compiler.choice = True
    function = inductor.compile_graph
    monkeypatch.setattr(inductor, "_compiled", {})
    monkeypatch.setattr(inductor, "compile_graph", lambda *given: lambda *x: [1.1 * y for y in function(*given)(*x)])
    wrong.update(1)
    assert "steps are not compiled (they do something else): they go on as they are" in said()
    assert wrong.compiler.choice is False


def test_few_steps_decide_nothing_and_layers_with_noise_are_left_alone(make: Any, make_population: Any, said: Any):
    population = make()
    population.update(16)
    assert population.compiler.choice is None and not said()
    population = make_population(find("DR3-DQN", "discrete"), [{"compile": True, "critic_dropout": 0.1}])
    population.update(16)
    assert population.compiler.choice is False
    [message] = said()
    assert message == (
        "compile: layers that draw noise or have a state of their own are not compiled on a CPU: not compiled"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "execution"), [("bf16", "in_turn"), ("fp32", "stacked")])
def test_compiled_products_are_those_of_onednn(
    precision: str, execution: str, make_population: Any, monkeypatch: Any, said: Any
):
    monkeypatch.setattr("dr3_ray.networks.products.LEAST", 0)
    monkeypatch.setattr("dr3_ray.networks.products.ONEDNN_IS_FASTER", True)
    spec = find("DR3-SARSA", "continuous")
    members = [
        {"dr3_coeff": 0.1, "seed": 0, "precision": precision},
        {"critic_lr": 1e-3, "seed": 1, "precision": precision},
    ]
    ours, theirs = (
        make_population(spec, [{**each, "compile": on} for each in members], execution) for on in (True, False)
    )
    ours.compiler.choice = True
    for each in (ours, theirs):
        each.update(8)
    assert ours.execution_report()["compiled"] == len(ours.steps.views) and not said()
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    torch.testing.assert_close(parameters(ours), parameters(theirs), rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_members_in_turn_share_what_is_compiled(make: Any, monkeypatch: Any):
    calls = []
    function = inductor.compile_graph
    monkeypatch.setattr(inductor, "_compiled", {})
    monkeypatch.setattr(inductor, "compile_graph", lambda *given: (calls.append(given), function(*given))[1])
    population, plain, later = make(execution="in_turn"), make(False, execution="in_turn"), make(execution="in_turn")
    for each in (population, later):
        each.compiler.choice = True
    for each in (population, plain, later):
        each.update(4)
    torch.testing.assert_close(parameters(population), parameters(plain), rtol=1e-9, atol=1e-12)
    assert torch.equal(parameters(population), parameters(later))
    kept = population.keep([1])
    kept.update(4)
    population.update(4)
    assert torch.equal(parameters(kept)[0], parameters(population)[1])
    assert len(calls) == 1 and len(inductor._compiled) == 1


def test_few_functions_are_kept(monkeypatch: Any):
    monkeypatch.setattr(inductor, "_compiled", {})
    monkeypatch.setattr(inductor, "ALIVE", 2)
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, inputs, *_: len(inputs))

    def of(n: int) -> Any:
        graph = torch.fx.Graph()
        graph.output([graph.placeholder(f"x_{i}") for i in range(n)])
        return inductor.compiled(graph, [torch.zeros(n)] * n)

    assert [of(n) for n in (1, 2, 1, 3)] == [1, 2, 1, 3] and list(inductor._compiled.values()) == [1, 3]
