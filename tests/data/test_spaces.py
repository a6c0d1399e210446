"""Spaces of every kind that Gymnasium has: what is imported is the source or says what it lost, trains, and acts."""

import json
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from minari.data_collector import EpisodeBuffer
from minari.serialization import serialize_space

from dr3_ray.algorithms.registry import ALGORITHMS
from dr3_ray.data import SpaceSpec, from_env_actions, import_minari, load_dataset, to_env_actions
from dr3_ray.data.spaces import named_parts
from dr3_ray.errors import UserError
from dr3_ray.evaluation.contract import Recorded
from dr3_ray.evaluation.rollout import Rollout
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population

slow = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
EPSILON = np.finfo(np.float32).eps
STEPS = 3

INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
NUMBERS = [*INTEGERS, np.float16, np.float32, np.float64]
SHAPES = st.sampled_from([(), (1,), (3,), (2, 2), (1, 3), (2, 1, 2), (0,), (2, 0)])


@pytest.mark.parametrize(
    ("name", "dtype"), [*(("env_dtype", dtype) for dtype in (*INTEGERS, bool)), ("dtype", np.uint8), ("dtype", bool)]
)
def test_a_manifest_whose_bounds_its_type_does_not_have_is_refused(name, dtype):
    """-3 to 3 as uint8 would be played as 253."""
    kind, info = np.dtype(dtype).name, (0, 1) if dtype is bool else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    box = {"kind": "box", "shape": (2,), "dtype": "float32"} | {name: kind}
    low, high = map(float, info)
    SpaceSpec.model_validate(box | {"low": (low,), "high": (high,)})
    step = max(1.0, np.spacing(high))
    with pytest.raises(ValueError, match=f"{kind} has whole numbers, and a bound is none"):
        SpaceSpec.model_validate(box | {"low": (0.5,), "high": (high,)})
    for wrong in ({"low": (low - step,), "high": (high,)}, {"low": (low,), "high": (high, high + 2 * step)}):
        with pytest.raises(ValueError, match=f"{kind} has numbers from .* and the bounds lie outside"):
            SpaceSpec.model_validate(box | wrong)
    if dtype is not bool and info[1] < 2**31:
        choice = {"kind": "discrete", "dtype": "int64", "env_dtype": kind, "start": info[1] - 2}
        SpaceSpec.model_validate(choice | {"n": 3})
        with pytest.raises(ValueError, match=f"{kind} has numbers from .*, and the choices more"):
            SpaceSpec.model_validate(choice | {"n": 4})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"low": (-1e39,), "high": (1e39,)}, "float32 has numbers from"),
        ({"env_dtype": "float16", "low": (-1e5,), "high": (1e5,)}, "float16 has numbers from -65504 to 65504"),
        ({"low": (np.inf,), "high": (np.inf,)}, "low is infinite"),
        ({"low": (-np.inf,), "high": (-np.inf,)}, "high minus infinite"),
        ({"env_dtype": "int8", "low": (-np.inf,), "high": (1,)}, "int8 has numbers from"),
    ],
)
def test_bounds_that_no_environment_has_are_refused(changed, said):
    box = {"kind": "box", "shape": (2,), "dtype": "float32"}
    SpaceSpec.model_validate(box | {"low": (-np.inf,), "high": (np.inf,)})
    with pytest.raises(ValueError, match=said):
        SpaceSpec.model_validate(box | changed)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bool"])
def test_choices_are_whole_numbers(dtype):
    with pytest.raises(ValueError, match=f"choices are whole numbers, and {dtype} is no type"):
        SpaceSpec.model_validate({"kind": "discrete", "dtype": "int64", "env_dtype": dtype, "n": 2})


