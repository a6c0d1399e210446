"""What is exported, read by the library that it is for, and imported again."""

import ast
import warnings

import h5py
import minari
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.data import export_dataset, from_env_actions, load_dataset, to_env_actions, verify
from dr3_ray.data.exporters import EXPORTERS
from dr3_ray.data.exporters.played import nested
from dr3_ray.data.importers import open_source
from dr3_ray.data.importers.source import Options
from dr3_ray.data.importers.writing import import_source
from dr3_ray.data.spaces import SpaceSpec, named_parts
from dr3_ray.errors import UserError
from tests.data.exporters.conftest import ACTIONS, GAMMA, OBSERVATIONS
from tests.room import files_up_to

NAMES = {"minari": "mine/flights-v0", "d4rl": "out.hdf5", "rllib": "out", "parquet": "out.parquet"}


@pytest.fixture(autouse=True)
def _here(minari_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def imported(to, out, dataset, name="again"):
    """The data set that an export was made from, imported from it."""
    options = Options() if to == "minari" else Options(action_space=dataset.action_space.to_gymnasium())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        import_source(lambda: open_source(f"{to}:{out}", options), name, gamma=GAMMA, rows_per_shard=3)
    return load_dataset(name)


def has(to, observations):
    return EXPORTERS[to].dicts or observations != "dict"


CASES = [
    *((to, observations, "box") for to in EXPORTERS for observations in OBSERVATIONS if has(to, observations)),
    *((to, "vector", actions) for to in EXPORTERS for actions in ACTIONS if actions != "box"),
]


@pytest.mark.parametrize(("to", "observations", "actions"), CASES)
def test_a_round_trip_is_the_identity(make_played, assert_same, to, observations, actions):
    dataset, _ = make_played(observations, actions)
    done = export_dataset(dataset, to, NAMES[to])
    assert (done.rows, done.episodes) == (11, 4) and done.path.exists() and NAMES[to] in done.reads
    again = imported(to, NAMES[to], dataset)
    assert_same(dataset, again)
    verify(again)
    if to == "minari":  # which keeps the spaces
        assert again.fingerprint == dataset.fingerprint


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    to=st.sampled_from(sorted(EXPORTERS)),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    actions=st.sampled_from(sorted(ACTIONS)),
)
def test_so_it_is_of_any_episodes(tmp_path_factory, make_played, assert_same, monkeypatch, to, lengths, seed, actions):
    monkeypatch.chdir(place := tmp_path_factory.mktemp("any"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(place))
    dataset, _ = make_played("vector", actions, lengths, f"source-{place.name}", seed)
    export_dataset(dataset, to, NAMES[to])
    assert_same(dataset, imported(to, NAMES[to], dataset))


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=2, unique=True).map(sorted),
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20),
)
def test_played_actions_are_stored_up_to_rounding(bounds, places):
    """Of an environment with float32: an export and an import move them by the rounding of its bounds."""
    low, high = np.float32(bounds)
    space = SpaceSpec.box(low, high, (1,))
    played = np.clip(low + (high - low) * np.float32(places), low, high, dtype=np.float32)[:, None]
    stored = from_env_actions(space, played)
    again = from_env_actions(space, to_env_actions(space, stored))
    rounding = np.finfo(np.float32).eps * max(1.0, np.abs([low, high]).max() / ((high - low) / 2))
    np.testing.assert_allclose(again, stored, rtol=0, atol=rounding)


@pytest.mark.parametrize("observations", OBSERVATIONS)
@pytest.mark.parametrize("actions", ["discrete", "from 2", "steps", "box"])
def test_minari_has_what_was_played(make_played, observations, actions):
    dataset, episodes = make_played(observations, actions)
    export_dataset(dataset, "minari", "mine/flights-v0")
    again = minari.load_dataset("mine/flights-v0")
    assert (again.total_steps, again.total_episodes) == (11, 4)
    assert again.action_space == ACTIONS[actions]
    if observations != "dict":  # whose MultiBinary part is a Box of booleans by now
        assert again.observation_space == OBSERVATIONS[observations]
    for theirs, ours in zip(again.iterate_episodes(), episodes, strict=True):
        seen, wanted = named_parts(theirs.observations), named_parts(ours.observations)
        assert set(seen) == set(wanted)
        for name, values in wanted.items():
            assert np.array_equal(seen[name], values), name
        np.testing.assert_allclose(theirs.actions, ours.actions, 1e-6, 1e-6)
        assert theirs.actions.dtype == ours.actions.dtype
        assert np.array_equal(theirs.rewards, ours.rewards)
        assert np.array_equal(theirs.terminations, ours.terminateds)
        assert np.array_equal(theirs.truncations, ours.truncateds)
    assert minari.list_local_datasets().keys() == {"mine/flights-v0"}
    assert minari.namespace.list_local_namespaces() == ["mine"]


def rows(episodes, observations):
    """The rows of episodes, by plain loops."""
    return [
        (observed, action, reward, terminated, truncated, later)
        for each in episodes
        for observed, action, reward, terminated, truncated, later in zip(
            observations(each)[:-1],
            each.actions,
            each.rewards,
            each.terminateds,
            each.truncateds,
            observations(each)[1:],
            strict=True,
        )
    ]


