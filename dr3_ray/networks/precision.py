"""How exactly matrices are multiplied, and whether by what is fastest here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from dr3_ray.compat import torch as compat
from dr3_ray.errors import UserError

Precision = Literal["fp32", "tf32", "bf16"]
CPU = torch.device("cpu")

_asked: Precision = "fp32"  # of the whole process: gradients are found by threads of torch's
_fast = True  # of the whole process, too


@contextmanager
def matmul_precision(precision: Precision, device: torch.device = CPU) -> Iterator[None]:
    """Round factors of matrix products and convolutions of float32 first, while the context is open.

    `bf16` rounds them to 8 bits, and a layer's output, which the next one would round; `tf32` on a GPU to 11 bits.
    Sums, parameters and the optimiser stay in float32. `fp32` rounds nothing. Small products may stay exact on a CPU,
    where rounding would save nothing; on a GPU those of `bf16` without a ReLU behind them are of `tf32`.
    """
    global _asked
    flags: list[tuple[Any, str, Any]] = []
    if device.type == "cuda":  # convolutions round to tf32 by torch's default
        kinds: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
        flags = [(kind, "allow_tf32", precision != "fp32") for kind in kinds]
    elif precision == "bf16":
        kinds = [getattr(torch.backends.mkldnn, name) for name in ("matmul", "conv")]  # mypy does not see them
        flags = [(kind, "fp32_precision", precision) for kind in kinds]
    before, kept = _asked, [getattr(kind, flag) for kind, flag, _ in flags]
    try:
        _asked = precision
        for allowed in flags:
            setattr(*allowed)
        yield
    finally:
        _asked = before
        for (kind, flag, _), value in zip(flags, kept, strict=True):
            setattr(kind, flag, value)


@contextmanager
def plain_operations() -> Iterator[None]:
    """Keep networks to torch's public operations, the same ones for any batch: exporters can follow them."""
    global _fast
    before, _fast = _fast, False
    try:
        yield
    finally:
        _fast = before


def may_be_fast() -> bool:
    """Return whether networks may choose operations by the machine and by the size of a batch."""
    return _fast


def rounded(x: Tensor) -> bool:
    """Return whether factors of products with x are rounded to bfloat16 now."""
    return _asked == "bf16" and x.dtype in (torch.float32, torch.bfloat16)


def check_precision(precision: Precision, device: torch.device) -> None:
    """Check that this machine has such products.

    Raises:
        UserError: it has not.
    """
    if precision == "fp32" or device.type == "cuda":
        return
    if precision == "tf32":
        raise UserError(f"precision='tf32' is for GPUs of NVIDIA: leave it out on a {device.type.upper()}")
    if device.type != "cpu":
        raise UserError(f"precision={precision!r} is for CPUs and GPUs of NVIDIA: leave it out on {device.type}")
    if not compat.rounds_on_cpus():
        raise UserError(f"precision={precision!r} needs a CPU with AVX-512: leave it out on this machine")
