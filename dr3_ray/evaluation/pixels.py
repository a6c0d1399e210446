"""Changes of pixels by name and level, as in `brightness:0.3`: augmentations of images, and shifted environments.

Levels of brightness and noise are shares of the range of pixels. Where pixels are 0 or 1, as in MinAtar, or have no
common bounds, only what moves or covers them applies.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from dr3_ray.data import SpaceSpec
from dr3_ray.data.sampler import generator
from dr3_ray.data.spaces import named_parts
from dr3_ray.errors import UserError, check_known
from dr3_ray.evaluation.contract import where_of
from dr3_ray.networks.augmentations import brightened, cutout, moved, noised, random_crop
from dr3_ray.observations import is_image


class Range(NamedTuple):
    """The least and the largest value of a pixel."""

    low: float
    high: float


Apply = Callable[[Tensor, float, Range | str, torch.Generator], Tensor]
"""Changes images [n, *image] at a level; draws are the generator's."""


class Kind(NamedTuple):
    """A kind of change."""

    meaning: str
    """What a level says."""
    apply: Apply
    low: float
    high: float
    usual: Callable[[int], float] | None = None
    """The level where none is given, by the smaller side of the image in pixels; None: one has to be given."""
    whole: bool = False
    """Levels are whole numbers."""
    blends: bool = False
    """Pixels get values between those that they had, which needs a range."""


class Change(NamedTuple):
    """A change of a kind; without a level that kind's usual one."""

    kind: str
    level: float | None

    def __str__(self) -> str:
        return self.kind if self.level is None else f"{self.kind}:{self.level:g}"


def _crop(images: Tensor, level: float, pixels: Range | str, draws: torch.Generator) -> Tensor:
    return random_crop(images, _uniform(len(images), 2, draws=draws), int(level))


def _cutout(images: Tensor, level: float, pixels: Range | str, draws: torch.Generator) -> Tensor:
    return cutout(images, _uniform(len(images), 2, draws=draws), level)


def _random_brightness(images: Tensor, level: float, pixels: Range | str, draws: torch.Generator) -> Tensor:
    assert isinstance(pixels, Range)
    return brightened(images, level * _uniform(len(images), draws=draws), *pixels)


def _brightness(images: Tensor, level: float, pixels: Range | str, draws: torch.Generator) -> Tensor:
    assert isinstance(pixels, Range)
    return brightened(images, torch.full((len(images),), level), *pixels)


def _noise(images: Tensor, level: float, pixels: Range | str, draws: torch.Generator) -> Tensor:
    assert isinstance(pixels, Range)
    return noised(images, torch.randn(images.shape, generator=draws), level, *pixels)


def _shift(images: Tensor, level: float, pixels: Range | str, draws: torch.Generator) -> Tensor:
    return moved(images, torch.full((len(images), 2), -int(level)))


def _uniform(*shape: int, draws: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=draws) * 2.0 - 1.0


