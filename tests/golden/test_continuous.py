"""Our losses and gradients on Box actions against CORL's and d3rlpy's on the same weights, batch and noise: to 1e-5.

`make_corl.py` and `make_d3rlpy.py` made the files; docs/differences.md says where we differ on purpose.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dr3_ray.algorithms.registry import find
from dr3_ray.data.sampler import generator
from dr3_ray.networks.encoders import StackedLayerNorm, StackedLinear
from dr3_ray.types import Spaces, Transition

HERE = Path(__file__).parent
Arrays = dict[str, dict[str, Any]]  # kind -> name without kind -> values


def load(name: str) -> Arrays:
    """The golden file by kind; `actor/0.weight` and the like are keys inside of weights and gradients."""
    found: Arrays = {}
    with np.load(HERE / f"{name}.npz") as file:
        for key in file:
            kind, _, rest = key.partition("/")
            found.setdefault(kind, {})[rest] = torch.from_numpy(file[key])
    return found


def places(network: nn.Module) -> dict[str, tuple[nn.Parameter, Any]]:
    """The golden name of each parameter -> where it lies in our stacked network: parameter and index."""
    stacked = [layer for layer in network.modules() if isinstance(layer, StackedLinear)]
    norms = [layer for layer in network.modules() if isinstance(layer, StackedLayerNorm)]
    found: dict[str, tuple[nn.Parameter, Any]] = {}
    for copy in range(stacked[0].weight.shape[1] if stacked else 0):
        for depth, layer in enumerate(stacked):
            number = copy * len(stacked) + depth
            found[f"{number}.weight"] = (layer.weight, (0, copy))
            found[f"{number}.bias"] = (layer.bias, (0, copy, 0))
            if depth < len(norms):
                found[f"{number}.norm_weight"] = (norms[depth].weight, (0, copy, 0))
                found[f"{number}.norm_bias"] = (norms[depth].bias, (0, copy, 0))
    for name, parameter in network.named_parameters(recurse=False):
        found[name] = (parameter, (0, 0) if parameter.ndim > 1 else 0)
    return found


def transposed(values: Tensor) -> Tensor:
    """A linear layer's weight as ours are stored; anything else as it is."""
    return values.mT if values.ndim == 2 else values


def ours(name: str, golden: Arrays, step: int = 0, **options: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    """Our networks with the golden weights and the gradients that the sum of our losses gives them, and the losses."""
    spec = find(name, "continuous")
    spaces = Spaces((golden["batch"]["observations"].shape[1],), "continuous", golden["batch"]["actions"].shape[1])
    stacked = spec.options.stack([spec.options.from_dict({"hidden_sizes": (8, 8), **options})], dtype=torch.float64)
    networks = spec.networks(stacked, spaces, [generator(0, "init")]).double()
    for key, values in golden["weights"].items():
        network, _, rest = key.partition("/")
        parameter, index = places(networks.get_submodule(network))[rest]
        parameter.data[index] = transposed(values)
    columns = {column: values.unsqueeze(0) for column, values in golden["batch"].items()}
    columns["next_actions_valid"] = torch.ones_like(columns["terminateds"], dtype=torch.bool)
    noise = {each: values.unsqueeze(0) for each, values in golden.get("noise", {}).items()}
    terms, _ = spec.objective(stacked)(networks, Transition(**columns), noise, step)
    torch.stack(list(terms.losses.values())).sum().backward()
    return networks, {each: loss[0].detach() for each, loss in terms.losses.items()}


def assert_gradients(golden: Arrays, networks: nn.Module, factors: dict[str, float] | None = None) -> None:
    """Every golden gradient, times the factor of its network, is ours."""
    for key, values in golden["gradients"].items():
        network, _, rest = key.partition("/")
        parameter, index = places(networks.get_submodule(network))[rest]
        assert parameter.grad is not None
        expected = transposed(values) * (factors or {}).get(network, 1.0)
        torch.testing.assert_close(
            parameter.grad[index], expected, rtol=1e-5, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}"
        )


def assert_losses(found: dict[str, Tensor], expected: dict[str, float | Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], torch.as_tensor(value), rtol=1e-5, atol=0.0)


