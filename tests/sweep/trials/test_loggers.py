"""Rows of a sweep in TensorBoard, MLflow and Weights & Biases, read back by what reads them.

MLflow and W&B are imported where they are used: every process of the tests would take seconds for them.
"""

import json
import math
import struct
import sys
import threading
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from dr3_ray.cli.app import main
from dr3_ray.cli.specfile import read_spec
from dr3_ray.errors import UserError
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.index import read_index
from dr3_ray.sweep.directory import open_run, spec_of
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.loggers import LOGGERS, Loggers, check_installed, group_of

DOCS = Path(__file__).parents[3] / "docs" / "sweeps.md"

CONFIG = {"algorithm": "DR3-CQL", "dataset": "embedded:x", "dr3_coeff": 0.1, "tau": 1.0, "seed": 0}
CONFIGS = {"a" * 16: CONFIG, "b" * 16: CONFIG | {"seed": 1}, "c" * 16: CONFIG | {"tau": 0.5}}
A = "a" * 16
GROUP = group_of(CONFIG)
Points = dict[tuple[str, int], float]  # by measure and step


def tensorboard(folder: Path) -> Points:
    """Of one run; events of an earlier attempt from the step on that a later one began at do not count."""
    points: Points = {}
    for file in sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event, content = Event.FromString(content[12 : 12 + length]), content[16 + length :]
            if event.session_log.status == 1:  # START
                points = {key: value for key, value in points.items() if key[1] < event.step}
            points |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return points


