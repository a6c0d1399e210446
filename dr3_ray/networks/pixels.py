"""Convolutional encoders of images, and the random crop of those in an observation."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from dr3_ray.networks.augmentations import random_crop
from dr3_ray.networks.convolutions import Convolutions, StackedConv2d, channels_together, kept
from dr3_ray.networks.encoders import Generators
from dr3_ray.observations import Observations, each_part, is_image


class MaxPool(nn.MaxPool2d):
    """The largest of 3×3 pixels of the images of every group: [B, G, n, height, width]."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the pooling to each channel."""
        y: Tensor = super().forward(x.flatten(1, 2))
        return y.view(*x.shape[:3], *y.shape[2:])


class Residual(nn.Module):
    """A residual block: x + conv(relu(conv(relu(x))))."""

    def __init__(self, generators: Generators, n: int, copies: int):
        super().__init__()
        self.layers = Convolutions(StackedConv2d(generators, n, n, 3, padding=1, copies=copies) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x."""
        return x + self.layers(torch.relu(x))  # type: ignore[no-any-return]


def nature_cnn(generators: Generators, n_in: int, copies: int) -> nn.Sequential:
    """Build 32 filters of 8×8 at stride 4, 64 of 4×4 at 2, 64 of 3×3 at 1; then `hidden_sizes` (512).

    Mnih et al. 2015.
    """
    layers = [
        StackedConv2d(generators, n_in, 32, 8, stride=4, copies=copies),
        StackedConv2d(generators, 32, 64, 4, stride=2, copies=copies),
        StackedConv2d(generators, 64, 64, 3, copies=copies),
    ]
    return nn.Sequential(Convolutions(layers), nn.ReLU())


def impala_cnn(generators: Generators, n_in: int, copies: int) -> nn.Sequential:
    """Build the large network of Espeholt et al. 2018: stages of 16, 32, 32 filters; then `hidden_sizes` (256).

    A stage is a convolution, a pooling and two residual blocks.
    """
    layers: list[nn.Module] = []
    for n_out in (16, 32, 32):
        layers += [
            StackedConv2d(generators, n_in, n_out, 3, padding=1, copies=copies),
            MaxPool(3, stride=2, padding=1),
            Residual(generators, n_out, copies),
            Residual(generators, n_out, copies),
        ]
        n_in = n_out
    return nn.Sequential(*layers, nn.ReLU())


def cog_cnn(generators: Generators, n_in: int, copies: int) -> nn.Sequential:
    """Build three times 16 filters of 3×3, pooled by 2, 2 and 1, as COG (Singh et al. 2020).

    Then come `hidden_sizes` (1024, 512, 256), to which a critic joins the action. COG itself starts from other weights:
    Xavier's, and ±10⁻⁴ in the linear layers.
    """
    return nn.Sequential(
        StackedConv2d(generators, n_in, 16, 3, padding=1, copies=copies), MaxPool(2), nn.ReLU(),
        StackedConv2d(generators, 16, 16, 3, padding=1, copies=copies), MaxPool(2), nn.ReLU(),
        StackedConv2d(generators, 16, 16, 3, padding=1, copies=copies), nn.ReLU(),
    )  # fmt: skip


CNNS: dict[str, Callable[[Generators, int, int], nn.Sequential]] = {
    "nature_cnn": nature_cnn,
    "impala": impala_cnn,
    "cog": cog_cnn,
}
SMALLEST = {"nature_cnn": 36, "impala": 1, "cog": 4}  # height and width in pixels, below which no output is left


def channels_first(shape: tuple[int, int, int]) -> bool:
    """Return whether the channels of an image come first: they are fewer than rows or columns of pixels."""
    return shape[0] < shape[2]


class PixelEncoder(nn.Module):
    """A convolutional network of one image, flattened."""

    def __init__(self, name: str, generators: Generators, shape: tuple[int, int, int], copies: int = 1):
        super().__init__()
        self.channels_first, self.copies = channels_first(shape), copies
        n_channels, *size = shape if self.channels_first else (shape[2], shape[0], shape[1])
        self.layers = CNNS[name](generators, n_channels, copies)
        with torch.no_grad():
            blank = torch.zeros(1, len(generators) * copies, n_channels, *size)
            self.n_out = self.layers(blank).numel() // (len(generators) * copies)

    def forward(
        self, images: Shaped[Tensor, "member batch _ _ _"], dtype: torch.dtype
    ) -> Float[Tensor, "member critic batch n_out"]:
        """Encode images [K, B, height, width, channel] or [K, B, channel, height, width]; bytes are divided by 255."""
        pixels = images if self.channels_first else images.movedim(-1, 2)
        members, rows = pixels.shape[:2]
        copied = pixels.transpose(0, 1).unsqueeze(2).expand(-1, -1, self.copies, -1, -1, -1)  # [B, K, C, channel, …]
        if channels_together(members * self.copies, copied):
            copied = copied.movedim(3, -1).contiguous().movedim(-1, 3)  # as long as they are bytes
        first, *layers, last = self.layers
        multiplied = kept(next(self.parameters()))  # bytes are exact in bfloat16, a 255th of them is not
        y = first(copied.flatten(1, 2).to(multiplied), 1.0 / 255.0 if images.dtype == torch.uint8 else 1.0)
        for layer in layers:
            y = layer(y)
        # the ReLU behind the flattening, which changes the order in memory: its gradient arrives in this one
        flat = last(y.reshape(rows, members, self.copies, -1))
        return flat.permute(1, 2, 0, 3).to(dtype)  # type: ignore[no-any-return]


def crop_images(observations: Observations, uniform: Float[Tensor, "*batch 2"], padding: int) -> Observations:
    """Apply `random_crop` to every image of an observation [*batch, *shape], all moved alike."""
    lead = uniform.ndim - 1
    return each_part(  # type: ignore[no-any-return]
        lambda part: random_crop(part, uniform, padding) if is_image(part.shape[lead:]) else part, observations
    )
