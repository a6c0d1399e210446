"""The verdict on a table: right where the truth is known, silent where nothing tells, and how often it is wrong."""

import json
import re
import shlex
import sys

import numpy as np
import pytest
import typer

from dr3_ray.cli.app import app, main
from dr3_ray.report.judging import judge_datasets, judge_tables
from dr3_ray.report.next_command import command
from dr3_ray.report.reader import read_tables
from dr3_ray.report.tables import outcomes, summarize
from dr3_ray.report.verdict import WORTH, Verdict, judge
from dr3_ray.runs.index import read_index

OPEN = {
    (coefficient, seed): value
    for coefficient, values in {0.0: (4.0, 5.0, 3.5), 0.01: (5.2, 5.4, 5.6), 0.1: (1.0, 1.2, 0.9)}.items()
    for seed, value in enumerate(values)
}
LEVELS = {0.0: 1.0, 0.01: 5.0, 0.1: 4.9, 0.3: 2.0}


def written(writer, returns, status="finished"):
    """A run in which every member has one return all along, and what is said of it."""
    for (coefficient, seed), value in returns.items():
        curve = {"episode_return_mean": np.full(21, float(value))}
        writer.add(dr3_coeff=coefficient, seed=seed, status=status, override=curve)
    return said_of(writer)


def said_of(writer):
    run = read_tables(writer.write())
    return judge(summarize(run), outcomes(run)), run


def drawn(levels, seeds, noise, seed=0):
    random = np.random.default_rng(seed)
    return {(c, s): level + noise * random.normal() for c, level in levels.items() for s in range(seeds)}


def test_what_is_clear_is_said(new_run):
    verdict, _ = written(new_run(), drawn(LEVELS, seeds=5, noise=0.1))
    choice, helps, fair, *_ = verdict.sentences
    assert choice.startswith(("Take c₀ = 0.01: it returns", "Take c₀ = 0.1: it returns"))
    assert choice.endswith(" is tied with it, 0 and 0.3 are worse for certain.")
    assert helps.startswith("DR3 helps: +")
    assert helps.endswith("] against c₀ = 0 with c₀ > 0, as the other seeds choose it, over 5 seeds.")
    assert re.match(r"Chosen by the other seeds, a setting returns [45]\.", fair)


def test_one_clear_winner(new_run):
    verdict, run = written(new_run(), drawn({0.0: 1.0, 0.03: 5.0}, seeds=4, noise=0.1))
    assert verdict.sentences[0].startswith("Take c₀ = 0.03: it returns 5.")
    assert verdict.sentences[0].endswith("and all others are worse for certain.")
    assert verdict.sentences[1].startswith("DR3 helps: +4.")
    assert verdict.seeds == 0 and command(run.info, verdict) == ""


def test_dr3_that_hurts(new_run):
    verdict, _ = written(new_run(), drawn({0.0: 5.0, 0.03: 1.0, 0.1: 0.5}, seeds=4, noise=0.05))
    assert verdict.sentences[0].startswith("Take c₀ = 0: it returns ")
    assert verdict.sentences[1].startswith("DR3 hurts: -")


def test_equal_returns_are_tied(new_run):
    verdict, _ = written(new_run(), {(c, seed): 0.5 for c in (0.0, 0.1) for seed in range(3)})
    assert (
        "is tied with it" in verdict.sentences[0] and "No c₀ is better than another for certain" in verdict.sentences[0]
    )
    assert verdict.sentences[1].startswith("Whether DR3 helps is open")
    assert any(f"would take more than {WORTH} seeds" in sentence for sentence in verdict.sentences)


def test_one_seed_has_no_interval(new_run):
    verdict, _ = written(new_run(), {(0.0, 0): 1.0, (0.1, 0): 9.0})
    assert verdict.sentences[1] == "Whether DR3 helps cannot be told from one seed."
    assert "There is one seed: no interval" in verdict.sentences[2]
    assert verdict.seeds == 5


def test_a_baseline_that_is_missing_or_failed_is_named(new_run):
    verdict, _ = written(new_run(), drawn({0.01: 5.0, 0.1: 1.0}, seeds=3, noise=0.1))
    assert "Whether DR3 helps cannot be told: c₀ = 0 is not among the settings." in verdict.sentences


def test_a_failed_baseline_is_named(new_run):
    writer = new_run()
    for seed in range(3):
        writer.add(dr3_coeff=0.0, seed=seed, status="failed" if seed else "diverged", upto=-1)
    verdict, _ = written(writer, drawn({0.01: 5.0, 0.1: 1.0}, seeds=3, noise=0.1))
    assert any("c₀ = 0 has no run that counts (1 diverged, 2 failed)" in sentence for sentence in verdict.sentences)


