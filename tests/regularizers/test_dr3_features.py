"""DR3 on the output of the image encoders: against public code, and that nothing behind them has its gradient."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dr3_ray.algorithms.registry import find
from dr3_ray.data.sampler import generator
from dr3_ray.errors import UserError
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.convolutions import StackedConv2d
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.regularizers.dr3 import DR3, with_dr3
from dr3_ray.training.member import Member
from dr3_ray.types import Backup, Spaces, Terms, Transition
from tests.conftest import IMAGE, SPACES

ENCODER = {"dr3_features": "encoder", "encoder": "cog", "dr3_coeff": 0.1}
BOTH = {"camera": IMAGE, "speed": (2,)}
CASES: list[tuple[str, str, Any, dict[str, Any]]] = [
    ("DR3-DQN", "discrete", IMAGE, ENCODER),
    ("DR3-CQL", "discrete", BOTH, ENCODER | {"critic_actions": "input", "encoder": {"camera": "impala"}}),
    ("DR3-QRDQN", "discrete", IMAGE, ENCODER),
    ("DR3-IQL", "continuous", BOTH, ENCODER | {"dr3_divisor": "batch", "critic_head": "two_hot"}),
    ("DR3-MC", "continuous", IMAGE, ENCODER | {"dr3_stop_gradient": True, "dr3_mask_terminals": False}),
]


def test_it_is_the_public_penalty():
    """Of OfflineRlWorkflow: `make_offline_workflow.py` made the file."""
    with np.load(Path(__file__).parents[1] / "golden" / "offline_workflow_dr3.npz") as file:
        golden = {key: torch.from_numpy(file[key]) for key in file}
    critic = ContinuousCritic([generator(0, "init")], Architecture((3, 8, 8), (6,), "cog"), 2, n_critics=1).double()
    layers = [each for each in critic.observe.modules() if isinstance(each, StackedConv2d)]
    for number, layer in enumerate(layers):
        layer.weight.data[0, 0], layer.bias.data[0, 0] = (
            golden[f"weights/{number}.{name}"] for name in ("weight", "bias")
        )
    rows = len(golden["observations"])
    actions, ends = torch.zeros(1, rows, 2, dtype=torch.float64), torch.arange(rows).unsqueeze(0) % 2.0
    seen, after = (golden[name].unsqueeze(0) for name in ("observations", "next_observations"))
    batch = Transition(seen, actions, next_observations=after, terminateds=ends)

    def silent(networks: Any, batch: Transition, noise: Any, step: int) -> tuple[Terms, Backup]:
        return Terms({}, {}), Backup(networks.critic.features(seen, actions), actions, 1.0 - ends)

    weight = golden["weight"].item()
    options = DR3(dr3_coeff=weight, dr3_features="encoder", dr3_stop_gradient=True, dr3_mask_terminals=False)
    terms, _ = with_dr3(silent, options)(nn.ModuleDict({"critic": critic}), batch, {}, 0)
    torch.testing.assert_close(terms.metrics["dr3_penalty"][0], golden["penalty"], rtol=1e-5, atol=0.0)
    terms.losses["dr3"].sum().backward()
    for number, layer in enumerate(layers):
        for name, parameter in (("weight", layer.weight), ("bias", layer.bias)):
            expected = golden[f"gradients/{number}.{name}"].double()
            torch.testing.assert_close(parameter.grad[0, 0], expected, rtol=1e-5, atol=1e-9)  # type: ignore[index]
    assert critic.head.weight.grad is None and all(each.grad is None for each in critic.encoder.parameters())


@pytest.mark.parametrize(("name", "kind", "shape", "options"), CASES, ids=[case[0] for case in CASES])
def test_it_is_the_mean_product_of_what_the_convolutions_give(
    name: str, kind: Any, shape: Any, options: dict[str, Any], make_population: Any
):
    spec, spaces = find(name, kind), Spaces(shape, kind, SPACES[kind].n_actions)
    members = [options | {"seed": 0}, options | {"seed": 1, "dr3_coeff": 0.0}]
    population = make_population(spec, members, "stacked", spaces=spaces)
    view, batches = population.steps.views[0], population.steps.batches
    indices, noise = batches.sampler.draw(view.rows)
    batch = batches.gather(indices)
    terms, backup = view.objective(view.networks, batch, noise, 0)
    critic = view.networks.critic
    inner = getattr(critic, "critic", critic)

    def images(observations: Any) -> torch.Tensor:
        part = observations["camera"] if isinstance(observations, dict) else observations
        return inner.observe.pixels[0](part, torch.float32)

    dots = (images(batch.observations) * images(batch.next_observations)).sum(-1)
    mask = backup.in_backup if options.get("dr3_mask_terminals", True) else torch.ones_like(backup.in_backup)
    rows = mask.shape[-1] if "dr3_divisor" in options else mask.sum(-1, keepdim=True)
    expected = ((dots * mask.unsqueeze(1)).sum(-1) / rows).mean(-1)
    torch.testing.assert_close(terms.metrics["dr3_penalty"], expected)
    gradients = torch.autograd.grad(terms.losses["dr3"].sum(), list(critic.parameters()), materialize_grads=True)
    for (parameter, _), gradient in zip(critic.named_parameters(), gradients, strict=True):
        assert bool(gradient[0].any()) == ("observe" in parameter), parameter
        assert not gradient[1].any()  # c0 is 0
    assert all(values.isfinite().all() for values in population.update(3).values())
    pack, alone = (
        make_population(spec, some, "stacked", torch.float64, spaces=spaces) for some in (members, members[:1])
    )
    pack.update(3)
    alone.update(3)
    for key, values in alone.networks.state_dict().items():
        torch.testing.assert_close(pack.networks.state_dict()[key][0], values[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dr3_features": "encoder"}, "dr3_features='encoder' takes what an image encoder gives, and there is none"),
        ({"dr3_features": "encoder", "encoder": {"speed": "flat"}}, "and there is none: set encoder"),
        (ENCODER | {"dr3_match_actions": True}, "dr3_match_actions compares heads, which dr3_features='encoder' lies"),
        ({"dr3_divisor": "batch", "dr3_mask_terminals": False}, "dr3_divisor='batch' has no effect where all rows"),
    ],
    ids=str,
)
def test_what_makes_no_sense_fails_in_one_line(options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Member.from_dict(find("DR3-DQN", "discrete"), options)
