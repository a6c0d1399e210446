"""Feature statistics worked by hand."""

import math

import torch
from torch import tensor

from dr3_ray.diagnostics.features import feature_statistics, recorded_statistics


def test_statistics_by_hand():
    # rows of one critic: (3, 4)·(4, 3) = 24, cosine 24/25, norm 5; (1, 0)·(−2, 0) = −2, cosine −1, norm 1;
    # the third row stands in no backup
    phi = tensor([[[[3.0, 4.0], [1.0, 0.0], [100.0, 100.0]]]])
    next_phi = tensor([[[[4.0, 3.0], [-2.0, 0.0], [100.0, 100.0]]]])
    found = feature_statistics(phi, next_phi, tensor([[1.0, 1.0, 0.0]]))
    expected = {"dot_product": 11.0, "dot_product_abs": 13.0, "cosine": (0.96 - 1.0) / 2.0, "phi_norm": 3.0}
    expected["next_phi_norm"] = 3.5  # of 5 and 2
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], tensor([value]))
    # at the data's pairs: only the first is known
    recorded = recorded_statistics(phi, next_phi, tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(recorded, {"dot_product_data": tensor([24.0]), "cosine_data": tensor([0.96])})


def test_critics_are_averaged_and_members_are_not():
    torch.manual_seed(0)
    phi, next_phi, mask = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4), torch.ones(2, 5)
    found = feature_statistics(phi, next_phi, mask)
    for k in range(2):
        by_critic = [float(torch.diagonal(phi[k, c] @ next_phi[k, c].T).mean()) for c in range(3)]
        assert math.isclose(found["dot_product"][k].item(), sum(by_critic) / 3, abs_tol=1e-5)