def test_where_every_run_was_lost_that_is_said(new_run):
    writer = new_run()
    for seed in range(3):
        writer.add(dr3_coeff=0.1, seed=seed, status="failed" if seed else "diverged", upto=-1 if seed else 1000)
    verdict, _ = written(writer, {})
    assert verdict.sentences[0] == (
        "No c₀ can be called best, because no run has a result (1 diverged and 2 failed): `dr3-ray status` says why."
    )


def test_without_returns_nothing_is_best(new_run):
    verdict, _ = written(new_run(), {(c, seed): np.nan for c in (0.0, 0.1) for seed in range(2)})
    unplayed, diagnostics, curves = verdict.sentences
    assert unplayed == (
        "No c₀ can be called best, because no returns were measured: name an environment, or rank settings by the "
        "data alone with `dr3-ray select`."
    )
    assert diagnostics.startswith("By the diagnostics alone, which say nothing about returns: try c₀ = 0.1, which ")
    assert curves.startswith("The critic co-adapts at c₀ = 0 (2 of 2 runs): since update ")
    assert (verdict.best, verdict.advised, verdict.coadapts) == ("", 0.1, "yes")


def curved(writer, quantities, coefficients=(0.0, 0.1), seeds=3):
    """A run without returns, with the curves that `quantities` gives for a coefficient and a seed."""
    for coefficient in coefficients:
        for seed in range(seeds):
            override = {"episode_return_mean": np.full(21, np.nan)} | quantities(coefficient, seed)
            writer.add(dr3_coeff=coefficient, seed=seed, override=override)
    return said_of(writer)[0]


def steady(coefficient, seed, q=1.0, error=0.1, dot=1.0):
    level = 1.0 if coefficient == 0 else dot
    return {
        "dot_product": np.full(21, level * (1 + seed / 100)),
        "q_mean": np.full(21, 1.0 if coefficient == 0 else q),
        "td_error": np.full(21, 0.1 if coefficient == 0 else error),
        "phi_norm": np.full(21, 1.2),
    }


@pytest.mark.parametrize(
    ("changes", "advised", "says"),
    [
        ({"dot": 0.1}, 0.1, "try c₀ = 0.1, which brings the dot product to 0.1 of that of c₀ = 0, moves mean Q by +0%"),
        ({"dot": 0.1, "q": 0.7}, None, "moves mean Q or the TD error: 0.1 brings the dot product to 0.1"),
        ({"dot": 0.1, "error": 0.2}, None, "and the TD error to ×2."),
        ({"dot": 0.8}, None, "no c₀ brings the dot product down to 50% for certain"),
    ],
)
def test_diagnostics_speak_for_what_holds_the_dot_product_down_and_leaves_q_alone(new_run, changes, advised, says):
    verdict = curved(new_run(), lambda c, seed: steady(c, seed, **changes))
    assert verdict.advised == advised
    assert any(says in sentence for sentence in verdict.sentences)
    assert any(sentence.startswith("The critic does not co-adapt at c₀ = 0 (0 of 3") for sentence in verdict.sentences)


def test_diagnostics_of_one_seed_tell_nothing(new_run):
    verdict = curved(new_run(), lambda c, seed: steady(c, seed, dot=0.1), seeds=1)
    assert verdict.advised is None
    assert any("one seed cannot tell which c₀ brings the dot product down" in each for each in verdict.sentences)


def test_what_is_not_healthy_is_said_with_its_coefficient(new_run):
    verdict = curved(new_run(), lambda c, seed: {"phi_norm": np.full(21, 1.0 if c == 0 else 0.0)})
    assert "Not healthy: dead features in 3 of 6 runs (c₀ = 0.1)." in verdict.sentences


def test_returns_on_two_data_sets_are_never_compared(new_run):
    """The better setting of the poorer data set is taken there, whatever the other one pays."""
    writer = new_run(axes=("dataset", "dr3_coeff"))
    for dataset, levels in (("/data/rich", {0.0: 900.0, 0.1: 100.0}), ("/data/poor", {0.0: 1.0, 0.1: 5.0})):
        for (c, seed), value in drawn(levels, seeds=4, noise=0.1).items():
            writer.add(dataset=dataset, dr3_coeff=c, seed=seed, override={"episode_return_mean": np.full(21, value)})
    run = read_tables(writer.write())
    judged = judge_datasets(run, summarize(run), outcomes(run))
    assert {each.heading: each.verdict.best for each in judged} == {"DR3-CQL · rich": "0", "DR3-CQL · poor": "0.1"}
    assert all(len(each.verdict.worse) == 1 for each in judged)