@st.composite
def boxes(draw, tame=False):
    """Bounds of every kind: wide and narrow, the largest numbers, none, none on one side, or one value.

    Those of tame ones are no further apart than the actions that can be stored.
    """
    shape, dtype = draw(SHAPES), np.dtype(draw(st.sampled_from(NUMBERS if tame else [*NUMBERS, bool])))
    if dtype.kind == "b":
        return spaces.Box(0, 1, shape, bool)
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        edges = [-1000.0, -1.0, -0.1, 0.0, 0.3, 1.0, 7.0]
        edges += [] if tame else [-np.inf, -largest, -1e9, 1.7e9, largest, np.inf]
    else:
        info = np.iinfo(dtype)
        edges = [-300, -1, 0, 1, 9, 255, 2**23]
        edges += [] if tame else [info.min, -(2**31), 2**24 + 1, 1_700_000_043, info.max]
        edges = [edge for edge in edges if info.min <= edge <= info.max]
    with np.errstate(over="ignore"):
        edge = st.sampled_from(edges)
        pairs = [sorted([draw(edge), draw(edge)]) for _ in range(int(np.prod(shape)))]
        low, high = (np.array([pair[end] for pair in pairs], dtype).reshape(shape) for end in (0, 1))
    assume(not (np.isposinf(low) | np.isneginf(high)).any())
    return spaces.Box(low, high, shape, dtype.type)


DISCRETE = st.builds(spaces.Discrete, st.integers(1, 5), start=st.sampled_from([0, 1, -3, 2**40]))
BINARY = st.builds(spaces.MultiBinary, st.sampled_from([1, 3, (2, 2)]))
OTHERS = st.sampled_from(
    [
        spaces.MultiDiscrete([2, 3]),
        spaces.Text(3),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Box(0, 1, (2,)), None),
        spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1, (2,))]),
    ]
)
ACTIONS = boxes(tame=True) | boxes() | DISCRETE
PARTS = boxes() | BINARY | DISCRETE
NESTED = st.recursive(
    boxes() | BINARY,
    lambda inner: (
        st.dictionaries(st.sampled_from(["a", "b", "c/d", "in all"]), inner, min_size=1, max_size=2).map(spaces.Dict)
        | st.lists(inner, min_size=1, max_size=2).map(spaces.Tuple)
    ),
    max_leaves=3,
)


def numbers_in(space):
    """Arrays [*shape] that a Box contains: its bounds, what lies between, and large numbers where it has no bound."""
    if space.dtype == bool:
        return hnp.arrays(bool, space.shape)
    if space.dtype.kind == "f":
        largest = float(np.finfo(space.dtype).max) / 4
        wide = {16: 1e4, 32: 1e12, 64: 1e15}[8 * space.dtype.itemsize]
        edge = min(largest, wide)
        low, high = (np.clip(bound.astype(np.float64), -edge, edge) for bound in (space.low, space.high))
        share = st.sampled_from([0.0, 1.0, 0.5]) | st.integers(0, 997).map(lambda number: number / 997)
        return hnp.arrays(np.float64, space.shape, elements=share).map(
            lambda s: np.clip((low * (1 - s) + high * s).astype(space.dtype), space.low, space.high)
        )
    share = st.sampled_from([0, 1, 2]) | st.integers(0, 2**64)

    def between(shares):
        low, high = space.low.astype(object), space.high.astype(object)
        return np.asarray(low + np.asarray(shares, object) % (high - low + 1)).astype(space.dtype).reshape(space.shape)

    return hnp.arrays(object, space.shape, elements=share).map(between)


