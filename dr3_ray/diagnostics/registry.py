"""What is measured of critics' features on the probe batch, beside Q and its loss."""

from collections.abc import Callable

from torch import Tensor

from dr3_ray.diagnostics import features, rank

Diagnostic = Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]
"""From φ(s, a) and φ(s', a') [K, C, B, F], and the rows that have a backup [K, B], to named numbers, each [K]."""

DIAGNOSTICS: tuple[Diagnostic, ...] = (  # a diagnostic is a function and a name here
    features.feature_statistics,
    rank.feature_rank,
)
