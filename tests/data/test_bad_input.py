"""Every mistake: exit code 2, one line on stderr that says what to do, nothing left behind."""

import dataclasses
import json
import subprocess
import sys
import warnings

import h5py
import minari
import numpy as np
import pyarrow as pa
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from dr3_ray.data import Provenance, ShardWriter, SpaceSpec, episode_columns, load_dataset
from dr3_ray.errors import UserError

VECTOR = spaces.Box(-1, 1, (2,))


def edit(path, change):
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def flip_a_byte(path, observation):
    contents = bytearray((path / "shard-00001.arrow").read_bytes())
    contents[contents.index(observation.tobytes())] ^= 1
    (path / "shard-00001.arrow").write_bytes(contents)


def rewrite(path, file, change):
    """Replace an Arrow file by a changed one of which the manifest knows."""
    with pa.memory_map(str(path / file)) as source:
        batch = change(pa.ipc.open_file(source).get_batch(0))
        with pa.OSFile(str(path / "new"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
    (path / "new").rename(path / file)
    size = (path / file).stat().st_size

    def correct(manifest):
        entry = manifest["episodes"] if file == "episodes.arrow" else manifest["shards"][0]
        entry["bytes"] = size

    edit(path, correct)


def count(name, change=1):
    return lambda path: edit(
        path, lambda manifest: manifest["counts"].update({name: manifest["counts"][name] + change})
    )


def lengths_moved(batch):
    lengths = np.array(batch["lengths"]) + np.array([1, -1, 0, 0])
    return batch.set_column(2, batch.schema.field("lengths"), pa.array(lengths))


DAMAGE = {
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "is not a data set (it has no manifest.json)"),
    "no JSON": (lambda path: (path / "manifest.json").write_text('{"format": 1,'), "manifest.json cannot be read"),
    "JSON, but a list": (lambda path: (path / "manifest.json").write_text("[]"), "has manifest format None"),
    "another format": (lambda path: edit(path, lambda m: m.update(format=5)), "has manifest format 5"),
    "a field missing": (lambda path: edit(path, lambda m: m.pop("gamma")), "manifest.json is wrong at gamma"),
    "an unknown field": (lambda path: edit(path, lambda m: m.update(extra=1)), "manifest.json is wrong at extra"),
    "a wrong space": (lambda path: edit(path, lambda m: m["action_space"].update(n=0)), "wrong at action_space.n"),
    "a file elsewhere": (
        lambda path: edit(path, lambda m: m["shards"][0].update(file="../data/shard-00000.arrow")),
        "wrong at shards.0.file",
    ),
    "rows miscounted": (count("rows"), "the manifest counts 12 rows, the files 11"),
    "episodes miscounted": (count("episodes"), "the manifest counts 5 episodes, the files 4"),
    "terminateds miscounted": (count("terminateds", -1), "the manifest counts 1 terminateds, the files 2"),
    "truncateds miscounted": (count("truncateds"), "the manifest counts 3 truncateds, the files 2"),
    "shard rows miscounted": (
        lambda path: edit(path, lambda m: m["shards"][1].update(rows=5)),
        "shard-00001.arrow has 4 rows, the manifest says 5",
    ),
    "a shard missing": (lambda path: (path / "shard-00001.arrow").unlink(), "shard-00001.arrow is missing"),
    "a shard truncated": (
        lambda path: (path / "shard-00002.arrow").write_bytes((path / "shard-00002.arrow").read_bytes()[:-8]),
        "shard-00002.arrow has ",
    ),
    "a shard of zeros": (
        lambda path: (path / "shard-00000.arrow").write_bytes(bytes((path / "shard-00000.arrow").stat().st_size)),
        "shard-00000.arrow is not a readable Arrow file",
    ),
    "a column missing": (
        lambda path: rewrite(path, "shard-00000.arrow", lambda batch: batch.drop_columns(["timesteps"])),
        "does not have the columns",
    ),
    "another observation space": (
        lambda path: edit(path, lambda m: m["observation_space"].update(shape=[4])),
        "does not have the columns",
    ),
    "no episodes": (lambda path: (path / "episodes.arrow").unlink(), "episodes.arrow is missing"),
    "episodes that do not fit": (
        lambda path: rewrite(path, "episodes.arrow", lengths_moved),
        "the episodes do not add up to the rows",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_data_set_does_not_open(make_dataset, refused, case):
    damage, says = DAMAGE[case]
    path, _ = make_dataset()
    damage(path)
    for command in ("info", "verify"):
        message = refused(command, path)
        assert says in message and str(path) in message
        assert any(
            remedy in message for remedy in ("; copy or import it again", ": import the data", ": name a directory")
        )


def test_verify_sees_a_flipped_byte(make_dataset, cli, refused):
    path, rows = make_dataset()
    assert cli("verify", path).stdout == "ok: 11 rows in 3 shard(s) are as they were written\n"
    flip_a_byte(path, rows["observations"][5])
    assert cli("info", path).returncode == 0
    assert "the contents of shard-00001.arrow have changed since they were written" in refused("verify", path)


def test_info_shows_what_is_in_it(make_dataset, cli):
    path, _ = make_dataset("named [red]", observation="bool", action="discrete", lengths=(30, 30), keep=0.5)
    dataset = load_dataset(path)
    result = cli("info", path, COLUMNS="200")
    assert (result.returncode, result.stderr) == (0, "")
    for fact in (
        "named [red]",
        "subsample",
        "Box[3, 3, 2] of bool, 0 to 1",
        "Discrete(4)",
        "0.9",
        "monte_carlo_returns",
    ):
        assert fact in result.stdout, fact
    assert dataset.fingerprint[:16] in result.stdout and f"{len(dataset)} in" in result.stdout


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{tmp}", "is not a data set"),
        ("{tmp}/nowhere", "is not a data set"),
        ("{tmp}/file", "is not a data set"),
        ("{tmp}/.x.0.partial", "interrupted write left behind: remove it"),
        ("embedded:unheard-of", "unknown embedded data set 'unheard-of': known are breakout-replay, pendulum-replay"),
        ("embedded:../embedded", "unknown embedded data set '../embedded': known are"),
        ("minari:a/b-v0", "has to be imported first: dr3-ray data import minari:a/b-v0 --out DIR"),
    ],
)
def test_what_is_not_a_data_set_does_not_open(tmp_path, refused, source, says):
    (tmp_path / "file").touch()
    assert says in refused("info", source.format(tmp=tmp_path))


def buffer(observations=None, actions=None, rewards=None, terminated=None, truncated=None, steps=3):
    flags = [False] * (steps - 1)
    return EpisodeBuffer(
        0,
        None,
        None,
        np.zeros((steps + 1, 2), np.float32) if observations is None else observations,
        np.zeros(steps, np.int64) if actions is None else actions,
        np.zeros(steps) if rewards is None else rewards,
        [*flags, True] if terminated is None else terminated,
        [*flags, False] if truncated is None else truncated,
    )


NO_FLAGS = {"terminated": [False] * 3, "truncated": [False] * 3}
EPISODES = {
    "NaN observation": (
        buffer(np.float32([[0, 0], [0, 0], [0, 0], [0, np.nan]])),
        "next_observations has NaN or infinite",
    ),
    "infinite observation": (buffer(np.float32([[0, 0], [0, np.inf], [0, 0], [0, 0]])), "first at step 1: drop that"),
    "too large for float32": (
        buffer(np.full((4, 2), 1e300)),
        "observations has 1e+300, which is beyond float32: scale it in the source",
    ),
    "NaN reward": (buffer(rewards=[0, np.nan, 0]), "rewards has NaN or infinite values, first at step 1"),
    "infinite reward": (buffer(rewards=[0, 0, -np.inf]), "rewards has NaN or infinite values, first at step 2"),
    "action outside": (buffer(actions=np.array([0, 3, 1])), "action 3 is outside the space Discrete(n=3, start=0)"),
    "fractional action": (buffer(actions=np.array([0, 0.5, 1])), "discrete actions have to be integers"),
    "no terminal flag": (buffer(**NO_FLAGS), "has no terminal flag: mark its last step as terminated or truncated"),
    "a flag too early": (
        buffer(terminated=[True, False, True]),
        "is terminated or truncated at step 0 but has 3 steps",
    ),
    "no final observation": (buffer(np.zeros((3, 2), np.float32)), "one observation more (the final one)"),
    "observations too wide": (buffer(np.zeros((4, 5), np.float32)), "observations has shape (3, 5), not (3, 2)"),
}


def create(dataset_id, *buffers, observation_space=VECTOR, action_space=spaces.Discrete(3)):  # noqa: B008
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            dataset_id,
            [dataclasses.replace(each, id=index) for index, each in enumerate(buffers)],
            observation_space=observation_space,
            action_space=action_space,
        )


