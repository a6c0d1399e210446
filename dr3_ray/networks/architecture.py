"""What the networks of an algorithm have in common: how observations become a vector, and the widths behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dr3_ray.errors import UserError
from dr3_ray.networks.encoders import Generators, flat_observations
from dr3_ray.networks.pixels import CNNS, SMALLEST, PixelEncoder
from dr3_ray.observations import Observations, Shape, is_image, parts_of, size_of
from dr3_ray.types import Spaces

FLAT = "flat"
ENCODERS = (FLAT, *CNNS)


@dataclass(frozen=True)
class Architecture:
    """The shape of an observation, its encoder, and the widths of the ReLU layers behind it.

    `encoder` goes to every image of the observation, everything else is flattened; or it is a mapping from the names of
    a dict observation's parts to encoders, and parts that it does not name are flattened.

    Raises:
        UserError: there is no such image, or it is too small.
    """

    observation_shape: Shape
    hidden_sizes: Sequence[int]
    encoder: str | dict[str, str] = FLAT

    def __post_init__(self) -> None:
        parts = parts_of(self.observation_shape)
        if isinstance(self.encoder, dict):
            if unknown := [name for name in self.encoder if name not in parts]:
                known = ", ".join(name for name in parts if name) or "no named parts"
                raise UserError(f"encoder names {unknown[0]!r}, but the observations have {known}")
        elif self.encoder != FLAT and not any(map(is_image, parts.values())):
            raise UserError(
                f"encoder {self.encoder!r} needs images [height, width, channel]: the observations have shape "
                f"{self.observation_shape}; use 'flat'"
            )
        for name, encoder in self.encoders().items():
            shape, smallest = parts[name], SMALLEST.get(encoder, 0)
            if encoder != FLAT and not (is_image(shape) and sorted(shape)[1] >= smallest):
                raise UserError(
                    f"encoder {encoder!r} needs images of at least {smallest}×{smallest} pixels, not {shape}"
                )

    @classmethod
    def of(cls, options: Any, spaces: Spaces) -> "Architecture":
        """Return the architecture that an algorithm's options ask for."""
        return cls(spaces.observation_shape, options.hidden_sizes, options.encoder)

    def encoders(self) -> dict[str, str]:
        """Return the encoder of every part of an observation."""
        named = self.encoder
        return {
            name: named.get(name, FLAT) if isinstance(named, dict) else named if is_image(shape) else FLAT
            for name, shape in parts_of(self.observation_shape).items()
        }

    def observation_encoder(self, generators: Generators, copies: int = 1) -> "ObservationEncoder":
        """Return a network from observations to vectors, once for each member and copy."""
        return ObservationEncoder(self, generators, copies)


class ObservationEncoder(nn.Module):
    """A network of images by their convolutional networks, and everything else flattened, side by side."""

    def __init__(self, architecture: Architecture, generators: Generators, copies: int):
        super().__init__()
        shapes = parts_of(architecture.observation_shape)
        encoders = {name: encoder for name, encoder in architecture.encoders().items() if encoder != FLAT}
        self.names = list(encoders)  # of the images; a module's own names may not contain every character
        self.pixels = nn.ModuleList(
            PixelEncoder(encoder, generators, shapes[name], copies)  # type: ignore[arg-type]
            for name, encoder in encoders.items()
        )
        self.copies = copies if encoders else 1
        flat = {name: shape for name, shape in shapes.items() if name not in encoders}
        self.n_out = size_of(flat) + sum(encoder.n_out for encoder in self.pixels)  # type: ignore[misc]

    def forward(self, observations: Observations, dtype: torch.dtype) -> Float[Tensor, "member copy batch n_out"]:
        """Return [K, C, B, n] from observations [K, B, …]; C is 1 where every copy sees the same."""
        if not isinstance(observations, dict):
            return self.pixels[0](observations, dtype) if self.names else flat_observations(observations, dtype)
        vectors = [
            self.pixels[self.names.index(name)](part, dtype) if name in self.names else flat_observations(part, dtype)
            for name, part in sorted(observations.items())
        ]
        return torch.cat([vector.expand(-1, self.copies, -1, -1) for vector in vectors], dim=-1)

    def images(self, observations: Observations, dtype: torch.dtype) -> Float[Tensor, "member copy batch n_images"]:
        """Return what the convolutional networks alone make of observations [K, B, …], which have an image at least."""
        if not isinstance(observations, dict):
            return self.pixels[0](observations, dtype)  # type: ignore[no-any-return]
        named = zip(self.names, self.pixels, strict=True)
        return torch.cat([pixels(observations[name], dtype) for name, pixels in named], dim=-1)
