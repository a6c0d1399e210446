"""Our HL-Gauss against two public ones on the same logits and targets: losses, gradients and values to 1e-5.

`make_hl_gauss.py` made the files.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from dr3_ray.networks.coding import Categorical

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", ["hl_gauss", "hl_gauss_clamped"])
def test_losses_gradients_and_values(name: str):
    with np.load(HERE / f"{name}.npz") as file:
        golden = {key: torch.from_numpy(file[key]) for key in file}
    low, high = golden["range"].unsqueeze(-1)
    beyond = (golden["targets"] < low) | (golden["targets"] > high)
    assert bool(beyond.any()) == (name == "hl_gauss_clamped")
    bins = golden["logits"].shape[-1]
    coding = Categorical("hl_gauss", bins, low, high, golden["sigma"].view(1))
    logits = golden["logits"].view(1, 1, -1, bins).requires_grad_()
    targets = golden["targets"].view(1, 1, -1)
    loss = coding.errors(logits, targets).mean()
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, golden["loss"], rtol=1e-5, atol=0.0)
    torch.testing.assert_close(gradient[0, 0], golden["gradient"], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(coding.decode(logits)[0, 0], golden["values"], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(coding.outside(targets[0])[0].bool(), beyond)