# CORL takes the mean of IQL's critics' losses; we add them up, as the paper's authors do, and as d3rlpy
@pytest.mark.parametrize(("file", "critics"), [("corl_iql", 2.0), ("d3rlpy_iql", 1.0)])
def test_iql(file: str, critics: float):
    golden = load(file)
    networks, losses = ours("DR3-IQL", golden, expectile=0.8, advantage_temperature=3.0, gamma=0.97)
    assert_losses(losses, golden["losses"] | {"critic": critics * golden["losses"]["critic"]})
    assert_gradients(golden, networks, {"critic": critics})


@pytest.mark.parametrize("file", ["corl_td3_bc", "d3rlpy_td3_bc"])
def test_td3_bc(file: str):
    golden = load(file)
    assert (0.3 * golden["noise"]["next_action"].abs()).max() > 0.4
    options = {"gamma": 0.97, "policy_noise": 0.3, "noise_clip": 0.4, "td3bc_alpha": 2.0}
    networks, losses = ours("DR3-TD3BC", golden, step=1, **options)
    assert_losses(losses, golden["losses"])
    assert_gradients(golden, networks)


def test_awac():
    golden = load("corl_awac")
    networks, losses = ours("DR3-AWAC", golden, gamma=0.97, awac_lambda=0.5, weight_clip=5.0)
    assert_losses(losses, golden["losses"])
    assert_gradients(golden, networks)


def test_edac():
    golden = load("corl_edac")
    networks, losses = ours("DR3-EDAC", golden, gamma=0.97, edac_eta=2.0, n_critics=4)
    assert_losses(losses, golden["losses"])
    assert_gradients(golden, networks)


@pytest.mark.parametrize("file", ["fql", "fql_normalized"])
def test_fql(file: str):
    golden = load(file)
    options = {"q_of_target": "min", "normalize_q": True} if file == "fql_normalized" else {}
    networks, losses = ours("DR3-FQL", golden, gamma=0.97, fql_alpha=3.0, flow_divisions=4, **options)
    # its critics' loss is their mean, and ours the sum
    assert_losses(losses, golden["losses"] | {"critic": 2.0 * golden["losses"]["critic"]})
    assert_gradients(golden, networks, {"critic": 2.0})


def test_rebrac():
    golden = load("corl_rebrac")
    options = {"gamma": 0.97, "policy_noise": 0.3, "noise_clip": 0.4, "actor_bc_coeff": 0.5, "critic_bc_coeff": 0.2}
    networks, losses = ours("DR3-ReBRAC", golden, step=1, **options)
    assert_losses(losses, golden["losses"])
    assert_gradients(golden, networks)


CORL_LAGRANGE = {
    **{"lagrange": "common", "lagrange_threshold": 2.0, "max_backup": "min_max", "entropy_backup": True},
    **{"cql_clip_below": 1.0, "cql_clip_above": 7.0, "cql_temperature": 2.0},
}


CAL_QL_LAGRANGE = {name: value for name, value in CORL_LAGRANGE.items() if not name.startswith("cql_clip")}


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("corl_cql", {}),
        ("corl_cql_unweighted", {"cql_form": "H_unweighted"}),
        ("corl_cql_lagrange", CORL_LAGRANGE),
        ("corl_cal_ql", {}),
        ("corl_cal_ql_unweighted", {"cql_form": "H_unweighted"}),
        ("corl_cal_ql_lagrange", CAL_QL_LAGRANGE),
        ("d3rlpy_cql_box", {}),  # its a' is the policy's mode: ours without noise
        ("d3rlpy_cql_box_max", {"max_backup": "min_max"}),
        ("d3rlpy_cql_box_soft", {"entropy_backup": True, "lagrange": "common", "lagrange_threshold": 2.0}),
    ],
)
def test_cql(file: str, options: dict[str, Any]):
    golden = load(file)
    name = "DR3-CalQL" if "cal_ql" in file else "DR3-CQL"
    networks, losses = ours(name, golden, gamma=0.97, n_sampled_actions=4, **options)
    expected, factors = dict(golden["losses"]), dict[str, float]()
    if file.startswith("d3rlpy"):  # −α (log π + H̄) in the place of −log α (log π + H̄)
        log_alpha = golden["weights"]["temperature/log_alpha"].item()
        factors = {"temperature": math.exp(-log_alpha)}
        expected["temperature"] = expected["temperature"] * log_alpha * factors["temperature"]
    assert_losses(losses, expected)
    assert_gradients(golden, networks, factors)
    trained = {key.partition("/")[0] for key in golden["gradients"]}
    assert trained == {name for name, child in networks.named_children() if not name.startswith("target_")}
