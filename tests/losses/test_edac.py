"""The likeness of an ensemble's slopes, worked by hand, and what the critics' slopes are."""

import torch
from torch import tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.data.sampler import generator
from dr3_ray.losses import edac
from dr3_ray.types import Spaces


def test_it_is_the_sum_of_cosines_of_all_pairs_by_the_other_critics():
    # cosines: 0 of (1, 2), −1 of (1, 3), 0 of (2, 3), each pair twice, by 2
    slopes = tensor([[3.0, 0.0], [0.0, 0.5], [-2.0, 0.0]]).view(1, 3, 1, 2)
    torch.testing.assert_close(edac.likeness(slopes), tensor([[-1.0]]))
    same = tensor([[1.0, 2.0]]).expand(4, 2).view(1, 4, 1, 2)
    torch.testing.assert_close(edac.likeness(same), tensor([[4.0]]))  # C where all agree


def test_members_and_rows_never_mix_and_flat_critics_have_no_direction():
    slopes = torch.randn(2, 3, 5, 2, generator=torch.Generator().manual_seed(0))
    slopes[1, :, 4] = 0.0
    slopes.requires_grad_()
    found = edac.likeness(slopes)
    for member in range(2):
        for row in range(5):
            alone = edac.likeness(slopes[member : member + 1, :, row : row + 1])
            torch.testing.assert_close(found[member, row], alone.squeeze())
    assert found[1, 4] == 0.0
    found.sum().backward()
    assert slopes.grad is not None and slopes.grad.isfinite().all()


def test_slopes_are_each_critics_own_derivatives():
    spec = find("DR3-EDAC", "continuous")
    options = spec.options.stack([spec.options.from_dict({"hidden_sizes": (8,), "n_critics": 3})] * 2)
    networks = spec.networks(options, Spaces((4,), "continuous", 2), [generator(seed, "init") for seed in range(2)])
    drawn = torch.Generator().manual_seed(0)
    rows, actions = torch.randn(2, 5, 4, generator=drawn), torch.rand(2, 5, 2, generator=drawn)
    found = networks.critic.slopes(rows, actions)
    step = 1e-2
    for component in range(2):
        moved = torch.eye(2)[component] * step
        above, below = (networks.critic.values(rows, actions + sign * moved) for sign in (1.0, -1.0))
        near = (above - below) / (2.0 * step)  # piecewise linear: exact but where a unit switches
        assert ((near - found[..., component]).abs() < 1e-4).float().mean() > 0.8
    assert found.requires_grad and found.shape == (2, 3, 5, 2)
