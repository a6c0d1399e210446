import numpy as np
import pytest
import torch
from gymnasium import spaces

from dr3_ray.data import load_dataset
from dr3_ray.data.importers.source import Episode, Source
from dr3_ray.data.importers.writing import import_source
from dr3_ray.data.schema import Provenance
from dr3_ray.data.spaces import named_parts

GAMMA = 0.9
BOTH = frozenset({"both-ends"})
IMAGE = spaces.Box(0, 255, (36, 33, 4), np.uint8)
OBSERVATIONS = {
    "vector": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "double": spaces.Box(-5, 5, (2, 2), np.float64),
    "whole": spaces.Box(-7, 9, (4,), np.int16),
    "image": IMAGE,
    "bits": spaces.Box(0, 1, (5, 3), np.bool_),
    "dict": spaces.Dict(
        camera=IMAGE,
        goal=spaces.Dict(place=spaces.Box(-1, 1, (2,)), reached=spaces.MultiBinary(3)),
        speed=spaces.Box(-np.inf, np.inf, (), np.float32),
    ),
}
ACTIONS = {
    "discrete": spaces.Discrete(5),
    "from 2": spaces.Discrete(3, start=2),
    "box": spaces.Box(np.float32([-0.4, 0]), np.float32([0.4, 3]), dtype=np.float32),
    "matrix": spaces.Box(-2, 2, (2, 3), np.float64),
    "steps": spaces.Box(-3, 8, (2,), np.int32),
}


def play(space, rng, count):
    """Arrays [count, *shape] of a space, nested as it is."""
    if isinstance(space, spaces.Dict):
        return {name: play(part, rng, count) for name, part in space.items()}
    if isinstance(space, spaces.MultiBinary):
        return rng.integers(0, 2, (count, *space.shape)).astype(np.int8)
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.start, space.start + space.n, count)
    low, high = (np.clip(bound.astype(np.float64), -300, 300) for bound in (space.low, space.high))
    if space.dtype.kind in "iub":
        return rng.integers(low.astype(int), high.astype(int) + 1, (count, *space.shape)).astype(space.dtype)
    # float64 with the values of float32, which is how rows are kept
    return rng.uniform(low, high, (count, *space.shape)).astype(np.float32).clip(low, high).astype(space.dtype)


@pytest.fixture
def make_played(tmp_path):
    """Imports random episodes of two spaces; returns the opened data set and the episodes."""

    def make(observations="vector", actions="box", lengths=(3, 1, 5, 2), name="source", seed=0, **about):
        rng = np.random.default_rng(seed)
        seen, acts = (
            table.get(space, space) if isinstance(space, str) else space
            for table, space in ((OBSERVATIONS, observations), (ACTIONS, actions))
        )
        episodes = []
        for number, steps in enumerate(lengths):
            last = np.arange(steps) == steps - 1
            rewards = rng.normal(size=steps).astype(np.float32)
            flags = last & (number % 3 != 1), last & (number % 3 != 0)  # terminated, truncated, or both
            episodes.append(Episode(number, play(seen, rng, steps + 1), play(acts, rng, steps), rewards, *flags))
        source = Source(
            "source", seen, acts, lambda findings: iter(episodes), Provenance(source="test"), usual=BOTH, **about
        )
        import_source(lambda: source, tmp_path / name, gamma=GAMMA)
        return load_dataset(tmp_path / name), episodes

    return make


@pytest.fixture
def assert_same():
    """Compares two data sets column by column."""

    def check(one, other):
        assert (len(one), one.columns) == (len(other), other.columns)
        rows = torch.arange(len(one))
        ours, theirs = (named_parts(each.gather(rows, each.columns)) for each in (one, other))
        assert set(ours) == set(theirs)
        for name, values in ours.items():
            assert values.dtype == theirs[name].dtype and torch.equal(values, theirs[name]), name

    return check
