"""Our entropy of the marginal against that of MEMO's authors on the same logits; `make_memo.py` made the file."""

from pathlib import Path

import numpy as np
import torch

from dr3_ray.losses.marginal import log_marginal, marginal_entropy


def test_entropy_and_gradient():
    with np.load(Path(__file__).parent / "memo.npz") as file:
        golden = {name: torch.from_numpy(file[name]) for name in file}
    logits = golden["logits"].requires_grad_()
    entropy = marginal_entropy(logits)
    (gradient,) = torch.autograd.grad(entropy, logits)
    torch.testing.assert_close(entropy, golden["entropy"], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(log_marginal(logits), golden["log_marginal"], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(gradient, golden["gradient"], rtol=1e-6, atol=1e-9)
