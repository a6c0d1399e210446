"""Which execution is chosen, and from what."""

import math
from typing import Any

import pytest
import torch

from dr3_ray.algorithms.registry import find
from dr3_ray.training.execution.choice import choose_execution, largest_activation
from dr3_ray.types import Noise

NOTHING = Noise({}, {})


@pytest.mark.parametrize(
    ("name", "kind", "options", "floats"),
    [
        ("DR3-DQN", "discrete", {}, 32 * 256),
        ("BC", "continuous", {"batch_size": 100, "hidden_sizes": (8, 50)}, 100 * 50),
        ("DR3-DQN", "discrete", {"critic_actions": "input"}, 32 * 3 * 256),
        ("DR3-CQL", "continuous", {"batch_size": 64, "n_sampled_actions": 10}, 64 * 31 * 256),
    ],
)
def test_the_largest_activation_counts_sampled_actions(name: str, kind: str, options: Any, floats: int):
    from dr3_ray.types import Spaces

    spec = find(name, kind)
    made = spec.options(**options)
    assert largest_activation(made, spec.noise(made, Spaces((3,), kind, 2)), 2) == floats


@pytest.mark.parametrize(("by_network", "large"), [(False, "in_turn"), (True, "stacked")])
def test_small_activations_are_stacked_on_a_cpu_and_all_on_a_gpu(by_network: bool, large: str, monkeypatch: Any):
    monkeypatch.setattr("dr3_ray.training.execution.choice.ONEDNN_IS_FASTER", by_network)
    assert choose_execution(torch.device("cpu"), 2**17) == "stacked"
    assert choose_execution(torch.device("cpu"), 2**17 + 1) == large
    assert choose_execution(torch.device("cpu"), math.inf) == "in_turn"  # convolutions
    assert choose_execution(torch.device("cuda"), math.inf) == "stacked"
    assert choose_execution(torch.device("cpu"), 2**13 - 1, compiled=True) == "stacked"
    assert choose_execution(torch.device("cpu"), 2**13, compiled=True) == ("in_turn" if by_network else "stacked")
    assert choose_execution(torch.device("cpu"), 2**18, compiled=True) == "in_turn"


def test_auto_follows_the_choice(make_population: Any, monkeypatch: Any):
    monkeypatch.setattr("dr3_ray.training.execution.choice.ONEDNN_IS_FASTER", False)
    small = make_population(find("BC", "discrete"), [{}, {"seed": 1}], "auto")
    assert [list(view.members) for view in small.steps.views] == [[0, 1]]
    large = make_population(find("BC", "discrete"), [{"batch_size": 2**14}, {"batch_size": 2**14, "seed": 1}], "auto")
    assert [list(view.members) for view in large.steps.views] == [[0], [1]]
