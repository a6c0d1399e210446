"""Adam for all members at once, as a GPU takes it, against torch's for each of them."""

import pytest
import torch
from torch import Tensor, tensor

from dr3_ray.networks import optim
from dr3_ray.networks.optim import StackedAdam

SHAPES = [torch.Size((3, 2, 4)), torch.Size((3, 5)), torch.Size((3,))]
LRS, EPSILONS, DECAYS = [1e-3, 1e-2, 3e-3], [1e-8, 1e-5, 3e-4], [0.0, 0.1, 0.0]


def gradients(step: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(step)
    return [10.0 ** (step % 3 - 2) * torch.randn(shape, dtype=torch.float64, generator=source) for shape in SHAPES]


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_it_is_torchs_adam(together: bool, alike: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(optim, "LONG", 1)  # members alike go to the fused kernel, others never
    lrs, epsilons, decays = ([values[1]] * 3 if alike else values for values in (LRS, EPSILONS, DECAYS))
    values = torch.linspace(-1.0, 1.0, 3 * 14, dtype=torch.float64).view(3, 14)
    expected = []
    for k in range(3):
        parameter = values[k].clone().requires_grad_()
        adam = torch.optim.AdamW([parameter], lr=lrs[k], eps=epsilons[k], weight_decay=decays[k])
        for step in range(20):
            parameter.grad = torch.cat([each[k].flatten() for each in gradients(step)])
            adam.step()
        expected.append(parameter.detach())
    stacked = StackedAdam(values, SHAPES, lrs, epsilons, decays)
    stacked.together = together
    for step in range(20):
        stacked.step(range(3), gradients(step))
    torch.testing.assert_close(values, torch.stack(expected), rtol=1e-9, atol=1e-12)
    assert stacked.steps.tolist() == [20.0] * 3


def test_members_that_made_different_numbers_of_steps_are_never_fused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(optim, "LONG", 1)
    values = torch.zeros(2, 3, dtype=torch.float64)
    stacked = StackedAdam(values, [torch.Size((2, 3))], [1e-2] * 2, [1e-8] * 2)
    stacked.together = True
    stacked.load_state_dict(stacked.state_dict() | {"steps": tensor([0.0, 1e6])})
    stacked.step(range(2), [torch.ones(2, 3, dtype=torch.float64)])
    # of the first step of all, and of one whose moments began long ago at zero
    torch.testing.assert_close(values[:, 0], tensor([-1e-2, -1e-2 * 0.1 / 0.001**0.5]).double(), rtol=1e-5, atol=0.0)
