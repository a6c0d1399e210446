"""Genuine Minari data sets, recorded here with `minari.DataCollector`, against what the environment returned."""

import shutil
import sys
import types
import warnings
from pathlib import Path

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage
from minari.storage import remotes
from minari.storage.remotes.cloud_storage import CloudStorage

from dr3_ray.data import import_minari, load_dataset, to_env_actions, verify
from dr3_ray.data.spaces import named_parts
from dr3_ray.errors import UserError
from dr3_ray.observations import each_part

GAMMA = 0.95
FORMATS = ["hdf5", "arrow"]
VECTOR, CHOICE = spaces.Box(-1, 1, (3,)), spaces.Discrete(3, start=-1)


class Corridor(gym.Env):
    """Walks 1 or 2 cells; terminates at cell 7, is cut after 5 steps, both at once when it arrives in step 5."""

    def __init__(self, observation_space=VECTOR, action_space=CHOICE):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(seed)
        self.cell = self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.cell += 1 + int(np.ravel(action)[0] > 0)
        self.steps += 1
        return self.observation_space.sample(), self.cell - 2.5, self.cell >= 7, self.steps >= 5, {}


def record(env, dataset_id, data_format="hdf5", episodes=12, cut=None, jpeg=True):
    """Collect a Minari data set, leaving each episode after `cut` steps; returns what was seen of every episode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari asks for authors and the like
        collector = minari.DataCollector(env, data_format=data_format, jpeg_encoding=jpeg)
        collector.action_space.seed(0)
        seen = []
        for seed in range(episodes):
            observations, steps, over = [collector.reset(seed=seed)[0]], [], False
            while not over and len(steps) != cut:
                action = collector.action_space.sample()
                observation, reward, terminated, truncated, _ = collector.step(action)
                over = terminated or truncated
                observations.append(observation)
                steps.append((action, float(reward), terminated, truncated))
            if not over:
                steps[-1] = (*steps[-1][:3], True)  # this is how Minari marks an episode that was left
            seen.append((observations, steps))
        collector.create_dataset(dataset_id)
        collector.close()
    return seen


def assert_every_row(dataset, seen, action_space, flat=lambda seen: seen, atol=0.0):
    """Compare all rows with plain loops over what was seen."""
    rows = dataset.gather(torch.arange(len(dataset)), dataset.columns)
    rows = {name: each_part(torch.Tensor.numpy, values) for name, values in rows.items()}

    def stored(action):
        if isinstance(action_space, spaces.Discrete):
            return action - action_space.start
        low, high = action_space.low.astype(np.float64), action_space.high.astype(np.float64)
        return 2 * (action - low) / (high - low) - 1

    row = 0
    for episode, (observations, steps) in enumerate(seen):
        for step, (action, reward, terminated, truncated) in enumerate(steps):
            last = step == len(steps) - 1
            total = sum(GAMMA**later * steps[step + later][1] for later in range(len(steps) - step))
            expected = {
                "observations": flat(observations[step]),
                "next_observations": flat(observations[step + 1]),
                "actions": stored(action),
                "next_actions": np.zeros_like(rows["actions"][0]) if last else stored(steps[step + 1][0]),
                "next_actions_valid": not last,
                "rewards": reward,
                "terminateds": terminated,
                "truncateds": truncated,
                "monte_carlo_returns": total,
                "episode_ids": episode,
                "timesteps": step,
            }
            assert set(expected) == set(rows)
            for name, value in expected.items():
                found, wanted = named_parts(rows[name]), named_parts(value)
                assert set(found) == set(wanted)
                tolerance = atol if "observations" in name else 1e-5
                for part in wanted:
                    what = f"{name}/{part}"
                    np.testing.assert_allclose(found[part][row], wanted[part], 1e-6, tolerance, err_msg=what)
            assert (terminated or truncated) == last
            row += 1
    assert row == len(dataset)
    flags = [steps[-1][2:] for _, steps in seen]
    counts = dataset.manifest.counts
    assert (counts.episodes, counts.terminateds, counts.truncateds) == (len(seen), *map(sum, zip(*flags, strict=True)))
    return flags


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("action_space", [CHOICE, spaces.Box(np.float32([-3, 0]), np.float32([1, 5]))], ids=str)
def test_terminations_and_truncations(minari_home, tmp_path, data_format, action_space):
    seen = record(Corridor(action_space=action_space), "corridor/random-v0", data_format, episodes=40)
    manifest = import_minari("corridor/random-v0", tmp_path / "out", gamma=GAMMA)
    dataset = load_dataset(tmp_path / "out")
    flags = assert_every_row(dataset, seen, action_space)
    assert set(flags) == {(True, False), (False, True), (True, True)}
    verify(dataset)
    assert dataset.manifest == manifest and manifest.environment is None and manifest.gamma == GAMMA
    assert (manifest.provenance.source, manifest.provenance.notes) == ("minari:corridor/random-v0", ())
    assert manifest.provenance.version == f"v0, written by Minari {minari.__version__}"


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(("env_id", "limit"), [("Pendulum-v1", 11), ("CartPole-v1", 15)])
def test_gymnasium_environments(minari_home, tmp_path, data_format, env_id, limit):
    env = gym.make(env_id, max_episode_steps=limit)
    seen = record(env, f"classic/{env_id}", data_format)
    import_minari(f"classic/{env_id}", tmp_path / "out", gamma=GAMMA)
    dataset = load_dataset(tmp_path / "out")
    flags = assert_every_row(dataset, seen, env.action_space)
    assert (False, True) in flags and ((True, False) in flags) == (env_id == "CartPole-v1")
    assert dataset.manifest.environment == f"gymnasium:{env_id}"
    assert dataset.observation_space.to_gymnasium() == env.observation_space
    assert dataset.action_space.to_gymnasium() == env.action_space


@pytest.mark.parametrize("data_format", FORMATS)
def test_an_episode_that_was_left_is_truncated(minari_home, tmp_path, data_format):
    seen = record(Corridor(), "corridor/left-v0", data_format, episodes=4, cut=3)
    import_minari("corridor/left-v0", tmp_path / "out", gamma=GAMMA)
    assert assert_every_row(load_dataset(tmp_path / "out"), seen, CHOICE) == [(False, True)] * 4


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    ("space", "dtype", "shape"),
    [
        (spaces.Box(-1, 1, (2, 2), np.float64), "float32", (2, 2)),
        (spaces.Box(0, 255, (5, 4), np.uint8), "uint8", (5, 4)),
        (spaces.Box(0, 1, (3, 3), bool), "bool", (3, 3)),
        (spaces.MultiBinary(11), "bool", (11,)),
        (spaces.Box(-1, 1, ()), "float32", ()),
        (spaces.Box(0, 255, (84, 84, 4), np.uint8), "uint8", (84, 84, 4)),
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), "uint8", (4, 84, 84)),
    ],
    ids=str,
)
def test_types_of_observations(minari_home, tmp_path, data_format, space, dtype, shape):
    seen = record(Corridor(space), "corridor/typed-v3", data_format, episodes=3, jpeg=False)
    import_minari("corridor/typed-v3", tmp_path / "out", gamma=GAMMA)
    dataset = load_dataset(tmp_path / "out")
    assert (dataset.observation_space.dtype, dataset.observation_space.shape) == (dtype, shape)
    assert_every_row(dataset, seen, CHOICE, atol=1e-7)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    ("space", "order"),
    [
        (spaces.Dict(speed=spaces.Box(-9, 9, (2,)), goal=spaces.Box(0, 1, (2, 2))), "speed[2], goal[4]"),
        (spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Dict(x=spaces.Box(0, 1, ()))]), "0[2], 1.x[1]"),
    ],
    ids=["dict", "tuple"],
)
def test_dicts_and_tuples_are_flattened_as_gymnasium_does(minari_home, tmp_path, data_format, space, order):
    seen = record(Corridor(space), "corridor/parts-v0", data_format, episodes=3)
    manifest = import_minari("corridor/parts-v0", tmp_path / "out", gamma=GAMMA, flatten=True)
    assert_every_row(load_dataset(tmp_path / "out"), seen, CHOICE, flat=lambda value: spaces.flatten(space, value))
    assert manifest.provenance.details["observation_order"] == order
    assert manifest.observation_space.to_gymnasium() == spaces.flatten_space(space)


def test_a_flattened_dict_is_not_what_its_environment_shows(minari_home, tmp_path, cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "corridors", types.SimpleNamespace(Corridor=Corridor))
    space = spaces.Dict(near=spaces.Box(-1, 1, (3,)), far=spaces.Box(-5, np.float32([1, 2, 3, 4, 5, 6, 7]), (7,)))
    gym.register("Corridor-v0", entry_point="corridors:Corridor", kwargs={})
    env = gym.make("Corridor-v0", disable_env_checker=True)
    env.unwrapped.observation_space = env.observation_space = space
    record(env, "corridor/far-v0", episodes=2)
    assert import_minari("corridor/far-v0", tmp_path / "named").environment == "gymnasium:Corridor-v0"
    assert import_minari("corridor/far-v0", tmp_path / "flat", flatten=True).environment is None
    assert "Box[10] of float32, -5 to 7" in cli("info", tmp_path / "flat").stdout


@pytest.mark.parametrize("data_format", FORMATS)
def test_the_parts_of_a_dict_keep_their_names(minari_home, tmp_path, cli, data_format):
    space = spaces.Dict(
        image=spaces.Box(0, 255, (48, 48, 3), np.uint8),
        contacts=spaces.MultiBinary(5),
        goal=spaces.Dict({"kettle": spaces.Box(-1, 1, (2, 2)), "slide cabinet": spaces.Box(0, 1, (), np.float64)}),
    )
    seen = record(Corridor(space), "corridor/parts-v0", data_format, episodes=3, jpeg=False)
    result = cli("import", "minari:corridor/parts-v0", "--out", tmp_path / "out", "--gamma", GAMMA)
    assert (result.returncode, result.stderr) == (0, "")
    dataset = load_dataset(tmp_path / "out")
    verify(dataset)
    assert_every_row(dataset, seen, CHOICE, atol=1e-7)
    shapes = {"contacts": (5,), "goal/kettle": (2, 2), "goal/slide cabinet": (), "image": (48, 48, 3)}
    assert dataset.observation_space.shapes == shapes
    assert set(dataset.manifest.statistics) >= {"observations/goal/kettle", "observations/goal/slide cabinet"}
    printed = cli("info", tmp_path / "out", COLUMNS="200").stdout
    for line in (
        "contacts: Box[5] of bool, 0 to 1",
        "goal/kettle: Box[2, 2] of float32",
        "image: Box[48, 48, 3] of uint8",
    ):
        assert line in printed
    result = cli("import", "minari:corridor/parts-v0", "--out", tmp_path / "flat", "--flatten")
    assert result.returncode == 2 and "only a dict or tuple of Box spaces can be flattened" in result.stderr


@pytest.mark.parametrize("data_format", FORMATS)
def test_jpeg_images_are_imported_with_a_warning(minari_home, tmp_path, cli, data_format):
    class Smooth(Corridor):  # JPEG garbles noise but keeps a plain colour nearly as it is
        def __init__(self):
            super().__init__(spaces.Box(0, 255, (40, 32, 3), np.uint8))

        def reset(self, **kwargs):
            return np.full_like(super().reset(**kwargs)[0], 7), {}

        def step(self, action):
            return np.full((40, 32, 3), 10 * self.steps, np.uint8), *super().step(action)[1:]

    seen = record(Smooth(), "corridor/images-v0", data_format, episodes=2)
    with pytest.warns(UserWarning, match="as JPEG, with loss"):
        import_minari("corridor/images-v0", tmp_path / "out", gamma=GAMMA)
    assert_every_row(load_dataset(tmp_path / "out"), seen, CHOICE, atol=3)
    result = cli("import", "minari:corridor/images-v0", "--out", tmp_path / "again")
    assert result.returncode == 0 and result.stderr.startswith("warning: Minari stored the images as JPEG")
    assert "with loss" in cli("info", tmp_path / "again").stdout


def test_the_environment_is_not_needed(minari_home, tmp_path, cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "vanished", types.SimpleNamespace(Corridor=Corridor))
    gym.register("Vanished-v0", entry_point="vanished:Corridor")
    seen = record(gym.make("Vanished-v0", disable_env_checker=True), "corridor/vanished-v0")
    result = cli("import", "minari:corridor/vanished-v0", "--out", tmp_path / "out", "--gamma", GAMMA)
    assert (result.returncode, result.stderr) == (0, "") and "12 episodes" in result.stdout
    dataset = load_dataset(tmp_path / "out")
    assert_every_row(dataset, seen, CHOICE)
    assert dataset.manifest.environment == "gymnasium:Vanished-v0"
    assert dataset.manifest.provenance.command.startswith("dr3-ray data import minari:corridor/vanished-v0 --out")


def test_an_environment_with_arguments_is_not_named(minari_home, tmp_path):
    record(gym.make("Pendulum-v1", g=9.81, max_episode_steps=3), "classic/argued-v0", episodes=2)
    manifest = import_minari("classic/argued-v0", tmp_path / "out")
    assert manifest.environment is None and '"g": 9.81' in manifest.provenance.details["env_spec"]


def test_actions_outside_the_space_can_be_clipped(minari_home, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = EpisodeBuffer(
            0, None, None, np.zeros((3, 3), np.float32), np.float32([[-4], [1]]), [0, 0], [0, 1], [0, 0]
        )
        box = {"observation_space": VECTOR, "action_space": spaces.Box(-2, 2, (1,))}
        minari.create_dataset_from_buffers("wide/actions-v0", [buffer], **box)
    with pytest.raises(UserError, match=r"wide/actions-v0, episode 0: action -4 is outside.*clip"):
        import_minari("wide/actions-v0", tmp_path / "out")
    manifest = import_minari("wide/actions-v0", tmp_path / "out", clip_actions=True)
    actions = load_dataset(tmp_path / "out").gather(torch.arange(2), ["actions"])["actions"]
    assert actions.tolist() == [[-1], [0.5]] and "moved to its bounds" in manifest.provenance.notes[0]


def long_episode(steps):
    flags = np.zeros(steps, bool)
    ended = flags.copy()
    ended[-1] = True
    observations = np.arange(steps + 1, dtype=np.float32)[:, None]
    return EpisodeBuffer(0, None, None, observations, np.zeros(steps, np.int64), np.ones(steps), flags, ended)


@pytest.mark.parametrize("data_format", FORMATS)
def test_long_episodes_are_complete_or_refused(minari_home, tmp_path, data_format):
    steps = 140_000  # Minari's Arrow storage reads one batch of 131,072 rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        box = {"observation_space": spaces.Box(0, np.inf, (1,)), "action_space": spaces.Discrete(2)}
        minari.create_dataset_from_buffers("very/long-v0", [long_episode(steps)], data_format=data_format, **box)
    if data_format == "arrow":
        with pytest.raises(UserError, match=f"description says {steps}: create the data set again, as HDF5"):
            import_minari("very/long-v0", tmp_path / "out")
    else:
        assert import_minari("very/long-v0", tmp_path / "out").counts.rows == steps


class Shelf(CloudStorage):
    """A remote that is a directory."""

    def __init__(self, name, token=None):
        self.root = Path("/" + name.replace("|", "/"))

    def list_datasets(self, prefix=None):
        found = (path.parents[1].relative_to(self.root).as_posix() for path in self.root.rglob("metadata.json"))
        return [dataset_id for dataset_id in found if dataset_id.startswith(prefix or "")]

    def list_namespaces(self):
        return [path.parent.name for path in self.root.rglob("namespace_metadata.json")]

    def get_dataset_metadata(self, dataset_id):
        return MinariStorage.read_raw_metadata(self.root / dataset_id / "data")

    def download_dataset(self, dataset_id, path):
        shutil.copytree(self.root / dataset_id, path / dataset_id)

    def download_namespace_metadata(self, namespace, path):
        (path / namespace).mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / namespace / "namespace_metadata.json", path / namespace)

    def upload_dataset(self, dataset_id):
        raise NotImplementedError

    upload_namespace = upload_dataset


def test_what_is_not_here_is_downloaded(minari_home, tmp_path, monkeypatch):
    monkeypatch.setitem(remotes._registry, "shelf", lambda: Shelf)
    remote = f"shelf://{str(tmp_path / 'shelf')[1:].replace('/', '|')}"
    seen = {dataset_id: record(Corridor(), dataset_id, episodes=3) for dataset_id in ("plain-v0", "corridor/deep-v1")}
    minari_home.rename(tmp_path / "shelf")

    manifest = import_minari(f"{remote}/plain-v0", tmp_path / "explicit", gamma=GAMMA)
    assert_every_row(load_dataset(tmp_path / "explicit"), seen["plain-v0"], CHOICE)
    assert manifest.provenance.source == f"minari:{remote}/plain-v0"

    monkeypatch.setenv("MINARI_REMOTE", remote)
    import_minari("corridor/deep-v1", tmp_path / "default", gamma=GAMMA)
    assert_every_row(load_dataset(tmp_path / "default"), seen["corridor/deep-v1"], CHOICE)
    with pytest.raises(UserError, match=r"corridor/deep-v2 .* could not be downloaded \(.*deep-v1\): check"):
        import_minari("corridor/deep-v2", tmp_path / "none")


def test_hdf5_is_read_episode_by_episode(minari_home, tmp_path):
    """Episodes in another order in the file, and a group that is no episode, change nothing."""
    seen = record(Corridor(), "corridor/order-v0", episodes=11)
    with h5py.File(minari_home / "corridor/order-v0/data/main_data.hdf5", "a") as file:
        file.move("episode_1", "moved")
        file.move("moved", "episode_1")
        file.create_group("notes")
    import_minari("corridor/order-v0", tmp_path / "out", gamma=GAMMA)
    assert_every_row(load_dataset(tmp_path / "out"), seen, CHOICE)


def create(dataset_id, observations, actions, space, action_space, rewards=None):
    """A Minari data set of one episode."""
    steps = len(actions)
    ended = np.arange(steps) == steps - 1
    rewards = np.zeros(steps) if rewards is None else np.asarray(rewards)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = EpisodeBuffer(0, None, None, observations, actions, rewards, ended, ended)
        minari.create_dataset_from_buffers(dataset_id, [buffer], observation_space=space, action_space=action_space)


NOW, FOUR, ANY = 1_700_000_043, np.arange(4), np.inf
TIMES = {
    "float64": (spaces.Box(-ANY, ANY, (2,), np.float64), np.stack([NOW + FOUR, FOUR / 7], 1)),
    "int64": (spaces.Box(0, 2**62, (2,), np.int64), np.stack([NOW + 60 * FOUR, FOUR], 1)),
    "uint32": (spaces.Box(0, 2**32 - 1, (2,), np.uint32), np.stack([NOW + 0 * FOUR, FOUR], 1).astype(np.uint32)),
    "nanoseconds": (spaces.Box(0, 2**63 - 1, (2,), np.int64), np.stack([2**53 + 1 + 0 * FOUR, FOUR], 1)),
    "of one moment": (spaces.Box(0, ANY, (2,), np.float64), np.stack([NOW + 0.0 * FOUR, FOUR / 7], 1)),
    "in a small range": (spaces.Box(0, ANY, (2,), np.float64), np.stack([1e5 + FOUR * 1e-4, 0.1 + 0 * FOUR], 1)),
}


@pytest.mark.spread(3)
@pytest.mark.parametrize("case", TIMES)
def test_times_that_float32_rounds_are_named(minari_home, tmp_path, cli, case):
    space, observations = TIMES[case]
    create("clock/times-v0", observations, np.zeros(3, np.int64), space, spaces.Discrete(2))
    result = cli("import", "minari:clock/times-v0", "--out", tmp_path / "out")
    error = np.abs(observations[:, 0].astype(np.longdouble) - observations[:, 0].astype(np.float32)).max()
    assert result.returncode == 0 and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"warning: float32 has rounded observations[0] by up to {float(error):.3g}")
    assert "observations[1]" not in result.stderr
    shown = cli("info", tmp_path / "out", COLUMNS="300").stdout
    assert "float32 has rounded observations[0]" in shown and "rounded" in shown
    with pytest.warns(UserWarning, match=r"observations\[0\] by up to"):
        import_minari("clock/times-v0", tmp_path / "again")


def test_rewards_that_float32_rounds_are_named(minari_home, tmp_path):
    rewards = [1e8, 1e8 + 1, 1e8 + 2]
    create("clock/rewards-v0", np.zeros((4, 1), np.float32), np.zeros(3, int), VECTOR_1, spaces.Discrete(2), rewards)
    with pytest.warns(UserWarning, match=r"rewards by up to 2 \(1 of its range\)|rewards by up to"):
        import_minari("clock/rewards-v0", tmp_path / "out")


VECTOR_1 = spaces.Box(-1, 1, (1,))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float16, np.float64])
def test_actions_go_back_in_their_type_and_shape(minari_home, tmp_path, dtype):
    space = spaces.Box(0, 100, (2, 3), dtype)
    actions = np.arange(18).reshape(3, 2, 3).astype(dtype)
    create("typed/actions-v0", np.zeros((4, 1), np.float32), actions, VECTOR_1, space)
    import_minari("typed/actions-v0", tmp_path / "out")
    dataset = load_dataset(tmp_path / "out")
    stored = dataset.gather(torch.arange(3), ["actions"])["actions"]
    back = to_env_actions(dataset.action_space, stored.numpy())
    assert stored.shape == (3, 6) and (back.shape, back.dtype) == (actions.shape, dtype)
    np.testing.assert_allclose(back, actions, atol=0 if np.dtype(dtype).kind in "iu" else 2e-5)
    assert dataset.action_space.to_gymnasium() == space and dataset.spaces.n_actions == 6


@pytest.mark.spread(3)
@pytest.mark.parametrize("bound", [np.inf, 3.4e38, 1e10], ids=str)
def test_bounds_that_say_nothing_are_taken_from_the_data_when_asked(minari_home, tmp_path, cli, bound):
    actions = np.float32([[-0.5, 7], [1.5, 7], [0.25, 7]])
    create("wide/bounds-v0", np.zeros((4, 1), np.float32), actions, VECTOR_1, spaces.Box(-bound, bound, (2,)))
    result = cli("import", "minari:wide/bounds-v0", "--out", tmp_path / "out")
    assert result.returncode == 2 and "--rescale-actions" in result.stderr and result.stderr.count("\n") == 1
    result = cli("import", "minari:wide/bounds-v0", "--out", tmp_path / "out", "--rescale-actions")
    assert result.returncode == 0 and "are the range of the recorded ones (-0.5 to 7)" in result.stderr
    dataset = load_dataset(tmp_path / "out")
    stored = dataset.gather(torch.arange(3), ["actions"])["actions"].numpy()
    assert stored.tolist() == [[-1, 0], [1, 0], [-0.25, 0]]
    np.testing.assert_array_equal(to_env_actions(dataset.action_space, stored), actions)
    with pytest.raises(UserError, match="exclude each other"):
        import_minari("wide/bounds-v0", tmp_path / "both", clip_actions=True, rescale_actions=True)


def test_actions_in_the_middle_of_wide_bounds_are_named(minari_home, tmp_path):
    actions = np.float32([[-0.5, 7], [1.5, 7], [0.25, 7]])
    create("wide/middle-v0", np.zeros((4, 1), np.float32), actions, VECTOR_1, spaces.Box(-1e6, 1e6, (2,)))
    with pytest.warns(UserWarning, match=r"actions\[0\] takes 1e-06 of its bounds \(-1e\+06 to 1e\+06\)"):
        manifest = import_minari("wide/middle-v0", tmp_path / "out")
    assert "--rescale-actions" in manifest.provenance.notes[0]


def test_a_binary_observation_of_two_is_refused(minari_home, tmp_path):
    create("odd/bits-v0", np.int8([[0, 1], [2, 0]]), np.zeros(1, int), spaces.MultiBinary(2), spaces.Discrete(2))
    with pytest.raises(UserError, match="episode 0: an observation has other values than 0 and 1 in a binary space"):
        import_minari("odd/bits-v0", tmp_path / "out")


def views(dataset):
    """Data sets that share episodes with one, and which they have."""
    left, right = minari.split_dataset(dataset, [4, 3], seed=1)
    sampled = [episode.id for episode in dataset.sample_episodes(5)]
    nested = right.filter_episodes(lambda episode: episode.id != right.episode_indices[0])
    return {
        "whole": (dataset, range(12)),
        "filtered": (dataset.filter_episodes(lambda episode: episode.id % 3 == 1), [1, 4, 7, 10]),
        "split": (left, left.episode_indices),
        "filtered of split": (nested, right.episode_indices[1:]),
        "sampled": (minari.MinariDataset(dataset.storage, np.array(sampled)), sampled),
    }


@pytest.mark.parametrize("data_format", FORMATS)
def test_views_are_imported_with_their_episodes(minari_home, tmp_path, data_format):
    seen = record(Corridor(), "corridor/viewed-v0", data_format)
    for case, (view, wanted) in views(minari.load_dataset("corridor/viewed-v0")).items():
        manifest = import_minari(view, tmp_path / case, gamma=GAMMA)
        dataset = load_dataset(tmp_path / case)
        assert dataset.episodes["episode_ids"].tolist() == sorted(wanted)
        rewards = dataset.gather(torch.arange(len(dataset)), ["rewards"])["rewards"].tolist()
        assert rewards == [step[1] for episode in sorted(wanted) for step in seen[episode][1]]
        part = None if case == "whole" else f"{len(wanted)} of 12, chosen before the import"
        assert manifest.provenance.details.get("episodes") == part
        assert manifest.provenance.source == "minari:corridor/viewed-v0"


def test_views_that_are_none(minari_home, tmp_path):
    record(Corridor(), "corridor/viewed-v0")
    dataset = minari.load_dataset("corridor/viewed-v0")
    with pytest.raises(UserError, match="no episode of corridor/viewed-v0 is left"):
        import_minari(dataset.filter_episodes(lambda episode: False), tmp_path / "out")
    with pytest.raises(UserError, match="has episode 3 twice"):
        import_minari(minari.MinariDataset(dataset.storage, np.array([3, 1, 3])), tmp_path / "out")
    with pytest.raises(UserError, match="dict is not a Minari data set"):
        import_minari({}, tmp_path / "out")
