"""How exactly matrices are multiplied."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from dr3_ray.errors import UserError

Precision = Literal["fp32", "bf16"]


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Within, what a CPU multiplies in matrix products and convolutions of float32 is rounded to bfloat16 first.

    So is what a layer hands on, which the next one would round. Sums, parameters and the optimiser stay in float32.
    `fp32` changes nothing; small products may stay exact, where rounding would save nothing.
    """
    if precision == "fp32":
        yield
        return
    kinds: list[Any] = [getattr(torch.backends.mkldnn, name) for name in ("matmul", "conv")]  # mypy does not see them
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = precision
        yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value


def check_precision(precision: Precision, device: torch.device) -> None:
    """UserError: this machine has no such products."""
    if precision == "fp32":
        return
    if device.type != "cpu":
        raise UserError(f"precision={precision!r} is for CPUs: leave it out on {device.type}")
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise UserError(f"precision={precision!r} needs a CPU with AVX-512: leave it out on this machine")
