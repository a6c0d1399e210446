"""Arrays, frames and files that would be stored as something else: refused in one line, or mended with a name."""

import gzip
import re
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from dr3_ray.data import from_arrays, from_dataframe, from_episodes, load_dataset
from dr3_ray.data.importers import find, open_source
from dr3_ray.data.importers.source import Options
from dr3_ray.data.importers.writing import import_source
from dr3_ray.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
N = 12
SEEN = np.cumsum(np.random.default_rng(0).normal(size=(N + 1, 2)), 0)
ROWS = {
    "observations": SEEN[:-1],
    "actions": np.tanh(SEEN[:-1, :1]),
    "rewards": np.arange(N) * 1.0,
    "truncateds": np.arange(N) % 6 == 5,
}
EPISODE = {"observations": SEEN[:5], "actions": ROWS["actions"][:4], "rewards": ROWS["rewards"][:4], "terminated": True}
FRAME = pd.DataFrame(
    {"obs_0": SEEN[:-1, 0], "action_0": ROWS["actions"][:, 0], "reward": ROWS["rewards"], "t": [*range(6)] * 2}
)


def write(source, out, **options):
    return checks(import_source(lambda: open_source(str(source), Options(**options)), out))


def checks(manifest):
    """The names of the checks that found something."""
    return [note.partition(":")[0] for note in manifest.provenance.notes]


def refuses(says, run, out):
    with pytest.raises(UserError) as error:
        run()
    assert re.search(says, str(error.value)) and "\n" not in str(error.value), error.value
    assert not out.exists()


def part(**arrays):
    return {"observations": {"a": SEEN[:-1], "b": SEEN[:-1]}, "next_observations": arrays}


