"""Populations: a copy has the weights of the best and numbers of its own, and nothing stops them for good."""

import json
import os
import pickle
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.core import DEFAULT_MODULE_ID

import dr3_ray
from dr3_ray.cli import app as cli
from dr3_ray.cli.script import alone
from dr3_ray.evolution.evolution import Evolution, Evolving, claim
from dr3_ray.evolution.schedule import entries, known, lacking
from dr3_ray.evolution.snapshots import COPIES, OWNER, TRIALS, Copies, check_whole, take_up
from dr3_ray.report.evolution import ancestor, draw, read_schedule, schedule_table
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.digests import write_manifest
from dr3_ray.stores import append_line
from dr3_ray.sweep.spec.spec import SweepSpec
from tests.sweep.conftest import wait_for
from tests.sweep.disturbed import raylet_of

SCRIPT = Path(__file__).parents[2] / "sweeps" / "population_based.py"
MEMBERS, INTERVALS, STEPS = 4, 4, 20
CHANGE = {"dr3_coeff": (0.01, 0.3), "critic_lr": (1e-4, 1e-2)}


class EvolvingCQL(Evolving, dr3_ray.rllib.DR3CQL):
    """As `evolve` makes it."""


def config(data: str, seed: int, dr3_coeff: float, critic_lr: float) -> Any:
    made = dr3_ray.DR3CQLConfig().offline_data(input_=data).environment("CartPole-v1").evaluation(evaluation_interval=1)
    made.training(hidden_sizes=[8], batch_size=8, critic_lr=critic_lr, target_period=3)
    made.regularization(dr3_coeff=dr3_coeff).population([{"seed": seed}], updates_per_iteration=5)
    made.algo_class = EvolvingCQL
    return made


def arguments(data: str, out: Path, scheduler: str) -> list[str]:
    change = [part for name, (low, high) in CHANGE.items() for part in ("--change", f"{name}={low},{high}")]
    sizes = ["--steps", str(STEPS), "--intervals", str(INTERVALS), "--members", str(MEMBERS), "--episodes", "1"]
    small = ["--set", "hidden_sizes=[8]", "--set", "batch_size=8"]
    rest = ["--scheduler", scheduler, "--cpus", "2", "--out", str(out)]
    return ["--dataset", data, *change, *sizes, *small, *rest]


