"""What is measured of critics' features: at every evaluation on the probe batch, or by a diagnosis alone."""

from collections.abc import Callable

from torch import Tensor

from dr3_ray.diagnostics import features, rank, seem, units

Diagnostic = Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]
"""From φ(s, a) and φ(s', a') [K, C, B, F], and the rows that have a backup [K, B], to named numbers, each [K]."""
OfFeatures = Callable[[Tensor], dict[str, Tensor]]
"""From φ(s, a) [K, C, B, F] to named numbers, each [K]."""
OfPairs = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], dict[str, Tensor]]
"""From φ(s, a), φ(s', a'), and of each row [K, B] whether it has a backup, is trained on, and its discount."""

DIAGNOSTICS: tuple[Diagnostic, ...] = (  # a diagnostic is a function and a name here
    features.feature_statistics,
    rank.feature_rank,
)
OF_BACKUPS: tuple[OfPairs, ...] = (seem.self_excitation,)  # the same, with the discount of each row
OF_FEATURES: tuple[OfFeatures, ...] = (  # by `dr3-ray diagnose`, which has time for them
    rank.ranks,
    units.idle_units,
)
OF_PAIRS: tuple[OfPairs, ...] = (  # the same, for each choice of a'
    features.pair_statistics,
    *OF_BACKUPS,
)
