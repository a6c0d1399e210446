"""The interactive part of the page: its data, its library, and what it does in a real browser."""

import base64
import hashlib
import json
import re
from importlib import resources

import numpy as np
import pytest

from dr3_ray.errors import UserError
from dr3_ray.report import write_report
from dr3_ray.report.judging import judge_datasets
from dr3_ray.report.pages import PLOTLY
from dr3_ray.report.reader import read_tables
from dr3_ray.report.searching import importances, selections
from dr3_ray.report.tables import outcomes, summarize
from dr3_ray.stats import bootstrap_band, iqm
from tests.report.browser import browser

PLOTLY_SHA256 = (
    "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"  # plotly.js-basic-dist-min 4.1.1 of npm
)
COEFFICIENTS = (0.0, 1e-2, 1e-1)
HOSTILE = "</script><b onmouseover=alert(1)>&amp; <!--"


def data_of(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1]
    return json.loads(text)


def curves_of(data, name):
    return np.frombuffer(base64.b64decode(data["curves"][name]), "<f4").reshape(-1, data["points"])


@pytest.fixture(scope="module")
def grid(tmp_path_factory, run_writer):
    """Two values of an axis, one of them hostile to HTML, by three coefficients and three seeds; one run diverged."""
    writer = run_writer(tmp_path_factory.mktemp("runs") / "grid", axes=("dr3_coeff", "note"))
    for note in (HOSTILE, "plain"):
        for c in COEFFICIENTS:
            for seed in range(3):
                diverged = note == "plain" and c == 0.0 and seed == 2
                level = {"episode_return_mean": np.linspace(0, 1 + 10 * c + (note == "plain"), 21) + seed / 10}
                status, upto = ("diverged", 9_000) if diverged else ("finished", 20_000)
                override = {} if diverged else level
                writer.add(status, upto=upto, dr3_coeff=c, seed=seed, note=note, override=override)
    return writer.write()


@pytest.fixture(scope="module")
def page(grid):
    return write_report(grid).page


def test_the_library_is_the_one_that_was_published_small_and_licensed():
    folder = resources.files("dr3_ray.report") / "scripts"
    library = (folder / PLOTLY).read_bytes()
    assert hashlib.sha256(library).hexdigest() == PLOTLY_SHA256
    assert b"v4.1.1" in library[:200] and len(library) < 1_500_000
    assert b"</script" not in library and b"</script" not in (folder / "page.js").read_bytes()
    assert "MIT License" in (folder / "LICENSE.plotly").read_text()


def test_names_are_data_and_end_no_script(page):
    source = page.read_text()
    assert source.count("<script") == source.count("</script>") == 3
    assert HOSTILE not in source
    assert HOSTILE in {value for table in data_of(page)["tables"] for value in table["values"]}


def test_the_curves_on_the_page_are_those_of_the_histories(grid, page):
    data, histories = data_of(page), read_tables(grid).histories
    table = next(table for table in data["tables"] if "plain" in table["values"])
    assert table["steps"] == list(range(0, 20_001, 1_000))
    for name in ("episode_return_mean", "dot_product", "td_error"):
        for place in range(table["count"]):
            own = histories[histories["member"] == data["members"]["member"][table["start"] + place]]
            curve = curves_of(data, name)[table["row"] + place]
            np.testing.assert_allclose(curve[: len(own)], own[name], rtol=1e-6)
            assert np.isnan(curve[len(own) :]).all()


def test_long_curves_are_thinned_evenly_and_keep_their_ends(new_run, monkeypatch):
    monkeypatch.setattr("dr3_ray.report.explorer.POINTS", (2, 6))
    writer = new_run()
    writer.add(override={"seem_eigenvalue": np.linspace(0, 2, 21)})  # which not every run has
    data = data_of(write_report(writer.write()).page)
    (table,) = data["tables"]
    assert table["steps"] == [0, 4_000, 8_000, 12_000, 16_000, 20_000]
    assert curves_of(data, "seem_eigenvalue").tolist() == pytest.approx(np.array([[0, 0.4, 0.8, 1.2, 1.6, 2.0]]))
    (final,) = (each["values"] for each in data["variables"] if each["key"] == "seem_eigenvalue_final")
    assert final == [2.0] and any(each["x"] == "seem_eigenvalue_final" for each in data["relations"])