@pytest.fixture
def import_refused(refused, tmp_path):
    def run(dataset_id, *options):
        message = refused("import", f"minari:{dataset_id}", "--out", tmp_path / "out", *options)
        assert {entry.name for entry in tmp_path.iterdir()} <= {"minari"}, "something was left behind"
        return message

    return run


@pytest.mark.spread(3)
@pytest.mark.parametrize("case", EPISODES)
def test_data_that_cannot_be_learned_from(minari_home, import_refused, case):
    episode, says = EPISODES[case]
    create("bad/episode-v0", buffer(), episode)
    message = import_refused("bad/episode-v0")
    assert says in message and message.startswith("error: bad/episode-v0, episode 1")


@pytest.mark.parametrize("field", ["terminations", "truncations", "rewards", "actions", "observations"])
def test_a_field_is_missing(minari_home, import_refused, field):
    create("bad/field-v0", buffer())
    with h5py.File(minari_home / "bad/field-v0/data/main_data.hdf5", "a") as file:
        del file["episode_0"][field]
    message = import_refused("bad/field-v0")
    assert "episode 0 lacks a field" in message and field in message


SPACES = {
    "Discrete observations": ({"observation_space": spaces.Discrete(4)}, "encode them one-hot"),
    "text observations": ({"observation_space": spaces.Text(3)}, "is not supported: use a Box"),
    "a dict with text": (
        {"observation_space": spaces.Dict(a=VECTOR, b=spaces.Text(3))},
        "its part 'b' is a Text space: the parts of a Dict have to be Box or MultiBinary",
    ),
    "a dict in a dict with a number": (
        {"observation_space": spaces.Dict(a=spaces.Dict(b=spaces.Discrete(3)), c=VECTOR)},
        "its part 'a/b' is a Discrete space: the parts of a Dict have to be Box or MultiBinary",
    ),
    "a dict in a tuple with text": (
        {"observation_space": spaces.Tuple([VECTOR, spaces.Dict(x=spaces.Text(3))])},
        "observation '1.x' is a Text space: only a dict or tuple of Box spaces",
    ),
    "parts of one name": (
        {"observation_space": spaces.Dict({"a": spaces.Dict(b=VECTOR), "a/b": VECTOR})},
        "two parts of a Dict are called 'a/b': give each a name of its own",
    ),
    "an empty dict": ({"observation_space": spaces.Dict()}, "a Dict space has the parts []: give each a name"),
    "multi-discrete actions": (
        {"action_space": spaces.MultiDiscrete([27, 19])},
        "a MultiDiscrete space of 513 combinations has no column of actions: up to 512 are numbered",
    ),
    "multi-discrete observations": ({"observation_space": spaces.MultiDiscrete([2, 3])}, "is not supported: use a Box"),
    "too many choices": (
        {"action_space": spaces.Discrete(2**40)},
        "a Discrete space is not supported (a discrete space has at most 2,147,483,648 choices",
    ),
    "dict actions with a number": (
        {"action_space": spaces.Dict(a=spaces.Discrete(3))},
        "its part 'a' is a Discrete space",
    ),
    "dict actions": ({"action_space": spaces.Dict(a=VECTOR)}, "actions of a Dict space have no columns: use a Box"),
    "unbounded actions": ({"action_space": spaces.Box(-np.inf, np.inf, (1,))}, "actions[0] lies between -inf and inf"),
    "actions bounded on one side": (
        {"action_space": spaces.Box(np.float32([[0, 0]]), np.float32([[1, np.inf]]))},
        "actions[0, 1] lies between 0 and inf, but a Box of actions needs finite bounds",
    ),
    "actions up to the largest float32": (
        {"action_space": spaces.Box(-3.4e38, 3.4e38, ())},
        "actions lies between -3.4e+38 and 3.4e+38",
    ),
    "actions up to the largest float64": (
        {"action_space": spaces.Box(-1.7e308, 1.7e308, (1,), np.float64)},
        "take the bounds from the data with --rescale-actions",
    ),
    "actions of all integers": ({"action_space": spaces.Box(-(2**31), 2**31 - 1, (1,), np.int32)}, "16777216 apart"),
    "integers that float64 rounds": (
        {"action_space": spaces.Box(2**62, 2**62 + 9, (1,), np.int64)},
        "actions[0] lies between",
    ),
    "binary actions": (
        {"action_space": spaces.MultiBinary(10)},
        "a MultiBinary space of 1,024 combinations has no column of actions",
    ),
    "boolean actions": ({"action_space": spaces.Box(0, 1, (3,), bool)}, "use a Discrete space (a number for each"),
    "actions without elements": ({"action_space": spaces.Box(-1, 1, (2, 0))}, "a Box space of shape (2, 0) has no"),
    "observations without elements": ({"observation_space": spaces.Box(-1, 1, (0,))}, "shape (0,) has no elements"),
    "a part without elements": (
        {"observation_space": spaces.Dict(a=VECTOR, b=spaces.Box(-1, 1, (3, 0)))},
        "its part 'b': a Box space of shape (3, 0) has no elements",
    ),
}


