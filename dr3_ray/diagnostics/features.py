"""Co-adaptation of features: the dot product that DR3 holds down, and whether angle or length makes it."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dr3_ray.losses.features import feature_dot
from dr3_ray.losses.td import masked_mean


def feature_statistics(
    phi: Float[Tensor, "member critic batch feature"],
    next_phi: Float[Tensor, "member critic batch feature"],
    mask: Float[Tensor, "member batch"],
) -> dict[str, Float[Tensor, "member"]]:
    """Return means over the rows of `mask` and over critics: φ·φ', |φ·φ'|, cos(φ, φ'), ‖φ‖ and ‖φ'‖."""
    dots = feature_dot(phi, next_phi)
    rows = {
        "dot_product": dots,
        "dot_product_abs": dots.abs(),
        "cosine": functional.cosine_similarity(phi, next_phi, dim=-1),
        "phi_norm": phi.norm(dim=-1),
        "next_phi_norm": next_phi.norm(dim=-1),
    }
    return {name: masked_mean(values, mask.unsqueeze(1)).mean(-1) for name, values in rows.items()}


def pair_statistics(
    phi: Float[Tensor, "member critic batch feature"],
    next_phi: Float[Tensor, "member critic batch feature"],
    in_backup: Float[Tensor, "member batch"],
    trained: Float[Tensor, "member batch"],
    discounts: Float[Tensor, "member batch"],
) -> dict[str, Float[Tensor, "member"]]:
    """Return `feature_statistics` of the rows that have a backup."""
    return feature_statistics(phi, next_phi, in_backup)


def recorded_statistics(
    phi: Float[Tensor, "member critic batch feature"],
    next_phi: Float[Tensor, "member critic batch feature"],
    known: Float[Tensor, "member batch"],
) -> dict[str, Float[Tensor, "member"]]:
    """Return the means of φ·φ' and cos(φ, φ') at the data's pairs (s', a'), over the rows where a' is known."""
    statistics = feature_statistics(phi, next_phi, known)
    return {f"{name}_data": statistics[name] for name in ("dot_product", "cosine")}
