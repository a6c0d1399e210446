"""The page as a parser and as a real browser see it."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from dr3_ray.data import Provenance, SpaceSpec, episode_columns, load_dataset, write_dataset
from dr3_ray.errors import UserError
from dr3_ray.report import html, write_report
from dr3_ray.report.lines import LEGEND, key, line, palette
from dr3_ray.report.reader import read_tables
from dr3_ray.report.tables import cell, columns, outcomes, summarize
from dr3_ray.report.verdict import judge
from tests.report.browser import QUIET, program

COEFFICIENTS = (0.0, 1e-2, 1e-1)


class Page(HTMLParser):
    """Links, tags and visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.tags, self.texts, self.hidden = [], [], [], 0
        self.scripts = []
        self.feed(path.read_text())
        self.source = path.read_text()
        for script in self.scripts:
            self.source = self.source.replace(script, "")
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]
        self.hidden += tag in ("style", "script")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data):
        if not self.hidden:
            self.texts.append(data)
        elif self.tags[-1] == "script":
            self.scripts.append(data)


@pytest.fixture(scope="module")
def messy(tmp_path_factory, run_writer):
    """Two data sets, one of them without returns; runs of every status; names that HTML could trip over."""
    writer = run_writer(tmp_path_factory.mktemp("runs") / "messy", axes=("dataset", "dr3_coeff"))
    trouble = {("/data/a", 0.0, 1): ("diverged", "loss <critic> is not finite & never was", 9_000),
               ("/data/a", 1e-2, 0): ("failed", "RuntimeError: out of memory\non line two", 4_000),
               ("/data/a", 1e-1, 1): ("pending", None, -1)}  # fmt: skip
    for dataset in ("/data/a", "/data/b"):
        for c in COEFFICIENTS:
            for seed in range(2):
                status, error, upto = trouble.get((dataset, c, seed), ("finished", None, 20_000))
                override = {"episode_return_mean": np.full(21, np.nan)} if dataset == "/data/b" else {}
                writer.add(status, error, upto, dataset=dataset, dr3_coeff=c, seed=seed, override=override)
    none = {"episode_return_mean": np.full(3, np.nan)}
    writer.add("running", None, 2_000, dataset="/data/b", dr3_coeff=0.0, seed=7, override=none)
    return writer.write()


@pytest.fixture(scope="module")
def page(messy):
    return Page(write_report(messy).page)


@pytest.fixture(scope="module")
def demo_page(demo):
    return write_report(demo).page


def test_the_page_needs_nothing_but_itself(page):
    assert all(link.startswith("#") or re.fullmatch(r"[\w.-]+\.(png|csv)", link) for link in page.links)
    assert page.tags.count("script") == len(page.scripts) == 3  # its data, plotly, and its own
    assert not {"link", "img", "iframe", "object", "base"} & set(page.tags)
    assert not re.search(r"url\((?!#)|@import", page.source)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts[1:]]
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digests[0]}' 'sha256-{digests[1]}'; "
    assert f'content="{policy}img-src data: blob:"' in page.source
    assert page.source.count("<svg ") == page.tags.count("svg") == 10  # 4 without returns, 6 with them


def test_every_link_leads_to_a_file_beside_the_page(page, messy):
    beside = {link for link in page.links if not link.startswith("#")}
    assert beside == {path.name for path in (messy / "report").iterdir()} - {"report.html"}
    for png in (messy / "report").glob("*.png"):
        with Image.open(png) as image:
            assert image.width > 800
            assert image.convert("L").getextrema()[0] < 100 < image.convert("L").getextrema()[1]


def test_every_run_is_named_with_its_status_and_its_error(page, messy):
    for member, row in read_tables(messy).members.iterrows():
        start = page.text.index(member)
        line = page.text[start : start + 300].split("DR3-CQL")[0]
        assert line.split() == [member, row["status"]]
        assert row["error"] in page.text[start : start + 300]
    for chip in ("13 runs", "9 finished", "1 diverged", "1 failed", "1 pending", "1 running"):
        assert chip in page.text
    assert "1 diverged and 1 failed of 13 runs are left out" in page.text


def test_the_numbers_on_the_page_are_those_of_the_summary(page, messy):
    summary = summarize(read_tables(messy))
    for _, rows in summary.groupby("dataset"):
        for _, row in rows.iterrows():
            texts = [" ".join(cell(row, key)).strip() for key in columns(rows)]
            assert " ".join(" ".join(texts).split()) in page.text
    saved = pd.read_csv(messy / "report" / "summary.csv")
    pd.testing.assert_frame_equal(saved, summary, check_dtype=False)


