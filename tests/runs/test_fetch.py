"""Bringing runs home: from a folder and from a bucket, again and again, and what is refused."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pyarrow.fs as pafs
import pytest
import ray
from optuna.trial import FrozenTrial, TrialState

from dr3_ray.cli.app import main
from dr3_ray.errors import UserError
from dr3_ray.runs import mirror
from dr3_ray.runs.directory import RUN, STUDIES
from dr3_ray.runs.fetch import fetch
from dr3_ray.runs.histories import HISTORIES
from dr3_ray.runs.index import INDEX, Index, read_index
from dr3_ray.runs.mirror import SNAPSHOT, mirrored
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.trainable import PackTrainable
from tests.crash.untrained import InTurn


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A small run."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    tiny = {"options": {"hidden_sizes": [8, 8]}, "environment": "none", "steps": 8, "evaluations": 2, "seeds": 1}
    spec = SweepSpec(datasets=["embedded:breakout-replay"], coefficients=[0, 0.03], out=out, **tiny)
    train_sweep(spec, trials=InTurn(pack=PackTrainable))
    (out / "checkpoints" / "pack").mkdir(parents=True)
    (out / "checkpoints" / "pack" / "weights").write_bytes(b"weights")
    return out


def upload(run: Path, uri: str) -> None:
    filesystem, root = pafs.FileSystem.from_uri(uri)
    pafs.copy_files(str(run), root, destination_filesystem=filesystem)


def same_run(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in (RUN, INDEX, HISTORIES))


@pytest.mark.slow
def test_a_run_in_a_bucket_comes_home_with_its_report(finished, bucket, tmp_path, monkeypatch, capsys):
    upload(finished, bucket("runs/pong"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["fetch", bucket("runs/pong"), "--checkpoints"])
    assert not end.value.code
    home = tmp_path / "runs" / "pong"
    assert same_run(home, finished)
    assert (home / "checkpoints" / "pack" / "weights").read_bytes() == b"weights"
    assert (home / "report" / "report.html").exists()
    assert "1/1" in capsys.readouterr().out


def test_again_brings_what_is_new_and_no_checkpoint_twice(finished, tmp_path):
    away, home = tmp_path / "away", tmp_path / "home"
    shutil.copytree(finished, away)
    fetch(str(away), home, checkpoints=True)
    with Index(away) as index:
        index.write([next(iter(index.records))], "pending", error="again")
    weights = home / "checkpoints" / "pack" / "weights"
    weights.write_bytes(b"settled")  # as long as what is there: not read again
    (away / "checkpoints" / "pack" / "later").write_bytes(b"later")
    fetch(str(away), home, checkpoints=True)
    assert read_index(home)[0]["error"] == "again"
    assert weights.read_bytes() == b"settled"
    assert (weights.parent / "later").read_bytes() == b"later"


def test_checkpoints_stay_where_they_are_unless_asked_for(finished, tmp_path):
    fetch(str(finished), tmp_path / "home")
    assert not (tmp_path / "home" / "checkpoints").exists()


def test_what_is_not_a_run_is_refused_and_nothing_is_left(finished, bucket, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    document = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(document | {"id": "another"}))
    before = (other / INDEX).read_bytes()
    with pytest.raises(UserError, match="is another run than"):
        fetch(str(finished), other)
    assert (other / INDEX).read_bytes() == before
    for nothing in (str(tmp_path / "nothing"), bucket("nothing")):
        with pytest.raises(UserError, match="is not a run directory: give"):
            fetch(nothing, tmp_path / "home")
    with pytest.raises(UserError, match="is no store: give"):
        fetch("nowhere://x/y", tmp_path / "home")
    with pytest.raises(UserError, match="is not there: give the file"):
        fetch("/x", tmp_path / "home", tmp_path / "cluster.yaml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_what_is_known_of_a_run_is_in_its_storage_while_it_goes_on_and_at_the_end(
    finished, bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr(mirror, "EVERY", 0.05)
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    said: list[str] = []
    with mirrored(out, bucket("kept"), said.append):
        filesystem, root = pafs.FileSystem.from_uri(bucket("kept"))
        while not filesystem.get_file_info(f"{root}/{INDEX}").is_file:
            pass
        with Index(out) as index:
            index.write(index.records, "failed", error="at the end")
    fetch(bucket("kept"), tmp_path / "home")
    assert same_run(tmp_path / "home", out)
    assert not said


def test_a_run_whose_directory_is_lost_is_resumed_from_its_storage(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    storage = tmp_path / "storage" / "pong"
    shutil.copytree(finished, storage)
    document = json.loads((storage / RUN).read_text())
    document["spec"]["storage"] = storage.as_uri()
    document["place"] = str(tmp_path / "lost")
    (storage / RUN).write_text(json.dumps(document))

    def resume() -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(["sweep", "--resume", storage.as_uri()])
        return int(end.value.code or 0), "".join(capsys.readouterr())

    for _ in range(2):
        code, shown = resume()
        assert code == 0
        assert "2 of 2 runs were done before" in shown
    assert (tmp_path / "runs" / "pong" / "report" / "report.html").exists()
    shutil.rmtree(tmp_path / "runs" / "pong")
    shutil.copytree(finished, tmp_path / "runs" / "pong")
    assert resume() == (2, f"error: runs/pong is another run than {storage.as_uri()}: go to another directory\n")


@pytest.mark.slow
def test_studies_come_home_and_a_search_goes_on_with_them(bucket, tmp_path):
    tiny = {"options": {"hidden_sizes": [8]}, "environment": "none", "steps": 8, "evaluations": 2, "seeds": 1}
    asked = {"coefficients": {"log_uniform": [1e-3, 1]}, "objective": "td_error", "storage": bucket("search"), **tiny}
    asked["concurrent"] = 1

    def sweep(out: Path, trials: int) -> list[FrozenTrial]:
        """What is in the studies after so many trials."""
        search = {"method": "random", "trials": trials}
        data = ["embedded:breakout-replay"]
        assert train_sweep(SweepSpec(datasets=data, search=search, out=out, **asked)).statuses == {"finished": trials}
        return trials_of(out)

    def trials_of(run: Path) -> list[FrozenTrial]:
        storage = f"sqlite:///{run / STUDIES}"
        (name,) = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=name, storage=storage).trials

    told = sweep(tmp_path / "lost", 2)
    shutil.rmtree(tmp_path / "lost")
    home = tmp_path / "home"
    for _ in range(2):
        fetch(bucket("search"), home)
        assert trials_of(home) == told
    assert [trial.state for trial in told] == [TrialState.COMPLETE] * 2
    before = (home / INDEX).read_text()
    assert sweep(home, 3)[:2] == told
    later = (home / INDEX).read_text().removeprefix(before)
    assert len({json.loads(line)["member"] for line in later.splitlines()}) == 1  # nothing was trained again
    ray.shutdown()


def test_studies_are_copied_between_two_transactions(finished, tmp_path, monkeypatch):
    """Of a database of two tables that are written together, many times a second."""
    monkeypatch.setattr(mirror, "EVERY", 0.01)
    run, home = tmp_path / "run", tmp_path / "home"
    shutil.copytree(finished, run)
    database = sqlite3.connect(run / STUDIES)
    for table in ("asked", "told"):
        database.execute(f"create table {table} (text)")
    seen, said = set(), []
    with mirrored(run, None, said.append):
        while len(seen) < 5:
            with database:
                for table in ("asked", "told"):
                    database.execute(f"insert into {table} values (?)", ("x" * 5000,))
            if (run / SNAPSHOT).exists():
                fetch(str(run), home)
                with closing(sqlite3.connect(home / STUDIES)) as copy:
                    both = [copy.execute(f"select count(*) from {table}").fetchone()[0] for table in ("asked", "told")]
                    assert both[0] == both[1]
                    assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
                seen.add(both[0])
    database.close()
    assert not said


def test_storage_that_does_not_answer_is_said_and_does_not_end_the_sweep(finished, tmp_path, monkeypatch):
    said: list[str] = []
    (tmp_path / "file").touch()
    with mirrored(finished, str(tmp_path / "file" / "below"), said.append):
        pass
    assert len(said) == 1
    assert "could not be copied to" in said[0]
