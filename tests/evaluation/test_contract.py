"""What policies see of an environment and send to it, for pairs of the data's spaces and the environment's."""

import itertools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dr3_ray import UserError
from dr3_ray.algorithms.registry import find
from dr3_ray.data import from_env_actions
from dr3_ray.evaluation.contract import Recorded, contract
from dr3_ray.evaluation.rollout import Played, Rollout
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from dr3_ray.types import Spaces
from tests.conftest import TableData
from tests.evaluation.worlds import STEPS, World, recorded

PLACE = Box(-1.0, 1.0, (2,))
SHAPES = [(), (1,), (3,), (2, 2)]


def agreed(data: Recorded, environment: World) -> bool:
    """Whether there is a contract; where there is none, that both spaces stand in one line."""
    try:
        contract(data, environment.observation_space, environment.action_space, "environment E")
    except UserError as error:
        assert "\n" not in str(error) and "environment E has" in str(error) and "the data set here" in str(error)
        return False
    return True


def played(data: Recorded, environment: World, act: Callable[[Any], Tensor]) -> Played:
    return Rollout(lambda: environment, data, 1, 1).play(act, [0])


class Replays:
    """A policy that plays stored actions one after the other."""

    def __init__(self, stored: Any):
        self.stored = iter(torch.from_numpy(np.asarray(stored)).reshape(len(stored), 1, 1, -1))

    def __call__(self, observations: Any) -> Tensor:
        return next(self.stored)


# actions


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...], outside: Box | None = None) -> Box:
    """Bounds for each element, with a width; or wherever another box is within them, some of them infinite."""
    numbers = st.floats(-1e3, 1e3, width=32)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    size = int(np.prod(shape))
    low = np.array(draw(st.lists(numbers, min_size=size, max_size=size))).reshape(shape)
    width = draw(st.lists(st.floats(0.125, 100.0, width=32), min_size=size, max_size=size))
    high = low + np.array(width).reshape(shape)
    if outside is not None:
        spare = draw(st.sampled_from([0.0, 0.5, np.inf]))
        low, high = outside.low.astype(float) - spare, outside.high.astype(float) + spare
    return Box(low.astype(dtype), high.astype(dtype), shape, dtype)


@given(data=st.data(), shape=st.sampled_from(SHAPES), fits=st.booleans())
@settings(max_examples=60, deadline=None)
def test_box_actions_arrive_as_they_were_recorded_or_not_at_all(data: Any, shape: Any, fits: bool) -> None:
    recorded_in = data.draw(boxes(shape))
    space = data.draw(boxes(shape, outside=recorded_in if fits else None))
    environment = World(PLACE, space, lambda step: np.zeros(2, np.float32))
    those = recorded(PLACE, recorded_in)
    slack = 1e-3
    if not agreed(those, environment):
        assert not fits and not ((space.low <= recorded_in.low) & (space.high >= recorded_in.high)).all()
        return
    assert ((space.low <= recorded_in.low + slack) & (space.high >= recorded_in.high - slack)).all()
    recorded_in.seed(data.draw(st.integers(0, 99)))
    actions = np.stack([recorded_in.low, recorded_in.high, *(recorded_in.sample() for _ in range(STEPS - 2))])
    _, lengths, no_action, broken = played(those, environment, Replays(from_env_actions(those.actions, actions)))
    assert lengths.tolist() == [[STEPS]] and not no_action.any() and not broken.any()
    for received, action in zip(environment.received, actions, strict=True):
        assert received.dtype == space.dtype and received.shape == shape
        width = recorded_in.high.astype(float) - recorded_in.low
        assert (np.abs(received - action.astype(float)) <= 1e-5 * (width + np.abs(action))).all()


