"""The summary against the same numbers worked out from the histories by other means."""

import re
from io import StringIO
from itertools import product

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from dr3_ray.report.printed import best_table, summary_table
from dr3_ray.report.reader import read_tables
from dr3_ray.report.tables import cell, notes, number, outcomes, summarize


def terminal(run_dir, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    run = read_tables(run_dir)
    console.print(summary_table(run, summarize(run)))
    return console.export_text()


def flat(values):
    """A history that stays at each of its values for the whole of training."""
    return {"episode_return_mean": np.full(21, float(values))}


def summary_of(writer):
    run = read_tables(writer.write())
    return run, summarize(run)


def test_numbers_equal_those_computed_from_the_file(demo):
    rows = pq.read_table(demo / "histories.parquet").to_pylist()
    summary = summarize(read_tables(demo)).set_index("dr3_coeff")
    columns = {"return": "episode_return_mean", "dot_product": "dot_product", "effective_rank": "effective_rank"}
    for (measure, column), coefficient in product({**columns, "q_mean": "q_mean"}.items(), summary.index):
        finals, averages = [], []
        for seed in range(3):
            curve = [row[column] for row in rows if (row["dr3_coeff"], row["seed"]) == (coefficient, seed)]
            finals.append(curve[-1])
            averages.append((sum(curve) - (curve[0] + curve[-1]) / 2) / 20)  # 20 equal steps: the trapezoid rule
        row = summary.loc[coefficient]
        assert row[f"{measure}_final"] == pytest.approx(sum(finals) / 3)
        assert row[f"{measure}_average"] == pytest.approx(sum(averages) / 3)
        assert (row[f"{measure}_final_low"], row[f"{measure}_final_high"]) == pytest.approx((min(finals), max(finals)))
        assert (row["runs"], row[f"{measure}_final_n"], row["step"]) == (3, 3, 20_000)


def test_eight_runs_give_the_mean_of_the_middle_four(new_run):
    writer = new_run()
    for seed, value in enumerate([100, 1, 2, 3, 4, 5, 6, -100]):
        writer.add(seed=seed, override=flat(value))
    _, summary = summary_of(writer)
    row = summary.iloc[0]
    assert row["return_final"] == row["return_average"] == 3.5
    assert row["return_final_mean"] == pytest.approx(21 / 8)
    assert row["return_final_median"] == 3.5


def test_the_last_measured_value_is_final_and_an_infinite_one_is_left_out(new_run):
    writer = new_run()
    late = np.append(np.full(20, 1.0), np.nan)
    writer.add(seed=0, override={"episode_return_mean": late})
    writer.add(seed=1, override={"dot_product": np.append(np.ones(20), np.inf)})
    _, summary = summary_of(writer)
    row = summary.iloc[0]
    assert row["return_final_low"] == 1
    assert (row["runs"], row["dot_product_final_n"], row["dot_product_average_n"]) == (2, 1, 1)
    assert cell(row, "dot_product_final").detail == "1 run"


def test_improvement_pairs_seeds_at_the_same_step_with_coefficient_0(new_run):
    writer = new_run()
    for seed, (base, better) in enumerate([(1, 2), (1, 2), (3, 2), (5, 5)]):
        writer.add(seed=seed, override=flat(base))
        writer.add(seed=seed, dr3_coeff=0.1, override=flat(better))
    writer.add(seed=9, dr3_coeff=0.1, override=flat(100))
    _, summary = summary_of(writer)
    base, better = (row for _, row in summary.iterrows())
    assert np.isnan(base["improvement"])
    assert base["improvement_n"] == 0
    assert (better["improvement"], better["improvement_n"]) == (2.5 / 4, 4)


def test_a_run_further_on_is_not_compared_with_one_behind(new_run):
    writer = new_run()
    writer.add(seed=0)
    writer.add("running", seed=0, dr3_coeff=0.1, upto=5_000)
    assert summary_of(writer)[1]["improvement_n"].tolist() == [0, 0]


def test_only_finished_runs_count_once_there_is_one(new_run):
    writer = new_run()
    writer.add(seed=0, override=flat(1))
    writer.add("running", seed=1, upto=5_000)
    for seed, upto in ((0, 3_000), (1, 7_000), (2, -1)):
        writer.add("running", dr3_coeff=0.1, seed=seed, upto=upto)
    run, summary = summary_of(writer)
    assert summary["runs"].tolist() == [1, 2]
    assert summary["interim"].tolist() == [False, True]
    assert summary["step"].tolist() == [20_000, 3_000]
    assert any("4 of 5 runs are not finished" in note and "*" in note for note in notes(run, summary))


def test_failed_and_diverged_runs_are_left_out_counted_and_mentioned(new_run):
    writer = new_run()
    writer.add(seed=0, override=flat(2))
    writer.add("diverged", "loss critic is not finite", seed=1, upto=5_000)
    writer.add("failed", "out of memory", seed=2, upto=-1)
    writer.add("pending", seed=3, upto=-1)
    run, summary = summary_of(writer)
    row = summary.iloc[0]
    assert row[["members", "runs", "finished", "diverged", "failed", "pending"]].tolist() == [4, 1, 1, 1, 1, 1]
    assert row["return_final"] == 2
    assert any(note.startswith("1 diverged and 1 failed of 4 runs are left out") for note in notes(run, summary))


def test_a_setting_that_was_cut_is_marked_and_what_else_was_cut_is_left_out(new_run):
    writer = new_run()
    writer.add(seed=0, override=flat(1))
    writer.add("cut", seed=1, upto=3_000)
    for seed, upto in ((0, 3_000), (1, 7_000), (2, 7_000)):
        writer.add("cut", dr3_coeff=0.1, seed=seed, upto=upto)
    run, summary = summary_of(writer)
    assert summary["cut"].tolist() == [1, 3]
    assert summary["runs"].tolist() == [1, 2]  # of the second those that came furthest
    assert summary["cut_short"].tolist() == [False, True]
    assert summary["step"].tolist() == [20_000, 7_000]
    assert summary["improvement_n"].tolist() == [0, 0]
    said = " ".join(notes(run, summary))
    assert "2 runs that were cut are left out, which flatters" in said
    assert "Halving cut all runs of the settings marked †" in said
    assert "0.1†" in terminal(run.path)


def test_members_without_any_history_leave_an_empty_but_whole_table(new_run):
    writer = new_run()
    writer.add("failed", "broken", upto=-1)
    writer.add("pending", dr3_coeff=0.1, upto=-1)
    run, summary = summary_of(writer)
    assert summary["runs"].tolist() == [0, 0]
    assert not outcomes(run)["counted"].any()
    assert "0/1" in terminal(run.path)


def test_settings_are_summarised_apart(new_run):
    writer = new_run(axes=("algorithm", "dataset", "cql_alpha", "dr3_coeff"))
    settings = list(product(("DR3-CQL", "DR3-DQN"), ("embedded:a", "/data/b"), (0.1, 1.0), (0.0, 0.1)))
    for value, (algorithm, dataset, alpha, c) in enumerate(settings):
        writer.add(algorithm=algorithm, dataset=dataset, cql_alpha=alpha, dr3_coeff=c, override=flat(value))
    run, summary = summary_of(writer)
    keys = ["algorithm", "dataset", "cql_alpha", "dr3_coeff"]
    found = {tuple(row[key] for key in keys): row["return_final"] for _, row in summary.iterrows()}
    assert found == {(a, d, str(alpha), c): value for value, (a, d, alpha, c) in enumerate(settings)}
    text = terminal(run.path)
    assert text.count("eff.") == 8
    assert "DR3-DQN · b · cql_alpha 1.0" in text


def test_the_terminal_table_fits_80_characters_and_says_how_it_was_made(demo):
    text = terminal(demo)
    assert max(map(len, text.splitlines())) <= 80
    row = summarize(read_tables(demo)).iloc[3]
    line = next(line for line in text.splitlines() if line.strip().startswith("0.03 "))
    for key in ("return_final", "return_average"):
        assert " ".join(cell(row, key)).replace("\N{NO-BREAK SPACE}", " ") in line.replace("\N{NO-BREAK SPACE}", " ")
    for key in ("dot_product_final", "effective_rank_final", "q_mean_final"):
        assert cell(row, key).value in line
    assert "3/3" in line
    assert "Interquartile mean over 3 runs" in text
    assert "one run has no interval" in text


def test_intervals_stand_in_lines_of_their_own_where_a_table_would_be_too_wide(new_run):
    writer = new_run(axes=["algorithm"])
    for algorithm, seed in product(("DR3-CQL", "DR3-IQL"), range(3)):
        writer.add(algorithm=algorithm, seed=seed, override=flat(-1234.0 - seed))
    _, rows = summary_of(writer)
    for width, lines in ((80, 2), (200, 1)):
        console = Console(width=width, file=StringIO())
        console.print(best_table("both", rows, ["algorithm"]))
        text = console.file.getvalue()
        assert max(map(len, text.splitlines())) <= width
        finals = [line for line in text.splitlines() if re.search(r"-1,235|\[.*\]", line)]
        assert len(finals) == 2 * lines and all("-1,235" in line for line in finals[::lines])


def test_one_run_a_setting_is_not_told_of_intervals(new_run):
    writer = new_run()
    writer.add(override=flat(1.0))
    text = terminal(writer.write())
    assert "One run per setting, which has no interval." in text and "bootstrap" not in text


def test_without_an_environment_there_are_no_return_columns(new_run):
    writer = new_run()
    for coefficient in (0.0, 0.1):
        writer.add(dr3_coeff=coefficient, override=flat(np.nan))
    text = terminal(writer.write())
    assert "return" not in text.split("•")[0]
    assert "No returns" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (0.07, "0.0700"),
        (3.14159, "3.14"),
        (31.4159, "31.4"),
        (-314.159, "-314"),
        (31415.9, "31,416"),
        (2.5e9, "2.5e+09"),
        (2.5e-7, "2.5e-07"),
        (np.nan, "\N{EN DASH}"),
        (np.inf, "inf"),
    ],
)
def test_numbers_for_people(value, text):
    assert number(value) == text