def test_a_large_run_has_the_curves_of_its_best_tables(new_run, monkeypatch):
    monkeypatch.setattr("dr3_ray.report.explorer.CURVES", 3)
    writer = new_run(axes=("dr3_coeff", "tau"))
    for tau, level in ((0.1, 1), (0.2, 3), (0.3, 2)):
        for seed in range(2):
            writer.add(tau=tau, seed=seed, override={"episode_return_mean": np.full(21, float(level))})
    data = data_of(write_report(writer.write()).page)
    assert [table["values"][1] for table in data["tables"] if table["row"] is not None] == ["0.2"]
    assert data["settings"]["values"]["return_final"] == [1, 3, 2]


def searched(writer):
    run = read_tables(writer.write())
    summary = summarize(run)
    (judged,) = judge_datasets(run, summary, outcomes(run))
    return judged


def test_the_axis_that_decides_is_the_important_one(new_run):
    writer = new_run(axes=("dr3_coeff", "tau", "kind"))
    for place, tau in enumerate(np.geomspace(1e-4, 1, 8)):
        for kind in ("a", "b"):
            for c in COEFFICIENTS:
                writer.add(
                    tau=float(tau), kind=kind, dr3_coeff=c, override={"episode_return_mean": np.full(21, float(place))}
                )
    found = importances(searched(writer))
    assert {each.axis for each in found} == {"tau", "kind", "c₀"}
    assert found[0].axis == "tau" and found[0].share > 0.8
    assert sum(each.share for each in found) == pytest.approx(1)


def test_regret_is_what_the_chosen_setting_lacks(new_run):
    writer = new_run()
    for c, returned, dot in ((0.0, 1.0, 9.0), (0.1, 5.0, 3.0), (0.3, 4.0, 1.0)):
        same = {name: np.full(21, 1.0) for name in ("q_mean", "effective_rank", "td_error")}
        writer.add(
            dr3_coeff=c, override={"episode_return_mean": np.full(21, returned), "dot_product": np.full(21, dot)} | same
        )
    (found,) = selections(searched(writer))  # the other measures are level
    assert (found.criterion, found.pick) == ("lowest dot product", "c₀ = 0.3")
    assert found.regret.value == "1.00" and found.correlation.value == "0.500"


def test_few_settings_have_no_importance(grid):
    run = read_tables(grid)
    summary = summarize(run)
    (judged,) = judge_datasets(run, summary, outcomes(run))
    assert len(judged.rows) == 6 and importances(judged) == []


def diagnosis_of(run, place=0, **changes):
    """What `dr3-ray diagnose RUN --json` prints of a member, less what the page does not show."""
    row = read_tables(run).members.iloc[place]
    about = {"member": row.name, "dr3_coeff": row["dr3_coeff"], "seed": int(row["seed"])}
    verdict = [{"name": "dead units", "wrong": True}, {"name": "table", "wrong": False}]
    numbers = {"q_data": 3.5, "overestimation": 1.25, "dot_product": 2.0, "stable_rank": None}
    return {
        "about": about,
        "verdict": verdict,
        "probes": {"train": {"numbers": numbers, "spectrum": [4.0, 1.0, 0.5]}},
    } | changes


def test_diagnoses_beside_a_run_stand_on_its_page(torn):
    (torn / "diagnoses").mkdir()
    (torn / "diagnoses" / "one.json").write_text(json.dumps(diagnosis_of(torn)))
    page = write_report(torn).page
    (spectrum,) = data_of(page)["spectra"]
    assert spectrum["values"] == [4.0, 1.0, 0.5]
    row = re.search(r"<h2>Diagnosed critics.*?<tbody>(.*?)</tbody>", page.read_text(), re.DOTALL)[1]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert cells[1:7] == ["0", "0", "dead units", "3.50", "1.25", "2.00"]


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"about": {}}', "null", "[" * 100_000, '"seed": 1e999', '"seed": Infinity', '"seed": "x"',
        '"dr3_coeff": 1' + "0" * 400, '"dr3_coeff": NaN', "[4.0, NaN]", "[4.0, 1e999]", "[[4.0]]", '"stable_rank": {}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_diagnosis_is_named(torn, text):
    (torn / "diagnoses").mkdir()
    if (found := re.match(r'"\w+": |\[[4\[].*', text)) is not None:  # it stands in place of what is right
        old = re.escape(found[0]) + "[^,}]+" if found[0][0] == '"' else r"\[4[^]]*\]"
        text, count = re.subn(old, lambda _: text, json.dumps(diagnosis_of(torn)))
        assert count == 1
    (torn / "diagnoses" / "bad.json").write_text(text)
    with pytest.raises(UserError, match=r"bad.json is not what `dr3-ray diagnose RUN --json` prints"):
        write_report(torn)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.mark.slow