@given(
    n=st.integers(1, 6),
    other=st.integers(1, 6),
    starts=st.tuples(st.integers(-5, 5), st.integers(-5, 5)),
    same=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_choices_are_counted_from_the_start_of_each_space(n: int, other: int, starts: Any, same: bool) -> None:
    there = Discrete(n if same else other, start=starts[1])
    environment = World(PLACE, there, lambda step: np.zeros(2, np.float32))
    those = recorded(PLACE, Discrete(n, start=starts[0]))
    assert agreed(those, environment) == (there.n == n)
    if there.n == n:
        choices = np.arange(STEPS) % n
        stored = from_env_actions(those.actions, choices + starts[0])
        Rollout(lambda: environment, those, 1, 1).play(lambda o: stored_at(stored, environment), [0])
        assert [int(action) for action in environment.received] == (choices + starts[1]).tolist()


def stored_at(stored: Any, environment: World) -> Tensor:
    return torch.tensor([[stored[environment.steps]]])


def test_what_is_not_in_the_environments_range_is_refused_with_both_spaces_in_the_line() -> None:
    """Pendulum takes torques in [−2, 2]; data recorded in [−1, 1] are within, the other way round they are not."""
    twice, once = Box(-2.0, 2.0, (1,)), Box(-1.0, 1.0, (1,))
    for recorded_in, space, fits in [
        (once, twice, True),
        (twice, once, False),
        (Box(-np.inf, np.inf, (1,)), once, False),
    ]:
        assert agreed(recorded(PLACE, recorded_in), World(PLACE, space, lambda step: None)) == fits
    with pytest.raises(UserError, match=r"actions Box\(-1.0, 1.0, \(1,\), float32\), the data set here Box\(-2.0, 2.0"):
        contract(recorded(PLACE, twice), PLACE, once, "environment E")


def test_a_policy_that_replays_its_data_earns_what_they_did() -> None:
    """Thirteen hundredths of a penalty where twice the action would cost 9.73."""
    wanted = np.linspace(-0.98, 0.98, STEPS)

    def earn(action: Any, step: int) -> float:
        return -float((action[0] - wanted[step]) ** 2) * 1.4 - 0.0065

    def environment(bound: float) -> World:
        return World(PLACE, Box(-bound, bound, (1,)), lambda step: np.zeros(2, np.float32), earn)

    data = recorded(PLACE, Box(-1.0, 1.0, (1,)))
    for bound in (1.0, 2.0, np.inf):
        returns = played(data, environment(bound), Replays(wanted.astype(np.float32)[:, None])).returns
        assert returns.tolist() == [[pytest.approx(-0.13, abs=1e-4)]]
    assert sum(earn([2 * action], step) for step, action in enumerate(wanted)) == pytest.approx(-9.73, abs=0.5)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8])
def test_environments_of_whole_numbers_get_whole_numbers(dtype: Any) -> None:
    space = Box(0, 10, (2,), dtype)
    environment = World(PLACE, space, lambda step: np.zeros(2, np.float32))
    those = recorded(PLACE, space)
    actions = np.array([[step % 11, 10 - step % 11] for step in range(STEPS)])
    played(those, environment, Replays(from_env_actions(those.actions, actions)))
    assert np.array_equal(environment.received, actions) and environment.received[0].dtype == dtype
    for numbers in (Box(0.0, 2.5, (2,)), Box(0.0, 10.0, (2,))):
        assert not agreed(recorded(PLACE, numbers), environment)
    # the other way round whole numbers go out, as they were recorded
    environment = World(PLACE, Box(0.0, 10.0, (2,)), lambda step: np.zeros(2, np.float32))
    played(those, environment, Replays(from_env_actions(those.actions, actions)))
    assert np.array_equal(environment.received, actions) and environment.received[0].dtype == np.float32


# observations

NOWHERE = Discrete(2)
PIXELS = (2, 3)
REPRESENTATIONS: dict[str, tuple[gym.Space[Any], Callable[[Any], Any]]] = {
    "bytes": (Box(0, 255, PIXELS, np.uint8), lambda byte: byte),
    "float32 bytes": (Box(0, 255, PIXELS, np.float32), lambda byte: byte.astype(np.float32)),
    "float64 bytes": (Box(0, 255, PIXELS, np.float64), lambda byte: byte.astype(np.float64)),
    "int64 bytes": (Box(0, 255, PIXELS, np.int64), lambda byte: byte.astype(np.int64)),
    "int16 bytes": (Box(0, 255, PIXELS, np.int16), lambda byte: byte.astype(np.int16)),
    "float32 shares": (Box(0, 1, PIXELS, np.float32), lambda byte: (byte / 255).astype(np.float32)),
    "float64 shares": (Box(0, 1, PIXELS, np.float64), lambda byte: byte / 255),
    "around 0": (Box(-1, 1, PIXELS, np.float32), lambda byte: (byte / 127.5 - 1).astype(np.float32)),
    "without bounds": (Box(-np.inf, np.inf, PIXELS, np.float32), lambda byte: byte.astype(np.float32)),
}
BYTES = {"bytes", "float32 bytes", "float64 bytes", "int64 bytes", "int16 bytes"}
SHARES = {"float32 shares", "float64 shares"}