def test_tables_on_one_data_set_are_judged_together(new_run):
    writer = new_run(axes=("algorithm", "dr3_coeff", "batch_size"))
    levels = {("DR3-CQL", 8): 1.0, ("DR3-CQL", 16): 2.0, ("DR3-DQN", 8): 3.0, ("DR3-DQN", 16): 9.0}
    random = np.random.default_rng(0)
    for (algorithm, size), level in levels.items():
        for c in (0.0, 0.1):
            for seed in range(4):
                value = level + (c > 0) + 0.05 * random.normal()
                override = {"episode_return_mean": np.full(21, value)}
                writer.add(algorithm=algorithm, batch_size=size, dr3_coeff=c, seed=seed, override=override)
    run = read_tables(writer.write())
    (judged,) = judge_datasets(run, summarize(run), outcomes(run))
    assert judged.verdict.best == "DR3-DQN · batch_size 16 · c₀ = 0.1"
    assert len(judged.verdict.worse) == 7 and judged.verdict.tied == ()
    assert judged.verdict.sentences[1].startswith("DR3 helps: +")
    assert [each.verdict.best for each in judge_tables(run, summarize(run), outcomes(run))] == ["0.1"] * 4


def test_one_setting_is_compared_with_nothing(new_run):
    verdict, _ = written(new_run(), drawn({0.1: 5.0}, seeds=3, noise=0.1))
    assert "nothing to compare it with" in verdict.sentences[0]


def test_runs_that_go_on_are_said_to(new_run):
    verdict, _ = written(new_run(), drawn({0.0: 1.0, 0.1: 5.0}, seeds=3, noise=0.1), status="running")
    assert verdict.sentences[-1] == "Runs are not finished: all of this is so far."


@pytest.mark.slow
def test_a_table_without_differences_is_seldom_said_to_have_one(new_run, tmp_path):
    """Six equal settings, five seeds, 80 times: one time in twenty at most something is worse for certain.

    The best of six is compared, which was chosen for being best: the bound of the Bonferroni intervals, which are
    two-sided, has to hold for that too.
    """
    random = np.random.default_rng(0)
    run, wrong, claims = None, 0, 0
    for _ in range(80):
        if run is None:
            _, run = written(new_run(), drawn(dict.fromkeys((0.0, 0.001, 0.01, 0.03, 0.1, 0.3), 1.0), 5, 1.0))
        members = outcomes(run)
        members["return_final"] = random.normal(size=len(members))
        table = summarize(run)
        table["return_final"] = table["dr3_coeff"].map(members.groupby("dr3_coeff")["return_final"].mean())
        said = judge(table, members).sentences
        wrong += "for certain" in said[0] and "No c₀ is better" not in said[0]
        claims += said[1].startswith(("DR3 helps", "DR3 hurts"))
    assert wrong <= 17  # five standard errors above a share of 0.075
    assert claims <= 13  # and above one of 0.05


@pytest.mark.parametrize(
    "words",
    [
        ["--dataset", "x", "--coefficients", "0,0.01,0.1", "--seeds", "3", "--out", "runs/x"],
        ["--dataset", "x", "--coefficients=0,0.01,0.1", "--seeds=3", "--out=runs/x"],
        ["SPEC.yaml"],
    ],
)
def test_the_next_command_trains_what_would_tell(new_run, words):
    writer = new_run()
    verdict, run = written(writer, OPEN)
    assert (verdict.open, verdict.seeds) == ((0.0, 0.01), 5)
    more = command(run.info | {"command": ["dr3-ray", "sweep", *words], "spec": {}}, verdict)
    found = shlex.split(more)
    assert found.count("--seeds") == found.count("--coefficients") == 1 and "--seeds=3" not in found
    assert found[found.index("--coefficients") + 1] == ",".join(f"{c:g}" for c in verdict.open)
    sweep = typer.main.get_command(app).commands["sweep"]  # type: ignore[attr-defined]
    context = sweep.make_context("sweep", found[2:])
    assert context.params["seeds"] == [str(verdict.seeds)]
    (coefficients,) = context.params["coefficients"]
    assert re.fullmatch(r"[0-9.,]+", coefficients)
    assert command(run.info | {"command": ["dr3-ray", "demo"]}, verdict) == ""
    assert command(run.info | {"command": ["dr3-ray", "sweep", "--resume", "x"]}, verdict) == ""


