"""Changes of images that leave bytes bytes: pixels moved, covered, brightened, and with noise."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


def moved(images: Shaped[Tensor, "*batch _ _ _"], offsets: Int[Tensor, "*batch 2"]) -> Shaped[Tensor, "*batch _ _ _"]:
    """Move each image up and to the left by its offsets, in pixels, zeros coming in."""
    batch = images.shape[:-3]
    for axis, offset in zip(pixel_axes(images), offsets.unbind(-1), strict=True):
        source = torch.arange(images.shape[axis], device=images.device) + offset.unsqueeze(-1)  # [*batch, size]
        shape = [*batch, 1, 1, 1]
        shape[axis] = images.shape[axis]
        outside = ((source < 0) | (source >= images.shape[axis])).view(shape)
        images = images.take_along_dim(source.clamp(0, images.shape[axis] - 1).view(shape), dim=axis)
        images = images.masked_fill(outside, 0)
    return images


def random_crop(
    images: Shaped[Tensor, "*batch _ _ _"], uniform: Float[Tensor, "*batch 2"], padding: int
) -> Shaped[Tensor, "*batch _ _ _"]:
    """Move each image by up to `padding` pixels up or down and left or right, zeros coming in (COG: 4).

    `uniform` in [−1, 1) chooses among the 2 · padding + 1 offsets of either direction with equal probability.
    """
    return moved(images, ((uniform + 1.0) / 2.0 * (2 * padding + 1)).floor().long() - padding)


def cutout(
    images: Shaped[Tensor, "*batch _ _ _"], uniform: Float[Tensor, "*batch 2"], share: float
) -> Shaped[Tensor, "*batch _ _ _"]:
    """Set a rectangle of each image to 0, whose sides are this share of the image's, a pixel at least.

    `uniform` in [−1, 1) chooses among all places at which the rectangle is within the image. DeVries & Taylor (arXiv
    1708.04552) have squares that may stand over the edge.
    """
    batch, covered = images.shape[:-3], torch.ones((), dtype=torch.bool, device=images.device)
    for axis, place in zip(pixel_axes(images), uniform.unbind(-1), strict=True):
        size = images.shape[axis]
        side = max(1, round(share * size))
        first = ((place + 1.0) / 2.0 * (size - side + 1)).floor().long().unsqueeze(-1)
        pixels = torch.arange(size, device=images.device)
        shape = [*batch, 1, 1, 1]
        shape[axis] = size
        covered = covered & ((pixels >= first) & (pixels < first + side)).view(shape)
    return images.masked_fill(covered, 0)


def brightened(
    images: Shaped[Tensor, "*batch _ _ _"], amounts: Float[Tensor, "*batch"], low: float, high: float
) -> Shaped[Tensor, "*batch _ _ _"]:
    """Add to each image its amount, in shares of the range from `low` to `high`, and cut it to that range."""
    return _within(images, amounts.view(*amounts.shape, 1, 1, 1) * (high - low), low, high)


def noised(
    images: Shaped[Tensor, "*batch _ _ _"], normal: Float[Tensor, "*batch _ _ _"], sigma: float, low: float, high: float
) -> Shaped[Tensor, "*batch _ _ _"]:
    """Add σ · noise to each pixel, σ in shares of the range from `low` to `high`, and cut it to that range."""
    return _within(images, normal * (sigma * (high - low)), low, high)


def pixel_axes(images: Tensor) -> tuple[int, int]:
    """Return the axes of height and width: the channels come first where they are fewer than the last axis has."""
    height = images.ndim - 3 + (images.shape[-3] < images.shape[-1])
    return height, height + 1


def _within(images: Tensor, added: Tensor, low: float, high: float) -> Tensor:
    changed = (images.to(added.dtype) + added).clamp(low, high)
    return (changed if images.is_floating_point() else changed.round()).to(images.dtype)
