"""Named ranges for NVIDIA's profilers, which show them beside the operations of a GPU."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

NVTX = "DR3_RAY_NVTX"  # the variable that asks for them


def named_range(name: str) -> AbstractContextManager[None]:
    """Name a range of operations `name`; nothing without a GPU, or unless `DR3_RAY_NVTX=1` is set."""
    asked = os.environ.get(NVTX, "0") != "0"
    return torch.cuda.nvtx.range(name) if asked and torch.cuda.is_available() else nullcontext()
