"""What a large sweep rests on: the benchmark of scale at its smallest, and files that grow with what is in them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dr3_ray.runs.histories import Histories, read_histories
from dr3_ray.runs.index import INDEX, Index, read_index
from dr3_ray.sweep.spec.names import option_types

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "scale.py"


@pytest.mark.smoke
def test_the_benchmark_of_scale_kills_resumes_and_reads_a_sweep(tmp_path):
    command = [sys.executable, str(BENCHMARK), "--smoke", "--json", str(tmp_path / "figures.json")]
    command += ["--out", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [figures] = json.loads((tmp_path / "figures.json").read_text())
    assert figures["members"] == 20
    assert all(value > 0 for value in figures.values())
    assert figures["from --resume to the first trial, s"] > 0  # there is none unless the second driver trains the rest
    rates = read_histories(tmp_path / "runs" / "20-0", ("updates_per_second",))["updates_per_second"]
    assert rates.unique().to_pylist() == [1234.5]  # nothing was trained


def test_a_change_of_status_does_not_repeat_the_configuration(tmp_path):
    configs = {"a": {"seed": 0, "text": "x" * 1000}}
    with Index(tmp_path) as index:
        index.write(configs, "pending", configs=configs)
        before = (tmp_path / INDEX).stat().st_size
        index.write(configs, "running", pack="p")
        index.write(configs, "finished")
    assert (tmp_path / INDEX).stat().st_size - before < 300
    [record] = read_index(tmp_path)
    assert (record["status"], record["pack"], record["config"]) == ("finished", "p", configs["a"])
    with Index(tmp_path) as index:
        assert index.records == {"a": record}


def test_readers_take_the_columns_that_they_need(tmp_path):
    histories = Histories(tmp_path, {"a": {"seed": 0}}, ["seed"], option_types())
    histories.add("a", 1, {"time_s": 1.0, "loss_critic": 2.0})
    histories.flush()
    assert read_histories(tmp_path, ("loss_critic", "member", "of another sweep")).to_pydict() == {
        "member": ["a"],
        "loss_critic": [2.0],
    }
