"""The benchmarks at their smallest: that they run, and write what was measured of whom."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# processes of the tests run beside each other, each on its own
CORE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % (os.cpu_count() or 1)
SCRIPTS = {
    "speed.py": ["--cases", "dqn-cql", "--without", "stock RLlib", "--forms", "fp32"],
    "pack.py": ["--cases", "dqn"],
    "memory.py": ["--cases", "dqn"],
    "startup.py": [],
    "data.py": ["--turns", "1"],
}


def figures_of(script: str, folder: Path) -> dict:
    """What the script wrote."""
    command = [sys.executable, str(BENCHMARKS / script), "--smoke", "--core", str(CORE), *SCRIPTS[script]]
    alone = os.environ | {"RAY_ADDRESS": "local"}  # whatever else runs on the machine
    done = subprocess.run([*command, "--json", str(folder / "figures.json")], capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr
    written = json.loads((folder / "figures.json").read_text())
    assert written["machine"]["cores"] >= 1
    return written["figures"]


def test_speed_has_ours_with_and_without_dr3_beside_plain_torch(tmp_path):
    found = figures_of("speed.py", tmp_path)
    core = {"ours, fp32", "core", "core without DR3"}
    assert set(found["dqn-cql"]) == core | {"eager torch", "eager torch, fused Adam"}
    [turn] = found["dqn-cql"]["ours, fp32"]
    assert turn["updates"] == 2 and turn["cpu"] > 0.0 and turn["probe"]["cpu"] > 0.0


def test_pack_compares_sizes_and_executions(tmp_path):
    found = figures_of("pack.py", tmp_path)
    dqn = found["dqn, fp32"]
    one, two = dqn["1 auto"][0], dqn["2 stacked"][0]
    assert two["parameters"] == 2 * one["parameters"] and two["flops"] == 2 * one["flops"] > 0
    assert dqn["2 compiled"][0]["parameters"] == two["parameters"]
    assert dqn["2 in_turn"][0]["execution"] == "in_turn" and dqn["plain torch"][0]["cpu"] > 0.0
    assert all(0.0 < each["share"] < 1.0 for each in found["evaluation"])


def test_memory_is_of_runs_of_packs_and_of_trials_on_one_data_set(tmp_path):
    found = figures_of("memory.py", tmp_path)
    for memory in found["dqn"].values():
        assert memory["peak"] >= 0.9 * memory["rss"] and memory["rss"] >= memory["pss"] >= memory["private"] > 0.0
    assert [len(found[f"atari, {n} trials"]) for n in (1, 2)] == [1, 2]


def test_data_compares_ways_of_reading_in_memory_size_and_time(tmp_path):
    found = figures_of("data.py", tmp_path)
    for each in found["gather"].values():
        assert set(each["rates"]) == {"ours, once", "ours, twice", "numpy"}
        assert min(map(min, each["rates"].values())) > 0
        assert each["bytes"]["ours, once"] < each["bytes"]["ours, twice"]
    assert set(found["import"]) == {"gzip", "plain"} and found["open"]["seconds"][0] > 0
    assert 0 < found["share"]["pss_mib"] < 3 * found["share"]["mib"]


def test_startup_has_imports_and_trials(tmp_path):
    found = figures_of("startup.py", tmp_path)
    assert all(each["cpu"] > 0.0 for measured in found.values() for each in measured)
    assert len(found["trial in a used process"]) == 1


def test_a_contender_that_ends_is_named_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from shared.contest import Contest, Entry

    asked = {"algorithm": "DR3-CQL", "updates": 1, "dataset": str(tmp_path / "nowhere"), "options": {}}
    with (
        pytest.raises(SystemExit, match=r"population\.py has ended: .*nowhere"),
        Contest({"ours": Entry("population.py")}, None, 0, asked, tmp_path) as contest,
    ):
        contest.take_turns(1)