def offline(folder: Path, member: str) -> tuple[Points, str]:
    """What `wandb sync` would send of a run, and its group."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    (file,) = folder.glob(f"offline-run-*-{member}/run-{member}.wandb")
    store, points, group = DataStore(), {}, ""
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        record = Record.FromString(data)
        group = record.run.run_group or group
        found = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        points |= {(name, found["_step"]): value for name, value in found.items() if not name.startswith("_")}
    return points, group


def write(out: Path, name: str, rows: list[tuple[str, int, float]]) -> list[str]:
    """Rows of (member, step, loss), by one logger from beginning to end; what was said."""
    said: list[str] = []
    loggers = Loggers([name], out, CONFIGS, said.append)
    for member, step, loss in rows:
        loggers.row(member, step, {"loss": loss, "episode_return_mean": math.nan})
    loggers.close()
    return said


def read(out: Path, name: str, member: str = A) -> Points:
    run = f"{group_of(CONFIGS[member])}/seed-{CONFIGS[member]['seed']}"
    if name == "tensorboard":
        return tensorboard(out / "logs" / name / run)
    from mlflow import MlflowClient

    client = MlflowClient((out / "logs" / name).as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name(out.name).experiment_id], f"tags.member = '{member}'")
    measured = {key: client.get_metric_history(found.info.run_id, key) for key in found.data.metrics}
    return {(key, each.step): each.value for key, history in measured.items() for each in history}


@pytest.mark.slow
def test_every_row_of_a_sweep_arrives_everywhere(cluster, tmp_path, capfd):
    """The first example of docs/sweeps.md: one run a member, grouped by configuration without the seed."""
    from mlflow import MlflowClient

    (tmp_path / "spec.yaml").write_text(DOCS.read_text().split("```yaml")[1].split("```")[0])
    asked = {"environment": "none", "log": list(LOGGERS), "concurrent": 1, "out": tmp_path / "run"}
    sweep = SweepSpec(**read_spec(tmp_path / "spec.yaml") | asked)
    assert train_sweep(sweep).statuses == {"finished": 4}
    assert "gave up" not in capfd.readouterr().err
    client = MlflowClient((sweep.out / "logs" / "mlflow").as_uri())
    runs = client.search_runs([client.get_experiment_by_name("run").experiment_id])
    assert {run.data.tags["member"] for run in runs} == set(members(sweep))
    assert {run.info.status for run in runs} == {"FINISHED"}
    rows = read_histories(sweep.out).to_pylist()
    groups = set()
    for record in read_index(sweep.out):
        member, config = record["member"], record["config"]
        about = {"member", "algorithm", "dataset", "seed", "dr3_coeff", "step"}
        expected = {
            (name, row["step"]): value
            for row in rows
            if row["member"] == member
            for name, value in row.items()
            if name not in about and value is not None and math.isfinite(value)
        }
        assert {step for _, step in expected} == {100, 200}
        CONFIGS[member] = config
        assert read(sweep.out, "mlflow", member) == expected
        assert read(sweep.out, "tensorboard", member) == pytest.approx(expected, rel=1e-6)  # single precision
        points, group = offline(sweep.out / "logs" / "wandb", member)
        assert points == expected
        assert group == group_of(config)
        (run,) = [run for run in runs if run.data.tags["member"] == member]
        assert run.data.tags["group"] == group
        assert run.data.params["dr3_coeff"] == str(config["dr3_coeff"])
        groups.add(group)
    assert len(groups) == 2


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_sweep_that_goes_on_repeats_no_row(name, tmp_path):
    """Again in the same process (a trial that was started again), and in another one."""
    assert write(tmp_path, name, [(A, 10, 4.0), (A, 20, 3.0), (A, 20, 3.0), ("b" * 16, 10, 9.0)]) == []
    assert write(tmp_path, name, [(A, 20, 3.0), (A, 30, 2.0), ("c" * 16, 10, 7.0)]) == []
    assert read(tmp_path, name) == {("loss", 10): 4.0, ("loss", 20): 3.0, ("loss", 30): 2.0}
    assert read(tmp_path, name, "b" * 16) == {("loss", 10): 9.0}
    assert read(tmp_path, name, "c" * 16) == {("loss", 10): 7.0}


def test_groups_differ_by_everything_but_the_seed():
    assert group_of(CONFIG) == group_of(CONFIG | {"seed": 5}) != group_of(CONFIG | {"tau": 0.5})
    assert group_of(CONFIG | {"dataset": "/data/pong/"}).startswith("DR3-CQL-pong-c0.1-")


@pytest.mark.parametrize("name", sorted(LOGGERS))
def test_a_logger_that_cannot_write_is_told_once_and_the_others_go_on(name, tmp_path, monkeypatch):
    other = "mlflow" if name == "tensorboard" else "tensorboard"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / name).write_text("in the way")
    said: list[str] = []
    loggers = Loggers([name, other], tmp_path, CONFIGS, said.append)
    for step in (10, 20):
        loggers.row(A, step, {"loss": 1.0 / step})
    loggers.end([A])
    loggers.close()
    assert len(said) == 1
    assert said[0].startswith(f"--log {name} gave up, and the sweep goes on without it: ")
    assert "\n" not in said[0]
    assert read(tmp_path, other) == pytest.approx({("loss", 10): 0.1, ("loss", 20): 0.05}, rel=1e-6)


def test_a_logger_that_hangs_is_left_behind(tmp_path, monkeypatch):
    released = threading.Event()

    class Hanging:
        def __init__(self, folder: Path, project: str) -> None:
            released.wait()

    monkeypatch.setitem(LOGGERS, "tensorboard", Hanging)
    said: list[str] = []
    loggers = Loggers(["tensorboard"], tmp_path, CONFIGS, said.append)
    for step in range(1000):
        loggers.row(A, step, {"loss": 1.0})
    loggers.close(patience=0.2)  # or it would wait for the end of this test
    assert said == ["--log tensorboard still has rows to write after 0.2 s, and is left behind"]
    released.set()


def test_a_package_that_is_not_there_is_told_before_anything_is_written(cartpole, tmp_path, monkeypatch, capsys):
    check_installed(LOGGERS)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as `import wandb` finds it where it is not installed
    with pytest.raises(UserError, match="--log wandb needs its package"):
        check_installed(["tensorboard", "wandb"])
    for more in ([], ["--dry-run"]):
        with pytest.raises(SystemExit) as end:
            main(["sweep", "--dataset", cartpole, "--log", "wandb", "--out", str(tmp_path / "run"), *more])
        assert end.value.code == 2
        assert capsys.readouterr().err.startswith("error: --log wandb needs its package: pip install")
    assert not (tmp_path / "run").exists()


def test_an_unknown_logger_is_one_line(cartpole):
    with pytest.raises(UserError, match=r"log\.0: 'tensorbord' is unknown: did you mean 'tensorboard'\?"):
        SweepSpec(datasets=[cartpole], log=["tensorbord"])
    with pytest.raises(UserError, match=r"log\.0: it has to be 'tensorboard', 'mlflow' or 'wandb'"):
        SweepSpec(datasets=[cartpole], log=["x"])


@pytest.mark.parametrize("name", ["csv", "json"])
def test_files_that_version_0_1_wrote_are_one_line_and_stop_no_sweep_that_was_begun(cartpole, tmp_path, name, capsys):
    with pytest.raises(SystemExit) as end:
        main(["sweep", "--dataset", cartpole, "--log", name, "--out", str(tmp_path / "run"), "--dry-run"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1
    assert f"{name} files are not written any more: histories.parquet has every row" in said
    sweep = SweepSpec(datasets=[cartpole], environment="none", out=tmp_path / "run", log=["tensorboard"])
    with open_run(sweep, members(sweep), ["sweep"]):
        pass
    document = json.loads((sweep.out / "run.json").read_text())
    document["spec"]["log"].append(name)
    (sweep.out / "run.json").write_text(json.dumps(document))
    assert spec_of(sweep.out).log == ("tensorboard",)
