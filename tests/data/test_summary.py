"""What `info`, `list`, `check` and `plot` say, against plain counts."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.data import SpaceSpec, episode_columns, load_dataset, write_dataset
from dr3_ray.data.schema import Provenance
from dr3_ray.data.summary import BINS, SHARES, Spread, summarize

SEEN = SpaceSpec.box(-np.inf, np.inf, (2,))


@pytest.fixture
def written(tmp_path):
    """Writes episodes with these actions (a list for each episode) and rewards that count from 0."""

    def write(actions, space, name="data", observation_space=SEEN):
        rng = np.random.default_rng(0)
        episodes = [
            episode_columns(
                rng.normal(size=(len(each) + 1, *observation_space.shape)).astype(np.float32),
                np.asarray(each),
                np.arange(len(each), dtype=np.float32),
                terminated=True,
                truncated=False,
                episode_id=number,
                gamma=0.9,
            )
            for number, each in enumerate(actions)
        ]
        about = {"observation_space": observation_space, "action_space": space, "gamma": 0.9, "name": f"${name}$"}
        write_dataset(tmp_path / name, episodes, **about, provenance=Provenance(source="test"))
        return tmp_path / name

    return write


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_every_episode_is_in_one_bin(values):
    spread = Spread.of(np.asarray(values))
    assert sum(spread.counts) == len(values) and len(spread.edges) == len(spread.counts) + 1 <= BINS + 1
    assert spread.min == min(values) and spread.max == max(values)
    ordered = [spread.min, *spread.quantiles.values(), spread.max]
    assert ordered == sorted(ordered) and len(spread.quantiles) == len(SHARES)


def test_choices_are_counted_by_the_numbers_of_the_environment(written):
    path = written([[0, 0, 2], [0]], SpaceSpec.discrete(4, start=3))
    summary = summarize(load_dataset(path))
    assert summary.actions.counts == {3: 3, 4: 0, 5: 1, 6: 0}
    assert (summary.returns.min, summary.returns.max, summary.returns.mean) == (0.0, 3.0, 1.5)
    assert (summary.lengths.min, summary.lengths.max) == (1, 3)


def test_reach_is_told_in_the_units_of_the_environment(written, monkeypatch):
    monkeypatch.setattr("dr3_ray.data.summary.CHUNK", 8)  # a row at a time
    stored = np.float32([[-1, 0.5], [0, 0.25], [-0.9995, 0], [0.5, 1]])
    path = written([stored[:3], stored[3:]], SpaceSpec.box([0, -4], [10, 4], (2,)))
    coverage = summarize(load_dataset(path)).actions
    assert coverage.at_bounds == 0.75 and coverage.counts is None
    first, second = coverage.elements["actions[0]"], coverage.elements["actions[1]"]
    assert (first.low, first.high, first.min, first.max, first.at_low, first.at_high) == (0, 10, 0, 7.5, 0.5, 0)
    assert (second.low, second.high, second.min, second.max, second.at_low, second.at_high) == (-4, 4, 0, 4, 0, 0.25)


def test_ranges_of_elements(written):
    path = written([[0, 1, 1]], SpaceSpec.discrete(2))
    dataset = load_dataset(path)
    seen = dataset.stored(0, 3)["observations"]
    found = summarize(dataset).elements
    assert list(found) == ["observations[0]", "observations[1]"]
    assert [each.min for each in found.values()] == seen.min(0).tolist()
    assert [each.max for each in found.values()] == seen.max(0).tolist()


@pytest.mark.parametrize("observation", ["float32", "uint8", "bool", "dict"])
@pytest.mark.parametrize("action", ["box", "discrete"])
def test_info_is_text_and_json(make_dataset, cli, observation, action):
    path, rows = make_dataset(observation=observation, action=action)
    shown = cli("info", path, COLUMNS="200")
    assert shown.returncode == 0 and not shown.stderr
    for word in ("return", "steps", "histogram", "50%", "at one of its bounds" if action == "box" else "share"):
        assert word in shown.stdout, word
    assert "…" not in cli("info", path, COLUMNS="80").stdout.partition("episodes ")[2]  # no number is cut
    said = json.loads(cli("info", path, "--json").stdout)
    assert said["rows"] == 11 and said["episodes"] == 4 and said["gamma"] == 0.9 and said["length_of"] == "steps"
    assert said["fingerprint"] == load_dataset(path).fingerprint
    assert said["columns"]["rewards"]["max"] == rows["rewards"].max()
    assert sum(said["lengths"]["counts"]) == 4 and said["lengths"]["quantiles"]["0.5"] == 2.5
    if action == "discrete":
        assert said["actions"]["counts"] == {str(each): int((rows["actions"] == each).sum()) for each in range(4)}


def test_lengths_of_a_subsample_are_those_of_its_rows(make_dataset):
    path, rows = make_dataset(lengths=(30, 40), keep=0.5)
    summary = summarize(load_dataset(path))
    assert summary.length_of == "stored rows" and summary.lengths.mean * 2 == len(rows["rewards"])


def test_list_finds_what_lies_three_folders_deep(make_dataset, cli, tmp_path):
    for name in ("one", "a/b/two", "a/b/c/deep", ".hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        make_dataset(name)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("{}")
    said = json.loads(cli("list", tmp_path, "--json").stdout)
    local = [each for each in said if not each["source"].startswith("embedded:")]
    assert [each["source"] for each in local] == [str(tmp_path / name) for name in ("a/b/two", "one")]
    assert {"embedded:breakout-replay", "embedded:pendulum-replay"} <= {each["source"] for each in said}
    assert local[0]["rows"] == 11 and local[0]["fingerprint"] == load_dataset(tmp_path / "one").fingerprint
    assert str(tmp_path / "one") in cli("list", tmp_path, COLUMNS="300").stdout
    assert "embedded:breakout-replay" in cli("list", tmp_path, COLUMNS="80").stdout
    assert json.loads(cli("list", tmp_path / "one", "--json").stdout)[0]["source"] == str(tmp_path / "one")


def test_list_needs_a_folder(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    for name in ("file", "nothing"):
        assert f"{tmp_path / name} is not a folder" in refused("list", tmp_path / name)
        assert f"{tmp_path / name} is not a folder" in refused("list", tmp_path / name, "--json")


def test_check_as_json(make_dataset, written, cli):
    path, _ = make_dataset()
    assert json.loads(cli("check", path, "--json").stdout) == {"rows": 11, "episodes": 4, "warnings": []}
    path = written([[0, 1], [0, 1]], SpaceSpec.discrete(2), observation_space=SpaceSpec.box(0, 1, (1,)), name="same")
    assert json.loads(cli("check", path, "--json").stdout)["warnings"] == []
    bad = written([[0] * 120], SpaceSpec.discrete(2), name="bad")
    assert cli("check", bad, "--json", "--strict").returncode == 0


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.links, self.tags = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.cells.append(data.strip())


@pytest.mark.parametrize("space", [SpaceSpec.discrete(3), SpaceSpec.box([0, -4], [10, 4], (2,))])
def test_plot_writes_a_picture_and_a_page_with_the_same_numbers(written, cli, tmp_path, space):
    actions = [0, 1, 1, 0] if space.n else np.float32([[-1, 0.5], [0, 0.25], [0, 0], [0.5, 1]])
    path = written([actions, actions[:2]], space, "flights")
    done = cli("plot", path, "--out", tmp_path / "pages" / "flights")
    assert done.returncode == 0, done.stderr
    png, html = done.stdout.split()
    assert Path(png).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    text = Path(html).read_text()
    page = Page()
    page.feed(text)
    assert "svg" in page.tags and not {"script", "img", "link", "iframe"} & page.tags
    assert [link for link in page.links if not link.startswith("#")] == ["flights.png"]
    summary = summarize(load_dataset(path))
    numbers = [summary.returns.mean, *summary.returns.quantiles.values(), summary.lengths.max]
    numbers += [each.max for each in summary.elements.values()]
    for number in numbers:
        assert f"{number:.6g}" in page.cells
    assert "$flights$" in page.cells and "test" in page.cells
    for name in ["actions[0]"] if space.n is None else ["0", "1", "2"]:
        assert len(re.findall(re.escape(f">{name}<"), text)) >= 1
    assert cli("plot", path, "--out", tmp_path / "pages" / "flights.png").stdout == done.stdout


def test_plot_names_the_subset(make_dataset, cli, tmp_path):
    path, _ = make_dataset("mine")
    text = Path(cli("plot", f"{path}?take=first:0.5", "--out", tmp_path / "part").stdout.split()[1]).read_text()
    assert text.count("(take=first:0.5)") >= 3  # title, heading and picture
    assert "take=first:0.5, of 11 rows" in text


def test_plot_writes_both_files_or_none(make_dataset, refused, tmp_path):
    path, _ = make_dataset("mine")
    (tmp_path / "pl" / "hh.html").mkdir(parents=True)
    assert "hh.html is a folder" in refused("plot", path, "--out", tmp_path / "pl" / "hh")
    for out in (".", "..", "/", f"{tmp_path}/.."):
        assert "is a folder's name: give that of a file in it" in refused("plot", path, "--out", out)
    assert [each.name for each in (tmp_path / "pl").iterdir()] == ["hh.html"]


def test_an_empty_name_is_no_path(make_dataset, refused):
    path, _ = make_dataset("mine")
    for words in (("plot", path), ("export", path, "--to", "d4rl"), ("import", path)):
        assert "an empty name is no path" in refused(*words, "--out", "")