NOISE = Kind("σ of normal noise", _noise, 0.0, 1.0, lambda side: 0.02, blends=True)
AUGMENTATIONS: dict[str, Kind] = {
    "crop": Kind("moved by up to so many pixels", _crop, 1, 64, lambda side: max(1, min(4, side // 8)), whole=True),
    "cutout": Kind("share of the sides of a rectangle that becomes 0", _cutout, 0.0, 1.0, lambda side: 0.25),
    "brightness": Kind("up to so much lighter or darker", _random_brightness, 0.0, 1.0, lambda side: 0.1, blends=True),
    "noise": NOISE,
}
"""What a policy's action should not depend on; no flips, which change the right one."""
SHIFTS: dict[str, Kind] = {
    "brightness": Kind("so much lighter, or with − darker", _brightness, -1.0, 1.0, blends=True),
    "noise": NOISE._replace(usual=None),
    "shift": Kind("pixels to the right and down, or with − to the left and up", _shift, -64, 64, whole=True),
}
"""What an environment's pictures are changed by."""


def read_changes(words: Iterable[str], kinds: Mapping[str, Kind], what: str) -> tuple[Change, ...]:
    """Read `NAME` or `NAME:LEVEL` words; `what` they are is for messages.

    Raises:
        UserError: there is no such kind, or its level is missing or outside its limits, or it is given twice.
    """
    changes: list[Change] = []
    for word in words:
        name, colon, text = word.strip().partition(":")
        check_known(what, [name], kinds)
        if name in {change.kind for change in changes}:
            raise UserError(f"{what} {name} is given twice: leave out one of them")
        changes.append(Change(name, _level(kinds[name], text, f"{what} {word!r}") if colon else None))
        if kinds[name].usual is None and not colon:
            raise UserError(f"{what} {name!r} has no level: give {name}:LEVEL ({kinds[name].meaning})")
    return tuple(changes)


def _level(kind: Kind, text: str, what: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not kind.low <= level <= kind.high or level == 0.0 or (kind.whole and level != int(level)):
        number = "whole number" if kind.whole else "number"
        raise UserError(
            f"{what}: its level, {kind.meaning}, has to be a {number} from {kind.low:g} to {kind.high:g}, and not 0"
        )
    return level


class Images(NamedTuple):
    """The images among the parts of an observation."""

    where: str
    """Whose they are, for messages."""
    ranges: dict[str, Range | str]
    """By name, the range of each one's pixels, or why there is none."""
    side: int
    """The smallest height or width, in pixels."""

    @classmethod
    def of(cls, parts: Mapping[str, SpaceSpec], where: str, unwanted: str) -> "Images":
        """Find the images; `unwanted` is the option that does not apply where there are none.

        Raises:
            UserError: there are none.
        """
        images = {name: spec for name, spec in parts.items() if is_image(spec.shape)}
        if not images:
            shapes = ", ".join(str(spec.shape) for spec in parts.values()) or "()"
            raise UserError(f"{where} has observations of shape {shapes}, which are no images: leave out {unwanted}")
        side = min(sorted(spec.shape)[1] for spec in images.values())  # of three sizes, the least is the channels'
        return cls(where, {name: _range(spec) for name, spec in images.items()}, side)

    def unbounded(self) -> str:
        """Return why pixels cannot have values between others; an empty text: they can."""
        return next((why for why in self.ranges.values() if isinstance(why, str)), "")

    def settled(self, changes: Sequence[Change], kinds: Mapping[str, Kind], what: str) -> tuple[Change, ...]:
        """Return the changes with their levels, the usual ones where none are given.

        Raises:
            UserError: one of them does not apply to these images.
        """
        for change in changes:
            if kinds[change.kind].blends and (why := self.unbounded()):
                able = " or ".join(name for name, kind in kinds.items() if not kind.blends)
                raise UserError(
                    f"{what} {change.kind} takes a share of the range of pixels, and those of {self.where} {why}: "
                    f"use {able}"
                )
        usual = {name: kind.usual(self.side) for name, kind in kinds.items() if kind.usual}
        return tuple(
            Change(change.kind, usual[change.kind] if change.level is None else change.level) for change in changes
        )

    def changed(
        self, name: str, images: Tensor, changes: Sequence[Change], kinds: Mapping[str, Kind], draws: torch.Generator
    ) -> Tensor:
        """Return images [n, *image] of this name after all settled changes, each drawn anew for every image."""
        for kind, level in changes:
            assert level is not None
            images = kinds[kind].apply(images, level, self.ranges[name], draws)
        return images


def _range(spec: SpaceSpec) -> Range | str:
    """Return the range of a box's pixels, or why there is none."""
    if spec.dtype == "bool":
        return "are 0 or 1"
    low, high = (np.unique(bound) for bound in spec.bounds())
    if len(low) == len(high) == 1 and np.isfinite(high - low).all():
        return Range(float(low[0]), float(high[0]))
    return "have no common bounds"


class ShiftedPixels(gym.ObservationWrapper[Any, Any, Any]):
    """An environment whose images are changed; noise is drawn from the seed of each episode.

    Raises:
        UserError: its observations have no images, or none that the changes apply to.
    """

    def __init__(self, environment: gym.Env[Any, Any], shifts: Sequence[Change]):
        super().__init__(environment)
        boxes = {
            name: SpaceSpec.from_gymnasium(space)
            for name, space in named_parts(environment.observation_space).items()
            if isinstance(space, spaces.Box | spaces.MultiBinary)
        }
        self._images = Images.of(boxes, where_of(environment), "--shift")
        self._shifts = self._images.settled(shifts, SHIFTS, "shift")
        self._draws = generator(0, "shift")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; with a seed, the noise is that seed's."""
        if seed is not None:
            self._draws = generator(seed, "shift")
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Any) -> Any:
        """Return the observation with its images changed."""
        return self._changed("", observation)

    def _changed(self, name: str, part: Any) -> Any:
        if isinstance(part, Mapping):
            return {key: self._changed(f"{name}/{key}" if name else key, value) for key, value in part.items()}
        if name not in self._images.ranges:
            return part
        images = torch.from_numpy(np.asarray(part))[None]
        return self._images.changed(name, images, self._shifts, SHIFTS, self._draws)[0].numpy()


def shifted(environment: gym.Env[Any, Any], shifts: Sequence[Change]) -> gym.Env[Any, Any]:
    """Return the environment with its images changed; the environment itself without changes."""
    return ShiftedPixels(environment, shifts) if shifts else environment
