"""`dr3-ray select` on a small run with two checkpoints of each member: what it takes, shows, writes and refuses."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from typer.testing import CliRunner

from dr3_ray import UserError, load_run
from dr3_ray.cli.app import app
from dr3_ray.data import load_dataset
from dr3_ray.evaluation.collect import collect
from dr3_ray.evaluation.recipes import recipe_of
from dr3_ray.report.selection import FILE, select
from dr3_ray.report.selection_judging import CRITERIA
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.index import read_index
from tests.room import files_up_to

QUICK = {"fqe_steps": 4, "fqe_seeds": 2}


@pytest.fixture(scope="module")
def selection(run, tmp_path_factory):
    """The choice by all criteria, of a copy of the run."""
    copy = Path(shutil.copytree(run, tmp_path_factory.mktemp("selecting") / "run"))
    return select(copy, **QUICK)


def test_every_member_and_checkpoint_is_a_candidate_with_all_that_can_be_measured(selection):
    candidates = selection.candidates
    assert len(candidates) == 8 and sorted(candidates["step"].unique()) == [20, 40]
    assert candidates[[name for name in selection.criteria]].notna().all(axis=None)
    assert set(CRITERIA) - set(selection.criteria) == {"td_error_held_out", "q_held_out"}
    assert (candidates["fqe_low"] < candidates["fqe"]).all() and (candidates["fqe"] < candidates["fqe_high"]).all()
    assert (candidates["effective_episodes"] >= 1 - 1e-6).all()
    rows = read_histories(selection.run).to_pandas().set_index(["member", "step"])
    for member, row in candidates.iterrows():
        assert row["td_error"] == rows.loc[(member, row["step"]), "td_error"]
        assert row["episode_return_mean"] == rows.loc[(member, row["step"]), "episode_return_mean"]
    written = pd.read_csv(selection.run / "selection.csv")
    assert len(written) == 8 and np.allclose(written["fqe"], candidates["fqe"])
    assert any("td_error_held_out not measured: no episodes were held out" in note for note in selection.notes)


def test_the_best_by_the_rule_is_taken_and_its_member_can_be_loaded(selection):
    (choice,) = selection.choices
    candidates = selection.candidates
    means = candidates.groupby("configuration")["fqe"].mean()
    assert choice.rule == "fqe" and choice.rows["name"].tolist() == means.sort_values(ascending=False).index.tolist()
    assert choice.value.value == pytest.approx(means.max())
    own = candidates[candidates["configuration"] == choice.rows.iloc[0]["name"]]
    best, _, step = choice.member.partition("@")
    assert best == own["fqe"].idxmax() and int(step or 40) == own["step"].iloc[0]
    assert load_run(selection.run).policy(choice.member).config["dr3_coeff"] == own["dr3_coeff"].iloc[0]
    (measured,) = selection.measured
    assert measured.quality.keys() == set(selection.criteria) and not selection.pooled
    assert measured.ucb is not None and len(measured.ucb.value) == 16 and measured.episodes == 2


def test_the_answer_comes_first_and_fits_into_80_characters(selection, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(app, ["select", str(selection.run), "--fqe-steps", "2"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("DR3-CQL on cartpole") and lines[1].startswith("• Take c₀ ")
    assert all(len(line) <= 80 for line in lines if str(selection.run) not in line)
    for words in ("Spearman's ρ", "regret@3", "Tuning by playing", "at random", "Why this rule"):
        assert words in done.stdout
    assert "Take c₀ " in str(selection)


def test_programs_read_all_of_it(selection):
    asked = ["select", str(selection.run), "--criteria", "td_error,dot_product", "--json"]
    found = json.loads(CliRunner().invoke(app, asked).stdout)
    assert found["criteria"] == ["td_error", "dot_product"] and found["choices"][0]["rule"] == "td_error"
    assert (
        found["choices"][0]["take"] == min(found["choices"][0]["configurations"], key=lambda c: c["td_error"])["name"]
    )
    assert found["measured"][0]["quality"]["td_error"]["regret"]["n"] == 0  # two configurations are no order
    assert found == json.loads(json.dumps(load_run(selection.run).select(["td_error", "dot_product"]).to_dict()))


def test_what_cannot_be_chosen_from_is_one_line(run, selection, tmp_path):
    with pytest.raises(UserError, match=r"unknown criterion 'fqee'.*did you mean 'fqe'"):
        select(run, ["fqee"])
    bare = Path(shutil.copytree(run, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints")))
    with pytest.raises(UserError, match=r"has no checkpoints here, which fqe needs: .*--criteria td_error,q_mean"):
        select(bare)
    assert select(bare, ["td_error", "q_mean"]).choices[0].rule == "td_error"
    with pytest.raises(UserError, match=r"has .* episodes that it was trained on"):
        select(selection.run, ["td_error_held_out"], data=read_index(run)[0]["config"]["dataset"])
    index = (bare / "index.jsonl").read_text()
    (bare / "index.jsonl").write_text(index.replace('"finished"', '"failed"'))
    with pytest.raises(UserError, match=r"no member of .* is finished"):
        select(bare, ["td_error"])


@pytest.fixture
def bare(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints")))


@pytest.mark.parametrize("place", ["a folder", "no room"])
def test_what_was_measured_is_told_where_it_cannot_be_written(bare, place):
    if place == "a folder":
        (bare / FILE).mkdir()
    with files_up_to(0) if place == "no room" else nullcontext():
        found = select(bare, ["td_error"])
    assert not found.written and found.choices
    assert found.notes[-1].startswith(f"{bare / FILE} could not be written: ") and "could not be" in " ".join(
        str(found).split()
    )
    assert not [path for path in bare.iterdir() if path.name.endswith(".partial")]


def test_a_link_in_its_place_is_refused_before_anything_is_measured(bare, tmp_path):
    (bare / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link, which may lead out"):
        select(bare, ["td_error"])


def test_members_without_rows_are_no_candidates(bare):
    records = read_index(bare)
    rows = pq.read_table(bare / "histories.parquet")
    one = records[0]["member"]
    pq.write_table(rows.filter(pc.field("member") != one), bare / "histories.parquet")
    found = select(bare, ["td_error"])
    assert one not in found.candidates.index and len(found.candidates) == len(records) - 1
    assert any(note.startswith("1 finished members are no candidates, for want of rows") for note in found.notes)
    pq.write_table(rows.filter(pc.field("member") == "another"), bare / "histories.parquet")
    with pytest.raises(UserError, match=r"finished and has rows: .*gets them by `dr3-ray sweep --resume"):
        select(bare, ["td_error"])


def test_held_out_episodes_have_the_spaces_of_those_of_training(run, tmp_path):
    """Of equal shapes: what differs is what the number of an action means."""
    config = read_index(run)[0]["config"]

    class Shifted(CartPoleEnv):
        def __init__(self, **how):
            super().__init__(**how)
            self.action_space = gym.spaces.Discrete(2, start=3)

        def step(self, action):
            self.action_space, announced = gym.spaces.Discrete(2), self.action_space
            turn = super().step(action - 3)
            self.action_space = announced
            return turn

    gym.register("Shifted-v0", Shifted, max_episode_steps=20)
    try:
        collect(recipe_of("Shifted-v0", "random", steps=40), tmp_path / "others")
    finally:
        del gym.registry["Shifted-v0"]
    others = load_dataset(str(tmp_path / "others"))
    assert others.spaces == load_dataset(config["dataset"]).spaces
    with pytest.raises(UserError, match="take data of equal spaces"):
        select(run, ["td_error_held_out"], data=str(tmp_path / "others"))


def test_one_seed_has_no_interval_and_members_that_failed_are_named(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    gone = [record["member"] for record in read_index(copy) if record["config"]["seed"] == 1]
    lines = (copy / "index.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    for line in told:
        if line["member"] in gone and line["status"] == "finished":
            line["status"] = "failed"
    (copy / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    found = select(copy, ["td_error"])
    assert "one seed, so that there is no interval" in str(found)
    assert found.notes[0].startswith("2 failed of 4 members are no candidates: ") and gone[0] in found.notes[0]
    assert found.measured[0].ucb is None and not found.choices[0].tied


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--criteria", "fqe", "--fqe-steps", "0"], "(fqe not measured: no critics are fitted"),
        (["--criteria", "td_error_held_out"], "(td_error_held_out not measured: no episodes were held out"),
        (["--criteria", "mean_rank"], "(not measured: mean_rank)"),
        (["--criteria", "td_error_held_out", "--data", ""], "an empty name is no data set"),
        (["RUN", "--criteria", "td_error"], "is named twice: compare different runs"),
    ],
)
def test_what_ranks_nothing_is_one_line(run, tmp_path, words, said):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns(FILE))
    done = CliRunner().invoke(app, ["select", str(copy), *(str(copy) if word == "RUN" else word for word in words)])
    assert isinstance(done.exception, UserError) and said in str(done.exception)
    assert not (copy / FILE).exists()
