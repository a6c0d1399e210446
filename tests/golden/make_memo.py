"""Make memo.npz again: the entropy of the marginal, log p̄ and the gradient, by the function of MEMO's authors.

    git clone https://github.com/zhangmarvin/memo
    python tests/golden/make_memo.py memo

The file in the repository was made at commit 228b290. The function stands in a script, and is taken out of it.
"""

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
SCRIPT = "cifar-10-exps/test_calls/test_adapt.py"


def main() -> None:
    """Everything, from the checkout that the command line names."""
    torch.set_default_dtype(torch.float64)
    tree = ast.parse((Path(sys.argv[1]) / SCRIPT).read_text())
    (function,) = (one for one in tree.body if getattr(one, "name", "") == "marginal_entropy")
    names: dict[str, Any] = {"np": np, "torch": torch}
    exec(compile(ast.Module([function], []), SCRIPT, "exec"), names)
    logits = (4.0 * torch.randn(32, 6, generator=torch.Generator().manual_seed(0))).requires_grad_()
    entropy, log_marginal = names["marginal_entropy"](logits)
    (gradient,) = torch.autograd.grad(entropy, logits)
    made = {"logits": logits, "entropy": entropy, "log_marginal": log_marginal, "gradient": gradient}
    np.savez_compressed(HERE / "memo.npz", **{name: value.detach().numpy() for name, value in made.items()})


if __name__ == "__main__":
    main()