@pytest.mark.parametrize("observations", ["vector", "double", "whole", "image", "bits"])
@pytest.mark.parametrize("actions", ["discrete", "steps", "matrix"])
def test_d4rl_has_what_was_played(make_played, observations, actions):
    dataset, episodes = make_played(observations, actions)
    export_dataset(dataset, "d4rl", "out.hdf5")
    names = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    with h5py.File("out.hdf5") as file:
        assert set(file) == {*names, "metadata"}
        assert file["metadata/fingerprint"][()].decode() == dataset.fingerprint
        assert file["observations"].dtype == OBSERVATIONS[observations].dtype
        assert file["actions"].dtype == ACTIONS[actions].dtype
        columns = zip(*rows(episodes, lambda each: each.observations), strict=True)
        for name, values in zip(names, columns, strict=True):
            np.testing.assert_allclose(file[name][()], np.asarray(values), 1e-6, err_msg=name)


@pytest.mark.parametrize("observations", OBSERVATIONS)
@pytest.mark.parametrize("actions", ["discrete", "steps", "matrix"])
def test_parquet_has_what_was_played(make_played, observations, actions):
    dataset, episodes = make_played(observations, actions)
    export_dataset(dataset, "parquet", "out.parquet")
    table, frame = pq.read_table("out.parquet"), pd.read_parquet("out.parquet")
    assert table.schema.metadata[b"fingerprint"].decode() == dataset.fingerprint
    assert table.num_rows == len(frame) == 11
    assert frame["episode_ids"].tolist() == [0] * 3 + [1] + [2] * 5 + [3] * 2
    assert frame["timesteps"].tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 4, 0, 1]
    for part in named_parts(episodes[0].observations):
        called = f"observations/{part}" if part else "observations"
        names = (called, "actions", "rewards", "terminateds", "truncateds", f"next_{called}")
        columns = zip(*rows(episodes, lambda each, part=part: named_parts(each.observations)[part]), strict=True)
        for name, values in zip(names, columns, strict=True):
            for found in (frame[name], table[name].to_pylist()):
                flat = np.concatenate([np.ravel(row) for row in found])
                np.testing.assert_allclose(flat, np.ravel(values), 1e-6, err_msg=name)


def test_what_minari_knew_is_written_again(make_played):
    dataset, _ = make_played(environment="gymnasium:CartPole-v1")
    export_dataset(dataset, "minari", "mine/flights-v0")
    first = minari.load_dataset("mine/flights-v0").storage.metadata
    assert first["description"] == "source, from test" and first["env_spec"]
    storage = minari.load_dataset("mine/flights-v0").storage
    storage.update_metadata({"author": {"Ann", "Bob"}, "algorithm_name": "PPO", "code_permalink": "https://here"})
    again = imported("minari", "mine/flights-v0", dataset)
    assert again.manifest.environment == "gymnasium:CartPole-v1"
    export_dataset(again, "minari", "mine/again-v0")
    last = minari.load_dataset("mine/again-v0").storage.metadata
    names = ("author", "algorithm_name", "code_permalink", "description", "env_spec", "total_steps")
    assert {name: last[name] for name in names} == {name: storage.metadata[name] for name in names}


@pytest.mark.parametrize(
    ("to", "out", "says"),
    [
        ("minari", "flights", "'flights' is not a Minari id: write it with its version, such as mine/flights-v0"),
        ("minari", "../flights-v0", "is not a Minari id"),
        ("d4rl", "there.hdf5", "there.hdf5 exists: name another file, or remove it first"),
        ("d4rl", "new/", "new/ is a folder's name: give that of a file in it"),
        ("parquet", "new/.", "is a folder's name: give that of a file in it"),
        ("d4rl", "empty", "empty is a directory: name the file to write"),
        ("parquet", "full", "full exists and is not an empty directory"),
        ("rllib", "full", "full exists and is not an empty directory"),
        ("rllib", "there.hdf5/x", r"cannot write there.hdf5/x: .* is not a directory"),
        ("csv", "out.csv", "unknown format to export to 'csv': known are d4rl, minari, parquet, rllib"),
    ],
)
def test_no_place_is_one_line(make_played, tmp_path, to, out, says):
    dataset, _ = make_played()
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    for name in ("there.hdf5", "full/file"):
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=says):
        export_dataset(dataset, to, out)
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "minari"] == before


@pytest.mark.parametrize("name", ["plain", 'a"b', "a'b", "a\\b", "a'\"b", "ä b", "a\nb", "{out}"])
def test_what_reads_an_export_is_python(make_played, name):
    dataset, _ = make_played()
    reads = export_dataset(dataset, "parquet", name).reads
    called = ast.parse(reads, mode="eval").body
    assert isinstance(called, ast.Call) and ast.literal_eval(called.args[0]) == name


