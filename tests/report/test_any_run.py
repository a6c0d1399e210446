"""A report comes of every run: of many coefficients and axes, odd names, nothing measured, nothing finished."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from dr3_ray.cli import sweeping
from dr3_ray.report import write_report
from dr3_ray.report.reader import STATUSES, read_tables
from dr3_ray.report.tables import notes, summarize
from dr3_ray.runs.index import FINAL

ODD = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=200)
NUMBERS = st.floats(0, 1e12)
MEASURES = ("episode_return_mean", "dot_product", "effective_rank", "q_mean", "cosine")
VALUES = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300, 5e-324])


def plain(**more):
    about = {"coefficients": [0.0, 0.1], "seeds": 2, "statuses": ["finished"], "axes": {}, "dataset": "embedded:x"}
    return about | {"broken": {}, "upto": [20_000]} | more


# one report takes seconds, so that to shrink a failing one would take many minutes
@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), phases=set(Phase) - {Phase.shrink})
@given(
    about=st.fixed_dictionaries(
        {
            "coefficients": st.lists(NUMBERS, min_size=1, max_size=5, unique=True),
            "seeds": st.integers(1, 3),
            "statuses": st.lists(st.sampled_from(STATUSES), min_size=1, max_size=4),
            "axes": st.dictionaries(
                ODD, ODD | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3) | st.floats(), max_size=3
            ),
            "dataset": ODD,
            "broken": st.dictionaries(st.sampled_from(MEASURES), VALUES, max_size=3),
            "upto": st.lists(st.sampled_from([-1, 0, 1_000, 20_000]), min_size=1, max_size=3),
        }
    )
)
@example(plain(coefficients=[place / 1000 for place in range(120)], seeds=1))
@example(plain(axes={f"option_{place}_of_the_critic": "a value of some length" for place in range(14)}))
@example(plain(statuses=["pending"]))
@example(plain(statuses=["pending", "failed"], upto=[-1]))
@example(plain(coefficients=[0.3], seeds=1, upto=[0]))
@example(plain(axes={"/": "../../" * 40}, dataset="s3://b/pong?endpoint_override=http://h:9000"))
@example(plain(coefficients=[5e-324, 1.0, 1e12]))
@example(plain(coefficients=[0.0, 5e-324]))
@example(plain(broken=dict.fromkeys(MEASURES, np.nan)))
@example(plain(broken=dict.fromkeys(MEASURES, np.inf)))
def test_a_report_comes_of_it(run_writer, about):
    with tempfile.TemporaryDirectory() as folder:
        own = {"algorithm", "dataset", "seed", "dr3_coeff", "member", "step", "steps", "hidden", "status", "override"}
        own |= {"error", "upto"}
        axes = {name: value for name, value in about["axes"].items() if name not in own}
        writer, count = run_writer(Path(folder) / "run", tuple(axes)), 0
        broken = {name: np.full(21, value) for name, value in about["broken"].items()}
        for coefficient in about["coefficients"]:
            for seed in range(about["seeds"]):
                status = about["statuses"][count % len(about["statuses"])]
                upto = about["upto"][count % len(about["upto"])]
                upto = max(upto, 0) if status in FINAL else upto  # without rows a run cannot have ended
                rows = max(0, upto // 1_000 + 1)
                override = {name: values[:rows] for name, values in broken.items()}
                config = {"dr3_coeff": coefficient, "seed": seed, "dataset": about["dataset"], "override": override}
                writer.add(status, upto=upto, **config, **axes)
                count += 1
        writer.axes = ("dr3_coeff", *axes)
        report = write_report(writer.write())
        page = report.page.read_text()
        assert page.rstrip().endswith("</html>")
        assert all(len(path.name.encode()) < 200 for path in report.page.parent.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_returns_that_are_no_numbers_are_not_told_as_rollouts_that_were_not_made(new_run, value):
    said = "No returns that are numbers, though episodes were played in 42 evaluations: DR3-CQL"
    writer = new_run()
    for seed in range(2):
        override = {"episode_return_mean": np.full(21, value)}
        writer.add(seed=seed, environment="gymnasium:CartPole-v1", override=override)
    run = read_tables(writer.write())
    assert any(note.startswith(said) for note in notes(run, summarize(run)))
    assert not any("for want of rollouts" in note for note in notes(run, summarize(run)))


def test_runs_that_ended_without_their_rows_are_told(new_run):
    writer = new_run()
    writer.add(seed=0)
    writer.add(seed=1, upto=10_000)
    run = read_tables(writer.write())
    (said,) = [note for note in notes(run, summarize(run)) if "lack rows" in note]
    assert said.startswith(f"1 runs that have ended lack rows: `dr3-ray sweep --resume {run.path}` brings them back")


def test_a_run_that_was_not_evaluated_says_so(new_run):
    writer = new_run()
    writer.add("pending", upto=-1)
    run = read_tables(writer.write())
    assert any(note.startswith("No returns, as no run was evaluated yet") for note in notes(run, summarize(run)))


def test_a_report_that_fails_says_that_the_results_are_safe(torn, capsys):
    (torn / "report").write_text("in the way")
    with sweeping.results_are_safe([torn], f"dr3-ray report {torn}"):
        sweeping.show_report(torn)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: the results are safe in {torn}, but showing them failed (")
    assert line.endswith(f"dr3-ray report {torn} tries again")
