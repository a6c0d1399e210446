"""L2 on the critic's features: the first term of R_TD, which DR3 leaves out."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dr3_ray.options import Number, Options, largest, number
from dr3_ray.regularizers.spec import Regularizer, with_penalty
from dr3_ray.types import Objective


@dataclass(frozen=True)
class FeatureL2(Options):
    """The weight of the features' mean square."""

    feature_l2_coeff: Number = number(0.0, "weight of the mean ‖φ(s, a)‖² (ours: the first term of R_TD)", low=0.0)


def feature_l2(phi: Float[Tensor, "*member row feature"]) -> Float[Tensor, "*member"]:
    """Return the mean over rows of ‖φ‖²."""
    return phi.square().sum(-1).mean(-1)


def with_feature_l2(objective: Objective, options: FeatureL2) -> Objective:
    """Return the objective plus the weighted mean ‖φ(s, a)‖², averaged over the critics."""
    return with_penalty(
        objective,
        "feature_l2",
        lambda networks, batch, backup: options.feature_l2_coeff * feature_l2(backup.phi).mean(-1),
    )


REGULARIZER = Regularizer(
    "feature_l2", FeatureL2, with_feature_l2, wanted=lambda options: largest(options.feature_l2_coeff) > 0.0
)
