"""Stock RLlib on what was exported for it, and Ray Data on data sets as they are."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from dr3_ray.data import as_ray_dataset, export_dataset
from dr3_ray.errors import UserError


@pytest.mark.slow
def test_stock_rllib_trains_and_ray_data_reads(make_played, tmp_path):
    for name, observations, actions in (
        ("discrete", "vector", "discrete"),
        ("box", "vector", "box"),
        ("image", "image", "discrete"),
        ("bits", "bits", "discrete"),
    ):
        dataset, _ = make_played(observations, actions, lengths=(20,) * 5, name=name)
        export_dataset(dataset, "rllib", tmp_path / f"{name}-rllib")
    make_played("dict", "matrix", lengths=(20,) * 5, name="dict")
    script = str(Path(__file__).with_name("stock.py"))
    home = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "300"}
    done = subprocess.run(
        [sys.executable, script, str(tmp_path)], env=os.environ | home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    losses = json.loads(done.stdout.splitlines()[-1])
    assert set(losses) == {"BCConfig discrete", "MARWILConfig discrete", "BCConfig box"}
    assert all(math.isfinite(loss) for each in losses.values() for loss in each)


@pytest.mark.slow
def test_no_data_set_is_one_line_without_ray_being_started(tmp_path):
    with pytest.raises(UserError, match="is not a data set"):
        as_ray_dataset(tmp_path)
    assert not ray.is_initialized()