def test_a_real_browser_explores_and_asks_for_nothing(tab, page, grid):
    tab.resize(1280, 900)
    tab.open(page)
    assert tab.requests() == [page.as_uri()] and tab.complaints() == []
    data = data_of(page)
    run = read_tables(grid)
    own = run.histories[(run.histories["note"] == data["tables"][0]["values"][1]) & (run.histories["dr3_coeff"] == 0.1)]
    band = bootstrap_band(own.pivot(index="member", columns="step", values="episode_return_mean"))
    named = "document.querySelector('#plot').data.filter((trace) => trace.name)"
    assert tab.run(f"{named}.map((trace) => trace.name)") == ["c₀ = 0", "c₀ = 0.01", "c₀ = 0.1"]
    np.testing.assert_allclose(tab.run(f"{named}[2].y"), band.value, rtol=1e-5, atol=1e-6)
    tab.click("#chips button[data-coefficient='0.01']")
    assert tab.run(f"{named}.map((trace) => trace.name)") == ["c₀ = 0", "c₀ = 0.1"]
    before = tab.run("document.querySelector('#plot').data.length")
    tab.click("#singles")
    assert tab.run("document.querySelector('#plot').data.length") == before + 6
    tab.choose("#quantity", "dot_product")
    assert tab.run("document.querySelector('#plot').layout.yaxis.type") == tab.run(
        "document.querySelector('#scale').value"
    )
    tab.choose("#scale", "log")
    assert tab.run("document.querySelector('#plot').layout.yaxis.type") == "log"
    tab.click("#views button[value=coefficient]")
    middles = tab.run("document.querySelector('#plot').data[0].y")
    shown = run.histories[run.histories["note"] == data["tables"][0]["values"][1]].groupby(["dr3_coeff", "member"])
    finals = shown["episode_return_mean"].last()
    np.testing.assert_allclose(middles, [iqm(finals[c]) for c in (0.0, 0.1)], rtol=1e-5)
    tab.click("#views button[value=relation]")
    options = tab.run("[...document.querySelector('#relation').options].map((option) => [option.text, option.value])")
    place = dict(options)["Unlearning: final against best return"]
    tab.choose("#relation", place)
    assert "best evaluation" in tab.run("document.querySelector('#caption').textContent")
    assert tab.requests() == [page.as_uri()] and tab.complaints() == []


@pytest.mark.slow
def test_hostile_names_are_text_in_the_figure_and_in_the_overview(tab, page):
    tab.resize(1280, 900)
    tab.open(page)
    assert tab.run("document.querySelectorAll('main b, main [onmouseover]').length") == 0
    assert HOSTILE in tab.run("document.querySelector('#ranked').textContent")
    place = next(place for place, table in enumerate(data_of(page)["tables"]) if HOSTILE in table["values"])
    tab.choose("#table", f"t{place}")
    tab.click("#singles")
    x, y = tab.run(
        "(() => { const p = document.querySelector('#plot'), t = p.data.find((t) => t.name), l = p._fullLayout;"
        "p.scrollIntoView(); const r = p.getBoundingClientRect(), last = t.x.length - 1;"
        "return [r.x + l.xaxis._offset + l.xaxis.l2p(t.x[last]), r.y + l.yaxis._offset + l.yaxis.l2p(t.y[last])]; })()"
    )
    tab("Input.dispatchMouseEvent", type="mouseMoved", x=x - 3, y=y)
    tab.until("document.querySelector('#plot .hoverlayer text') !== null")
    assert "c₀ = 0" in tab.run("document.querySelector('#plot .hoverlayer').textContent")
    assert tab.run("document.querySelectorAll('main b, main [onmouseover]').length") == 0
    assert tab.complaints() == []


