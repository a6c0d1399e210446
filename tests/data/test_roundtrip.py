import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.data import load_dataset, monte_carlo_returns, verify, write_dataset
from dr3_ray.data.spaces import named_parts
from dr3_ray.errors import UserError


def assert_rows(dataset, rows, indices):
    gathered = dataset.gather(indices, dataset.columns)
    assert list(gathered) == list(dataset.columns)
    on_disk = named_parts(gathered)
    assert list(on_disk) == list(rows)
    for name, values in on_disk.items():
        expected = torch.from_numpy(rows[name][indices.numpy()])
        if expected.dtype == torch.float64 or name in ("terminateds", "truncateds") or "observations" in name:
            expected = expected if expected.dtype == torch.uint8 else expected.float()
        assert values.dtype == expected.dtype and values.shape == expected.shape, name
        assert torch.equal(values, expected), name


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    observation=st.sampled_from(["float32", "uint8", "bool", "dict"]),
    action=st.sampled_from(["box", "discrete"]),
    rows_per_shard=st.integers(1, 40),
    keep=st.sampled_from([None, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_what_is_gathered(make_dataset, lengths, observation, action, rows_per_shard, keep, seed):
    path = None
    try:
        path, rows = make_dataset("roundtrip", lengths, observation, action, rows_per_shard, keep, seed)
    except UserError as error:
        assert keep == 0.5 and "no rows" in str(error)
        return
    try:
        dataset = load_dataset(path)
        verify(dataset)
        count = len(rows["rewards"])
        assert len(dataset) == count and len(dataset.manifest.shards) == -(-count // rows_per_shard)
        assert dataset.manifest.complete_episodes == (count == sum(lengths))
        assert dataset.manifest.counts.terminateds == rows["terminateds"].sum()
        assert dataset.manifest.counts.truncateds == rows["truncateds"].sum()
        assert_rows(dataset, rows, torch.arange(count))
        rng = np.random.default_rng(seed)
        assert_rows(dataset, rows, torch.from_numpy(rng.integers(0, count, (3, 2, 4))))
        assert_rows(dataset, rows, torch.empty(0, 5, dtype=torch.int64))
        for name in ("rewards", "monte_carlo_returns"):
            statistic, values = dataset.manifest.statistics[name], np.float64(np.float32(rows[name]))
            found = (statistic.min, statistic.max, statistic.mean, statistic.std)
            np.testing.assert_allclose(found, (values.min(), values.max(), values.mean(), values.std()), atol=1e-9)
        episodes = dataset.episodes
        np.testing.assert_array_equal(episodes["episode_ids"], np.arange(len(lengths)))
        for episode, (offset, length) in enumerate(zip(episodes["offsets"], episodes["lengths"], strict=True)):
            assert (rows["episode_ids"][offset : offset + length] == episode).all()
        np.testing.assert_array_equal(episodes["terminated"], np.arange(len(lengths)) % 2 == 0)
        if keep is None:
            expected = [rows["rewards"][rows["episode_ids"] == i].sum(dtype=np.float64) for i in range(len(lengths))]
            np.testing.assert_allclose(episodes["returns"], expected, atol=1e-6)
    finally:
        shutil.rmtree(path)


def test_shards_are_plain_arrow_files(make_dataset):
    path, rows = make_dataset(observation="bool", action="discrete", rows_per_shard=100)
    with pa.memory_map(str(path / "shard-00000.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
    assert all(not field.nullable for field in table.schema) and table.num_rows == len(rows["rewards"])
    observations = np.array(table["observations"].to_pylist())
    assert observations.dtype == bool and observations.shape == (11, 24)  # 18 bits, padded to 3 bytes
    np.testing.assert_array_equal(observations[:, :18], rows["observations"].reshape(11, 18))
    assert table["terminateds"].to_pylist() == rows["terminateds"].tolist()
    assert table["actions"].to_pylist() == rows["actions"].tolist()


def test_nothing_is_copied_on_opening(make_dataset):
    path, _ = make_dataset(lengths=(1000,), rows_per_shard=600)
    before = pa.total_allocated_bytes()
    dataset = load_dataset(path)
    assert pa.total_allocated_bytes() - before < 1000 < sum(entry.bytes for entry in dataset.manifest.shards) / 50
    maps = [
        line.split()
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "shard-" in line and str(path) in line
    ]
    assert len(maps) == 2 and all(fields[1].startswith("r--") for fields in maps)
    ranges = [tuple(int(end, 16) for end in fields[0].split("-")) for fields in maps]
    for shard in dataset._shards:
        for name, values in shard.items():
            assert any(low <= values.ctypes.data < high for low, high in ranges), name


def test_another_gamma_recomputes_the_returns(make_dataset):
    path, rows = make_dataset(rows_per_shard=3)
    dataset = load_dataset(path, gamma=0.5)
    expected = [monte_carlo_returns(rows["rewards"][rows["episode_ids"] == i], 0.5) for i in range(4)]
    everything = torch.arange(len(dataset))
    returns = dataset.gather(everything, ["monte_carlo_returns"])["monte_carlo_returns"]
    np.testing.assert_array_equal(returns.numpy(), np.concatenate(expected))
    assert (dataset.gamma, dataset.manifest.gamma) == (0.5, 0.9)
    assert_rows(load_dataset(path, gamma=0.9), rows, everything)


def test_returns_of_a_subsample_cannot_be_recomputed(make_dataset):
    path, rows = make_dataset(lengths=(50, 50), keep=0.3)
    assert_rows(load_dataset(path, gamma=0.9), rows, torch.arange(len(rows["rewards"])))
    with pytest.raises(UserError, match="subsample"):
        load_dataset(path, gamma=0.8)
    with pytest.raises(UserError, match=r"gamma is 1\.5"):
        load_dataset(path, gamma=1.5)


def test_a_gather_is_a_copy_and_stays_in_bounds(make_dataset):
    for rows_per_shard in (4, 100):
        path, rows = make_dataset(f"by{rows_per_shard}", rows_per_shard=rows_per_shard)
        dataset = load_dataset(path)
        dataset.gather(torch.arange(11), ["observations"])["observations"].zero_()
        assert_rows(dataset, rows, torch.arange(11))
        for index in (-1, 11, 2**40):
            with pytest.raises(IndexError, match=f"row {index} of a data set of 11 rows"):
                dataset.gather(torch.tensor([0, index]), ["truncateds"])
        with pytest.raises(UserError, match="unknown column 'dones'"):
            dataset.gather(torch.tensor([0]), ["dones"])


def test_a_pickle_is_a_path(make_dataset):
    path, _ = make_dataset(lengths=(1000,))
    dataset = load_dataset(path, gamma=0.3)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 500
    again = pickle.loads(pickled)
    assert again.gamma == 0.3 and again.fingerprint == dataset.fingerprint


def test_the_fingerprint_is_that_of_the_contents(make_dataset):
    same = [load_dataset(make_dataset(name, seed=1)[0]).fingerprint for name in ("a", "b")]
    other = load_dataset(make_dataset("c", seed=2)[0]).fingerprint
    assert same[0] == same[1] != other and len(bytes.fromhex(other)) == hashlib.sha256().digest_size


def test_a_target_may_exist_if_it_is_empty(make_dataset, tmp_path):
    (tmp_path / "data").mkdir()
    path, rows = make_dataset()
    assert_rows(load_dataset(path), rows, torch.arange(11))
    with pytest.raises(UserError, match="not an empty directory"):
        make_dataset()
    assert_rows(load_dataset(path), rows, torch.arange(11))
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_an_exception_while_writing_leaves_nothing(make_dataset, tmp_path):
    path, _ = make_dataset("source")
    manifest = load_dataset(path).manifest

    def episodes():
        yield {}
        raise AssertionError

    about = {
        key: getattr(manifest, key) for key in ("observation_space", "action_space", "gamma", "name", "provenance")
    }
    with pytest.raises(UserError, match="column 'actions' is missing"):
        write_dataset(tmp_path / "target", episodes(), **about)
    with pytest.raises(UserError, match="no rows"):
        write_dataset(tmp_path / "target", [], **about)
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]