def samples_of(space):
    """Observations or actions in a space that consists of arrays and numbers."""
    if isinstance(space, spaces.Dict):
        return st.fixed_dictionaries({name: samples_of(part) for name, part in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return st.tuples(*map(samples_of, space.spaces))
    if isinstance(space, spaces.Discrete):
        return st.integers(int(space.start), int(space.start + space.n - 1)).map(np.int64)
    if isinstance(space, spaces.MultiBinary):
        return hnp.arrays(np.int8, space.shape, elements=st.integers(0, 1))
    return numbers_in(space)


def stacked(space, values):
    """Values of a space one after the other, as Minari keeps them."""
    if isinstance(space, spaces.Dict):
        return {name: stacked(part, [value[name] for value in values]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stacked(part, [value[at] for value in values]) for at, part in enumerate(space.spaces))
    return np.stack([np.asarray(value) for value in values])


@st.composite
def problems(draw, observation_spaces, action_spaces):
    observation_space, action_space = draw(observation_spaces), draw(action_spaces)
    reward = st.sampled_from([0.0, 0.1, -1e9 - 1, 2**24 + 1.0, 3.7])
    episodes = [
        SimpleNamespace(
            observations=draw(st.lists(samples_of(observation_space), min_size=STEPS + 1, max_size=STEPS + 1)),
            actions=draw(st.lists(samples_of(action_space), min_size=STEPS, max_size=STEPS)),
            rewards=draw(hnp.arrays(np.float64, STEPS, elements=reward)),
        )
        for _ in range(2)
    ]
    return observation_space, action_space, episodes


def create(observation_space, action_space, episodes):
    flags = [False] * (STEPS - 1)
    buffers = [
        EpisodeBuffer(
            index,
            None,
            None,
            stacked(observation_space, each.observations),
            stacked(action_space, each.actions),
            each.rewards,
            [*flags, True],
            [*flags, False],
        )
        for index, each in enumerate(episodes)
    ]
    minari.create_dataset_from_buffers(
        "drawn/spaces-v0",
        buffers,
        observation_space=observation_space,
        action_space=action_space,
        jpeg_encoding=False,
    )


@pytest.fixture
def imported(monkeypatch):
    """Imports a problem: the data set and its notes, or None where one line refuses it."""

    def run(observation_space, action_space, episodes, folder):
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Minari; ours are notes as well
            create(observation_space, action_space, episodes)
            try:
                manifest = import_minari("drawn/spaces-v0", folder / "out")
            except UserError as error:
                assert "\n" not in str(error) and ": " in str(error)
                assert not list(folder.glob("*out*"))
                return None
        return load_dataset(folder / "out"), " ".join(manifest.provenance.notes)

    return run


def assert_equal_or_said(column, source, stored, notes):
    """Each element is what it was, up to float32's precision of its range, or a note names the worst of its kind."""
    assert source.shape == stored.shape
    for index in np.ndindex(source.shape[1:]):
        were, are = source[(slice(None), *index)], stored[(slice(None), *index)]
        if were.dtype.kind in "iub":
            lost = any(int(a) != float(b) for a, b in zip(were, are, strict=True))
        else:
            error = np.abs(were.astype(np.float64) - are.astype(np.float64)).max()
            spread = float(were.max()) - float(were.min())
            lost = error > EPSILON * (spread or np.abs(were).max())
        assert not lost or ("float32 has rounded" in notes and (column in notes or "more elements" in notes)), column


@given(problems(NESTED | DISCRETE, ACTIONS | BINARY))
@slow
def test_what_is_imported_is_the_source_or_says_what_was_lost(imported, problem):
    observation_space, action_space, episodes = problem
    with tempfile.TemporaryDirectory() as folder:
        if not (found := imported(*problem, Path(folder))):
            return
        dataset, notes = found
        rows = dataset.gather(torch.arange(len(dataset)), ("observations", "next_observations", "actions", "rewards"))
        flat = isinstance(observation_space, spaces.Tuple)
        for name, shift in (("observations", 0), ("next_observations", 1)):
            seen = [each.observations[step + shift] for each in episodes for step in range(STEPS)]
            if flat:
                seen = [spaces.flatten(observation_space, each) for each in seen]
            wanted, found = named_parts(stacked(None if flat else observation_space, seen)), named_parts(rows[name])
            assert set(wanted) == set(found)
            for part, source in wanted.items():
                assert_equal_or_said("observations", source, found[part].numpy(), notes)
        assert_equal_or_said(
            "rewards", np.concatenate([each.rewards for each in episodes]), rows["rewards"].numpy(), notes
        )
        source = np.stack([np.asarray(action) for each in episodes for action in each.actions])
        back = to_env_actions(dataset.action_space, rows["actions"].numpy())
        assert back.dtype == action_space.dtype and back.shape == source.shape
        assert all(action_space.contains(np.asarray(each)) for each in back)
        if action_space.dtype.kind in "iu":
            np.testing.assert_array_equal(back, source)
        else:
            assert_equal_or_said("actions", source, back, notes)
        assert dataset.action_space.to_gymnasium() == action_space


class Acted(gym.Env):
    """Shows these observations and takes actions of a space, and nothing else."""

    def __init__(self, observation_space, action_space, observations):
        self.observation_space, self.action_space = observation_space, action_space
        self.observations, self.taken = observations, []

    def reset(self, *, seed=None, options=None):
        return self.observations[0], {}

    def step(self, action):
        assert self.action_space.contains(action), action
        if isinstance(self.action_space, spaces.Box):
            assert isinstance(action, np.ndarray) and action.dtype == self.action_space.dtype
        self.taken.append(action)
        steps = len(self.taken)
        return self.observations[steps], 1.0, False, steps == STEPS, {}


TAMED = {"hidden_sizes": (4,), "batch_size": 3, "normalize_observations": False}


@given(problems(NESTED, ACTIONS), st.data())
@slow
def test_what_is_imported_trains_and_acts(imported, problem, data):
    observation_space, action_space, episodes = problem
    kind = "discrete" if isinstance(action_space, spaces.Discrete) else "continuous"
    names = [name for name, kinds in ALGORITHMS.items() if kind in kinds and kinds[kind].act]
    spec = ALGORITHMS[data.draw(st.sampled_from(names))][kind]
    with tempfile.TemporaryDirectory() as folder:
        if not (found := imported(*problem, Path(folder))):
            return
        dataset, _ = found
        population = Population.of(spec, [Member.from_dict(spec, TAMED)], dataset, dataset.spaces)
        population.update(2)
        env = Acted(observation_space, action_space, episodes[0].observations)
        shown = gym.wrappers.FlattenObservation(env) if isinstance(observation_space, spaces.Tuple) else env
        played = Rollout(lambda: shown, Recorded.of(dataset), 1, 1).play(population.act, [0])
        assert played.no_action.all() or (len(env.taken), played.returns.tolist()) == (STEPS, [[STEPS]])


@given(PARTS | NESTED | OTHERS, OTHERS | NESTED)
@slow
def test_spaces_without_columns_are_one_line(imported, observation_space, action_space):
    """Of every kind, as observations and as actions, whether or not Minari can write them."""
    for space in (observation_space, action_space):
        try:
            spec = SpaceSpec.from_gymnasium(space)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
        else:
            assert SpaceSpec.model_validate_json(spec.model_dump_json()) == spec
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("MINARI_DATASETS_PATH", f"{folder}/minari")
        episode = SimpleNamespace(
            observations=[np.zeros(2, np.float32)] * (STEPS + 1), actions=[np.int64(0)] * STEPS, rewards=np.zeros(STEPS)
        )
        create(spaces.Box(0, 1, (2,)), spaces.Discrete(2), [episode])
        path = Path(folder) / "minari/drawn/spaces-v0/data/metadata.json"
        try:
            action = serialize_space(action_space)
        except NotImplementedError:
            action = f'{{"type": "{type(action_space).__name__}"}}'
        path.write_text(json.dumps(json.loads(path.read_text()) | {"action_space": action}))
        if isinstance(action_space, spaces.Box) and action_space.shape == ():
            return  # these actions are some of that space
        with pytest.raises(UserError) as refused:
            import_minari("drawn/spaces-v0", Path(folder) / "out")
        assert "\n" not in str(refused.value)


@given(DISCRETE, st.data())
def test_choices_keep_their_numbers(space, data):
    actions = np.array(data.draw(st.lists(samples_of(space), min_size=1)))
    spec = SpaceSpec.from_gymnasium(space)
    stored = from_env_actions(spec, actions)
    assert stored.min() >= 0 and stored.max() < space.n
    np.testing.assert_array_equal(to_env_actions(spec, stored), actions)
    assert to_env_actions(spec, stored).dtype == space.dtype and spec.to_gymnasium() == space
