"""`dr3-ray diagnose`, from a run, a checkpoint and data to a verdict, and its mistakes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dr3_ray import load_run
from dr3_ray.cli.app import main
from dr3_ray.report.diagnosed import read_diagnoses, titles
from dr3_ray.report.diagnosis import diagnose_member
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.plain import read_plain, write_plain
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.trainable import PackTrainable
from dr3_ray.training.saved import NAME, PLACE
from tests.crash.untrained import InTurn
from tests.sweep.conftest import collect


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Path:
    """Two coefficients of an algorithm with a model of the behaviour, on a part of the episodes; no rollouts."""
    out = tmp_path_factory.mktemp("diagnosis") / "run"
    data = collect(tmp_path_factory.mktemp("data") / "cartpole", "CartPole-v1", 20)
    asked = {"algorithms": ["DR3-TD"], "datasets": [f"{data}?split=train&take=best:0.9"], "coefficients": [0, 0.1]}
    asked |= {"seeds": 1, "steps": 60, "evaluations": 6, "environment": "none", "objective": "td_error"}
    spec = SweepSpec(**asked, options={"hidden_sizes": [8]}, concurrent=1, out=out)
    train_sweep(spec, trials=InTurn(pack=PackTrainable))
    return out


def diagnosed(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["diagnose", *arguments])
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


def checkpoint_of(run: Path) -> Path:
    return max(path for path in (run / "checkpoints").glob("*/*") if (path / PLACE).is_dir())


def test_a_member_of_a_run_on_train_and_held_out_rows(split, tmp_path, capsys):
    code, out, err = diagnosed(capsys, str(split), "--where", "dr3_coeff=0", "--json")
    assert code == 0 and err == ""
    document = json.loads(out)
    assert document["about"]["held_out"].endswith("cartpole?split=validation")
    assert list(document["probes"]) == ["train", "held-out"]
    train = document["probes"]["train"]
    assert list(train["pairs"]) == ["backup", "data", "policy", "argmax", "behaviour"]
    histories = read_histories(split).to_pandas()
    last = histories[histories["member"] == document["about"]["member"]].sort_values("step").iloc[-1]
    for name in ("dot_product", "cosine", "phi_norm"):
        assert train["pairs"]["backup"][name] == pytest.approx(last[name], rel=1e-4)
    for name in ("td_error", "effective_rank"):
        assert train["numbers"][name] == pytest.approx(last[name], rel=1e-4)
    assert {"co-adaptation", "co-adapting"} & {finding["name"] for finding in document["verdict"]}
    assert any(finding["name"] == "table" for finding in document["verdict"])
    assert train != document["probes"]["held-out"] and len(train["spectrum"]) == 8
    (tmp_path / "diagnoses").mkdir()
    (tmp_path / "diagnoses" / "0.json").write_text(out)  # as docs/report.md has it
    (told,) = read_diagnoses(tmp_path, [document["about"]["member"]])
    assert told.spectrum == train["spectrum"] and len(told.cells) == len(titles())


def test_the_text_says_all_of_it_in_words(split, capsys):
    code, out, err = diagnosed(capsys, str(split))
    assert code == 0 and err.startswith("DR3-TD on ") and "td_error" in err
    assert out.startswith("verdict, by the rules and thresholds of docs/report.md\n")
    for said in (
        "of all seeds and coefficients",
        "held-out: features at (s, a) and (s', a'), by a'",
        "behaviour",
        "R_TD",
    ):
        assert said in out
    assert "no held-out data" not in out


def test_a_checkpoint_with_its_data_and_a_run_with_others(run, split, cartpole, tmp_path, capsys):
    checkpoint = checkpoint_of(split)
    trained_on = str(diagnose_member(split).about["train"])
    code, out, _ = diagnosed(capsys, str(checkpoint), "--member", "0", "--data", trained_on, "--json")
    document = json.loads(out)
    assert code == 0 and "co-adaptation" in [finding["name"] for finding in document["verdict"]]
    assert document["probes"] == diagnose_member(split, member={"dr3_coeff": 0.0}).to_dict()["probes"]
    code, out, _ = diagnosed(capsys, str(run))
    assert code == 0 and "no held-out data" in out.splitlines()[-2]
    others = collect(tmp_path / "others", "CartPole-v1", 3)
    found = load_run(run).diagnose(data=others)
    assert list(found.probes) == ["train", "held-out"] and found.about["held_out"] == others


def test_mistakes_are_one_line(split, run, cartpole, pendulum, tmp_path, capsys):
    checkpoint, bare = checkpoint_of(split), Path(shutil.copytree(split, tmp_path / "bare"))
    shutil.rmtree(bare / "checkpoints")
    for arguments, message in {
        (str(checkpoint), "--member", "0"): "a checkpoint does not know its data: give --data",
        (str(split), "--data", pendulum): "(1,), float32): take data of equal spaces",
        (str(split), "--member", "zz"): "0 members of",
        (str(split), "--where", "dr3_coeff=7"): "no member of",
        (str(split), "--data", str(tmp_path / "nothing")): "is not a data set",
        (str(run), "--data", cartpole): "episodes that it was trained on",
        (str(bare),): "has no checkpoint here",
        (str(tmp_path),): "is neither a run directory nor a checkpoint",
        (str(split), "--data", "embedded:brekout"): "did you mean 'breakout-replay'?",
    }.items():
        code, out, err = diagnosed(capsys, *arguments)
        assert (code, out) == (2, "") and message in err and err.startswith("error: ") and err.count("\n") == 1


def test_a_critic_that_is_not_finite_is_said_to_have_diverged(split, tmp_path, capsys):
    copy = Path(shutil.copytree(checkpoint_of(split), tmp_path / "copy"))
    trained_on = str(diagnose_member(split).about["train"])
    saved = read_plain(copy / PLACE, NAME)
    head = np.array(saved["state"]["networks.critic.head.weight"])
    head[0] = np.nan
    saved["state"]["networks.critic.head.weight"] = head
    write_plain(copy / PLACE, NAME, saved)
    code, out, _ = diagnosed(capsys, str(copy), "--member", "0", "--data", trained_on)
    assert code == 0 and "diverged: parameters or values are not finite" in out and "Effective rank" not in out
    assert diagnosed(capsys, str(copy), "--member", "1", "--data", trained_on)[0] == 0
