"""Co-adaptation of features, row by row."""

from jaxtyping import Float
from torch import Tensor


def feature_dot(
    phi: Float[Tensor, "*member batch feature"], next_phi: Float[Tensor, "*member batch feature"]
) -> Float[Tensor, "*member batch"]:
    """Return φ(s, a) · φ(s', a'), row by row: no cosine, no norm, no γ."""
    return (phi * next_phi).sum(-1)
