"""Our discrete losses and gradients against other people's on the same weights and batch: equal to 1e-5.

`make_batch_rl.py` and its neighbours made the files; docs/differences.md says where we differ on purpose.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dr3_ray.algorithms.registry import find
from dr3_ray.data.sampler import generator
from dr3_ray.networks.encoders import StackedLinear
from dr3_ray.regularizers.dr3 import dr3_penalty, with_dr3
from dr3_ray.training.member import Member
from dr3_ray.types import Spaces, Terms, Transition

HERE = Path(__file__).parent
Golden = dict[str, Tensor]


def load(name: str) -> Golden:
    with np.load(HERE / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def part(golden: Golden, kind: str) -> Golden:
    """What stands under `KIND/`, without it."""
    return {key.removeprefix(f"{kind}/"): values for key, values in golden.items() if key.startswith(f"{kind}/")}


def ours(name: str, golden: Golden, noise: Any = None, **values: Any) -> tuple[nn.Module, Terms]:
    """Our networks with the golden weights, and the terms on the golden batch, in float64."""
    spec = find(name, "discrete")
    member = Member.from_dict(spec, {"hidden_sizes": (8, 8), **values})
    columns = part(golden, "batch")
    spaces = Spaces((columns["observations"].shape[1],), "discrete", 3)
    options = spec.options.stack([member.options], dtype=torch.float64)
    networks = spec.networks(options, spaces, [generator(0, "init")]).double()
    for network in ("critic", "target_critic"):
        stacked = [layer for layer in networks.get_submodule(network).modules() if isinstance(layer, StackedLinear)]
        for n, layer in enumerate(stacked):
            layer.weight.data[0, 0] = golden[f"weights/{network}/{n}.weight"].T
            layer.bias.data[0, 0, 0] = golden[f"weights/{network}/{n}.bias"]
    objective = spec.objective(options)
    dr3 = member.regularizers["dr3"]
    if dr3.dr3_coeff > 0.0:
        objective = with_dr3(objective, dr3)
    batch = Transition(**{column: rows.unsqueeze(0) for column, rows in columns.items()})
    return networks, objective(networks, batch, noise or {}, 0)[0]


def assert_same(golden: Golden, networks: nn.Module, terms: Terms) -> None:
    """Each golden loss, and the gradient of the sum in every weight."""
    for name, value in part(golden, "losses").items():
        torch.testing.assert_close(terms.losses[name][0], value, rtol=1e-5, atol=0.0)
    torch.stack(list(terms.losses.values())).sum().backward()
    stacked = [layer for layer in networks.critic.modules() if isinstance(layer, StackedLinear)]  # type: ignore[union-attr]
    for n, layer in enumerate(stacked):
        for kind, gradient in (("weight", layer.weight.grad[0, 0].T), ("bias", layer.bias.grad[0, 0, 0])):  # type: ignore[index]
            expected = golden[f"gradients/critic/{n}.{kind}"].double()
            # the smallest entries of a float32 gradient are differences of larger ones
            torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())


def test_rem_is_that_of_batch_rl():
    golden = load("batch_rl_rem")
    # u = α is one of the draws that the authors' law turns into their α
    noise = {"mixture": golden["mixture"].double().unsqueeze(0) * 2.0 - 1.0}
    networks, terms = ours("DR3-REM", golden, noise, n_heads=4, gamma=0.97, dr3_coeff=0.0)
    assert_same(golden, networks, terms)
    observations = golden["batch/observations"].unsqueeze(0)
    acting = find("DR3-REM", "discrete").act(networks, observations)[0]  # type: ignore[misc]
    assert torch.equal(acting, golden["q_values"].argmax(-1))


def test_dqn_with_dr3_and_cql_is_that_of_dopamine():
    golden = load("dopamine_dr3")
    # |φ·φ'| over all rows, terminal ones too
    theirs = {"dr3_coeff": 0.3, "dr3_form": "abs", "dr3_mask_terminals": False}
    networks, terms = ours("DR3-CQL", golden, cql_alpha=0.1, gamma=0.97, **theirs)
    assert_same(golden, networks, terms)


def test_the_penalty_is_that_of_dopamine_on_features_of_either_sign():
    golden = load("dopamine_dr3")
    features = golden["features"].view(2, 1, 1, 16, 8).requires_grad_()
    penalty = dr3_penalty(features[0], features[1], torch.ones(1, 16, dtype=torch.float64), "abs")
    torch.testing.assert_close(penalty[0], golden["penalty"], rtol=1e-12, atol=0.0)
    penalty.sum().backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad[:, 0, 0], golden["penalty_gradient"], rtol=1e-12, atol=0.0)


def test_qrdqn_is_that_of_dopamine():
    golden = load("dopamine_qrdqn")
    networks, terms = ours("DR3-QRDQN", golden, n_quantiles=6, huber_kappa=0.7, gamma=0.97, dr3_coeff=0.0)
    assert_same(golden, networks, terms)


@pytest.mark.parametrize(
    ("file", "name", "options"),
    [
        ("cql", "DR3-CQL", {"cql_alpha": 2.0, "double_q": True}),
        ("qrcql", "DR3-QRCQL", {"cql_alpha": 4.0, "double_q": True, "n_quantiles": 6}),
        ("qrdqn", "DR3-QRDQN", {"n_quantiles": 6}),
    ],
)
def test_it_is_that_of_d3rlpy(file: str, name: str, options: dict[str, Any]):
    golden = load(f"d3rlpy_{file}")
    networks, terms = ours(name, golden, gamma=0.97, dr3_coeff=0.0, **options)
    assert_same(golden, networks, terms)
