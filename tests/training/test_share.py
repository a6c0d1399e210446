"""Several learners of one population, here threads: equal to the bit, and equal to one learner up to rounding."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.training.population import Population
from dr3_ray.training.share import Share

# λ is a statistic of the batch; SARSA's loss is a mean over the rows whose next action is known
NOT_A_MEAN_OVER_ROWS = {"DR3-TD3BC", "DR3-ReBRAC", "DR3-SARSA"}


class Meeting:
    """The mean over threads, as torch.distributed takes it over processes."""

    def __init__(self, size: int):
        self.size, self.barrier, self.brought = size, threading.Barrier(size), [torch.empty(0)] * size

    def share(self, rank: int) -> Share:
        def average(flat: Tensor) -> None:
            self.brought[rank] = flat.clone()
            self.barrier.wait(timeout=60)
            flat.copy_(torch.stack(self.brought).mean(0))
            self.barrier.wait(timeout=60)

        return Share(rank, self.size, average)


def train(make: Callable[[], Population], size: int, n_steps: int = 6) -> list[Population]:
    """`size` learners of equal populations, after their steps."""
    meeting, learners = Meeting(size), [make() for _ in range(size)]
    for rank, learner in enumerate(learners):
        learner.steps.batches.share = meeting.share(rank)
    with ThreadPoolExecutor(size) as pool:
        list(pool.map(lambda learner: learner.update(n_steps), learners))
    return learners


def values_of(population: Population) -> dict[str, Tensor]:
    """All that training changes or reports."""
    parts = population.steps.parts.items()
    return (
        dict(population.networks.state_dict())
        | {f"{name}.{moment}": values for name, part in parts for moment, values in part.adam.state_dict().items()}
        | population.metrics
        | {"diverged": population.diverged}
    )


def flat(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([each.flatten() for each in values.values()])


def test_learners_agree_to_the_bit_and_with_a_single_one(spec: AlgorithmSpec, make_population: Any):
    def make() -> Population:
        return make_population(spec, [{"seed": 0}, {"seed": 1}], "stacked", torch.float64, regularized=False)

    first, second = (flat(values_of(learner)) for learner in train(make, 2))
    single = make()
    single.update(6)
    assert not single.diverged.any() and torch.equal(first, second)
    difference = (first - flat(values_of(single))).abs().max()
    assert difference > 1e-6 if spec.name in NOT_A_MEAN_OVER_ROWS else difference < 1e-12


def test_with_dr3_and_members_in_turn(make_population: Any):
    """The penalty is a mean over rows with a backup; over all rows it is that of a single learner."""
    spec = find("DR3-DQN", "discrete")
    members = [{"seed": j, "dr3_coeff": 0.1 * j, "dr3_mask_terminals": False} for j in range(3)]

    def make() -> Population:
        return make_population(spec, members, "in_turn", torch.float64)

    first, *others = (flat(values_of(learner)) for learner in train(make, 4))
    single = make()
    single.update(6)
    assert all(torch.equal(first, other) for other in others)
    assert (first - flat(values_of(single))).abs().max() < 1e-12


def test_a_loss_that_is_not_finite_on_one_learner_marks_the_member_on_all(make_population: Any, make_data: Any):
    data = make_data("discrete", rows=2000)
    spec = find("DR3-DQN", "discrete")

    def make() -> Population:
        return make_population(spec, [{"seed": 0}, {"seed": 1}], data=data)

    rows = make().steps.batches.sampler.draw(slice(0, 2))[0]  # [K, B] of the first step
    assert rows[0, 3] not in rows[1]
    data.columns["rewards"][rows[0, 3]] = torch.nan  # in the share of the first learner, of the first member
    first, second = train(make, 2, n_steps=1)
    assert first.diverged.tolist() == second.diverged.tolist() == [True, False]
