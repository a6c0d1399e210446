"""Sweeps for real: Tune, RLlib, worker processes, rollouts, failures and signals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import ray

from dr3_ray.sweep.histories import HISTORIES, read_histories
from dr3_ray.sweep.index import INDEX, read_index
from dr3_ray.sweep.run import connect, run_sweep
from dr3_ray.sweep.spec import SweepSpec, members

TINY = {"options": {"hidden_sizes": [16, 16]}, "evaluation_episodes": 2, "steps": 40, "evaluations": 2}


@pytest.fixture(scope="module")
def cluster():
    """One Ray for all sweeps in this process; its address."""
    ours = not ray.is_initialized()
    connect()
    yield ray.get_runtime_context().gcs_address
    if ours:
        ray.shutdown()


def statuses(run: Path) -> Counter[str]:
    return Counter(record["status"] for record in read_index(run))


def steps(run: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in read_histories(run).select(["member", "step"]).to_pylist():
        found.setdefault(row["member"], []).append(row["step"])
    return found


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_from_spec_to_histories_and_a_second_run_has_nothing_to_do(cluster, cartpole, pendulum, tmp_path, capfd):
    """Two data sets, discrete and continuous; half of the members diverge and leave the others of their pack alone."""
    sweep = SweepSpec(
        datasets=[cartpole, pendulum],
        coefficients=[0, 0.03],
        seeds=1,
        axes={"critic_lr": [1e-3, 1e30]},
        out=tmp_path / "run",
        **TINY,
    )
    summary = run_sweep(sweep)
    assert summary.statuses == {"finished": 4, "diverged": 4}
    assert (summary.exit_code, summary.interrupted) == (0, False)
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err
    planned = members(sweep)
    for record in read_index(sweep.out):
        config = record["config"]
        assert config == planned[record["member"]]
        assert record["status"] == ("finished" if config["critic_lr"] < 1 else "diverged")
        assert record["error"] is None
    table = read_histories(sweep.out).to_pandas()
    assert list(table.columns[:6]) == ["member", "algorithm", "dataset", "seed", "dr3_coeff", "critic_lr"]
    finished = table[table["critic_lr"] < 1]
    assert len(finished) == 8
    assert finished.groupby("member")["step"].apply(list).tolist() == [[20, 40]] * 4
    measured = ["episode_return_mean", "dot_product", "effective_rank", "q_mean", "td_error", "loss_critic", "loss_dr3"]
    assert finished[measured].notna().all().all()
    assert (finished["episodes"] == 2).all()
    assert (finished["updates_per_second"] > 0).all()
    assert (table[table["critic_lr"] > 1].groupby("member").size() == 1).all()

    before = (sweep.out / INDEX).read_bytes(), (sweep.out / "histories.parquet").read_bytes()
    started = time.monotonic()
    assert run_sweep(sweep) == summary
    assert time.monotonic() - started < 5
    assert ((sweep.out / INDEX).read_bytes(), (sweep.out / "histories.parquet").read_bytes()) == before


def test_what_failed_is_redone_and_the_rest_goes_on(cluster, cartpole, collected, tmp_path, capfd):
    """A shard disappears while the sweep runs, before the trial that needs it opens it."""
    fragile = Path(collected(tmp_path / "fragile", "CartPole-v1", episodes=3))
    shard, hidden = fragile / "shard-00000.arrow", tmp_path / "hidden"
    sweep = SweepSpec(
        datasets=[cartpole, str(fragile)], seeds=2, coefficients=[0.1], concurrent=1, out=tmp_path / "run", **TINY
    )

    def vandal() -> None:
        wait_for(lambda: sweep.out.exists() and statuses(sweep.out)["running"])
        shard.rename(hidden)

    thread = threading.Thread(target=vandal)
    thread.start()
    summary = run_sweep(sweep)
    thread.join()
    assert summary.statuses == {"finished": 2, "failed": 2}
    assert summary.exit_code == 1
    errors = {record["error"] for record in read_index(sweep.out)}
    assert None in errors
    (error,) = errors - {None}
    assert "shard-00000.arrow is missing" in error
    shown = capfd.readouterr()
    assert shown.err.count(error) == 1
    assert "Traceback" not in shown.out + shown.err

    hidden.rename(shard)
    finished = {record["member"] for record in read_index(sweep.out) if record["status"] == "finished"}
    lines = len((sweep.out / INDEX).read_text().splitlines())
    assert run_sweep(sweep).statuses == {"finished": 4}
    later = [json.loads(line)["member"] for line in (sweep.out / INDEX).read_text().splitlines()[lines:]]
    assert not finished & set(later)
    assert steps(sweep.out) == {member: [20, 40] for member in members(sweep)}


def workers() -> list[int]:
    """Process ids of the trials of this process's Ray."""
    (raylet,) = ray._private.worker._global_node.all_processes["raylet"]
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet.process.pid and b"PackTrainable" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_a_killed_worker_is_started_again_from_its_checkpoint(cluster, cartpole, tmp_path):
    sweep = SweepSpec(
        datasets=[cartpole],
        seeds=2,
        coefficients=[0.1],
        out=tmp_path / "run",
        steps=3_000,
        evaluations=6,
        checkpoint_every=1,
        retries=1,
        concurrent=1,
        environment="none",
        options={"hidden_sizes": [16, 16]},
    )

    killed: list[int] = []

    def killer() -> None:
        wait_for(lambda: (sweep.out / HISTORIES).exists())
        killed.extend(workers())
        for worker in killed:
            os.kill(worker, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    summary = run_sweep(sweep)
    thread.join()
    assert killed
    assert summary.statuses == {"finished": 2}
    assert steps(sweep.out) == {member: [500, 1000, 1500, 2000, 2500, 3000] for member in members(sweep)}


def command(cartpole: str, run: Path) -> list[str]:
    """Six packs of one member, one after another."""
    sweep = "--coefficients 0,0.03 --seeds 3 --steps 1500 --evaluations 3 --pack 1 --concurrent 1 --environment none"
    options = ["--set", "hidden_sizes=[16,16]", "--dataset", cartpole, "--out", str(run)]
    return [sys.executable, "-m", "dr3_ray.cli", "sweep", *sweep.split(), *options]


def test_signals_leave_everything_readable_and_the_sweep_goes_on(cluster, cartpole, tmp_path):
    """Ctrl-C, as a terminal sends it to all processes; then SIGTERM; then to the end, on a Ray of its own."""
    run = tmp_path / "run"
    shared = os.environ | {"RAY_ADDRESS": cluster}
    for number, done in ((signal.SIGINT, 1), (signal.SIGTERM, 3)):
        process = subprocess.Popen(
            command(cartpole, run), start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=shared,
        )  # fmt: skip
        wait_for(lambda least=done: run.exists() and statuses(run)["finished"] >= least)
        assert len(steps(run)) >= done  # while it is running
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "Traceback" not in out + err
        assert "stopped with" in err
        assert statuses(run)["running"] == 0
        assert statuses(run)["pending"] > 0
    last = subprocess.run(command(cartpole, run), capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert "Traceback" not in last.stdout + last.stderr
    assert statuses(run) == {"finished": 6}
    assert list(steps(run).values()) == [[500, 1000, 1500]] * 6
    assert f"report: {run}/report/report.html" in last.stdout
    assert (run / "report" / "report.html").stat().st_size > 1000
    records = [json.loads(line) for line in (run / INDEX).read_text().splitlines()]
    assert Counter(r["member"] for r in records if r["status"] == "finished") == dict.fromkeys(steps(run), 1)
