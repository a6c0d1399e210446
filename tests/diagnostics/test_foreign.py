"""A diagnosis of critics of plain torch: by hand, against our own critics' numbers, and as CORL's scripts have them."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dr3_ray.diagnostics import diagnose
from dr3_ray.diagnostics.features import feature_statistics
from dr3_ray.diagnostics.implicit import implicit_regularizer
from dr3_ray.errors import UserError
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import DiscreteCritic
from dr3_ray.types import Backup, Transition

PAGE = Path(__file__).parents[2] / "docs" / "diagnose.md"


class Linear(nn.Module):
    """Q(s, a) = w · [s, a], whose features are its inputs."""

    def __init__(self, weight: list[float], bias: bool = False):
        super().__init__()
        self.head = nn.Linear(len(weight), 1, bias=bias)
        self.head.weight.data = torch.tensor([weight])

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.head(torch.cat([observations, actions], -1))


def by_hand(**more: Any) -> dict[str, Any]:
    """Two rows: [s, a] = (1, 0) then (0, 2); the second one is terminal."""
    return {
        "observations": [[1.0], [0.0]],
        "actions": [[0.0], [2.0]],
        "next_observations": [[3.0], [9.0]],
        "terminateds": [False, True],
        "next_actions": [[1.0], [9.0]],
        "rewards": [1.0, 1.0],
    } | more


def test_numbers_by_hand():
    found = diagnose(Linear([1.0, 0.5]), by_hand(), gamma=0.5)
    numbers, pair = found.probes["batch"].numbers, found.probes["batch"].pairs["data"]
    assert numbers["q_data"] == 1.0 and numbers["q_std"] == 0.0  # 1 and 0.5 · 2
    assert numbers["td_error"] == pytest.approx((1.0 - (1.0 + 0.5 * 3.5)) ** 2 / 2)  # the terminal row is exact
    assert pair["dot_product"] == 3.0 and pair["next_phi_norm"] == pytest.approx(10.0**0.5)  # (1, 0) · (3, 1)
    assert pair["first_term"] == 2.5 and pair["second_term"] == 0.75 and pair["r_td"] == 1.75  # (1 + 4) / 2, 1.5 / 2
    assert pair["seem_eigenvalue"] == pytest.approx(0.25)  # [[0.5, 0.5], [0, −4]] / 2
    assert numbers["dead_units"] == 0.0 and numbers["effective_rank"] == 2.0
    assert found.probes["batch"].spectrum == pytest.approx([2.0**0.5, 0.5**0.5])
    assert "self-exciting" in found.wrong
    assert diagnose(Linear([1.0, 0.5], bias=True), by_hand()).probes["batch"].pairs["data"]["first_term"] == 3.5


def test_held_out_rows_and_returns():
    found = diagnose(
        Linear([1.0, 0.5]), by_hand(), gamma=0.5, held_out=by_hand(rewards=[9.0, 9.0], monte_carlo_returns=[0.0, 1.5])
    )
    assert set(found.probes) == {"batch", "held-out"} and "overfit to its rows" in found.wrong
    assert found.probes["held-out"].numbers["overestimation"] == 0.25
    assert found.notes == ["no monte_carlo_returns in the batch: over-estimation is not measured"]


def test_a_policy_gives_the_backup_and_its_distance():
    found = diagnose(Linear([1.0, 0.5]), by_hand(), gamma=0.5, policy=lambda observations: 2.0 * observations)
    assert list(found.probes["batch"].pairs) == ["policy", "data"]
    assert found.probes["batch"].pairs["policy"]["dot_product"] == 3.0  # (1, 0) · (3, 6)
    assert found.probes["batch"].numbers["q_policy"] == 1.0  # (1, 2) and (0, 0): 2 and 0
    assert found.probes["batch"].numbers["policy_distance"] == 2.0  # of (2, 0) from (0, 2)


def plain(critic: Any) -> nn.Sequential:
    """The first member's first critic, in torch's own layers."""
    layers: list[nn.Module] = []
    for layer in [*critic.encoder.layers, critic.head]:
        weight = layer.weight[0, 0]
        copy = nn.Linear(*weight.shape)
        copy.weight.data, copy.bias.data = weight.T.clone(), layer.bias[0, 0, 0].clone()
        layers += [copy, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_the_same_numbers_as_of_our_own_critics(kind: str):
    torch.manual_seed(0)
    architecture = Architecture((3,), (16, 8))
    sources = [torch.Generator().manual_seed(0)]
    observations, next_observations = torch.randn(2, 1, 64, 3)
    terminateds = (torch.rand(1, 64) < 0.2).float()
    discrete = kind == "discrete"
    actions, next_actions = torch.randint(4, (2, 1, 64)) if discrete else torch.rand(2, 1, 64, 2)
    critic: Any = (DiscreteCritic if discrete else ContinuousCritic)(sources, architecture, 4 if discrete else 2, 1)
    phi = critic.features(observations, actions)
    backup = Backup(phi, next_actions, 1.0 - terminateds)
    next_phi = critic.features(next_observations, next_actions)
    rows = Transition(observations, actions, None, next_observations, terminateds)
    wanted = implicit_regularizer(critic, rows, backup, 0.9)
    wanted |= feature_statistics(phi, next_phi, 1.0 - terminateds)
    batch = {
        "observations": observations[0], "actions": actions[0], "next_observations": next_observations[0],
        "terminateds": terminateds[0], "next_actions": next_actions[0],
    }  # fmt: skip
    net = plain(critic)
    whole = net if discrete else nn.ModuleDict({"net": net})
    evaluate = None if discrete else lambda module, s, a: module["net"](torch.cat([s, a], -1))
    found = diagnose(whole, batch, gamma=0.9, evaluate=evaluate).probes["batch"].pairs["data"]
    assert {name: found[name] for name in wanted} == pytest.approx(
        {name: value.item() for name, value in wanted.items()}, rel=1e-4, abs=1e-6
    )


def test_a_named_layer_and_a_module_that_stays_as_it_was():
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    batch = {
        "observations": torch.randn(32, 3), "next_observations": torch.randn(32, 3),
        "actions": torch.randint(4, (32, 1)), "terminateds": torch.zeros(32),
    }  # fmt: skip
    net[2].eval()  # one that its owner has frozen
    last, named, first = (diagnose(net, batch, features=name).probes["batch"] for name in ("penultimate", "4", "1"))
    assert last.spectrum == named.spectrum != first.spectrum
    assert last.pairs["argmax"]["dot_product"] == named.pairs["argmax"]["dot_product"]
    assert last.pairs["argmax"]["first_term"] == pytest.approx(named.pairs["argmax"]["first_term"] + 1.0)  # the bias
    assert net.training and net[1].training and not net[2].training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"reward": [1.0, 1.0]}, {}, "did you mean 'rewards'?"),
        ({"terminateds": None}, {}, "the batch has no terminateds"),
        ({"rewards": [1.0]}, {}, "rewards has 1 rows, actions 2"),
        ({"next_actions": None}, {}, "a' is not known: give next_actions in the batch, or policy="),
        ({}, {"features": "hed"}, "did you mean 'head'?"),
        ({}, {"gamma": 1.5}, "gamma is 1.5"),
        ({}, {"evaluate": lambda critic, s, a: critic(s, a).expand(2, 3)}, r"the critic gives shape \(2, 3\), not Q"),
        ({}, {"evaluate": lambda critic, s, a: s[:, 0]}, "no linear layer of Linear was called"),
        ({}, {"policy": lambda s: torch.zeros(2, 5)}, "the policy gives torch.float32 of shape"),
    ],
)
def test_mistakes_are_one_line(changed: dict[str, Any], options: dict[str, Any], message: str):
    batch = {name: values for name, values in by_hand(**changed).items() if values is not None}
    with pytest.raises(UserError, match=message) as error:
        diagnose(Linear([1.0, 0.5]), batch, **options)
    assert "\n" not in str(error.value)


def test_the_recipe_for_scripts_like_corls():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec("\n".join(block for block in blocks if "ray.rllib" not in block and "runs/" not in block), names)
    probe = names["found"].probes["batch"]
    assert list(probe.pairs) == ["policy", "data"] and probe.numbers["q_policy"] != probe.numbers["q_data"]