@pytest.mark.parametrize(
    ("verdict", "info", "words"),
    [
        # a demo, or a sweep from Python, has no words to follow
        (
            {},
            {"command": ["dr3-ray", "demo"]},
            ["--algorithm", "DR3-CQL", "--dataset", "d", "--steps", "10", "--pack", "4"],
        ),
        ({}, {"environment": "none"}, ["--environment", "none"]),
        (
            {},
            {"options": {"hidden_sizes": [8, 8], "loss": "huber"}},
            ["--set", "hidden_sizes=[8,8]", "--set", "loss=huber"],
        ),
        ({"tau": "0.5"}, {"axes": {"tau": [0.1, 0.5]}}, ["--axis", "tau=0.5"]),
        ({"tau": "1.0"}, {"axes": {"tau": [0.1, 1]}}, ["--axis", "tau=1"]),
        ({"hidden_sizes": "[8, 8]"}, {"axes": {"hidden_sizes": [[8, 8], [9]]}}, ["--axis", "hidden_sizes=[8,8]"]),
        ({"algorithm": "DR3-DQN"}, {"algorithms": ["DR3-CQL", "DR3-DQN"]}, ["--algorithm", "DR3-DQN"]),
    ],
)
def test_what_has_no_words_to_follow_is_asked_for_in_full(verdict, info, words):
    asked = {"algorithms": ["DR3-CQL"], "datasets": ["d"], "steps": 10, "evaluation_episodes": 5, "pack": 4, "out": "r"}
    document = {"command": info.pop("command", ["python"]), "spec": asked | info}
    found = shlex.split(
        command(document, Verdict([], rivals=({"dr3_coeff": 0.0}, {"dr3_coeff": 0.1}), seeds=5), verdict)
    )
    assert found[:2] == ["dr3-ray", "sweep"] and found[-6:] == ["--out", "r", "--coefficients", "0,0.1", "--seeds", "5"]
    assert any(found[place : place + len(words)] == words for place in range(len(found))) or set(words) <= set(found)
    assert ("--episodes" in found) == (info.get("environment") != "none")
    sweep = typer.main.get_command(app).commands["sweep"]  # type: ignore[attr-defined]
    assert sweep.make_context("sweep", found[2:]).params["seeds"] == ["5"]


@pytest.mark.parametrize(
    "more",
    [{"search": {"method": "tpe"}}, {"budget": 3}, {"halving": {"factor": 2}}, {"exclude": [{"tau": 1}]},
     {"axes": {"tau": {"log_uniform": [0.1, 1]}}}],
)  # fmt: skip
def test_what_no_command_says_has_none(more):
    asked = {"algorithms": ["DR3-CQL"], "datasets": ["d"], "out": "r"}
    verdict = Verdict([], rivals=({"dr3_coeff": 0.0}, {"dr3_coeff": 0.1}), seeds=5)
    assert command({"command": ["python"], "spec": asked}, verdict)
    assert command({"command": ["python"], "spec": asked | more}, verdict) == ""


@pytest.mark.slow
def test_the_next_command_runs_and_is_what_was_missing(one_cpu, tmp_path, monkeypatch, capsys):
    """By the command line, from one seed: the advice of five is followed, and nothing is trained twice."""
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "embedded:breakout-replay", "--coefficients", "0,0.1", "--seeds", "1", "--steps", "20"]
    words += ["--evaluations", "2", "--episodes", "1", "--set", "hidden_sizes=[8]", "--out", "run"]
    words += ["--axis", "batch_size=8,16"]

    def run(words):
        monkeypatch.setattr(sys, "argv", ["dr3-ray", *words])
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        assert not end.value.code, shown.err
        return shown.out

    shown = run(["sweep", *words])
    before = {record["member"]: record["time"] for record in read_index("run")}
    (said,) = json.loads(run(["report", "run", "--json"]))["datasets"]
    assert "There is one seed: no interval, and nothing else to choose by. Train more seeds." in said["verdict"]
    assert f"to tell more: {said['next']}" in shown.splitlines()
    run(shlex.split(said["next"])[1:])
    after = read_index("run")
    rivals = {record["config"]["dr3_coeff"]: set() for record in after}
    for record in after:
        rivals[record["config"]["dr3_coeff"]].add(record["config"]["seed"])
    assert all(record["status"] == "finished" for record in after)
    assert {0, 1, 2, 3, 4} in rivals.values()
    assert all(record["time"] == before[record["member"]] for record in after if record["member"] in before)
