"""A member of a stacked pack is the member alone, whatever the others of the pack are asked for."""

from typing import Any

import pytest
import torch

from dr3_ray.algorithms.registry import find

BOTTLENECK, DROPOUT = {"critic_bottleneck": True}, {"critic_dropout": 0.3}
DISCRETE: dict[str, dict[str, Any]] = {  # algorithms whose a' or every action takes passes of their own
    "one action": {},
    "double Q": {"double_q": True},
    "the action as input": {"critic_actions": "input"},
    "double Q of the action as input": {"critic_actions": "input", "double_q": True},
}
MIXED = {  # of two members: what both have, and in what they differ
    "c0 with dropout": (DROPOUT, "dr3_coeff", (0.0, 0.03)),
    "c0 with a bottleneck": (BOTTLENECK, "dr3_coeff", (0.03, 0.0)),
    "c0 with both": (BOTTLENECK | DROPOUT, "dr3_coeff", (0.0, 0.03)),
    "dropout with a bottleneck": (BOTTLENECK, "critic_dropout", (0.0, 0.3)),
    "dropout with layer norm": ({"critic_norm": "layer"}, "critic_dropout", (0.3, 0.0)),
    "srank with dropout": (DROPOUT, "srank_coeff", (0.0, 1e-3)),
    "c0 with spectral norm": ({"critic_norm": "spectral"}, "dr3_coeff", (0.0, 0.03)),
    "srank with spectral norm": ({"critic_norm": "spectral"}, "srank_coeff", (1e-3, 0.0)),
    "warm-up with both": (BOTTLENECK | DROPOUT, "dr3_warmup_steps", (0.0, 3.0)),
}


CASES = [
    ("DR3-IQL", "continuous", {}),
    *((name, "discrete", form) for name in ("DR3-DQN", "DR3-CQL") for form in DISCRETE.values()),
]


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore:the features of this critic can be negative")
@pytest.mark.parametrize(("name", "kind", "form"), CASES, ids=str)
@pytest.mark.parametrize("mixed", MIXED)
def test_members_of_a_pack(make_population: Any, name, kind, form, mixed):
    shared, option, values = MIXED[mixed]
    shared = shared | form
    asked = [shared | {"seed": seed, option: value} for seed, value in enumerate(values)]

    def critics(members):
        population = make_population(find(name, kind), members, "stacked")
        population.update(3)
        return population.networks.critic.state_dict()

    together, alone = critics(asked), [critics([each]) for each in asked]
    for key, values in together.items():
        torch.testing.assert_close(values, torch.cat([each[key] for each in alone]), rtol=1e-3, atol=1e-5, msg=key)
