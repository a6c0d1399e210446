"""`dr3-ray sweep`: from the command line to the spec, and what it does with mistakes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dr3_ray.sweep.run  # noqa: F401 - loaded before the first command, which would say that it loads it
from dr3_ray.cli import app as cli
from dr3_ray.cli.app import main
from dr3_ray.sweep.spec.space import LogUniform
from dr3_ray.sweep.spec.spec import SweepSpec

SCRIPT = Path(__file__).parents[2] / "sweeps" / "coefficient_sweep.py"


@pytest.fixture
def asked(monkeypatch):
    """The specs that commands would run."""
    found = []
    monkeypatch.setattr(cli, "_run", lambda spec, force=False, trust=False: found.append(spec))
    return found


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def test_every_option_arrives(asked):
    arguments = (
        "sweep --algorithm DR3-CQL --algorithm BC --dataset a,b --data c --coefficients 0,1e-3 --seeds 4,7 "
        "--steps 60 --evaluations 6 --environment CartPole-v1 --episodes 3 --set hidden_sizes=[8,8] --set loss=squared "
        "--axis cql_alpha=0.1,1 --axis batch_size=32 --axis dr3_form=dot,abs --axis hidden=[8],[8,8] "
        '--search gp --trials 9 --study x.journal --point {"dr3_coeff":0} --objective dot_product '
        "--pack 5 --cpus 2 --gpus 0.5 --nodes 2 --patience 1.5 --concurrent 3 --retries 1 --checkpoint-every 2 "
        "--checkpoints keep=3 "
        "--out x/y --storage s3://bucket/x --log mlflow --log wandb"
    )
    assert run(*arguments.split()) == 0
    assert asked[0].model_dump() == {
        "algorithms": ("DR3-CQL", "BC"),
        "datasets": tuple(map(os.path.abspath, "abc")),
        "parents": (),
        "coefficients": (0.0, 1e-3),
        "seeds": (4, 7),
        "steps": 60,
        "evaluations": 6,
        "environment": "CartPole-v1",
        "evaluation_episodes": 3,
        "options": {"hidden_sizes": [8, 8], "loss": "squared"},
        "axes": {"cql_alpha": (0.1, 1), "batch_size": (32,), "dr3_form": ("dot", "abs"), "hidden": ([8], [8, 8])},
        "exclude": (),
        "budget": None,
        "search": {"method": "gp", "trials": 9, "points": ({"dr3_coeff": 0},), "study": os.path.abspath("x.journal")},
        "sample_seed": 0,
        "objective": ({"metric": "dot_product", "mode": "min", "over_seeds": "iqm"},),
        "halving": None,
        "pack": 5,
        "cpus": 2.0,
        "gpus": 0.5,
        "nodes": 2,
        "patience": 1.5,
        "concurrent": 3,
        "retries": 1,
        "checkpoint_every": 2,
        "keep_checkpoints": 3,
        "out": Path("x/y"),
        "storage": "s3://bucket/x",
        "log": ("mlflow", "wandb"),
    }


def test_what_is_not_given_has_the_defaults_of_the_spec(asked):
    assert run("sweep", "--dataset", "d") == 0
    assert run("sweep", "--dataset", "d", "--budget", "7", "--halving", "4") == 0
    assert asked == [SweepSpec(datasets=["d"]), SweepSpec(datasets=["d"], budget=7, halving=4)]


def test_parents_arrive_and_what_they_stand_for_is_not_given(asked, tmp_path):
    assert run("sweep", "--from", "runs/a", "--from", "s3://bucket/run:3f2a@20", "--steps", "60", "--seeds", "2") == 0
    assert run("sweep", "--from", "runs/a,s3://bucket/run:3f2a@20", "--steps", "60", "--seeds", "2") == 0
    assert asked.pop() == asked[0]
    (tmp_path / "spec.yaml").write_text("from: runs/a\nsteps: 60\ndata: d\n")
    assert run("sweep", str(tmp_path / "spec.yaml")) == 0
    assert asked[0].parents == (os.path.abspath("runs/a"), "s3://bucket/run:3f2a@20")
    assert [name for name in ("algorithms", "datasets", "coefficients", "seeds") if asked[0].inherits(name)] == [
        "algorithms", "datasets", "coefficients",
    ]  # fmt: skip
    assert asked[1] == SweepSpec(parents=["runs/a"], steps=60, datasets=["d"]) and not asked[1].inherits("datasets")
    assert set(asked[1].written()) >= {"parents", "datasets", "steps"} and "seeds" not in asked[1].written()


def test_ranges_can_be_typed(asked):
    drawn = '{"log_uniform":[0.001,1],"samples":2}'
    assert run("sweep", "--dataset", "d", "--coefficients", drawn, "--axis", f"critic_lr={drawn}") == 0
    assert asked[0].coefficients == asked[0].axes["critic_lr"] == LogUniform(log_uniform=(0.001, 1.0), samples=2)


def test_options_stand_above_the_file(asked, tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text("datasets: [a]\nsteps: 60\nevaluations: 6\nout: x/y\noptions: {tau: 1}\naxes: {n_step: [1, 2]}\n")
    assert run("sweep", str(file)) == 0
    assert run("sweep", str(file), "--steps", "120", "--set", "n_step=3", "--axis", "tau=0.5,1", "--seeds", "1") == 0
    plain = {"datasets": ["a"], "evaluations": 6, "out": "x/y"}
    assert asked == [
        SweepSpec(**plain, steps=60, options={"tau": 1}, axes={"n_step": [1, 2]}),
        SweepSpec(**plain, steps=120, options={"n_step": 3}, axes={"tau": [0.5, 1]}, seeds=1),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [DATA]\nstep: 10\n", "unknown key 'step': did you mean 'steps'?"),
        ("datasets: [DATA]\noptions: {critc_lr: 1e-3}\n", "unknown option 'critc_lr': did you mean 'critic_lr'?"),
        ("datasets: [DATA]\ncoefficients: [0, many]\n", "coefficients.1: it has to be a number, not 'many'"),
        ("datasets: [DATA]\nseeds: [1, 1]\n", "seeds: seed 1 is there more than once"),
        ("datasets: [DATA]\naxes: {tau: []}\n", "axes.tau: without a value the sweep has no members"),
        ("datasets: [DATA]\nexclude: [{dr3_coeff: {min: 0}}]\n", "exclude leaves out all of them"),
        ("steps: 10\n", "Missing option '--dataset'"),
        ("datasets: [DATA\n", "line 2 is not YAML"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_mistake_in_a_file_is_one_line_and_changes_nothing(
    cartpole, text, message, more, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(text.replace("DATA", cartpole))
    assert run("sweep", "spec.yaml", *more) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert os.listdir(tmp_path) == ["spec.yaml"]


@pytest.mark.parametrize(("text", "seeds"), [("3", (0, 1, 2)), ("1,5", (1, 5)), ("5,", (5,))])
def test_seeds_are_a_number_or_a_list(asked, text, seeds):
    assert run("sweep", "--dataset", "d", "--seeds", text) == 0
    assert asked[0].seeds == seeds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "tau"], "'tau' is not of the form OPTION=VALUE"),
        (["--coefficients", "0,x"], "'x' is not a number"),
        (["--coefficients", "0,,1"], "'' is not a number"),
        (["--seeds", "x"], "'x' is not a number"),
        (["--seeds", "0"], "at least one seed"),
        (["--steps", "0"], "steps"),
        (["--algorithm", "FOO"], "unknown algorithm 'FOO'"),
        (["--set", "foo=1"], "unknown option 'foo'"),
        (["--dataset", "nowhere"], "nowhere is not a data set"),
        (["--out", str(SCRIPT.parent)], "is not a run directory"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(cartpole, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("sweep", "--dataset", cartpole, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert not os.listdir(tmp_path)


@pytest.mark.slow
def test_the_script_is_the_same_command():
    command = [sys.executable, str(SCRIPT), "--dataset", "nowhere"]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"error: {os.path.abspath('nowhere')} is not a data set")


def test_the_demo_is_six_coefficients_and_three_seeds(asked):
    assert run("demo") == 0
    assert asked[0].coefficients == (0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    assert asked[0].seeds == (0, 1, 2)
    assert asked[0].datasets == ("embedded:breakout-replay",)
    assert asked[0].out == Path("runs/demo")


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_told_at_once(cartpole, tmp_path):
    command = [
        sys.executable,
        str(SCRIPT),
        "--dataset",
        cartpole,
        "--environment",
        "none",
        "--out",
        str(tmp_path / "x"),
    ]
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: no Ray cluster answers")
    assert outcome.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "wanted", "has"),
    [
        ("coefficient_sweep.py", ["--cpus", "10000"], "no machine has 10000 CPUs and 0 GPUs for a trial: ask for less"),
        ("population_based.py", ["--gpus", "100"], "no machine has 1 CPUs and 100 GPUs for a trial: ask for less"),
    ],
)
def test_what_no_machine_has_is_not_waited_for(cartpole, tmp_path, script, wanted, has):
    command = [sys.executable, str(SCRIPT.with_name(script)), "--dataset", cartpole, "--out", str(tmp_path / "run")]
    alone = os.environ | {"RAY_ADDRESS": "local"}
    outcome = subprocess.run([*command, *wanted], capture_output=True, text=True, env=alone)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"error: {has}") and outcome.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_search_script_has_a_space_of_its_own_unless_it_is_given_a_file(tmp_path):
    script = SCRIPT.with_name("optuna_search.py")

    def said(*arguments: str) -> str:
        command = [sys.executable, str(script), *arguments, "--dry-run", "--no-calibration"]
        outcome = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"COLUMNS": "160"}
        )
        assert outcome.returncode == 0, outcome.stderr
        return " ".join(outcome.stdout.split())

    own = said("--trials", "5", "--search", "nsga2", "--seeds", "2")
    assert "10 members" in own and "5 configurations with up to 2 seeds" in own
    assert "What nsga2 has still to propose was drawn here by chance" in own
    spec = tmp_path / "spec.yaml"
    spec.write_text("datasets: [embedded:breakout-replay]\ncoefficients: [0, 0.1]\nseeds: 1\n")
    assert "2 members" in said(str(spec))