@pytest.mark.parametrize("case", SPACES)
def test_spaces_without_columns(minari_home, import_refused, case):
    changed, says = SPACES[case]
    create("bad/spaces-v0", buffer())
    path = minari_home / "bad/spaces-v0/data/metadata.json"
    metadata = json.loads(path.read_text())
    metadata |= {name: minari.serialization.serialize_space(space) for name, space in changed.items()}
    path.write_text(json.dumps(metadata))
    assert says in import_refused("bad/spaces-v0")


def test_box_actions_outside_name_the_option(minari_home, import_refused):
    create("bad/box-v0", buffer(actions=np.float32([[0], [-1.5], [0]])), action_space=spaces.Box(-1, 1, (1,)))
    assert "episode 0: action -1.5 is outside the action space" in import_refused("bad/box-v0")


def change_metadata(path, **changes):
    metadata = json.loads((path / "metadata.json").read_text()) | changes
    metadata = {key: value for key, value in metadata.items() if value is not None}
    (path / "metadata.json").write_text(json.dumps(metadata))


BROKEN = {
    "empty": (lambda path: change_metadata(path, total_episodes=0), "there are no rows to write"),
    "no spaces": (lambda path: change_metadata(path, action_space=None), "does not store its spaces"),
    "too new": (lambda path: change_metadata(path, minari_version="9.0"), "written by Minari 9.0, which"),
    "no metadata": (lambda path: (path / "metadata.json").unlink(), "is not a readable Minari data set"),
    "no storage": (lambda path: (path / "main_data.hdf5").unlink(), "is not a readable Minari data set"),
    "truncated storage": (
        lambda path: (path / "main_data.hdf5").write_bytes((path / "main_data.hdf5").read_bytes()[:-99]),
        "episode 0 cannot be read",
    ),
    "an episode less": (lambda path: change_metadata(path, total_episodes=2), "episode 1"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_minari_data_set(minari_home, import_refused, case):
    breaks, says = BROKEN[case]
    create("bad/broken-v0", buffer())
    breaks(minari_home / "bad/broken-v0/data")
    assert says in import_refused("bad/broken-v0")


def test_ids_that_lead_nowhere(minari_home, import_refused, refused, tmp_path):
    assert "is not a Minari id: write it with its version" in import_refused("D4RL/pen/human")
    message = refused("import", "minari:a/b-v0", "--out", tmp_path / "out", MINARI_REMOTE="nowhere://else")
    assert "could not be downloaded" in message and "check the id, the network" in message
    assert "cannot import 'd4rl:x': write minari:ID" in refused("import", "d4rl:x", "--out", tmp_path / "out")


def test_targets_that_are_not_ours(minari_home, refused, tmp_path):
    create("good/data-v0", buffer())
    for taken in (tmp_path / "directory", tmp_path / "file"):
        (tmp_path / "directory").mkdir(exist_ok=True)
        (tmp_path / "directory" / "thesis.tex").write_text("mine")
        (tmp_path / "file").write_text("mine")
        message = refused("import", "minari:good/data-v0", "--out", taken)
        assert f"{taken} exists and is not an empty directory: choose another one" in message
    assert (tmp_path / "directory/thesis.tex").read_text() == (tmp_path / "file").read_text() == "mine"
    assert "cannot write" in refused("import", "minari:good/data-v0", "--out", tmp_path / "file" / "below")
    message = refused("import", "minari:good/data-v0", "--out", tmp_path / "out", "--gamma", "1.5")
    assert "gamma is 1.5: choose a discount between 0 and 1" in message
    assert {entry.name for entry in tmp_path.iterdir()} == {"minari", "directory", "file"}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("import", "minari:a/b-v0"), "Missing option '--out'"),
        (("import", "minari:a/b-v0", "--out", "x", "--gama", "1"), "No such option: --gama"),
        (("import", "minari:a/b-v0", "--out", "x", "--gamma", "high"), "Invalid value for '--gamma'"),
        (("info",), "Missing argument"),
        (("inspect",), "No such command 'inspect'"),
    ],
    ids=str,
)
def test_mistyped_commands(refused, args, says):
    assert says in refused(*args)


