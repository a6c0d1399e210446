"""Units of the feature layer that do nothing: dead ones, and dormant ones (Sokar et al., arXiv 2302.12902)."""

from jaxtyping import Float
from torch import Tensor

from dr3_ray.runs.health import threshold


def dead_units(phi: Float[Tensor, "*member row feature"]) -> Float[Tensor, "*member"]:
    """Return the share of units that are 0 at every row."""
    return (phi == 0.0).all(-2).to(phi.dtype).mean(-1)


def dormant_units(
    phi: Float[Tensor, "*member row feature"], tau: float = threshold("dormant")
) -> Float[Tensor, "*member"]:
    """Return the share of units whose score mean_b |φ_i| / mean_j mean_b |φ_j| is at most τ (definition 3.1).

    In a layer of zeros all units are dormant.
    """
    score = phi.abs().mean(-2)
    return (score <= tau * score.mean(-1, keepdim=True)).to(phi.dtype).mean(-1)


def idle_units(phi: Float[Tensor, "member critic batch feature"]) -> dict[str, Float[Tensor, "member"]]:
    """Return the shares of dead and of dormant units, averaged over the critics."""
    return {"dead_units": dead_units(phi).mean(-1), "dormant_units": dormant_units(phi).mean(-1)}
