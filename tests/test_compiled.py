"""`compile=True`: what is decided, by which times, and that it changes nothing but rounding."""

import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dr3_ray import compiled
from dr3_ray.algorithms.registry import find
from dr3_ray.population import Population

pytestmark = pytest.mark.usefixtures("without_shape_checks")
STEPS = 40  # more than four times those that are timed


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(compiled, "TIMED", 4)
    monkeypatch.setenv(compiled.KEPT, str(tmp_path))


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


def parameters(population: Population) -> torch.Tensor:
    return torch.cat([part.values for part in population.parts.values()], dim=1)


@pytest.mark.parametrize(("planned", "chosen"), [(1000, True), (10, False)])
def test_the_faster_one_goes_on_if_it_pays(planned: int, chosen: bool, make: Any, monkeypatch: Any, said: Any):
    population, plain = make(), make(False)
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

    resumed = make()
    resumed.networks.load_state_dict(population.networks.state_dict())
    resumed.load_state_dict(population.state_dict())
    assert resumed.compiler.choice is chosen
    for each in (population, resumed):
        each.update(STEPS)
    assert torch.equal(parameters(population), parameters(resumed)) and len(said()) == 1


def test_what_is_slower_is_left_alone(make: Any, monkeypatch: Any, said: Any):
    population = make()
    on_a_clock(population, monkeypatch, 1.0, 5.0)
    population.update(STEPS)
    [message] = said()
    assert population.compiler.choice is False and "made good" not in message


def test_without_a_compiler_training_goes_on_as_it_is(make: Any, monkeypatch: Any, said: Any):
    def broken(function: Any, **options: Any) -> Any:
        def fail(*arguments: Any) -> Any:
            raise RuntimeError("no C++ compiler\nand more")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    population, plain = make(), make(False)
    for each in (population, plain):
        each.update(STEPS)
    [message] = said()
    assert population.compiler.choice is False and "torch.compile failed (no C++ compiler): not compiled" in message
    assert torch.equal(parameters(population), parameters(plain))


def test_nothing_is_decided_by_few_steps_and_nothing_for_members_in_turn(make: Any, said: Any):
    population = make()
    population.update(16)
    assert population.compiler.choice is None and not said()
    population = make(execution="in_turn")
    population.update(16)
    assert population.compiler.choice is False
    assert said() == ["compile: members that are walked in turn are not compiled"]
