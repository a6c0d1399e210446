"""Recordings that RLlib made here, against the episodes that it returned."""

import base64
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dr3_ray.data.importers import find, open_source
from dr3_ray.data.importers.writing import import_source
from dr3_ray.errors import UserError


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_recordings_of_a_real_run(tmp_path, assert_episodes):
    script = str(Path(__file__).with_name("recorded.py"))
    home = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "300"}
    subprocess.run([sys.executable, script, str(tmp_path)], check=True, env=os.environ | home)
    for name in ("packed", "plain", "episodes"):
        truth = np.load(tmp_path / ("packed.npz" if name == "packed" else "plain.npz"))
        parts = ("observations", "actions", "rewards", "ends")
        episodes = [tuple(truth[f"{index}/{part}"] for part in parts) for index in range(len(truth.files) // 4)]
        source = str(tmp_path / name)
        assert find(source)[0] == "rllib" and len(episodes) >= 3
        import_source(lambda source=source: open_source(source), tmp_path / f"{name}-out")
        assert_episodes(tmp_path / f"{name}-out", [(*episode[:3], *map(bool, episode[3])) for episode in episodes])


STEPS = 6


def recorded(**changed):
    """Columns as `output_write_episodes=False` writes them, with two episodes whose rows lie apart."""
    places = np.arange(STEPS + 2, dtype=np.float64)[:, None] * [1.0, 0.5]
    columns = {
        "eps_id": list("aabbaa"),
        "obs": list(places[[0, 1, 4, 5, 2, 3]]),
        "new_obs": list(places[[1, 2, 5, 6, 3, 4]]),
        "actions": [0, 1, 0, 1, 1, 0],
        "rewards": np.arange(STEPS) / 2,
        "terminateds": [False, False, False, True, False, False],
        "truncateds": [False] * 5 + [True],
    }
    return pa.table({name: pa.array(values) for name, values in (columns | changed).items()}), places


def test_pieces_that_lie_apart_are_episodes_of_their_own(tmp_path, assert_episodes):
    table, places = recorded()
    (tmp_path / "run").mkdir()
    for row in range(STEPS):  # a file each, as Ray Data may write them
        pq.write_table(table.slice(row, 1), tmp_path / f"run/{row}.parquet")
    with pytest.warns(UserWarning, match="no-end: 1 episodes end without"):
        import_source(lambda: open_source(str(tmp_path / "run")), tmp_path / "out")
    expected = [
        (places[[0, 1, 2]], [0, 1], [0, 0.5], False, True),
        (places[[4, 5, 6]], [0, 1], [1, 1.5], True, False),
        (places[[2, 3, 4]], [1, 0], [2, 2.5], False, True),
    ]
    assert_episodes(tmp_path / "out", expected)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_a_packed_column_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "lz4") as stream:
        stream.write(pickle.dumps(Attack()))
    text = base64.b64encode(packed.getvalue()).decode()
    table, _ = recorded(obs=[text] * STEPS, new_obs=[text] * STEPS)
    (tmp_path / "run").mkdir()
    pq.write_table(table, tmp_path / "run/0.parquet")
    with pytest.raises(UserError, match=r"obs is no packed array \(.*it would call .*mkdir\): record numbers"):
        import_source(lambda: open_source(str(tmp_path / "run")), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    pq.write_table(pa.table({"item": [b"\x81\xa3id_\xa1x"]}), tmp_path / "run/0.parquet")
    with pytest.raises(UserError, match="has an item that is no episode of one agent"):
        import_source(lambda: open_source(str(tmp_path / "run")), tmp_path / "out")
