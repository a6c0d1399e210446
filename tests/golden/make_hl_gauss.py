"""Make hl_gauss.npz and hl_gauss_clamped.npz again: what two public HL-Gauss losses say of given logits and targets.

    git clone https://github.com/lionelblonde/hl-gauss-pytorch-jax
    git clone https://github.com/lucidrains/hl-gauss-pytorch
    python tests/golden/make_hl_gauss.py hl-gauss-pytorch-jax hl-gauss-pytorch

The files in the repository were made at commits ed1456e, the listing of arXiv 2403.03950 as it stands, and 903cc34,
whose targets may lie outside and which needs einx and einops. Both keep edges in float32; here they are float64.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
BATCH, BINS, LOW, HIGH, RATIO = 12, 21, -3.0, 5.0, 0.75
SIGMA = RATIO * (HIGH - LOW) / BINS


def write(name: str, loss: Any, of_probabilities: Any, targets: torch.Tensor) -> None:
    """Ask for the mean loss, its gradient, and the values of the logits."""
    logits = torch.randn(BATCH, BINS, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = loss(logits, targets)
    (gradient,) = torch.autograd.grad(found, logits)
    np.savez_compressed(
        HERE / f"{name}.npz",
        range=np.array([LOW, HIGH]),
        sigma=RATIO,
        logits=logits.detach().numpy(),
        targets=targets.numpy(),
        loss=found.detach().numpy(),
        gradient=gradient.numpy(),
        values=of_probabilities(logits.softmax(-1)).detach().numpy(),
    )


def main() -> None:
    """Everything, from the checkouts that the command line names."""
    torch.set_default_dtype(torch.float64)
    listing, clamped = map(Path, sys.argv[1:3])
    sys.path[:0] = [str(listing), str(clamped)]
    from hl_gauss_pytorch import HLGaussLoss  # type: ignore[import-not-found]

    source, edges = torch.Generator().manual_seed(0), torch.linspace(LOW, HIGH, BINS + 1)
    theirs = HLGaussLoss(LOW, HIGH, BINS, SIGMA)
    theirs.support = edges
    inside = LOW + (HIGH - LOW) * torch.rand(BATCH, generator=source)
    write("hl_gauss", theirs, theirs.transform_from_probs, inside)

    del sys.modules["hl_gauss_pytorch"]
    sys.path.remove(str(listing))
    from hl_gauss_pytorch.hl_gauss import HLGaussLossFromSupport  # type: ignore[import-not-found]

    theirs = HLGaussLossFromSupport(edges, sigma_to_bin_ratio=RATIO, clamp_to_range=True)
    theirs.support, theirs.centers = edges, (edges[:-1] + edges[1:]) / 2.0
    write("hl_gauss_clamped", theirs, theirs.transform_from_probs, 1.0 + 6.0 * torch.randn(BATCH, generator=source))


if __name__ == "__main__":
    main()