def test_curves_are_inside_their_pictures(page):
    """Every curve of the first picture lies within its view box."""
    svg = re.search(r"<svg .*?</svg>", page.source, re.DOTALL)[0]
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    points = np.array(re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", svg), dtype=float)
    assert len(points) > 100
    assert points.max(axis=0)[0] <= width
    assert points.max(axis=0)[1] <= height
    assert "font-family" not in svg
    assert "#" not in re.sub(r"url\(#\w+\)|href=\"#\w+\"|id=\"\w+\"", "", svg).replace("&#", "")


def test_without_returns_there_is_a_note_instead_of_figures(page, messy):
    assert "No returns, for want of rollouts in an environment: DR3-CQL · b." in page.text
    names = {path.stem for path in (messy / "report").glob("*b-*.png")}
    assert names == {f"dr3-cql-b-{each}" for each in ("dot-product", "effective-rank", "mean-q", "cosine")}


def test_command_versions_and_specification_are_there_to_the_letter(page):
    assert """dr3-ray sweep --algorithm DR3-CQL --name 'it'"'"'s a <run>'""" in page.text
    assert "torch 2.13.0" in page.text
    assert '"seeds": 3' in page.text


@pytest.mark.slow
def test_the_page_begins_with_the_verdict_over_all_tables_and_links_to_them(new_run):
    writer = new_run(axes=("dr3_coeff", "batch_size", "tau"))
    for size in (8, 16):
        for tau in (0.1, 0.2, 0.3):
            for c in COEFFICIENTS:
                for seed in range(2):
                    writer.add(dr3_coeff=c, seed=seed, batch_size=size, tau=tau)
    page = Page(write_report(writer.write()).page)
    verdict = page.text.index("Verdict: DR3-CQL · breakout-replay")
    assert verdict < page.text.index("Tables") < page.text.rindex("How to")
    assert "The 10 best of 18 settings by final return" in page.text
    anchors = [link.removeprefix("#") for link in page.links if link.startswith("#dr3")]
    assert len(anchors) == 10 + 6 and len(set(anchors)) == 6
    assert all(page.source.count(f'id="{anchor}"') == 1 for anchor in anchors)


@pytest.mark.slow
def test_the_terminal_prints_the_verdict_and_ten_settings(new_run):
    writer = new_run(axes=("dr3_coeff", "tau"))
    for tau in range(1, 9):
        for c in COEFFICIENTS:
            writer.add(dr3_coeff=c, tau=tau / 10)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(write_report(writer.write()).table)
    text = console.export_text()
    assert "the 10 highest final returns of 24 settings" in text
    assert len(text.splitlines()) < 50 and text.index("settings are tied") < text.index("highest final returns")


@pytest.mark.parametrize(("count", "bars"), [(8, 0), (9, 9), (30, 30)])
def test_more_coefficients_than_a_legend_holds_have_a_bar_of_colours(new_run, count, bars):
    coefficients = [0.0, *np.geomspace(1e-3, 1, count - 1).tolist()]
    colours = palette(coefficients)
    figure = Figure(figsize=(4.8, 3.3))
    key(figure, 0.4, coefficients, colours)
    drawn = [to_hex(patch.get_facecolor()) for axes in figure.axes for patch in axes.patches]
    assert drawn == [colours[c] for c in coefficients][:bars]
    labels = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    assert labels == [] if not bars else labels[0] == "c₀ = 0" and labels[-1] == "1" and len(labels) == 6


def test_no_two_curves_look_alike_in_grey():
    colours = palette([0.0, *np.geomspace(1e-3, 1, LEGEND - 1).tolist()])
    looks = {(str(look["linestyle"]), look["marker"]) for look in (line(c, colours) for c in colours)}
    assert len(looks) == LEGEND
    assert len({look["marker"] for look in (line(c, colours) for c in colours)}) == LEGEND


def test_the_verdict_of_each_table_stands_above_it(demo, demo_page):
    page = Page(demo_page)
    run = read_tables(demo)
    sentences = judge(summarize(run), outcomes(run)).sentences
    assert len(sentences) >= 3
    for sentence in sentences:
        assert " ".join(sentence.split()) in page.text
    assert "All 18 runs finished" in page.text


def test_a_second_command_in_the_same_directory_is_shown_too(new_run):
    writer = new_run()
    writer.add("pending", upto=-1)
    info = json.loads((writer.write() / "run.json").read_text())
    info["history"] = [{"command": ["dr3-ray", each]} for each in ("demo", "sweep", "demo")]
    (writer.path / "run.json").write_text(json.dumps(info))
    assert "dr3-ray demo dr3-ray sweep Versions" in Page(write_report(writer.path).page).text


def test_the_page_follows_a_sweep_that_goes_on(new_run):
    writer = new_run()
    writer.add("running", upto=-1)
    path = write_report(writer.write()).page
    assert "none of these runs has been evaluated" in Page(path).text
    shutil.rmtree(writer.path)
    writer.records.clear()
    writer.add("running", upto=3_000)
    text = Page(write_report(writer.write()).page).text
    assert "0*" in text
    assert "3,000" in text


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    columns = episode_columns(rng.normal(size=(6, 2)), rng.uniform(-1, 1, (5, 1)), np.ones(5), terminated=True,
                              truncated=False, episode_id=0, gamma=0.9)  # fmt: skip
    provenance = Provenance(source="made up", licence="CC0-1.0", command="make data", notes=("Five steps only.",))
    spaces = {"observation_space": SpaceSpec.box(-9, 9, (2,)), "action_space": SpaceSpec.box(-1, 1, (1,))}
    write_dataset(tmp_path / "toy", [columns], **spaces, gamma=0.9, name="toy", provenance=provenance)
    return tmp_path / "toy"


def test_the_data_are_described_where_they_are_still_the_same(new_run, dataset):
    writer = new_run()
    writer.add(dataset=str(dataset), data_fingerprint=load_dataset(dataset).fingerprint)
    text = Page(write_report(writer.write()).page).text
    for fact in ("5 steps of 1 episodes", "made up", "CC0-1.0", "make data", "Five steps only."):
        assert fact in text


def test_other_data_in_the_same_place_are_not_passed_off_as_the_ones_used(new_run, dataset):
    writer = new_run()
    writer.add(dataset=str(dataset), data_fingerprint="0123")
    text = Page(write_report(writer.write()).page).text
    assert "fingerprint 0123" in text
    assert "other data lie there now" in text
    assert "made up" not in text


def test_data_that_are_gone_are_said_to_be_gone(page):
    assert page.text.count("unknown, as the data set cannot be opened here") == 2


def test_a_large_sweep_has_figures_for_its_highest_returns_and_the_rest_in_files(new_run, monkeypatch):
    monkeypatch.setattr(html, "DRAWN", 2)
    monkeypatch.setattr(html, "LISTED", 3)
    writer = new_run(axes=("dr3_coeff", "tau"))
    for dataset, tau, level in (("/data/a", 0.1, 5), ("/data/a", 0.2, 6), ("/data/b", 0.1, 1), ("/data/b", 0.2, 0)):
        returns = {"episode_return_mean": np.full(21, float(level))}
        writer.add(dataset=dataset, tau=tau, override=returns)
    page = Page(write_report(writer.write()).page)
    assert page.source.count("<svg ") == 2 * 5
    assert {link.partition("-return")[0] for link in page.links if link.endswith("-return.png")} == {
        "dr3-cql-a-tau-0.2", "dr3-cql-b-tau-0.1",
    }  # fmt: skip
    assert "2 of 4 tables have no figures" in page.text
    assert "4 finished runs" in page.text and "1 more are in runs.csv" in page.text
    assert sorted(pd.read_csv(writer.path / "report" / "runs.csv")["return_final"]) == [0, 1, 5, 6]


def test_a_directory_that_is_no_run_gets_no_report(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_written_is_said_so(new_run):
    writer = new_run()
    writer.add("pending", upto=-1)
    (writer.write() / "report").write_text("in the way")
    with pytest.raises(UserError, match=r"summary.csv cannot be written \(File exists\)"):
        write_report(writer.path)


def test_colours_are_distinct_ordered_in_lightness_and_dark_enough_for_white():
    colours = palette([0.0, *np.geomspace(1e-4, 10, 8)])
    assert len(set(colours.values())) == 9
    light = [np.dot([0.2126, 0.7152, 0.0722], luminance(colour)) for c, colour in colours.items() if c]
    assert light == sorted(light)
    assert 1.05 / (light[-1] + 0.05) > 2


def luminance(colour):
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def chromium(tmp_path, page, *options):
    command = [program(), "--headless", *(f"--{each}" for each in QUIET), f"--user-data-dir={tmp_path}/profile"]
    return subprocess.run([*command, *options, page.as_uri()], capture_output=True, timeout=120, check=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(1280, 2400), (390, 2400)])
def test_a_real_browser_shows_the_page(demo, demo_page, tmp_path, width, height):
    shot = tmp_path / "page.png"
    chromium(tmp_path, demo_page, f"--screenshot={shot}", f"--window-size={width},{height}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape == (height, width, 3)
    assert (pixels[5, 5] == 255).all()  # a white margin
    for colour in palette(read_tables(demo).coefficients).values():
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(pixels - wanted).max(axis=2) < 12).sum() > 100, f"no curve in {colour}"


@pytest.mark.slow
def test_a_real_browser_finds_every_member_and_picture(messy, page, tmp_path):
    dom = chromium(tmp_path, messy / "report" / "report.html", "--dump-dom").stdout
    assert dom.count('role="img"') == 10
    assert all(member in dom for member in read_tables(messy).members.index)
    assert "loss &lt;critic&gt; is not finite &amp; never was" in dom