@pytest.mark.slow
def test_without_the_zygote(tmp_path):
    """The same by the plain command, once."""
    command = [sys.executable, "-m", "dr3_ray", "data", "info", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {tmp_path} is not a data set") and result.stderr.count("\n") == 1


STEPS = 3
WRITES = {
    "unknown column": (lambda columns: columns.update(dones=np.zeros(STEPS)), "unknown column 'dones'"),
    "missing column": (lambda columns: columns.pop("rewards"), "column 'rewards' is missing"),
    "wrong shape": (lambda columns: columns.update(rewards=np.zeros((STEPS, 1))), r"rewards has shape \(3, 1\)"),
    "wrong type": (lambda columns: columns.update(terminateds=np.zeros(STEPS)), "terminateds has type float64"),
    "not numbers": (lambda columns: columns.update(rewards=np.array(["a"] * STEPS)), "rewards has type <U1"),
    "no steps": (lambda columns: columns.update({k: v[:0] for k, v in columns.items()}), "at least one step"),
    "two episodes": (lambda columns: columns.update(episode_ids=np.array([0, 0, 1])), "takes one episode"),
    "unscaled actions": (lambda columns: columns.update(actions=np.full((STEPS, 1), 2.0)), "actions outside the space"),
    "unscaled next": (lambda columns: columns.update(next_actions=np.full((STEPS, 1), 2.0)), "next_actions outside"),
    "infinite returns": (lambda columns: columns.update(monte_carlo_returns=np.full(STEPS, np.inf)), "monte_carlo"),
}


@pytest.mark.parametrize("case", WRITES)
def test_columns_that_cannot_be_written(tmp_path, case):
    change, says = WRITES[case]
    about = {
        "observation_space": SpaceSpec.box(-1, 1, (2,)),
        "action_space": SpaceSpec.box(-2, 2, (1,)),
        "gamma": 0.9,
        "name": "x",
        "provenance": Provenance(source="test"),
    }
    episode = {"terminated": True, "truncated": False, "gamma": 0.9}
    arrays = (np.zeros((STEPS + 1, 2)), np.zeros((STEPS, 1)), np.zeros(STEPS))
    with pytest.raises(UserError, match=says), ShardWriter(tmp_path / "out", **about) as writer:
        columns = episode_columns(*arrays, episode_id=0, **episode)
        change(columns)
        writer.write(columns)
    repeated = pytest.raises(UserError, match="episode 4 comes after episode 4")
    with repeated, ShardWriter(tmp_path / "out", **about) as writer:
        for _ in range(2):
            writer.write(episode_columns(*arrays, episode_id=4, **episode))
    with pytest.raises(UserError, match="episode 0 has no steps"):
        episode_columns(np.zeros((1, 2)), np.zeros((0, 1)), [], episode_id=0, **episode)
    assert not list(tmp_path.iterdir())