def reads(representation: str, other: str) -> bool:
    """Whether data of one kind tell how another is to be read; those without bounds are taken at their word."""
    pair = {representation, other}
    if pair <= BYTES or pair <= SHARES or len(pair) == 1:
        return True
    if "without bounds" in pair:
        return "bytes" not in pair
    return "bytes" in pair and bool(pair & SHARES)


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(REPRESENTATIONS, repeat=2)))
def test_observations_are_those_of_training_or_refused(ours: str, theirs: str) -> None:
    stored_in, store = REPRESENTATIONS[ours]
    space, show = REPRESENTATIONS[theirs]
    frames = np.random.default_rng(0).integers(0, 256, (STEPS + 1, *PIXELS)).astype(np.uint8)
    frames[0] = 0  # nothing to tell types by
    environment = World(space, NOWHERE, lambda step: show(frames[step]))
    data = recorded(stored_in, NOWHERE)
    assert agreed(data, environment) == reads(ours, theirs)
    if not reads(ours, theirs) or "without bounds" in (ours, theirs):
        return
    seen: list[Tensor] = []

    def act(observations: Tensor) -> Tensor:
        seen.append(observations[0, 0])
        return torch.zeros(1, 1, dtype=torch.int64)

    played(data, environment, act)
    for step, frame in enumerate(seen):
        assert frame.dtype == (torch.uint8 if ours == "bytes" else torch.float32)
        torch.testing.assert_close(frame, torch.from_numpy(store(frames[step])).to(frame.dtype), atol=1e-6, rtol=1e-6)


BITS: dict[str, tuple[gym.Space[Any], Any]] = {
    "MultiBinary": (MultiBinary((2, 3)), np.int8),
    "bool": (Box(0, 1, (2, 3), np.bool_), np.bool_),
    "uint8": (Box(0, 1, (2, 3), np.uint8), np.uint8),
    "float": (Box(0, 1, (2, 3), np.float64), np.float64),
    "int": (Box(0, 1, (2, 3), np.int32), np.int32),
}


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(BITS, repeat=2)))
def test_bits_are_bits_in_every_type(ours: str, theirs: str) -> None:
    stored_in, _ = BITS[ours]
    space, dtype = BITS[theirs]
    bits = np.array([[0, 1, 1], [1, 0, 1]])
    seen = contract(recorded(stored_in, NOWHERE), space, NOWHERE, "E").observe(bits.astype(dtype))
    assert seen is not None and np.array_equal(seen[""], bits)
    assert seen[""].dtype == (np.uint8 if ours == "uint8" else np.float32)


def test_the_type_of_an_observation_is_that_of_the_space_and_not_of_the_first_one() -> None:
    """A policy that reads sixteenths; the first observation is made of integers."""

    def see(step: int) -> Any:
        return np.array([0, 0]) if step == 0 else [step / 16, 1 - step / 16]

    environment = World(Box(-2, 2, (2,)), Box(-2.0, 2.0, (1,)), see, lambda action, step: float(action[0] * 16 == step))
    returns = played(
        recorded(Box(-2, 2, (2,)), Box(-2.0, 2.0, (1,))), environment, lambda seen: seen[..., :1] / 2
    ).returns
    assert returns.tolist() == [[STEPS]]


def policy_of_bytes() -> Population:
    """Trained on two bytes, the second of which is 0, or like the first: choice 0 or 1."""
    byte = torch.randint(100, 256, (400,), generator=torch.Generator().manual_seed(0))
    action = torch.arange(400) % 2
    columns = {"observations": torch.stack([byte, byte * action], 1).to(torch.uint8), "actions": action}
    spec, options = find("BC", "discrete"), {"hidden_sizes": (16,), "actor_lr": 0.01, "normalize_observations": False}
    population = Population.of(spec, [Member.from_dict(spec, options)], TableData(columns), Spaces((2,), "discrete", 2))
    population.update(150)
    return population


def test_a_policy_trained_on_bytes_plays_in_floats_as_well_as_in_bytes() -> None:
    population = policy_of_bytes()
    rng = np.random.default_rng(1)
    byte, right = rng.integers(100, 256, STEPS + 1), rng.integers(0, 2, STEPS + 1)

    def environment(top: int, dtype: Any) -> World:
        def see(step: int) -> Any:
            frame = np.array([byte[step], byte[step] * right[step]])
            return frame.astype(dtype) if top == 255 else (frame / 255).astype(dtype)

        space = Box(0, top, (2,), dtype)
        return World(space, NOWHERE, see, lambda action, step: float(action == right[step]))

    data = recorded(Box(0, 255, (2,), np.uint8), NOWHERE)
    for top, dtype in [(255, np.uint8), (255, np.float32), (255, np.float64), (255, np.int32), (1, np.float32)]:
        assert played(data, environment(top, dtype), population.act).returns.tolist() == [[20.0]]


def test_a_script_that_acts_by_itself_gives_bytes_where_the_data_have_them() -> None:
    population = policy_of_bytes()
    seen = torch.tensor([[[200, 200]]])
    assert population.act(seen.to(torch.uint8)).tolist() == [[1]]
    for kind in (torch.float32, torch.int64):
        with pytest.raises(UserError, match=f"observations are {kind}, and in the data bytes: give torch.uint8"):
            population.act(seen.to(kind))
    population.data.columns["observations"] = population.data.columns["observations"].float()  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"observations are torch\.uint8, and in the data numbers: give torch\.float32"):
        policy_of_numbers(population).act(seen.to(torch.uint8))


