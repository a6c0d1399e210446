"""Changes of pixels by name: what is read, what applies to which images, and shifted environments."""

import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.errors import UserError
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.evaluation.pixels import AUGMENTATIONS, SHIFTS, Change, read_changes, shifted

BYTES = spaces.Box(0, 255, (8, 8, 3), np.uint8)


class Grey(gym.Env):
    """Pictures in the middle of their range, for ever."""

    action_space = spaces.Discrete(2)

    def __init__(self, space=BYTES):
        self.observation_space = space

    def picture(self, space):
        if isinstance(space, spaces.Dict):
            return {name: self.picture(part) for name, part in space.items()}
        return np.full(space.shape, 128 if space.dtype == np.uint8 else 0.5, space.dtype)

    def reset(self, *, seed=None, options=None):
        return self.picture(self.observation_space), {}

    def step(self, action):
        return self.picture(self.observation_space), 0.0, False, False, {}


def seen(environment, seed, steps=2):
    return [environment.reset(seed=seed)[0], *(environment.step(0)[0] for _ in range(steps))]


@given(st.sampled_from([*SHIFTS]), st.floats(-70, 70, allow_nan=False))
def test_what_is_read_is_what_was_written(kind, level):
    limits = SHIFTS[kind]
    level = float(round(level)) if limits.whole else level
    if limits.low <= level <= limits.high and level:
        (change,) = read_changes([f" {kind}:{level!r}"], SHIFTS, "shift")
        assert change == Change(kind, level) and read_changes([f"{change.kind}:{level}"], SHIFTS, "shift") == (change,)
    else:
        with pytest.raises(UserError, match=r"its level, .* has to be a"):
            read_changes([f"{kind}:{level!r}"], SHIFTS, "shift")


@pytest.mark.parametrize(
    ("kinds", "words", "said"),
    [
        (SHIFTS, ["brihgtness:0.3"], "unknown shift 'brihgtness': did you mean 'brightness'?"),
        (SHIFTS, ["brightness"], "shift 'brightness' has no level: give brightness:LEVEL (so much lighter"),
        (
            SHIFTS,
            ["noise:x"],
            "shift 'noise:x': its level, σ of normal noise, has to be a number from 0 to 1, and not 0",
        ),
        (SHIFTS, ["noise:nan"], "shift 'noise:nan': its level"),
        (SHIFTS, ["shift:0.5"], "shift 'shift:0.5': its level, pixels to the right and down"),
        (SHIFTS, ["noise:0.1", "noise:0.2"], "shift noise is given twice: leave out one of them"),
        (AUGMENTATIONS, ["flip"], "unknown augmentation 'flip'"),
        (AUGMENTATIONS, ["crop:"], "augmentation 'crop:': its level"),
    ],
)
def test_mistakes_are_one_line(kinds, words, said):
    with pytest.raises(UserError, match=f"^{re.escape(said)}"):
        read_changes(words, kinds, "shift" if kinds is SHIFTS else "augmentation")


def test_pictures_are_changed_and_nothing_else():
    space = spaces.Dict({"eye": spaces.Dict({"left": BYTES}), "speed": spaces.Box(-1, 1, (3,), np.float32)})
    changes = read_changes(["brightness:0.25", "shift:2"], SHIFTS, "shift")
    environment = shifted(Grey(space), changes)
    assert environment.observation_space == space
    for one in seen(environment, 0):
        assert space.contains(one) and (one["speed"] == 0.5).all()
        picture = one["eye"]["left"]
        assert (picture[2:, 2:] == 192).all() and not picture[:2].any() and not picture[:, :2].any()  # 128 + 63.75
    plain = Grey()
    assert shifted(plain, ()) is plain


def test_noise_is_that_of_the_seed():
    one, other = (shifted(Grey(), read_changes(["noise:0.1"], SHIFTS, "shift")) for _ in range(2))
    first = seen(one, 3)
    assert all(BYTES.contains(picture) for picture in first)
    assert not np.array_equal(first[0], first[1]) and 15 < np.std(np.asarray(first, float)) < 35  # 25.5
    seen(other, 4)
    assert np.array_equal(seen(other, 3), first) and not np.array_equal(seen(other, 4), first)


def test_pixels_that_are_0_or_1_can_be_moved_alone():
    plain, moved = (
        make_environment("minatar:breakout"),
        shifted(make_environment("minatar:breakout"), read_changes(["shift:-1"], SHIFTS, "shift")),
    )
    for before, after in zip(seen(plain, 0), seen(moved, 0), strict=True):
        assert after.dtype == np.bool_ and np.array_equal(after[:-1, :-1], before[1:, 1:]) and not after[-1].any()
    for change in ("brightness:0.3", "noise:0.1"):
        with pytest.raises(UserError, match=f"^shift {change.split(':')[0]} takes .* are 0 or 1: use shift$"):
            shifted(make_environment("minatar:breakout"), read_changes([change], SHIFTS, "shift"))


def test_pixels_without_bounds_and_what_is_no_image():
    changes = read_changes(["noise:0.1"], SHIFTS, "shift")
    with pytest.raises(UserError, match="Grey have no common bounds: use shift"):
        shifted(Grey(spaces.Box(-np.inf, np.inf, (8, 8, 3))), changes)
    with pytest.raises(UserError, match=r"CartPole-v1 has .* shape \(4,\), which are no images: leave out --shift$"):
        shifted(make_environment("CartPole-v1"), changes)
