"""Whatever a source holds arrives, or one line or note says what does not."""

import shutil
import warnings
import zipfile

import gymnasium as gym
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dr3_ray.data import from_arrays, from_dataframe, from_episodes, load_dataset
from dr3_ray.data.importers import open_sources
from dr3_ray.data.importers.writing import import_source
from dr3_ray.errors import UserError

N = 8
ENDS = np.arange(N) % 4 == 3
cheap = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows(**other):
    found = {"observations": np.ones((N, 2)), "actions": np.arange(N) % 2, "rewards": np.ones(N), "terminateds": ENDS}
    return found | other


def imported(path, **options):
    return import_source(lambda: open_sources([str(path)]), path.with_name("out"), **options)


def attempt(tmp_path, write):
    """Notes, and the rewards, after an import, or None if it was refused in one line."""
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            write(out)
        except UserError as error:
            assert "\n" not in str(error) and not out.exists()
            return None
    data = load_dataset(out)
    return [str(each.message) for each in caught], data.gather(torch.arange(len(data)), ["rewards"])["rewards"].numpy()


NUMBERS = ("int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64", "longdouble", ">f8", ">i4")


@cheap
@given(
    dtype=st.sampled_from(NUMBERS),
    numbers=st.lists(st.floats(-1e20, 1e20) | st.integers(-(2**63), 2**64 - 1), min_size=N, max_size=N),
)
@example("float64", [1e-50] * N)
@example("longdouble", [0.1] * N)
@example("uint64", [2**64 - 1] * N)
def test_a_number_that_is_another_one_now_is_noted(tmp_path, dtype, numbers):
    with np.errstate(all="ignore"):
        low, high = (
            (-np.inf, np.inf) if np.dtype(dtype).kind == "f" else np.iinfo(dtype).min,
            np.iinfo(dtype if np.dtype(dtype).kind in "iu" else "i8").max,
        )
        values = np.array([int(each) if np.dtype(dtype).kind in "iu" else each for each in numbers], dtype=object)
        values = np.array([min(max(each, low), high) for each in values] if np.dtype(dtype).kind in "iu" else values)
        values = values.astype(dtype)
    found = attempt(tmp_path, lambda out: from_arrays(**rows(rewards=values), out=out))
    if found is None:
        assert not np.isfinite(values.astype(np.float32)).all()
        return
    notes, stored = found
    wide = values.astype(np.longdouble)
    moved = abs(stored.astype(np.longdouble) - wide)
    far = (moved > 1e-3 * abs(wide)) | ((moved > 0) & (abs(wide) > 2**24))
    assert any("rounded rewards" in note for note in notes) or not far.any() or np.ptp(wide) > 1e3 * moved[far].max()


FILES = st.sampled_from(["int32", "int64", "uint8", "float32", "float64"])


@cheap
@given(types=st.lists(FILES, min_size=2, max_size=3), offset=st.sampled_from([0, 200, 1_700_000_000, 2**53 + 1]))
def test_no_file_of_a_folder_has_its_numbers_cut_to_the_types_of_the_first(tmp_path, types, offset):
    folder = tmp_path / "table"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    written = []
    for place, dtype in enumerate(types):
        largest = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 2**60
        values = np.arange(N).astype(dtype) + np.array(offset if offset + N < largest else 0, dtype)
        values += np.array(0.25 if values.dtype.kind == "f" else 0, dtype)
        written.append(values.astype(np.longdouble))
        table = {"observation": values, "action": np.arange(N) % 2, "reward": values, "terminated": ENDS}
        pq.write_table(pa.table(table), folder / f"part-{7 + 4 * place}.parquet")  # 7, 11, 15
    found = attempt(tmp_path, lambda out: imported(folder))
    if found is None:
        assert offset == 2**53 + 1
        return
    notes, stored = found
    assert (stored == np.concatenate(written).astype(np.float32)).all()
    moved = abs(stored - np.concatenate(written)).max()
    assert any("float32 has rounded" in note for note in notes) or moved <= 1.2e-7 * np.ptp(np.concatenate(written))


