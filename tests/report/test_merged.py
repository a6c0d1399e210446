"""Runs side by side: those on the same data in one table, others apart, and none lost."""

import json
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest

from dr3_ray.cli.app import main
from dr3_ray.errors import UserError
from dr3_ray.report import write_report
from dr3_ray.report.judging import document, judge_datasets
from dr3_ray.report.merged import read_merged
from dr3_ray.report.papers import captions, latex, markdown
from dr3_ray.report.tables import notes, outcomes, summarize


@pytest.fixture
def write(run_writer, tmp_path):
    """Write a run of three seeds with these returns by coefficient."""

    def run(name, fingerprint, returns, dataset="/data/a", axes=("dr3_coeff",), **more):
        writer = run_writer(tmp_path / name, axes)
        for coefficient, level in returns.items():
            for seed in range(3):
                override = {"episode_return_mean": np.full(21, level + seed / 100)}
                config = {"dr3_coeff": coefficient, "seed": seed, "dataset": dataset, **more}
                writer.add(data_fingerprint=fingerprint, override=override, **config)
        return writer.write()

    return run


def judged(*paths):
    run = read_merged(paths)
    return judge_datasets(run, summarize(run), outcomes(run)), run


def test_runs_on_the_same_data_stand_in_one_table(write):
    """Though they call the data by other names, and one has an axis more."""
    one = write("one", "f" * 64, {0.0: 1.0, 0.1: 2.0})
    two = write("two", "f" * 64, {0.0: 5.0}, dataset="/elsewhere/a", axes=("dr3_coeff", "tau"), tau=0.5)
    (table,), run = judged(one, two)
    assert table.heading == "DR3-CQL · a"
    assert table.axes == ["run", "tau"] and len(table.rows) == 3
    assert table.verdict.best == "run two · tau 0.5 · c₀ = 0" and len(table.verdict.worse) == 2
    assert len(run.members) == run.members.index.nunique() == 9
    assert sorted(run.histories["member"].unique()) == sorted(run.members.index)


@pytest.mark.parametrize("dataset", ["/data/a", "/data/b"])
def test_other_data_are_never_mixed_whatever_their_name(write, dataset):
    one, two = write("one", "f" * 64, {0.0: 900.0, 0.1: 800.0}), write("two", "e" * 64, {0.0: 1.0, 0.1: 2.0}, dataset)
    (first, second), _ = judged(one, two)
    assert (first.verdict.best, second.verdict.best) == ("0", "0.1")
    assert len(first.rows) == len(second.rows) == 2 and first.heading != second.heading


def test_equal_names_give_way_to_paths_and_no_run_is_named_twice(write, tmp_path):
    one, two = write("x/run", "f" * 64, {0.0: 1.0}), write("y/run", "f" * 64, {0.0: 1.0})
    (table,), _ = judged(one, two)
    assert set(table.rows["run"]) == {str(one), str(two)}
    with pytest.raises(UserError, match="is named twice"):
        read_merged([one, one])
    with pytest.raises(UserError, match="is not a run directory"):
        read_merged([one, tmp_path / "nowhere"])


def test_the_page_and_the_files_of_several_runs(write, tmp_path):
    runs = [write(name, "f" * 64, {0.0: level, 0.1: 2.0}) for name, level in (("one", 1.0), ("two", 3.0))]
    report = write_report(*runs, out=tmp_path / "out", also=["md", "tex", "svg", "pdf"])
    page = report.page.read_text()
    assert page.index("Verdict: DR3-CQL · a") < page.index('<section id="dr3-cql-a-run-one">')
    assert '<a href="#dr3-cql-a-run-two">' in page
    names = {path.name for path in report.page.parent.iterdir()}
    figures = {name.removesuffix(".png") for name in names if name.endswith(".png")}
    assert figures and {f"{name}.{kind}" for name in figures for kind in ("svg", "pdf")} <= names
    pdf, svg = ((tmp_path / "out" / f"{min(figures)}.{kind}").read_bytes() for kind in ("pdf", "svg"))
    assert pdf.startswith(b"%PDF") and b"<svg" in svg and b"gradient updates" in svg
    told = (tmp_path / "out" / "captions.txt").read_text()
    assert {line.partition(":")[0] for line in told.splitlines()} == figures
    assert not list(runs[0].glob("report"))


def test_tables_for_papers_have_the_numbers_of_the_page(write):
    (table,), run = judged(write("a_b", "f" * 64, {0.0: 1.5, 0.1: 2.5}), write("c&d", "f" * 64, {0.0: 3.5}))
    text = markdown([table], notes(run, summarize(run)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3 and len({line.count("|") for line in lines}) == 1
    assert "| a_b | 0 | 3/3 | 1.51 [1.50,\N{NO-BREAK SPACE}1.52] |" in text
    tex = latex([table])
    assert r"a\_b & 0 & 3/3 & 1.51 [1.50,~1.52] &" in tex and r"c\&d" in tex and r"\toprule" in tex
    assert tex.isascii()
    assert captions([("n", "h", "t")]).startswith("n: h. t. ")


def test_json_says_what_the_verdict_says(write, capsys):
    one, two = write("one", "f" * 64, {0.0: 1.0, 0.1: 2.0}), write("two", "e" * 64, {0.0: np.inf})
    for runs in ([one], [one, two]):
        with pytest.raises(SystemExit) as end:
            main(["report", *map(str, runs), "--json"])
        assert not end.value.code
        said = json.loads(capsys.readouterr().out)
        first = said["datasets"][0]
        assert (first["best"], first["worse"], first["gain"]["n"]) == ("0.1", ["0"], 3)
        assert len(said["datasets"]) == len(runs) and len(first["settings"]) == 2
        assert first["verdict"][0].startswith("Take c₀ = 0.1: it returns 2.01")
    run = read_merged([one, two])
    assert json.loads(json.dumps(document(run, summarize(run), outcomes(run)), allow_nan=False)) == said
    assert not (one / "report").exists()


def test_what_is_written_by_commas_and_what_cannot_be_is_one_line(write, capsys):
    one = write("one", "f" * 64, {0.0: 1.0})
    with suppress(SystemExit):
        main(["report", str(one), "--also", "md,tex"])
    assert {"summary.md", "summary.tex"} <= {path.name for path in (one / "report").iterdir()}
    with pytest.raises(SystemExit) as end:
        main(["report", str(one), "--also", "docx"])
    assert end.value.code == 2
    assert "unknown kind of file 'docx': known are md, pdf, svg, tex" in capsys.readouterr().err


def test_status_needs_no_torch(write):
    """Nor pandas and matplotlib: it is asked for again and again."""
    heavy = "print([name for name in ('torch', 'pandas', 'matplotlib', 'ray') if name in sys.modules])"
    script = f"import sys; from dr3_ray.runs.status import read_status; from pathlib import Path; \
read_status(Path({str(write('one', 'f' * 64, {0.0: 1.0}))!r})); {heavy}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