@pytest.mark.slow
def test_tables_are_sorted_by_a_click_on_their_heads(tab, page):
    tab.resize(1280, 900)
    tab.open(page)
    column = "[...document.querySelectorAll('#ranked tbody tr')].map((row) => parseFloat(row.cells[4].textContent))"
    ordered = tab.run(column)
    assert len(ordered) == 6 and ordered == sorted(ordered, reverse=True)
    tab.click("#ranked th:nth-child(5)")
    assert tab.run(column) == sorted(ordered)
    tab.click("#ranked th:nth-child(5)")
    assert tab.run(column) == sorted(ordered, reverse=True)


@pytest.mark.slow
def test_a_print_has_the_pictures_and_nothing_that_needs_a_hand(tab, page, tmp_path):
    tab.resize(1280, 900)
    tab.open(page)
    shown = "[...document.querySelectorAll('%s')].map((e) => getComputedStyle(e).display !== 'none')"
    assert not any(tab.run("[...document.querySelectorAll('details.pictures')].map((e) => e.open)"))
    tab.run("window.dispatchEvent(new Event('beforeprint'))")
    tab("Emulation.setEmulatedMedia", media="print")
    assert all(tab.run("[...document.querySelectorAll('details.pictures')].map((e) => e.open)"))
    assert not any(tab.run(shown % ".live")) and all(tab.run(shown % "figure"))
    heights = tab.run("[...document.querySelectorAll('figure')].map((e) => e.getBoundingClientRect().height)")
    assert 2 * max(heights) < (297 - 2 * 14) * 96 / 25.4  # two on the page within its margins
    tab("Emulation.setEmulatedMedia", media="")


@pytest.mark.slow
def test_more_coefficients_than_a_legend_holds_have_a_bar(tab, new_run):
    writer = new_run()
    for c in (0.0, *np.geomspace(1e-3, 1, 29)):
        writer.add(dr3_coeff=float(c))
    tab.resize(1280, 900)
    tab.open(write_report(writer.write()).page)
    assert tab.run("document.querySelector('#plot .infolayer .cbtitle').textContent") == "c₀"
    assert tab.run("document.querySelector('#plot').data.filter((trace) => trace.name).length") == 30
    tab.resize(390, 900, dark=True)
    tab.until("document.querySelector('#plot').layout.paper_bgcolor === '#14171c'")
    assert tab.complaints() == []
    tab.choose("#c-from", "20")
    assert tab.run("document.querySelector('#plot').data.filter((trace) => trace.name).length") == 10


@pytest.mark.slow
def test_a_thousand_members(tab, tmp_path, run_writer):
    writer = run_writer(tmp_path / "thousand", axes=("dr3_coeff", "tau", "batch_size"))
    for tau in (0.001, 0.005, 0.01, 0.05, 0.1):
        for size in (32, 64, 128, 256, 512):
            for c in (0.0, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0):
                for seed in range(5):
                    writer.add(dr3_coeff=c, seed=seed, tau=tau, batch_size=size)
    run = writer.write()
    page = write_report(run).page  # how long that takes is in benchmarks/scale.py
    tab.resize(1280, 900)
    tab.open(page)
    assert tab.requests()[-1] == page.as_uri() and tab.complaints() == []
    assert tab.run("document.querySelector('#count').textContent") == "200 of 200 settings"
    tab.click("#filter")
    tab("Input.insertText", text="c₀=0.03 tau=0.01")
    assert tab.run("document.querySelector('#count').textContent") == "5 of 200 settings"
    assert set(
        tab.run("[...document.querySelectorAll('#ranked tbody tr')].map((row) => row.cells[3].textContent)")
    ) == {"0.03"}
    for width in (390, 800, 1280):
        for dark in (False, True):
            tab.resize(width, 900, dark)
            tab.until(f"document.documentElement.scrollWidth === {width}")  # once the figures have followed
            assert tab.run("getComputedStyle(document.body).backgroundColor") == (
                "rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)"
            )
    tab.resize(390, 900)
    tab.run("document.querySelector('table.summary').parentElement.scrollLeft = 200")
    left = "document.querySelector('table.summary tbody td').getBoundingClientRect().left"
    assert tab.run(left) == tab.run(
        "document.querySelector('table.summary').parentElement.getBoundingClientRect().left"
    )
