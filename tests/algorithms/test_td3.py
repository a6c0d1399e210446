"""The delay of TD3's policy, and ReBRAC's rows without a next action."""

from typing import Any

import pytest
import torch

from dr3_ray.algorithms.registry import find


@pytest.mark.parametrize("name", ["DR3-TD3BC", "DR3-ReBRAC"])
def test_the_policy_and_all_targets_move_at_every_second_step(name: str, make_population: Any):
    population = make_population(find(name, "continuous"), [{"policy_delay": 2}, {"policy_delay": 2, "seed": 1}])
    for step in range(1, 7):
        before = {key: value.clone() for key, value in population.networks.named_parameters()}
        population.update(1)
        moved = {
            key.split(".")[0] for key, value in population.networks.named_parameters() if (value != before[key]).any()
        }
        later = {"actor", "target_actor", "target_critic"} if step % 2 == 0 else set()
        assert moved == {"critic"} | later, step


def test_an_unknown_next_action_has_no_penalty(make_population: Any):
    spec = find("DR3-ReBRAC", "continuous")
    targets = []
    for coefficient in (0.0, 3.0):
        population = make_population(spec, [{"critic_bc_coeff": coefficient}])
        indices, noise = population.steps.batches.sampler.draw(slice(0, 1))
        batch = population.steps.batches.gather(indices)
        for valid in (False, True):
            rows = batch._replace(next_actions_valid=torch.full_like(batch.next_actions_valid, valid))
            terms, _ = population.steps.views[0].base_objective(population.networks, rows, noise, 0)
            targets.append(terms.metrics["target"].item())
    assert targets[0] == targets[1] == targets[2] > targets[3]