ARRAYS = {
    "ragged": ({"observations": [[1, 2]] * 11 + [[1]]}, "observations cannot be read .*inhomogeneous"),
    "a gradient": ({"observations": torch.zeros(N, 2, requires_grad=True)}, "observations cannot be read .*grad"),
    "masked": ({"rewards": np.ma.masked_array(np.ones(N), np.arange(N) == 3)}, "rewards is masked in places"),
    "a part without a next one": (part(a=SEEN[1:]), "next_observations/b"),
    "a next part too many": (part(a=SEEN[1:], b=SEEN[1:], c=SEEN[1:]), "next_observations/c"),
    "next ones as an array": (part() | {"next_observations": SEEN[1:]}, "next_observations"),
    "another shape": ({"next_observations": SEEN[1:, :1]}, r"next_observations of \(1,\)"),
    "no parts": ({"observations": {}}, "parts"),
    "nowhere": ({"out": None}, "cannot write to None: give the path"),
    "no name": ({"out": ""}, "cannot write to ''"),
    "a zero in the path": ({"out": "a\0b"}, "give the path of a new or empty directory"),
    "a URI": ({"out": "s3://bucket/x"}, "s3://bucket/x is a URI: give a path of this machine"),
    "gamma in words": ({"gamma": "0.9"}, "gamma is '0.9': choose a discount"),
    "a number for a name": ({"name": 5}, "name is 5: give a text"),
    "a number for a space": ({"action_space": 5}, "5 is no space of actions"),
    "no steps": ({"max_steps": 0}, "max_steps is 0: give a whole number"),
    "half a step": ({"max_steps": 2.5}, "max_steps is 2.5"),
    "a flag for steps": ({"max_steps": True}, "max_steps is True"),
    "no rows": ({name: values[:0] for name, values in ROWS.items()}, "there are no rows to write"),
    "beyond float32": ({"rewards": np.full(N, 1e39)}, r"rewards has 1e\+39, which is beyond float32"),
    "bounds the wrong way round": ({"action_space": "box:1,-1"}, "finite bounds, the lower one first"),
    "two points": ({"action_space": "box:1..2,3"}, "write box:LOW,HIGH"),
    "an infinite bound": ({"action_space": "box:0,1e400"}, "finite bounds"),
    "no choice": ({"action_space": "discrete:0"}, "discrete:N with N from 1"),
    "endless choices": ({"action_space": f"discrete:{10**20}"}, "discrete:N with N from 1"),
    "bounds of no byte": (
        {"actions": np.zeros((N, 1), np.uint8), "action_space": "box:-1,1"},
        "bounds that actions of uint8 cannot have",
    ),
    "a tuple of spaces": ({"action_space": gym.spaces.Tuple([gym.spaces.Discrete(2)])}, "space"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays(tmp_path, case):
    changed, says = ARRAYS[case]
    refuses(says, lambda: from_arrays(**{**ROWS, "out": tmp_path / "out", **changed}), tmp_path / "out")


@pytest.mark.parametrize("steps", [4, 1])
@pytest.mark.parametrize("said", ["False", None, np.nan, 2, [True, False], [False] * 4 + [True], [[0, 1]] * 4])
def test_flags_of_an_episode_that_are_none(tmp_path, said, steps):
    episode = {
        name: values[: steps + (name == "observations")] for name, values in EPISODE.items() if name != "terminated"
    }
    episodes = [episode | {"terminated": said}]
    refuses("terminateds is .*, not true or false", lambda: from_episodes(episodes, out=tmp_path / "o"), tmp_path / "o")


EPISODES = {
    "one flag": ({"terminated": [True]}, "not true or false"),
    "a number": ({"observations": np.float64(1)}, "observations is one number"),
    "ragged": ({"observations": [[1, 2]] * 4 + [[1]]}, "episode 1: observations cannot be read"),
    "parts": ({"observations": {"a": SEEN[:5]}}, "episode 1: .* is (there|missing)"),
    "another shape": ({"observations": SEEN[:5, :1]}, r"episode 1: observations has rows of shape \(1,\)"),
}


@pytest.mark.parametrize("case", EPISODES)
def test_an_episode_unlike_the_first(tmp_path, case):
    changed, says = EPISODES[case]
    episodes = [EPISODE, EPISODE | changed]
    refuses(says, lambda: from_episodes(episodes, out=tmp_path / "out"), tmp_path / "out")


FRAMES = {
    "mixed": (FRAME.assign(obs_0=["a", 1] * 6), "cannot be read"),
    "twice": (pd.concat([FRAME, FRAME[["reward"]]], axis=1), "several columns 'reward'"),
    "ids that are dicts": (pa.table({**FRAME, "episode": [{"a": 1}] * N}), "unhashable"),
    "a dict": ({"a": [1]}, "dict is no frame"),
    "a column": (FRAME["reward"], "Series is no frame"),
    "NaN in a list": (FRAME.drop(columns="obs_0").assign(obs=[[1.0]] * 5 + [[None]] + [[1.0]] * 6), "at row 5"),
    "None in a list": (pa.table({**FRAME, "obs": [[1.0, 2]] * 5 + [[1, None]] + [[1, 2]] * 6}), "at row 5"),
}


@pytest.mark.parametrize("case", FRAMES)
def test_frames(tmp_path, case):
    frame, says = FRAMES[case]
    columns = "observation=obs" if case == "None in a list" else None
    refuses(says, lambda: from_dataframe(frame, columns, out=tmp_path / "out"), tmp_path / "out")


def test_columns_that_are_not_taken_may_hold_anything(tmp_path):
    frame = FRAME.assign(note=["a", 1] * 6)
    frame[7] = [[], "x"] * 6
    from_dataframe(frame.rename(columns={"obs_0": "obs_1²"}), out=tmp_path / "out")
    assert len(load_dataset(tmp_path / "out")) == N - 2  # no observation follows the last step of either episode


NAMED = {
    "action=": "leaves action without a column",
    "reward=": "leaves reward without a column",
    "reward=obs_0,reward=t": "names reward twice",
    "observation=obs_0,observation/x=t": "names observation twice",
    "observation/x=t,observation=obs_0": "names observation twice",
}


@pytest.mark.parametrize("said", NAMED)
def test_columns_named_none_or_twice(tmp_path, said):
    refuses(NAMED[said], lambda: from_dataframe(FRAME, said, out=tmp_path / "out"), tmp_path / "out")


@pytest.mark.parametrize("place", ["header", "value"])
def test_tables_that_are_not_utf_8(tmp_path, place):
    path = tmp_path / "x.csv"
    header, value = ("obs_é", "a") if place == "header" else ("obs_0", "é")
    path.write_bytes(f"episode,{header},action,reward\n{value},1,0,1\n".encode("latin-1"))
    refuses("is not UTF-8: save it as UTF-8", lambda: write(path, tmp_path / "out"), tmp_path / "out")


@pytest.mark.parametrize("scale, offset", [(1, 1e6), (1e-9, 0), (1e-30, 0), (1, 0)])
def test_a_broken_chain_is_seen_at_any_scale(tmp_path, scale, offset):
    seen = (offset + scale * np.random.default_rng(0).normal(size=(N, 2))).astype(np.float32)
    rows = ROWS | {"observations": seen, "next_observations": np.nextafter(seen, np.float32(np.inf))}
    assert "broken-chain" in checks(from_arrays(**rows, out=tmp_path / "out"))
    assert len(load_dataset(tmp_path / "out").episodes["lengths"]) == N
    whole = rows | {"next_observations": np.append(seen[1:], seen[:1] + scale, 0), "truncateds": np.arange(N) == N - 1}
    assert "broken-chain" not in checks(from_arrays(**whole, out=tmp_path / "whole"))


@pytest.mark.parametrize("name", ["episode_ids", "timesteps"])
def test_max_steps_count_anew_in_each_episode(tmp_path, name):
    frame = FRAME.drop(columns="t").assign(next_obs_0=np.append(SEEN[1:-1, 0], 9))
    frame.loc[5, "next_obs_0"] = 8
    frame[name] = np.repeat([0, 1], 6) if name == "episode_ids" else FRAME["t"]
    from_dataframe(frame, max_steps=4, out=tmp_path / "out")
    assert load_dataset(tmp_path / "out").episodes["lengths"].tolist() == [4, 2] * 2


@pytest.mark.parametrize("max_steps", [None, 100])
@pytest.mark.parametrize("flag, says", [(np.nan, "truncateds is nan"), (7, "truncateds is 7"), ("yes", "not 0 or 1")])
def test_flags_are_looked_at_before_steps_are_counted(tmp_path, flag, says, max_steps):
    rows = ROWS | {"truncateds": np.where(ROWS["truncateds"], flag, "" if flag == "yes" else 0), "max_steps": max_steps}
    refuses(says, lambda: from_arrays(**rows, out=tmp_path / "out"), tmp_path / "out")


@pytest.mark.parametrize("flag", ["terminateds", "truncateds", "episode_ids"])
def test_the_first_observation_of_the_next_episode_is_never_the_last(tmp_path, flag):
    ends = ROWS["truncateds"]
    rows = {name: ROWS[name] for name in ("observations", "actions", "rewards")} | {"next_observations": SEEN[1:]}
    rows |= {flag: np.cumsum(ends) - ends if flag == "episode_ids" else ends}
    manifest = from_arrays(**rows, out=tmp_path / "out")
    kept = {"terminateds": (6, "terminal-observation")}.get(flag, (5, "no-final-observation"))
    assert {"next-episode", kept[1]} <= set(checks(manifest))
    assert next(note for note in manifest.provenance.notes if "next-ep" in note).startswith("next-episode: 1 episodes")
    dataset = load_dataset(tmp_path / "out")
    assert dataset.episodes["lengths"].tolist() == [kept[0], 6]  # after the last row there is nobody's
    last = dataset.stored(kept[0] - 1, kept[0])["next_observations"][0]
    np.testing.assert_array_equal(last, SEEN[5].astype(np.float32))


def test_an_episode_may_end_where_the_next_one_begins(tmp_path):
    """Given as an episode, its final observation is its own."""
    episodes = [EPISODE, EPISODE | {"observations": SEEN[4:9]}]
    assert checks(from_episodes(episodes, out=tmp_path / "out")) == []


def test_padding_of_a_replay_memory_is_left_out(tmp_path):
    frames, actions, rewards, terminals = [], [], [], []
    for episode in range(3):
        frames += [np.zeros((4, 4))] * 3 + [np.full((4, 4), 10 * episode + 1 + step) for step in range(6)]
        actions += [0] * 3 + [1 + step % 3 for step in range(6)]
        rewards += [0.0] * 3 + [float(step) for step in range(6)]
        terminals += [0] * 3 + [step == 5 for step in range(6)]
    types = {"observation": np.uint8, "action": np.int32, "reward": np.float32, "terminal": np.uint8}
    for name, values in zip(types, (frames, actions, rewards, terminals), strict=True):
        with gzip.open(tmp_path / f"$store$_{name}_ckpt.0.gz", "wb") as file:
            np.save(file, np.array(values, types[name]))
    notes = import_source(lambda: open_source(str(tmp_path)), tmp_path / "out").provenance.notes
    assert any(note.startswith("padding: 9 rows of zeros") for note in notes)
    dataset = load_dataset(tmp_path / "out")
    assert dataset.episodes["lengths"].tolist() == [6] * 3
    first = dataset.stored(6, 7)
    assert first["observations"].reshape(4, 4, 4)[0, 0].tolist() == [0, 0, 0, 11] and first["actions"].tolist() == [1]


def recorded(steps=6, **changed):
    zeros = np.zeros(steps + 1, bool)
    first = np.arange(steps + 1) == 0
    arrays = {"image": np.zeros((steps + 1, 2, 2, 3), np.uint8), "action": np.zeros((steps + 1, 1), np.float32)}
    arrays |= {"reward": np.zeros(steps + 1), "is_first": first, "is_terminal": zeros}
    return arrays | changed


VIDEOS = {
    "a longer action": ({"action": np.zeros((8, 1), np.float32)}, "lengths differ"),
    "a shorter action": ({"action": np.zeros((6, 1), np.float32)}, "lengths differ"),
    "a longer reward": ({"reward": np.zeros(9)}, "lengths differ"),
    "fewer images": ({"image": np.zeros((5, 2, 2, 3), np.uint8)}, "lengths differ"),
    "a first in the middle": ({"is_first": np.arange(7) % 4 == 0}, "another episode from row 4 on"),
    "a terminal in the middle": ({"is_terminal": np.arange(7) == 3}, "another episode from row 3 on"),
}


@pytest.mark.parametrize("case", VIDEOS)
def test_v_d4rl(tmp_path, case):
    (tmp_path / "v").mkdir()
    np.savez(tmp_path / "v/0.npz", **recorded(**VIDEOS[case][0]))
    refuses(VIDEOS[case][1], lambda: write(tmp_path / "v", tmp_path / "out"), tmp_path / "out")


@pytest.mark.parametrize("kinds, row", [([1, 1, 2, 0, 1, 2], 0), ([0, 1, 2, 1, 2], 3), ([2, 2], 0), ([0, 1, 7, 2], 2)])
def test_v_d4rl_with_rows_of_no_episode(tmp_path, kinds, row):
    rows = len(kinds)
    with h5py.File(tmp_path / "v.hdf5", "w") as file:
        file["observation"], file["action"] = np.zeros((rows, 3, 2, 2), np.uint8), np.zeros((rows, 1))
        file["reward"], file["step_type"] = np.zeros(rows), kinds
    says = f"step_type {kinds[row]} at row {row}"
    refuses(says, lambda: write(tmp_path / "v.hdf5", tmp_path / "out"), tmp_path / "out")


def maze(path: Path, **changed):
    ends = np.array([0, 0, 0, 1, 0, 0, 0, 1.0])
    arrays = {"observations": np.arange(16.0).reshape(8, 2), "actions": np.zeros((8, 1)), "terminals": ends}
    np.savez(path, **arrays | changed)
    return path


@pytest.mark.parametrize("goal", ["nan,0,1", "inf,0,1", "4,5,-1", "4,5,0", "4,5,nan", ""])
def test_goals_that_are_none(tmp_path, goal):
    path = maze(tmp_path / "x.npz", qpos=np.zeros((8, 2)))
    refuses("--goal is", lambda: write(path, tmp_path / "out", goal=goal), tmp_path / "out")


def test_ogbench_that_cannot_be_told(tmp_path):
    path = maze(tmp_path / "x.npz", rewards=np.zeros(8))
    refuses("write ogbench:.* or npz:", lambda: write(path, tmp_path / "out"), tmp_path / "out")
    write(f"npz:{path}", tmp_path / "plain")
    assert find(str(maze(tmp_path / "y.npz", rewards=np.zeros(8), timeouts=np.zeros(8))))[0] == "npz"
    path = maze(tmp_path / "z.npz", rewards=np.zeros(8), masks=np.full(8, np.nan))
    refuses("masks that are NaN", lambda: write(path, tmp_path / "out"), tmp_path / "out")


def test_the_uri_of_a_folder_is_that_folder(tmp_path):
    from_arrays(**ROWS, out=f"file://{tmp_path}/out")
    assert len(load_dataset(tmp_path / "out")) == N - 2
