"""Name -> regulariser, in the order in which they stand around an objective."""

from dr3_ray.options import Options
from dr3_ray.regularizers import bottleneck, dr3, dropout, feature_l2, head, norm, srank, weight_decay
from dr3_ray.regularizers.spec import Regularizer

REGULARIZERS: dict[str, Regularizer] = {
    module.REGULARIZER.name: module.REGULARIZER
    for module in (  # a regulariser is a file and a name here: all else follows from it
        dr3,
        srank,
        feature_l2,
        weight_decay,
        dropout,
        bottleneck,
        norm,
        head,
    )
}
REGULARIZER_OPTIONS: tuple[type[Options], ...] = tuple(regularizer.options for regularizer in REGULARIZERS.values())
"""Whose options every algorithm with a critic has."""