def nested(leaves):
    keys = st.sampled_from(["", "a", "b", "a/b", 1, "1"])
    return st.dictionaries(keys, leaves, min_size=1, max_size=3)


@cheap
@given(parts=nested(st.integers(1, 3) | nested(st.integers(1, 3))))
@example({1: 1, "1": 2})
@example({"a": {"b": 1}, "a/b": 2})
@example({"": 1, "b": 2})
def test_no_part_of_an_observation_is_lost(tmp_path, parts):
    def built(part):
        return {key: built(each) for key, each in part.items()} if isinstance(part, dict) else np.ones((N, part))

    def width(part):
        return sum(map(width, part.values())) if isinstance(part, dict) else part

    if attempt(tmp_path, lambda out: from_arrays(**rows(observations=built(parts)), out=out)):
        assert load_dataset(tmp_path / "out").observation_space.size == width(parts)


@cheap
@given(
    names=st.lists(st.sampled_from(["7", "007", "1e3", "1000", "x", "true", str(2**63), str(2**63 + 1)]), min_size=1)
)
def test_names_of_episodes_are_texts(tmp_path, names):
    """A CSV file's reader would take 7 and 007, or two large numbers, for one episode."""
    file = tmp_path / "steps.csv"
    names = list(dict.fromkeys(names))
    lines = [f"{step},{number},1,1.5\n" for number in names for step in range(2)]
    file.write_text("obs_0,episode,action,reward\n" + "".join(lines))
    assert attempt(tmp_path, lambda out: imported(file))
    assert len(load_dataset(tmp_path / "out").episodes["lengths"]) == len(names)


def episodes(**other):
    found = {"observations": np.ones((5, 2)), "actions": np.ones((4, 1)), "rewards": np.ones(4), "terminated": True}
    return [{name: value for name, value in (found | other).items() if value is not None}] * 2


@pytest.mark.parametrize("name", ["terminated", "terminations", "terminals", "dones", "done"])
@pytest.mark.filterwarnings("ignore")
def test_an_end_has_any_of_the_names_that_a_column_has(tmp_path, name):
    from_episodes(episodes(**{"terminated": None, name: np.array([0, 0, 0, 1])}), out=tmp_path / "out")
    assert load_dataset(tmp_path / "out").episodes["terminated"].all()