def here(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Do what the script does in this process, where a Ray is running; the exit code, and all that was said."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main(list(words), SCRIPT.name, alone(runpy.run_path(str(SCRIPT))[SCRIPT.stem], "help"))
    return int(end.value.code or 0), "".join(capfd.readouterr())


def in_force(run: Path) -> None:
    """Every result was trained with the coefficient that the schedule says: the loss is c0 times the penalty."""
    for result in entries(run / "schedule.jsonl"):
        row, c0 = result["measured"], result["numbers"]["dr3_coeff"]
        assert row["loss_dr3"] == pytest.approx(c0 * row["dr3_penalty"], rel=1e-4, abs=1e-7)
        assert CHANGE["dr3_coeff"][0] <= c0 <= CHANGE["dr3_coeff"][1] and row["dr3_coeff"] == c0


def whole(run: Path) -> pd.DataFrame:
    """The schedule, in which every member has every interval once."""
    schedule = read_schedule(run, [])
    changed = schedule.groupby("member")["dr3_coeff"].diff().fillna(0) != 0
    assert (schedule[changed]["copied_from"] != "").all()  # numbers change with weights
    steps = schedule.groupby("member")["step"].apply(list)
    assert len(steps) == MEMBERS
    assert all(each == [5, 10, 15, 20] for each in steps)
    return schedule


@pytest.mark.slow
def test_a_copy_has_weights_and_optimiser_of_its_model_and_its_own_numbers(
    cartpole: str, cluster: str, tmp_path: Path
) -> None:
    model, copy = (config(cartpole, 1, 0.01, 1e-3).build_algo(), config(cartpole, 2, 0.2, 1e-2).build_algo())
    model.train(), copy.train()
    model.save_checkpoint(str(tmp_path))
    lineage = tmp_path / "lineage.json"
    lineage.write_text(json.dumps({"member": "member-001"}))  # outside of Tune it has no name
    write_manifest(tmp_path)
    copy.load_checkpoint(str(tmp_path))
    nets = [each.learner_group._learner.module[DEFAULT_MODULE_ID].state_dict() for each in (model, copy)]
    assert all(torch.equal(one, other) for one, other in zip(*(each.values() for each in nets), strict=True))
    one, other = (each.learner_group._learner.population for each in (model, copy))
    for part in one.steps.parts:
        assert torch.equal(one.steps.parts[part].adam.exp_avg_sq, other.steps.parts[part].adam.exp_avg_sq)
    assert other.steps.parts["critic"].adam._settings[0][0] == 1e-2
    after = copy.train()
    row = after["members"]["000"]
    assert after["copied_from"] == "member-001" and after["numbers"]["dr3_coeff"] == 0.2
    assert row["loss_dr3"] == pytest.approx(0.2 * row["dr3_penalty"], rel=1e-5)
    assert copy.train()["copied_from"] == ""
    model.stop(), copy.stop()


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["pbt", "pb2"])
def test_a_population_goes_on_after_sigterm_and_kill_9(
    cartpole: str, cluster: str, tmp_path: Path, scheduler: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Started four times: ended by SIGTERM, by lost members without retries, by kill -9, and, here, not at all.

    PB2's is ended by kill -9 alone. What another version has begun is refused in the end.
    """
    out = tmp_path / "run"
    environment = os.environ | {"RAY_ADDRESS": cluster}
    command = [sys.executable, str(SCRIPT), *arguments(cartpole, out, scheduler)]

    def members_lost(driver: subprocess.Popen[str]) -> None:
        """Each of them, while it trains: one that is about to be used for another member is replaced in silence."""
        raylet = raylet_of(os.getpid())
        while driver.poll() is None:
            for worker in raylet.children():
                with suppress(psutil.NoSuchProcess):
                    if "ray::Evolving" in " ".join(worker.cmdline()):
                        worker.kill()
            time.sleep(0.2)

    def stopped_by(end: Callable[[subprocess.Popen[str]], None], least: int, *more: str) -> int:
        """Start it, wait for so many rows of the schedule, end it; the exit code."""
        driver = subprocess.Popen(
            [*command, *more], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        rows = out / "schedule.jsonl"
        wait_for(lambda: rows.exists() and len(rows.read_text().splitlines()) >= least)
        end(driver)
        said = driver.communicate(timeout=300)[0]
        assert "Traceback" not in said
        return driver.returncode

    if scheduler == "pbt":
        assert stopped_by(subprocess.Popen.terminate, 2) == 130
        assert stopped_by(members_lost, 3, "--retries", "0") == 1  # it was begun with two
    assert stopped_by(subprocess.Popen.kill, 7) == -signal.SIGKILL
    code, said = here(capfd, *command[2:])
    assert code == 0, said
    assert "4 members, 20 updates" in said
    schedule = whole(out)
    in_force(out)
    copies = schedule[schedule["copied_from"] != ""]
    assert len(copies) and set(copies["copied_from"]) <= set(schedule["member"])
    if scheduler == "pb2":  # a meeting that is repeated after the kill knows already what was learned before it
        model = schedule.set_index(["member", "step"])["dr3_coeff"]
        moved = [row["dr3_coeff"] != model[row["copied_from"], row["step"] - 5] for _, row in copies.iterrows()]
        assert any(moved)
    assert {"schedule.csv", "schedule.parquet", "schedule.png"} <= {path.name for path in out.iterdir()}
    pd.testing.assert_frame_equal(pd.read_parquet(out / "schedule.parquet"), schedule)

    for state in out.rglob("tuner.pkl"):
        state.write_bytes(state.read_bytes().replace(b"dr3_ray.evolution.", b"dr3_ray.evolutiom."))
        if (state.parent / "manifest.json").exists():
            write_manifest(state.parent)
    code, said = here(capfd, *command[2:])
    assert code == 2 and said.count("error: ") == 1, said
    assert f"error: {out} was begun by another version of dr3-ray" in said
    assert "No module named 'dr3_ray.evolutiom'" in said.splitlines()[-1]


def test_a_directory_of_other_options_or_in_use_is_refused(cartpole: str, tmp_path: Path) -> None:
    spec = SweepSpec(datasets=[cartpole], seeds=4, steps=20, evaluations=4, out=tmp_path)
    asked = Evolution(spec, {"dr3_coeff": (0.01, 0.1)}, seed=0)
    claim(tmp_path, asked).close()
    longer = asked._replace(spec=spec.model_copy(update={"steps": 40}))
    with pytest.raises(dr3_ray.UserError, match=r"was begun with other options \(steps 20 then, 40 now\)"):
        claim(tmp_path, longer)
    with claim(tmp_path, asked), pytest.raises(dr3_ray.UserError, match="a population is being trained in"):
        claim(tmp_path, asked)
    (tmp_path / "evolution.json").rename(tmp_path / "other.json")
    with pytest.raises(dr3_ray.UserError, match="exists and is not a population's"):
        claim(tmp_path, asked)


def test_the_schedule_says_from_whom_everyone_descends() -> None:
    rows = [("a", 5, ""), ("b", 5, ""), ("c", 5, ""), ("a", 10, "b"), ("b", 10, ""), ("c", 10, "")]
    rows += [("a", 15, ""), ("b", 15, "c"), ("c", 15, "a")]
    columns = {"return": 1.0, "dot_product": 2.0, "dr3_coeff": 0.1}
    schedule = pd.DataFrame([dict(zip(("member", "step", "copied_from"), row, strict=True)) | columns for row in rows])
    assert [ancestor(schedule, member) for member in "abc"] == ["b", "c", "b"]
    assert len(schedule_table(schedule, ["dr3_coeff"]).rows) == 3
    assert len(draw(schedule, ["dr3_coeff"]).axes) == 2


def begun(run: Path) -> Evolution:
    """A population with files as Tune leaves them, and a copy of those that it goes on from."""
    asked = Evolution(
        SweepSpec(datasets=["a"], seeds=4, steps=20, evaluations=4, out=run), {"dr3_coeff": (0.01, 0.1)}, 0
    )
    claim(run, asked).close()
    assert take_up(run, print) is False  # there is nothing yet
    (run / TRIALS).mkdir()
    for name in TUNE:
        made = {"file": name, "trials": ["member-000"] * 9}
        text = name.startswith("experiment")  # the others are pickles, whatever their names say
        (run / TRIALS / name).write_bytes(json.dumps(made).encode() if text else pickle.dumps(made))
    whole = {path.name: path.read_bytes() for path in (run / TRIALS).iterdir()}

    def write(folder: str) -> None:
        for name, content in whole.items():
            Path(folder, name).write_bytes(content)

    Checkpoints(str(run), COPIES, OWNER).save(1, write)
    append_line(run / "schedule.jsonl", json.dumps(line("member-000", 5)))
    return asked


def line(member: str, step: int, **other: Any) -> dict[str, Any]:
    numbers = {"dr3_coeff": 0.1, **other}
    return {"member": member, "step": step, "measured": {"dot_product": 1.0}, "copied_from": "", "numbers": numbers}


TUNE = ["tuner.pkl", "experiment_state-2026-01-01_00-00-00.json", "basic-variant-state-2026-01-01_00-00-00.json"]
DAMAGES = {
    "remove": lambda content: None,
    "truncate": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "nonsense": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("name", TUNE)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_tune_goes_on_from_is_put_back_from_its_copy(tmp_path: Path, name: str, damage: Any) -> None:
    begun(tmp_path)
    said: list[str] = []
    assert take_up(tmp_path, said.append) and said == []
    whole = {each: (tmp_path / TRIALS / each).read_bytes() for each in TUNE}
    hurt(tmp_path / TRIALS / name, damage)
    newer = tmp_path / TRIALS / "experiment_state-2026-01-02_00-00-00.json"
    newer.write_text("{" if name == TUNE[1] else "{}")  # of a second start, which was killed while it wrote this
    assert take_up(tmp_path, said.append)
    assert len(said) == 1 and said[0].endswith("the population goes on from the copy of a moment before")
    assert all((tmp_path / TRIALS / each).read_bytes() == content for each, content in whole.items())
    assert not newer.exists() and take_up(tmp_path, said.append) and len(said) == 1
    shutil.rmtree(tmp_path / "checkpoints")
    hurt(tmp_path / TRIALS / name, damage)
    if name != TUNE[0] or not (tmp_path / TRIALS / name).exists():  # a pickle is not read before it is trusted
        with pytest.raises(dr3_ray.UserError, match="what was trained cannot go on without it"):
            take_up(tmp_path, said.append)


@pytest.mark.parametrize("name", TUNE)
@pytest.mark.parametrize("damage", list(DAMAGES.values())[1:3], ids=list(DAMAGES)[1:3])
def test_a_file_that_tune_is_writing_is_not_copied(tmp_path: Path, name: str, damage: Any) -> None:
    begun(tmp_path)
    (staging := tmp_path / "staging").mkdir()
    storage = SimpleNamespace(
        experiment_driver_staging_path=str(staging),
        experiment_fs_path=str(tmp_path / TRIALS),
        storage_fs_path=str(tmp_path),
    )
    for each in TUNE[1:]:
        shutil.copyfile(tmp_path / TRIALS / each, staging / each)
    file = (tmp_path / TRIALS if name == TUNE[0] else staging) / name
    whole = file.read_bytes()
    hurt(file, damage)  # what a reader finds at that moment
    shutil.rmtree(tmp_path / "checkpoints" / COPIES)
    copies = Copies()
    copies.on_step_end(1, [SimpleNamespace(storage=storage)])
    assert not (tmp_path / "checkpoints" / COPIES).exists()
    file.write_bytes(whole)
    copies.on_step_end(2, [SimpleNamespace(storage=storage)])
    assert Checkpoints(str(tmp_path), COPIES, OWNER).read(name) == {name: whole}


def hurt(path: Path, damage: Any) -> None:
    content = damage(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def test_a_population_that_ended_before_anything_was_trained_begins(tmp_path: Path) -> None:
    begun(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints"), (tmp_path / "schedule.jsonl").unlink()
    (tmp_path / TRIALS / TUNE[1]).unlink()
    assert take_up(tmp_path, print) is False
    assert (tmp_path / f"{TRIALS}.damaged-1" / TUNE[0]).exists()


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b'{"spec": 1}', b'{"spec": {"datasets": [1]}}'])
def test_what_a_population_was_begun_with_is_not_guessed(tmp_path: Path, content: bytes | None) -> None:
    asked = begun(tmp_path)
    hurt(tmp_path / "evolution.json", lambda _: content)
    with pytest.raises(dr3_ray.UserError, match=r"evolution\.json is (missing|damaged).*: put it back"):
        claim(tmp_path, asked)


@given(data=st.data())
def test_lines_of_the_schedule_come_back_from_what_tune_wrote(tmp_path_factory: Any, data: Any) -> None:
    run = tmp_path_factory.mktemp("run")
    rows = [line(f"member-00{member}", step) for step in (5, 10, 15) for member in range(3)]
    for row in rows:
        file = run / TRIALS / row["member"] / "result.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        result = {"num_updates": row["step"], "members": {"000": row["measured"]}, "score": 1.0}
        append_line(file, json.dumps(result | {name: row[name] for name in ("copied_from", "numbers")}))
    lost = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    nonsense = data.draw(st.sampled_from(["", "{", "[]", "1", '{"member": "a"}', '{"member": 1, "step": "a"}', "\0"]))
    lines = [nonsense if number in lost else json.dumps(row) for number, row in enumerate(rows)]
    (run / "schedule.jsonl").write_text("\n".join(lines) + "\n")
    assert sorted(known(run), key=rows.index) == rows and lacking(known(run)) == 0
    append_line(run / "schedule.jsonl", json.dumps(line("member-000", 10, tau=0.5)))  # trained again after a kill
    assert [row["numbers"] for row in known(run) if (row["member"], row["step"]) == ("member-000", 10)][-1][
        "tau"
    ] == 0.5
    shutil.rmtree(run / TRIALS)
    gone = lost - {3}
    missed = sum(any(later % 3 == n % 3 and later not in gone for later in range(n + 3, 9, 3)) for n in gone)
    every = {rows[n]["step"] for n in range(9) if n not in gone}
    assert lacking(known(run)) <= missed
    assert len(every) < 3 or lacking(known(run)) == missed


def test_a_checkpoint_of_a_member_that_is_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "weights").write_bytes(b"0123")
    check_whole(tmp_path)  # as of version 0.1
    write_manifest(tmp_path)
    check_whole(tmp_path)
    (tmp_path / "state" / "weights").write_bytes(b"0223")
    with pytest.raises(dr3_ray.UserError, match=r"the checkpoint .* is damaged: put it back from a copy of yours"):
        check_whole(tmp_path)
    with pytest.raises(dr3_ray.UserError, match="is damaged"):
        check_whole(tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_population_that_was_damaged_moved_and_lost_its_ray_goes_on(cartpole: str, tmp_path: Path) -> None:
    """With a Ray of its own; after it has died, half of Tune's snapshot is there, and in another place."""
    out, moved = tmp_path / "run", tmp_path / "moved"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments(cartpole, out, "pbt")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_for(lambda: any(out.glob(f"checkpoints/{COPIES}/[0-9]*")) and len(known(out)) >= 5)
    psutil.Process(gcs_of(driver.pid)).kill()
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 2, said
    assert "error: Ray has died on this machine" in said and "Traceback" not in said
    assert said.splitlines()[-1].endswith(("the same command goes on", f"--out {out}` goes on"))
    out.rename(moved)
    (state,) = (moved / TRIALS).glob("experiment_state-*.json")
    state.write_bytes(state.read_bytes()[:-1000])
    first, *rest = (moved / "schedule.jsonl").read_text().splitlines()
    (moved / "schedule.jsonl").write_text("\n".join([first[:100], *rest, ""]))
    command = [sys.executable, str(SCRIPT), *arguments(cartpole, moved, "pbt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{state} is damaged: the population goes on from the copy of a moment before" in done.stdout
    whole(moved), in_force(moved)
    assert not out.exists()
    (weights, *_) = (moved / TRIALS).glob("member-000/checkpoint_000003/**/module_state.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4] + b"0000")
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 2, again.stderr
    assert f"error: the checkpoint {weights.parents[4]} is damaged: put it back" in again.stderr


def gcs_of(driver: int) -> int:
    (found,) = [each.pid for each in psutil.Process(driver).children(recursive=True) if "gcs_server" in each.name()]
    return found