def policy_of_numbers(population: Population) -> Population:
    """Of the same data, as they are now."""
    return Population.of(population.spec, population.members, population.data, population.spaces)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_named_parts_are_found_by_name_however_they_are_ordered_and_nested(data: Any) -> None:
    names = data.draw(st.lists(st.sampled_from(["a", "b", "arm/x", "arm/y", "z/deep/q"]), min_size=1, unique=True))
    more = data.draw(st.lists(st.sampled_from(["hint", "arm/mission"]), unique=True))

    def nested(order: list[str], leaf: Callable[[str], Any]) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for name in order:
            *path, last = name.split("/")
            inner = tree
            for key in path:
                inner = inner.setdefault(key, {})
            inner[last] = leaf(name)
        return tree

    def space(order: list[str]) -> Dict:
        def build(tree: dict[str, Any]) -> Dict:
            return Dict([(key, build(each) if isinstance(each, dict) else each) for key, each in tree.items()])

        return build(nested(order, lambda name: Text(5) if name in more else Box(-9, 9, (len(name),))))

    def see(step: int) -> Any:
        order = data.draw(st.permutations([*names, *more]))
        return nested(order, lambda name: "hello" if name in more else np.full(len(name), len(name) + step / 100))

    environment = World(space(data.draw(st.permutations([*names, *more]))), NOWHERE, see, length=3)
    those = recorded(space(data.draw(st.permutations(names))), NOWHERE)
    seen: list[Any] = []

    def act(observations: Any) -> Tensor:
        seen.append(observations)
        return torch.zeros(1, 1, dtype=torch.int64)

    played(those, environment, act)
    for step, observations in enumerate(seen):
        assert set(observations) == set(names)
        for name, part in observations.items():
            assert part.dtype == torch.float32 and part.shape == (1, 1, len(name))
            assert torch.allclose(part, torch.tensor(len(name) + step / 100))
    lacking = recorded(space([*names, "lost"]), NOWHERE)
    with pytest.raises(UserError, match=r"and one is missing \(part 'lost'\)"):
        contract(lacking, environment.observation_space, NOWHERE, "E")


OTHER_SPACES = [
    Discrete(2), Discrete(3), MultiDiscrete([2, 2]), Tuple([PLACE]), Text(3), Dict(a=PLACE), MultiBinary(2),
    Box(-1.0, 1.0, (3,)), Box(-1.0, 1.0, (2, 1)), Box(0, 1, (2,), np.bool_), Box(-1.0, 1.0, (1,)),
]  # fmt: skip


@pytest.mark.parametrize("space", OTHER_SPACES, ids=str)
def test_spaces_of_another_kind_or_shape_are_refused(space: Any) -> None:
    choices, numbers = recorded(PLACE, Discrete(4)), recorded(PLACE, PLACE)
    for data, observed, taken in [(numbers, space, PLACE), (numbers, PLACE, space), (choices, PLACE, space)]:
        assert not agreed(data, World(observed, taken, lambda step: None))
    assert not agreed(recorded(Dict(a=PLACE), NOWHERE), World(space, NOWHERE, lambda step: None)) or "Dict" in str(
        space
    )


@pytest.mark.parametrize(
    ("space", "given_back", "message"),
    [
        (Box(0, 255, (2,), np.uint8), [0.5, 0.25], "gives 0.5, which is not of uint8"),
        (Box(0, 255, (2,), np.uint8), [300, 0], "gives 300, which is not of uint8"),
        (Box(0, 255, (2,), np.float32), np.float32([0.5, 1]), "gives 0.5, which is not a byte"),
        (Box(0, 1, (2,), np.float32), np.float32([0, 17]), "gives 17, which is not a byte"),
        (Box(0, 255, (2,), np.uint8), np.zeros(3, np.uint8), r"of shape \(2,\) and gives uint8 of shape \(3,\)"),
        (Box(0, 255, (2,), np.uint8), {"a": np.zeros(2, np.uint8)}, "gives nothing"),
        (Box(0, 255, (2,), np.uint8), "hello", "gives <U5"),
        (Box(0, 255, (2,), np.uint8), None, "gives object"),
    ],
)
def test_observations_that_are_not_of_the_announced_space_are_one_line(
    space: Any, given_back: Any, message: str
) -> None:
    environment = World(space, NOWHERE, lambda step: given_back)
    with pytest.raises(UserError, match=message) as caught:
        played(recorded(Box(0, 255, (2,), np.uint8), NOWHERE), environment, lambda seen: torch.zeros(1, 1))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("environment World")
