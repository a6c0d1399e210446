"""What sweeps survive: it is done to real ones, and they have to end as the one that was left alone, to the bit."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import moto.settings
import psutil  # comes with Ray
import pytest

from dr3_ray.errors import UserError
from dr3_ray.runs import mirror
from dr3_ray.runs.fetch import fetch
from dr3_ray.runs.index import read_index
from dr3_ray.sweep.directory import open_run
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.ray_trials import RayTrials
from dr3_ray.sweep.trials.trainable import PackTrainable
from tests.sweep.conftest import statuses, wait_for
from tests.sweep.disturbed import (
    PARAMETERS,
    checkpoints,
    checkpoints_at,
    meanwhile,
    outcome,
    raylet_of,
    results,
    sweep,
    trial_of,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory) -> tuple[dict[str, str], list[str]]:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    train_sweep(sweep(run))
    return outcome(run)


def test_a_trial_whose_process_ends_before_it_began_is_tried_again(cluster, tmp_path):
    class Late(PackTrainable):
        """Ends its process while it is made, twice: Ray says that the actor never ran."""

        def __init__(self, config: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            tries = Path(config["storage"], "tries")
            if not tries.exists() or tries.stat().st_size < 2:
                with tries.open("a") as file:
                    file.write(".")
                os._exit(1)
            super().__init__(config, *args, **kwargs)

    tiny = {"datasets": ["embedded:pendulum-replay"], "coefficients": [0], "seeds": 1, "steps": 1, "evaluations": 1}
    tiny |= {"environment": "none", "options": {"hidden_sizes": [8], "batch_size": 8}, "out": tmp_path / "run"}
    once = train_sweep(SweepSpec(**tiny, retries=0), trials=RayTrials(trainable=Late))
    (record,) = read_index(once.path)
    assert (record["status"], once.exit_code) == ("failed", 1)
    assert record["error"].startswith("the trial's process was lost before it began: its worker process has died")
    again = train_sweep(SweepSpec(**tiny, retries=1), trials=RayTrials(trainable=Late))
    assert again.statuses == {"finished": 1} and (tmp_path / "run/tries").read_text() == ".."


def test_a_trial_that_is_killed_or_terminated_goes_on_from_the_last_checkpoint_that_is_whole(undisturbed, tmp_path):
    run, found = tmp_path / "run", {}

    def spoil_the_last_checkpoint(worker: psutil.Process) -> None:
        worker.suspend()
        before, last = checkpoints(run)[-2:]
        found["before"], found["pack"] = results(before), last.parent
        os.truncate(last / PARAMETERS, 100)
        worker.kill()

    def disturb() -> None:
        for act in (spoil_the_last_checkpoint, psutil.Process.terminate):
            seen = set(checkpoints(run))
            wait_for(lambda seen=seen: len(set(checkpoints(run)) - seen) >= 2)
            worker = trial_of(raylet_of(os.getpid()))
            act(worker)
            worker.wait(60)
            found[act] = True

    thread = meanwhile(disturb)
    train_sweep(sweep(run, retries=2))
    thread.join()
    assert len(found) == 4
    assert outcome(run) == undisturbed
    (last,) = found["pack"].glob("0*")
    assert results(last)[: len(found["before"])] == found["before"]


def test_a_trial_that_gets_no_memory_fails_and_the_others_go_on(cluster, tmp_path):
    asked = sweep(tmp_path / "run", retries=0).model_dump()
    wide = {"hidden_sizes": [[16, 16], [1_000_000, 1_000_000]]}  # 4 TB of weights
    train_sweep(SweepSpec(**asked | {"options": {}, "axes": wide, "steps": 2, "evaluations": 1}))
    records = read_index(tmp_path / "run")
    assert {record["error"] for record in records if record["config"]["hidden_sizes"] == [16, 16]} == {None}
    assert statuses(tmp_path / "run") == {"finished": 4, "failed": 4}
    assert all("can't allocate memory" in record["error"] for record in records if record["status"] == "failed")


def interrupt_twice(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)


@pytest.mark.timeout(600)
def test_whatever_ends_a_sweep_it_goes_on(undisturbed, cluster, bucket, tmp_path):
    """One sweep on S3 is killed, terminated, loses its Ray, and is interrupted; then it is left to finish."""
    run, storage = tmp_path / "run", bucket("sweep")
    asked = sweep(run, retries=0, storage=storage)
    with open_run(asked, members(asked), ["test"]):
        pass
    seen: set[str] = set()

    def further_checkpoint() -> bool:
        return bool(set(checkpoints_at(storage)) - seen)

    def go_on(
        disturb: Callable[[subprocess.Popen[str]], Any] | None = None,
        when: Callable[[], bool] = further_checkpoint,
        **environment: str,
    ) -> tuple[int, str]:
        """Go on to the end, or disturb as soon as there is a further checkpoint; the exit code and what was said."""
        process = subprocess.Popen(
            [sys.executable, "-m", "dr3_ray", "sweep", "--resume", str(run)],
            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "RAY_ADDRESS": "local", **environment},
        )  # fmt: skip
        children = []
        if disturb:
            wait_for(lambda: when() or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            children = psutil.Process(process.pid).children()
            disturb(process)
        out, err = process.communicate(timeout=300)
        _, alive = psutil.wait_procs(children, timeout=120)
        assert not alive
        assert "Traceback" not in out + err, out + err
        seen.update(checkpoints_at(storage))
        return process.returncode, out + err

    code, said = go_on(RAY_memory_usage_threshold="0.0001", RAY_memory_monitor_refresh_ms="100")
    assert code == 1, said
    assert statuses(run) == {"failed": 4}
    assert all("node running low on memory" in record["error"] for record in read_index(run))
    assert not seen

    # before Tune has saved anything that it could remember the first pack by
    unsaved = {"TUNE_GLOBAL_CHECKPOINT_S": "1000"}
    assert (
        go_on(lambda process: process.kill(), lambda: statuses(run)["finished"] == 2, **unsaved)[0] == -signal.SIGKILL
    )
    assert not any("TERMINATED" in path.read_text() for path in run.glob("trials/experiment_state*"))
    assert statuses(run)["finished"] == 2

    code, said = go_on(lambda process: os.killpg(process.pid, signal.SIGTERM))
    assert code == 130, said
    assert said.endswith(f"stopped with 2 finished, 2 pending; this goes on: dr3-ray sweep --resume {run}\n")

    code, said = go_on(interrupt_twice, RAY_ADDRESS=cluster)
    assert code == 130, said
    assert statuses(run)["running"] == 0

    code, said = go_on(lambda process: raylet_of(process.pid).kill())
    assert code in (0, 1, 2), said
    assert (statuses(run) == {"finished": 4}) == (code == 0)
    if code == 2:  # it is not, where the last packs end, or are lost with it, before the driver sees the loss
        assert said.endswith(f"error: Ray has died on this machine: `dr3-ray sweep --resume {run}` goes on\n")

    code, said = go_on(RAY_ADDRESS=cluster)
    assert code == 0, said
    assert f"report: {run}/report/report.html" in said
    assert (run / "report" / "report.html").stat().st_size > 1000
    home = tmp_path / "home"
    fetch(storage, home, checkpoints=True)
    assert outcome(home) == undisturbed


def test_a_sweep_of_two_algorithms_is_interrupted_and_goes_on(cluster, tmp_path):
    """Their losses have other names, and each has rows when both are interrupted."""

    def of_two(run: Path) -> SweepSpec:
        asked = sweep(run).model_dump() | {"algorithms": ["DR3-CQL", "DR3-IQL"], "coefficients": [0.1], "seeds": [0]}
        return SweepSpec(**asked | {"pack": 1, "concurrent": 2})

    train_sweep(of_two(tmp_path / "undisturbed"))
    asked = of_two(tmp_path / "run")
    with open_run(asked, members(asked), ["test"]):
        pass

    def resumed() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "dr3_ray", "sweep", "--resume", str(asked.out)]
        there = {"env": os.environ | {"RAY_ADDRESS": cluster}, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, text=True, **there)

    process = resumed()
    wait_for(lambda: len({path.parent for path in checkpoints(asked.out)}) == 2 or process.poll() is not None)
    interrupt_twice(process)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert statuses(asked.out) == {"pending": 2}
    process = resumed()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert outcome(asked.out, members=2) == outcome(tmp_path / "undisturbed", members=2)


def test_a_store_that_does_not_answer_for_a_while(undisturbed, bucket, outage, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(mirror, "EVERY", 0.5)
    storage, said = bucket("sweep"), []

    def cut_off() -> None:
        wait_for(lambda: checkpoints_at(storage))
        with outage():
            wait_for(lambda: said.append(capfd.readouterr().err) or "could not be copied to" in said[-1])

    thread = meanwhile(cut_off)
    train_sweep(sweep(tmp_path / "run", retries=0, storage=storage))
    thread.join()
    assert "".join(said).count("could not be copied") == 1
    fetch(storage, tmp_path / "home", checkpoints=True)
    assert outcome(tmp_path / "home") == undisturbed


def test_a_store_that_cannot_be_used_is_told_in_one_line(undisturbed, bucket, outage, tmp_path, monkeypatch):
    run = sweep(tmp_path / "run", storage=bucket("sweep"))
    nowhere = sweep(tmp_path / "run", storage=bucket("sweep").replace("results", "nothing"))
    with pytest.raises(UserError, match=r"storage .* cannot be used \(Bucket 'nothing' not found"):
        train_sweep(nowhere)
    with (
        outage(),
        pytest.raises(UserError, match=r"^s3://results/sweep\S* cannot be used: .* Could not connect to server"),
    ):
        train_sweep(run)
    with monkeypatch.context() as strict:
        strict.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
        with pytest.raises(UserError, match=r"^s3://results/sweep\S* cannot be used: .* ACCESS_DENIED"):
            train_sweep(run)
    assert statuses(run.out) == {"pending": 4}


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A file system, to be made as large as said."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)

    def of_size(size: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)
        return disk

    yield of_size
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_under_the_storage(undisturbed, small_disk, tmp_path, capfd):
    storage = small_disk("400k")
    full = sweep(tmp_path / "run", storage=str(storage))
    where = rf"{storage}/checkpoints/DR3-CQL-2-\w+"
    with pytest.raises(
        UserError, match=rf"^no room left for checkpoints in {where} \(No space .*\): make some, and res"
    ):
        train_sweep(full)
    assert "running" not in statuses(full.out)
    assert "Traceback" not in "".join(capfd.readouterr())
    small_disk("50m")
    train_sweep(full)
    assert outcome(full.out, storage) == undisturbed


@contextmanager
def filled(disk: Path, room: int, once: Callable[[], bool]) -> Iterator[None]:
    """Leave so many bytes of a file system free, whatever else gives bytes back, from a moment on."""
    done = threading.Event()

    def fill() -> None:
        wait_for(once)
        with (disk / "filler").open("wb") as filler:
            while not done.wait(0.002):
                system = os.statvfs(disk)
                with suppress(OSError):  # somebody else took it
                    if (free := system.f_bavail * system.f_bsize) > room:
                        os.posix_fallocate(filler.fileno(), os.fstat(filler.fileno()).st_size, free - room)

    thread = meanwhile(fill)
    try:
        yield
    finally:
        done.set()
        thread.join()
        (disk / "filler").unlink(missing_ok=True)


@pytest.mark.parametrize("room", [0, 4096, 12288])  # bytes; the index of this sweep takes 6 KiB, its histories 17
def test_a_full_disk_under_the_run_directory(undisturbed, small_disk, tmp_path, room):
    disk = small_disk("1m")
    full = sweep(disk / "run", storage=str(tmp_path / "storage"))
    with (
        filled(disk, room, lambda: "running" in statuses(full.out)),
        pytest.raises(UserError, match=r"no room left in .*/run \(No space left on device\): make some, and resume"),
    ):
        train_sweep(full)
    train_sweep(full)
    assert outcome(full.out, tmp_path / "storage") == undisturbed