def test_no_minari_data_set_lies_inside_another(make_played, minari_home):
    dataset, _ = make_played()
    export_dataset(dataset, "minari", "mine/flights-v0")
    before = sorted(minari_home.rglob("*"))
    for inner in ("inner-v0", "deep/inner-v0"):
        with pytest.raises(UserError, match=r"would lie inside .*mine/flights-v0, which is a data set"):
            export_dataset(dataset, "minari", f"mine/flights-v0/{inner}")
    assert sorted(minari_home.rglob("*")) == before
    export_dataset(dataset, "minari", "mine/flights-v1")


def test_a_name_stands_for_its_data_set(make_played, tmp_path):
    dataset, _ = make_played()
    done = [export_dataset(source, "parquet", f"{n}.parquet") for n, source in enumerate((dataset, dataset.path))]
    assert [each.rows for each in done] == [len(dataset)] * 2
    with pytest.raises(UserError, match="unknown format to export to"):
        export_dataset(dataset, ["parquet"], "out")


def test_minari_keeps_what_is_there(make_played):
    dataset, _ = make_played()
    export_dataset(dataset, "minari", "mine/flights-v0")
    with pytest.raises(UserError, match="exists and is not an empty directory"):
        export_dataset(dataset, "minari", "mine/flights-v0")


@pytest.mark.parametrize("to", ["d4rl", "rllib"])
def test_parts_need_a_format_that_has_them(make_played, tmp_path, to):
    dataset, _ = make_played("dict")
    with pytest.raises(UserError, match="these have parts: export to minari or parquet, or import the source with"):
        export_dataset(dataset, to, NAMES[to])
    assert not (tmp_path / NAMES[to]).exists()


def test_rows_of_some_steps_are_no_episodes(make_dataset):
    path, _ = make_dataset(lengths=(30, 30), keep=0.5)
    with pytest.raises(UserError, match="is a subsample of its episodes: exports are of whole ones"):
        export_dataset(load_dataset(path), "parquet", "out.parquet")


def test_a_part_inside_a_part_is_one_line():
    assert nested({"a/b": 1, "a/c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    with pytest.raises(UserError, match="observations have a part 'a' and a part 'a/b' in it: rename one"):
        nested({"a": 1, "a/b": 2})


@pytest.mark.parametrize("to", EXPORTERS)
@pytest.mark.parametrize("empty", [False, True])
def test_an_export_that_is_stopped_leaves_nothing(make_played, tmp_path, minari_home, to, empty):
    dataset, _ = make_played()
    if empty and EXPORTERS[to].folder:
        (minari_home / NAMES[to] if to == "minari" else tmp_path / NAMES[to]).mkdir(parents=True)
    before = sorted(path for path in tmp_path.rglob("*") if path.name not in ("minari", "mine"))

    def stop(rows):
        def told(steps):
            raise KeyboardInterrupt

        return told

    with pytest.raises(KeyboardInterrupt):
        export_dataset(dataset, to, NAMES[to], stop)
    assert sorted(path for path in tmp_path.rglob("*") if path.name not in ("minari", "mine")) == before
    export_dataset(dataset, to, NAMES[to])


def test_the_command_says_what_reads_it(make_played, cli, refused, tmp_path, minari_home):
    dataset, _ = make_played("dict", "from 2")
    source, where = tmp_path / "source", {"MINARI_DATASETS_PATH": str(minari_home)}
    done = cli("export", source, "--to", "minari", "--out", "mine/flights-v0", **where)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("11 rows of 4 episodes, ") and done.stdout.count("\n") == 1
    assert 'mine/flights-v0: minari.load_dataset("mine/flights-v0") reads them' in done.stdout
    out = tmp_path / "again"
    assert cli("import", "minari:mine/flights-v0", "--out", out, "--gamma", GAMMA, **where).returncode == 0
    assert load_dataset(out).fingerprint == dataset.fingerprint
    assert "known are d4rl, minari" in refused("export", source, "--to", "csv", "--out", tmp_path / "x")


def test_frames_of_many_rows_come_in_groups(make_played, monkeypatch):
    monkeypatch.setattr("dr3_ray.data.exporters.parquet.GROUP_BYTES", 10)
    monkeypatch.setattr("dr3_ray.data.exporters.rllib.FILE_BYTES", 10)
    dataset, _ = make_played("image")
    export_dataset(dataset, "parquet", "out.parquet")
    assert pq.ParquetFile("out.parquet").num_row_groups == 4
    done = export_dataset(dataset, "rllib", "out")
    assert len(list(done.path.rglob("*.parquet"))) == 4


@pytest.mark.parametrize("to", EXPORTERS)
@pytest.mark.parametrize("room", [0, 300, 8_000])
def test_without_room_an_export_is_one_line_and_leaves_nothing(to, room, make_played, tmp_path):
    """HDF5 would end the process by a segmentation fault once a write fails."""
    dataset, _ = make_played("image", "box", lengths=(3, 1, 5, 2))
    before = sorted(tmp_path.rglob("*"))
    with files_up_to(room), pytest.raises(UserError, match=f"^cannot write {NAMES[to]}: .*[Ff]ile too large"):
        export_dataset(dataset, to, NAMES[to])
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == [x for x in before if x.is_file()]
    assert export_dataset(dataset, to, NAMES[to]).rows == len(dataset)
