"""A sweep in Python: its tables, its ranking and its pictures say what its files say."""

import json
import math
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from PIL import Image

import dr3_ray
from dr3_ray import UserError, load_run
from dr3_ray.report.reader import read_tables
from dr3_ray.report.tables import summarize
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.index import read_index
from dr3_ray.stats import iqm
from tests.report.conftest import STEPS, RunWriter


def test_its_tables_have_all_that_was_measured(demo: Path) -> None:
    sweep = load_run(demo)
    assert sweep.statuses == {"finished": 18}
    assert set(sweep.members.index) == {record["member"] for record in read_index(demo)}
    written = read_histories(demo).to_pandas()
    assert set(written.columns) <= set(sweep.histories.columns)
    ours = sweep.histories.set_index(["member", "step"])[["td_error", "loss_critic", "dot_product"]]
    theirs = written.set_index(["member", "step"])[["td_error", "loss_critic", "dot_product"]]
    pd.testing.assert_frame_equal(ours.sort_index(), theirs.sort_index())
    pd.testing.assert_frame_equal(sweep.summary, summarize(read_tables(demo)))
    (told,) = sweep.verdict.values()
    assert "c₀" in told[0]
    assert (sweep.exit_code, sweep.interrupted) == (0, False)


@pytest.mark.parametrize(("objective", "sign"), [(None, 1), ("episode_return_mean", 1), ("dot_product", -1)])
def test_the_ranking_is_that_of_the_last_rows(demo: Path, objective: str | None, sign: int) -> None:
    sweep = load_run(demo)
    metric = objective or "episode_return_mean"
    last = read_histories(demo).to_pandas().sort_values("step").groupby("member").last()
    expected = last.groupby("dr3_coeff")[metric].apply(lambda values: iqm(values.to_numpy()))
    ranking = sweep.ranking(objective)
    assert [each.values["dr3_coeff"] for each in ranking] == list(expected.sort_values(ascending=sign < 0).index)
    best = sweep.best(objective)
    assert best == ranking[0] and best.objective == metric
    assert best.score == pytest.approx(expected[best.values["dr3_coeff"]])
    values = last.loc[best.members][metric].to_numpy() * sign
    assert len(values) == 3 and (np.diff(values) <= 0).all()
    assert best.values == {"algorithm": "DR3-CQL", "dataset": "embedded:breakout-replay"} | {
        "dr3_coeff": best.values["dr3_coeff"]
    }


def test_what_lost_a_seed_has_no_score_and_comes_last(new_run) -> None:
    run = new_run()
    for seed in range(2):
        run.add(dr3_coeff=0.0, seed=seed)
        run.add(status="diverged" if seed else "finished", dr3_coeff=0.1, seed=seed)
    sweep = load_run(run.write())
    assert [each.values["dr3_coeff"] for each in sweep.ranking()] == [0.0, 0.1]
    assert math.isnan(sweep.ranking()[1].score)
    assert sweep.statuses == {"finished": 3, "diverged": 1}
    assert repr(sweep) == f"Sweep('{run.path}': 3 finished, 1 diverged)"


def test_nothing_is_best_before_anything_has_ended(new_run) -> None:
    run = new_run()
    run.add(status="running", upto=1_000)
    ended = r"no member of .* has ended yet: `dr3-ray sweep --resume .*` goes on"
    with pytest.raises(UserError, match=ended) as caught:
        load_run(run.write()).best()
    assert "\n" not in str(caught.value)
    later = RunWriter(run.path.with_name("later"))
    later.add(status="running", upto=1_000)
    later.add(seed=1)
    with pytest.raises(UserError, match=r"no configuration of .* has episode_return_mean with all seeds"):
        load_run(later.write()).best()