@pytest.mark.filterwarnings("ignore")
def test_an_index_with_a_name_is_a_column(tmp_path):
    table = {"obs_0": np.ones(N), "action": np.arange(N) % 2, "reward": np.ones(N), "episode": np.arange(N) // 4}
    manifest = from_dataframe(pd.DataFrame(table).set_index("episode"), out=tmp_path / "out")
    assert manifest.counts.episodes == 2


@pytest.mark.filterwarnings("ignore")
def test_words_about_a_source_may_be_long(tmp_path):
    table = {"obs_0": np.ones(N), "action": np.arange(N) % 2, "reward": np.ones(N), "terminated": ENDS}
    from_dataframe(pl.DataFrame(table | {"z" * 200_000: np.ones(N)}), out=tmp_path / "out")
    assert load_dataset(tmp_path / "out").manifest.provenance.details["columns"].endswith("…")


MASKED = np.ma.masked_array([1.0, 2.0], [False, True])
UNLIKE = {
    "a mask in a list": (rows(observations=[MASKED] * N), "observations is masked in places"),
    "names that are no dates": (
        {k: v for k, v in rows(episode_ids=np.array(["NaT"] * N, "datetime64[D]")).items() if k != "terminateds"},
        "episode_ids is empty at row 0",
    ),
    "next observations of another kind": (
        rows(observations=np.ones((N, 2), int), next_observations=np.ones((N, 2)) / 2),
        "observations has numbers of int64, next_observations of float64",
    ),
    "an action beyond all spaces": (rows(actions=np.full(N, 2**63 + 1, np.uint64)), "has at most 2,147,483,648"),
    "fractions in a box of integers": (
        rows(actions=np.full((N, 1), 0.5), action_space=gym.spaces.Box(-3, 3, (1,), np.int32)),
        "action 0.5 is no whole number",
    ),
    "bounds of choices": (rows(rescale_actions=True), "--rescale-actions changes nothing"),
    "clipped choices": (rows(clip_actions=True), "--clip-actions changes nothing"),
    "a flattened vector": (rows(flatten=True), "--flatten changes nothing"),
    "a discount that is true": (rows(gamma=True), "gamma is True"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNLIKE)
def test_arrays_that_would_lose_something(tmp_path, case):
    given, says = UNLIKE[case]
    with pytest.raises(UserError, match=says):
        from_arrays(**given, out=tmp_path / "out")


@pytest.mark.parametrize("option", ["workers", "rows_per_shard"])
@pytest.mark.parametrize("number", [0, -1, 2.5, True, "2"])
def test_counts_are_whole_numbers(tmp_path, option, number):
    with pytest.raises(UserError, match=f"{option} is {number!r}: give a whole number"):
        import_source(lambda: open_sources([str(tmp_path)]), tmp_path / "out", **{option: number})


def two_numbers(path):
    table = {"obs_0": np.ones(N), "obs_1": np.arange(N) + 2**60, "action": np.arange(N) % 2, "reward": np.ones(N)}
    pq.write_table(pa.table(table | {"terminated": ENDS}), path / "table.parquet")
    return path / "table.parquet"


def fractions(path):
    episode = episodes()[0]
    whole = episode | {"observations": np.ones((5, 2), int)}
    from_episodes([whole, episode | {"observations": np.full((5, 2), 0.5)}], out=path / "out")


def square_rewards(path):
    from_episodes(episodes(rewards=np.ones((2, 2))), out=path / "out")


def a_column_more(path):
    table = {"obs_0": np.ones(N), "action": np.arange(N) % 2, "reward": np.ones(N), "terminated": ENDS}
    (path / "table").mkdir()
    pq.write_table(pa.table(table), path / "table" / "0.parquet")
    pq.write_table(pa.table(table | {"obs_1": np.ones(N)}), path / "table" / "1.parquet")
    return path / "table"


def a_name_twice(path):
    np.savez(path / "table.npz", **rows(next_observations=np.ones((N, 2))))
    with zipfile.ZipFile(path / "table.npz", "a") as archive:
        archive.writestr("rewards", archive.read("rewards.npy"))
    return path / "table.npz"


def a_file_that_is_elsewhere(path):
    with h5py.File(path / "rewards.hdf5", "w") as file:
        file["x"] = np.ones(N)
    layout = h5py.VirtualLayout((N,), "f8")
    layout[:] = h5py.VirtualSource(path / "rewards.hdf5", "x", (N,))
    with h5py.File(path / "table.hdf5", "w") as file:
        for name, values in rows(actions=np.ones((N, 1)), timeouts=ENDS, terminals=ENDS).items():
            if name != "rewards":
                file[name] = values
        file.create_virtual_dataset("rewards", layout)
    (path / "rewards.hdf5").unlink()
    return path / "table.hdf5"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (two_numbers, "integers from 1152921504606846976 to .* stand beside real numbers"),
        (fractions, "observations of int64 has fractions"),
        (square_rewards, r"rewards has shape \(2, 2\)"),
        (a_column_more, "obs_1 is empty at row 0"),
        (a_name_twice, "has 'rewards' twice"),
        (a_file_that_is_elsewhere, "rewards lies in .*rewards.hdf5, which is not there"),
    ],
)  # fmt: skip
def test_sources_that_would_lose_something(tmp_path, source, says):
    with pytest.raises(UserError, match=says):
        imported(source(tmp_path))
    assert not (tmp_path / "out").exists()