def test_pictures_are_those_of_the_tables_that_are_asked_for(new_run, tmp_path: Path) -> None:
    run = new_run()
    for algorithm in ("DR3-CQL", "DR3-IQL"):
        for coefficient in (0.0, 0.1):
            run.add(algorithm=algorithm, dr3_coeff=coefficient)
    sweep = load_run(run.write())
    both = sweep.plot("dot_product")
    assert [picture.name for picture in both] == [
        f"{name}-breakout-replay-dot-product" for name in ("dr3-cql", "dr3-iql")
    ]
    assert both._repr_html_().count("data:image/png;base64,") == 2
    (one,) = sweep.plot("td_error", algorithm="DR3-IQL")
    assert one.title == "Temporal-difference loss on the probe batch"
    with Image.open(one.save(tmp_path / "one.png")) as image:
        assert image.format == "PNG" and len(np.unique(np.asarray(image.convert("L")))) > 10
    for call, message in [
        (lambda: sweep.plot("dot"), "unknown measured quantity 'dot'"),
        (lambda: sweep.plot("dot_product", algorithm="BC"), "no member of .* has algorithm='BC'"),
        (lambda: sweep.plot("dot_product", sed=1), "unknown axis 'sed'"),
        (lambda: load_run(tmp_path), "is not a run directory"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_data_sets_of_one_name_have_their_own_tables_and_are_not_compared(new_run) -> None:
    run = new_run(axes=("dr3_coeff", "batch_size", "hidden_sizes"))
    sources = ("/one/mine", "/two/mine", "/other")
    for source in sources:
        for batch_size in (8, 16):
            run.add(dataset=source, data_fingerprint=source, batch_size=batch_size, hidden_sizes=[8, 8])
    sweep = load_run(run.write())
    more = [f"batch_size {size} · hidden_sizes [8, 8]" for size in (16, 8)]
    names = [f"DR3-CQL · {name} · {each}" for name in ("/one/mine", "/two/mine", "other") for each in more]
    assert sorted(sweep.verdict) == sorted(names)
    assert len({picture.name for picture in sweep.plot("dot_product")}) == 6
    for values in ({"batch_size": 8}, {"hidden_sizes": (8, 8), "batch_size": 16}):
        assert len(sweep.plot("dot_product", **values)) == 3
    assert len(sweep.plot("dot_product", dataset="other")) == len(sweep.plot("dot_product", dataset="/one/mine")) == 2
    assert (sweep.members["batch_size"] == 8).sum() == 3 and sweep.histories["batch_size"].max() == 16
    assert sweep.best(dataset="other").values["dataset"] == "/other"
    assert {each.values["dataset"] for each in sweep.ranking()} == set(sources)
    for call, message in [
        (sweep.best, "3 data sets, whose scores are not comparable: name one, such as dataset=/one/mine"),
        (sweep.policy, "3 data sets, whose scores are not comparable"),
        (lambda: sweep.best(batch_size=9), "no member of .* has batch_size=9"),
        (lambda: sweep.plot("dot_product", algorithm=["BC"]), r"algorithm=\['BC'\]: there are DR3-CQL$"),
        (lambda: sweep.plot("step"), "unknown measured quantity 'step'"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_picture_is_a_png_or_a_line(new_run, tmp_path: Path) -> None:
    run = new_run()
    run.add()
    run.add(seed=1, override={"episode_return_mean": np.full(len(STEPS), np.nan)})
    (picture,) = load_run(run.write()).plot("dot_product")
    assert picture.save(tmp_path / "new" / "one.png").read_bytes() == picture.png
    (tmp_path / "folder.png").mkdir()
    for name, message in {"x.svg": "saved as PNG", "": "saved as PNG", "folder.png": "cannot be written"}.items():
        with pytest.raises(UserError, match=message):
            picture.save(tmp_path / name if name else "")


CELLS = [
    "from dr3_ray import SweepSpec, load_run, run_sweep",
    """sweep = run_sweep(SweepSpec(
    datasets=["embedded:breakout-replay"], coefficients=[0, 0.03], seeds=1, environment="none", steps=20, evaluations=2,
    options={"hidden_sizes": [8]}, concurrent=1, objective="dot_product", out="run"))
sweep""",
    'load_run("run").plot("dot_product")',
    "action = sweep.policy().act(sweep.policy().observation_space.sample())\nint(action), sweep.best().score",
]


@pytest.mark.slow
def test_a_notebook_shows_progress_tables_and_pictures(tmp_path: Path) -> None:
    """By a real kernel; the sweep has a Ray of its own."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    trained, drawn, acted = (cell["outputs"] for cell in notebook["cells"][1:])
    said = json.dumps(trained)
    assert "2 finished" in said and "text/html" in trained[-1]["data"] and "c₀" in trained[-1]["data"]["text/html"]
    assert sum(bool(output["output_type"] in ("stream", "display_data")) for output in trained) >= 1  # progress
    assert "Traceback" not in said
    assert "data:image/png;base64," in drawn[-1]["data"]["text/html"]
    assert acted[-1]["data"]["text/plain"].startswith("(")
    assert dr3_ray.load_run(tmp_path / "run").best().objective == "dot_product"
