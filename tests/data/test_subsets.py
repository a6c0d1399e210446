"""Subsets by name, against selecting the rows one by one: every column, the episodes, the words, and the identity."""

import os
import pickle
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.data import load_dataset, verify
from dr3_ray.data.addresses import Address
from dr3_ray.data.cache import CACHE, cached, find_cached, upload
from dr3_ray.data.checks import check_dataset
from dr3_ray.data.embedded import embedded_path
from dr3_ray.data.labels import dataset_label
from dr3_ray.data.n_step import FOLLOWED, gather_n_step
from dr3_ray.data.reader import Dataset
from dr3_ray.data.resident import Resident
from dr3_ray.data.sampler import best_first
from dr3_ray.data.selected import Selected
from dr3_ray.data.subsets import WAYS, WORDS, Subset
from dr3_ray.errors import UserError
from dr3_ray.evaluation.fqe import start_rows

NAME = "embedded:breakout-replay"
SHARES = st.decimals("0.001", 1, places=3).map(Decimal.normalize)
SEEDS = st.integers(0, 2**40)


@st.composite
def subsets(draw, most=50):
    """Words that `Subset.parse` takes, in any order."""
    words = {}
    if split := draw(st.sampled_from([None, "train", "validation"])):
        words["split"] = split
        words |= draw(
            st.fixed_dictionaries({}, optional={"validation": SHARES.filter(lambda x: x < 1), "split_seed": SEEDS})
        )
    if way := draw(st.sampled_from([None, *WAYS] if split else WAYS)):
        words["take"] = f"{way}:{draw(st.integers(1, most) if way == 'episodes' else SHARES)}"
        if way in ("uniform", "episodes"):
            words |= draw(st.fixed_dictionaries({}, optional={"seed": SEEDS}))
    return "&".join(f"{word}={value}" for word, value in draw(st.permutations(list(words.items()))))


def chosen(data: Dataset, query: str) -> list[int] | None:
    """The rows that a query means, by its words one after the other; None: there are not so many episodes.

    Which are drawn is taken from the view itself, and its number and nesting are looked at elsewhere.
    """
    table, subset = data.episodes, Subset.parse(query)
    rows = {episode: list(range(start, start + length)) for episode, (start, length) in
            enumerate(zip(table["offsets"].tolist(), table["lengths"].tolist(), strict=True)) if length}  # fmt: skip
    if subset.split:
        held_out = max(1, int(subset.validation * len(rows)))
        if held_out == len(rows):
            return None
        both = {part: kept_episodes(data, f"split={part}&validation={subset.validation}&split_seed={subset.split_seed}")
                for part in ("train", "validation")}  # fmt: skip
        assert len(both["validation"]) == held_out
        rows = {episode: rows[episode] for episode in both[subset.split]}
    way, _, amount = (subset.take or "").partition(":")
    if way == "episodes":
        if int(amount) > len(rows):
            return None
        rows = {episode: rows[episode] for episode in kept_episodes(data, query)}
        assert len(rows) == int(amount)
    if way in ("first", "best", "worst"):
        order = sorted(
            rows, key=lambda episode: {"first": 0.0, "best": -1, "worst": 1}[way] * table["returns"][episode]
        )
        wanted, kept = max(1, int(Decimal(amount) * sum(map(len, rows.values())))), {}
        for episode in order:
            if sum(map(len, kept.values())) < wanted:
                kept[episode] = rows[episode]
        rows = kept
    found = sorted(row for some in rows.values() for row in some)
    if way == "uniform":
        drawn = load_dataset(f"{data.path}?{query}").rows.tolist()
        assert len(drawn) == max(1, int(Decimal(amount) * len(found))) and set(drawn) <= set(found)
        found = drawn
    return found


def kept_episodes(data: Dataset, query: str) -> list[int]:
    ids = load_dataset(f"{data.path}?{query}").episodes["episode_ids"]
    return np.searchsorted(data.episodes["episode_ids"], ids).tolist()


def equal(one, other) -> bool:
    return all(map(equal, one.values(), other.values())) if isinstance(one, dict) else torch.equal(one, other)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    observation=st.sampled_from(["float32", "bool", "dict"]),
    rows_per_shard=st.integers(1, 30),
    keep=st.sampled_from([None, None, 0.5]),
    query=subsets(most=9),
    data=st.data(),
)
def test_a_view_is_the_rows_selected_one_by_one(make_dataset, lengths, observation, rows_per_shard, keep, query, data):
    path = None
    try:
        path, _ = make_dataset("whole", lengths, observation, "discrete", rows_per_shard, keep)
    except UserError as error:
        assert keep and "no rows" in str(error)
        return
    try:
        whole = load_dataset(path)
        rows = chosen(whole, query)
        if rows is None:
            with pytest.raises(UserError, match=r"to take from, not|too few to hold out"):
                load_dataset(f"{path}?{query}")
            return
        view, at = load_dataset(f"{path}?{query}"), torch.tensor(rows)
        assert view.rows.tolist() == rows and len(view) == len(rows) and view.columns == whole.columns
        indices = torch.tensor(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=4, max_size=4))).view(2, 2)
        ours, theirs = view.gather(indices, view.columns), whole.gather(at[indices], whole.columns)
        assert all(equal(ours[name], theirs[name]) for name in whole.columns)
        for start, stop in ((0, len(rows)), (len(rows) // 3, len(rows) // 2 + 1)):
            for name, values in view.stored(start, stop).items():
                every = whole.stored(0, len(whole))[name]
                assert values.dtype == every.dtype and np.array_equal(values, every[rows[start:stop]]), name
        assert_table(view, whole, rows)
        assert_counts(view, whole, rows)
        again = pickle.loads(pickle.dumps(view))
        assert again.rows.tolist() == rows and again.fingerprint == view.fingerprint
        for index in (-1, len(rows)):
            with pytest.raises(IndexError, match=f"row {index} of a data set of {len(rows)} rows"):
                view.gather(torch.tensor([index]), ["rewards"])
    finally:
        shutil.rmtree(path)


def assert_table(view, whole, rows):
    """Its episodes are those that have a row here, in their order, with the returns of complete ones."""
    ids = whole.gather(torch.tensor(rows), ["episode_ids"])["episode_ids"].numpy()
    table = view.episodes
    np.testing.assert_array_equal(table["episode_ids"], np.unique(ids))
    np.testing.assert_array_equal(np.repeat(table["episode_ids"], table["lengths"]), ids)
    np.testing.assert_array_equal(table["offsets"], table["lengths"].cumsum() - table["lengths"])
    at = np.searchsorted(whole.episodes["episode_ids"], table["episode_ids"])
    for name in ("returns", "terminated"):
        np.testing.assert_array_equal(table[name], whole.episodes[name][at])


def assert_counts(view, whole, rows):
    counts, columns = view.manifest.counts, {name: each[rows] for name, each in whole.stored(0, len(whole)).items()}
    assert (counts.rows, counts.episodes) == (len(rows), len(view.episodes["lengths"]))
    assert counts.terminateds == columns["terminateds"].sum() and counts.truncateds == columns["truncateds"].sum()
    for name, found in view.statistics().items():
        values = np.float64(view.episodes["returns"] if name == "episode_returns" else columns[name])
        expected = (values.min(), values.max(), values.mean(), values.std())
        np.testing.assert_allclose((found.min, found.max, found.mean, found.std), expected, rtol=1e-6, atol=1e-7)
    assert view.statistics().keys() == whole.statistics().keys()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 6), min_size=2, max_size=12),
    validation=SHARES.filter(lambda x: x <= Decimal("0.5")),
    seed=SEEDS,
)
def test_train_and_validation_are_disjoint_and_together_whole(make_dataset, lengths, validation, seed):
    path, _ = make_dataset("whole", lengths)
    try:
        options = f"validation={validation}&split_seed={seed}"
        train, held_out = (load_dataset(f"{path}?split={part}&{options}") for part in ("train", "validation"))
        assert sorted(train.rows.tolist() + held_out.rows.tolist()) == list(range(sum(lengths)))
        assert not set(train.episodes["episode_ids"]) & set(held_out.episodes["episode_ids"])
        more = load_dataset(f"{path}?split=validation&validation=0.5&split_seed={seed}")
        assert set(held_out.rows.tolist()) <= set(more.rows.tolist())  # a larger share has these and others
    finally:
        shutil.rmtree(path)


@given(subsets(), subsets())
def test_a_subset_has_one_spelling_and_an_identity_of_its_own(one, other):
    first, second = Subset.parse(one), Subset.parse(other)
    assert Subset.parse(str(first)) == first and str(Subset.parse(str(first))) == str(first)
    whole = "ab" * 32
    identities = [Address("place", each).identity(whole) for each in (first, second)]
    assert (identities[0] == identities[1]) == (first == second) == (str(first) == str(second))
    assert whole not in identities and Address("place").identity(whole) == whole
    assert Address("place", first).identity("cd" * 32) != identities[0]


@given(
    subsets(), st.sampled_from(["", "?region=x&endpoint_override=http%3A%2F%2Fh%3A9000", "?scheme=http"]), st.booleans()
)
@pytest.mark.parametrize("place", ["s3://key:secret@bucket/a", "gs://b/c", "embedded:x", "/no where/x", "/what?/b=c"])
def test_an_address_is_read_as_it_is_written(place, query, options, pinned):
    place += options if "://" in place else ""
    address = Address(place, Subset.parse(query), "0123456789abcdef" * 4 if pinned else None)
    assert Address.parse(str(address)) == address
    if "://" in place and options:  # our words may stand before the store's
        start, _, others = place.partition("?")
        assert Address.parse(f"{start}?{query}&{others}") == address._replace(fingerprint=None)


WORDY = st.lists(st.sampled_from([*WORDS, *WAYS, *"=&?#:/. ", "0.5", "7", "train", "validation"]), max_size=12).map(
    "".join
)


@given(st.sampled_from(["", "s3://b/x?", "file:///a?", "embedded:x?", "d?"]), WORDY | st.text(max_size=30))
def test_any_text_is_an_address_or_a_mistake(start, text):
    try:
        address = Address.parse(start + text)
    except UserError as error:
        assert "\n" not in str(error)
        return
    if address.subset:
        again = Address.parse(str(address))
        assert again.subset == address.subset and again.place == address.place


STORE_OPTIONS = [
    "region", "scheme", "endpoint_override", "access_key", "secret_key", "allow_bucket_creation", "anonymous", "user",
    "allow_bucket_deletion", "tls_ca_file_path", "force_virtual_addressing", "allow_delayed_open", "background_writes",
    "check_directory_existence_before_creation", "smart_defaults", "tls_verify_certificates", "retry_limit_seconds",
    "project_id", "default_bucket_location", "replication", "buffer_size", "default_block_size", "kerb_ticket",
]  # fmt: skip


def test_the_words_of_a_subset_are_no_options_of_a_store():
    for option in STORE_OPTIONS:
        address = Address.parse(f"s3://b/data?{option}=1&take=best:0.5")
        assert (address.place, str(address.subset)) == (f"s3://b/data?{option}=1", "take=best:0.5")


def test_the_same_name_gives_the_same_rows_in_any_process():
    names = [f"{NAME}?take=uniform:0.01&seed=3", f"{NAME}?split=validation", f"{NAME}?take=episodes:5&split=train"]
    code = f"from dr3_ray import load_dataset\nfor n in {names!r}: print(load_dataset(n).rows.sum().item())"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": "7"}
    printed = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert printed.split() == [str(load_dataset(name).rows.sum().item()) for name in names]
    # and in any version of numpy: what was drawn when this was written
    assert load_dataset(names[0]).rows[:5].tolist() == FIRST_DRAWN


FIRST_DRAWN = [91, 164, 204, 265, 352]


def test_by_hand(make_dataset):
    path, _ = make_dataset(lengths=(3, 1, 5, 2))
    returns = load_dataset(path).episodes["returns"]

    def ids(query):
        return load_dataset(f"{path}?{query}").episodes["episode_ids"].tolist()

    order = np.argsort(-returns).tolist()
    assert ids("take=best:0.01") == [order[0]] and ids("take=worst:0.01") == [order[-1]]
    assert ids("take=first:0.2") == [0] and ids("take=first:0.3") == [0] and ids("take=first:0.37") == [0, 1]
    assert ids("take=first:1") == ids("take=best:1") == ids("take=episodes:4") == [0, 1, 2, 3]
    assert len(load_dataset(f"{path}?take=uniform:0.3")) == 3  # of 11, rounded down
    draws = [set(load_dataset(f"{path}?take=uniform:0.5&seed={seed}").rows.tolist()) for seed in range(9)]
    assert len(set(map(frozenset, draws))) > 5
    assert set(load_dataset(f"{path}?take=uniform:0.2&seed=4").rows.tolist()) < draws[4]


def test_the_best_episodes_are_those_of_the_option_best_share():
    whole = load_dataset(NAME)
    order, counts = best_first(whole.episodes, [0.25])
    view = load_dataset(f"{NAME}?take=best:0.25")
    assert view.rows.tolist() == sorted(order[: counts[0]].tolist())
    assert view.episodes["returns"].min() >= np.sort(whole.episodes["returns"])[-len(view.episodes["returns"])]


COLUMNS = ("observations", "rewards", "next_observations", "terminateds", "next_actions_valid")


@pytest.mark.parametrize("query", ["take=uniform:0.4", "split=train&take=uniform:0.5&seed=2", "take=episodes:3"])
def test_several_steps_follow_the_original_episode(make_dataset, query):
    path, _ = make_dataset(lengths=(7, 9, 4, 6), rows_per_shard=5)
    whole, view = load_dataset(path), load_dataset(f"{path}?{query}")
    indices = torch.arange(len(view)).unsqueeze(0)
    there = torch.from_numpy(view.rows)[indices]
    expected = gather_n_step(whole, there, COLUMNS, 3)
    held = Resident(whole if view.apart else view, sorted({*COLUMNS, *FOLLOWED}), torch.device("cpu"))
    for data in (view, held.part(view, view.rows) if view.apart else held):
        assert len(data) == len(view)
        found = gather_n_step(data, indices, COLUMNS, 3)
        assert found.keys() == expected.keys() and all(equal(found[name], expected[name]) for name in found)
        plain, wanted = data.gather(indices, COLUMNS), whole.gather(there, COLUMNS)
        assert all(equal(plain[name], wanted[name]) for name in COLUMNS)
    assert (expected["n_steps"] > 1).any()


def test_no_column_is_copied(make_dataset):
    path, _ = make_dataset(lengths=(1000, 1000), rows_per_shard=600)
    view = load_dataset(f"{path}?split=train&take=uniform:0.5")
    for shard, same in zip(view._shards, view.whole._shards, strict=True):
        assert all(shard[name].ctypes.data == same[name].ctypes.data for name in shard)


def test_checks_verification_starts_and_another_gamma(make_dataset):
    path, _ = make_dataset(lengths=(3, 1, 5, 2))
    held_out = load_dataset(f"{path}?split=validation&validation=0.5", gamma=0.5)
    verify(held_out)
    assert check_dataset(held_out) == []
    assert start_rows(held_out).tolist() == held_out.episodes["offsets"].tolist()
    again = load_dataset(path, gamma=0.5).take(held_out.rows, ["monte_carlo_returns"])["monte_carlo_returns"]
    everything = np.arange(len(held_out))
    assert (held_out.take(everything, ["monte_carlo_returns"])["monte_carlo_returns"] == again).all()
    drawn = load_dataset(f"{path}?take=uniform:0.5")
    assert held_out.manifest.complete_episodes and not drawn.manifest.complete_episodes
    with pytest.raises(UserError, match="subsample of its episodes"):
        check_dataset(drawn)


def test_a_fingerprint_pins_a_view(make_dataset):
    path, _ = make_dataset()
    fingerprint = load_dataset(f"{path}?take=best:0.5").fingerprint
    for source in (path, path.as_uri()):
        assert load_dataset(f"{source}?take=best:0.50#{fingerprint}").fingerprint == fingerprint
        for other in ("", "?take=best:0.4"):
            with pytest.raises(UserError, match="holds other data: their fingerprint is"):
                load_dataset(f"{source}{other}#{fingerprint}")


def test_a_view_of_a_bucket_is_the_data_set_copied_once(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    uri = Address.parse(upload(embedded_path("breakout-replay"), bucket("sweep"))).place
    here = load_dataset(f"{NAME}?take=best:0.1")
    mark = "&" if "?" in uri else "?"
    there = load_dataset(f"{uri}{mark}take=best:0.1")
    pinned = f"{uri}{mark}take=best:0.1#{here.fingerprint}"
    assert there.fingerprint == here.fingerprint and there.path == cached(uri) == cached(pinned) == find_cached(pinned)
    assert pickle.loads(pickle.dumps(there)).rows.tolist() == here.rows.tolist()
    assert find_cached(pinned.replace("0.1", "0.2")) is None


def test_a_folder_is_itself_whatever_its_name(make_dataset):
    path, _ = make_dataset("plain?take=best:0.1")
    shutil.copytree(make_dataset("plain", seed=1)[0], path.with_name("what?now"))
    assert not isinstance(load_dataset(path), Selected)
    assert (
        len(load_dataset(f"{path}?take=first:0.01"))
        == len(load_dataset(path.with_name("what?now?take=first:0.01")))
        == 3
    )
    by_uri = load_dataset(f"{path.with_name('plain').as_uri()}?take=best:0.1")
    assert isinstance(by_uri, Selected) and by_uri.whole.path.exists()


@pytest.mark.parametrize("pin", [False, True])
def test_a_subset_is_written_so_that_it_is_not_read_as_a_folder(make_dataset, pin):
    make_dataset("plain?take=best:0.5", seed=1)
    path, _ = make_dataset("plain")
    view = load_dataset(f"{path}?take=best:0.50")
    address = Address.parse(f"{path}?take=best:0.50")._replace(fingerprint=view.fingerprint if pin else None)
    again = load_dataset(str(address))
    assert isinstance(view, Selected) and again.fingerprint == view.fingerprint and again.path == view.path
    assert str(Address.parse(str(address))) == str(address)


@pytest.mark.parametrize("words", ["split=train?take=best:0.1", "Split=train", "take"])
def test_what_is_nearly_a_subset_hears_of_the_words(make_dataset, refused, words):
    path, _ = make_dataset("mine")
    said = refused("info", f"{path}?{words}")
    assert "mine?" in said and "is not a data set" in said and "DIR?split=train&take=best:0.1" in said
    assert "DIR?" not in refused("info", path.with_name("nothing"))


def test_drawing_all_rows_leaves_episodes_whole(make_dataset):
    path, _ = make_dataset(lengths=(3, 1, 5, 2))
    everything = load_dataset(f"{path}?take=uniform:1")
    assert everything.manifest.complete_episodes and check_dataset(everything) == []
    part = load_dataset(f"{path}?take=uniform:0.9")  # a step is missing, of whichever episode
    lengths = dict(zip(everything.episodes["episode_ids"], everything.episodes["lengths"], strict=True))
    pairs = zip(part.episodes["episode_ids"], part.episodes["lengths"], strict=True)
    assert part.manifest.complete_episodes == all(lengths[number] == length for number, length in pairs)
    thinned = load_dataset(make_dataset("thinned", lengths=(30, 30), keep=0.5)[0])
    assert not load_dataset(f"{thinned.path}?take=uniform:1").manifest.complete_episodes


def test_verifying_a_subset_counts_the_whole(make_dataset, cli):
    path, _ = make_dataset()
    said = cli("verify", f"{path}?take=first:0.01").stdout.splitlines()
    assert said[0].startswith("ok: 11 rows in ")
    assert said[1:] == ["the whole data set was checked; take=first:0.01 has 3 of its rows"]


MISTAKES = {
    "tak=best:0.1": "unknown word for a subset 'tak': did you mean 'take'?",
    "take=bset:0.1": "unknown way to take rows 'bset': did you mean 'best'?",
    "take=best": "take=best: give a share of at most 1, such as 0.1",
    "take=best:0": "give a share of at most 1",
    "take=best:1.5": "give a share of at most 1",
    "take=best:-0.5": "give a share of at most 1",
    "take=best:nan": "give a share of at most 1",
    "take=best:10%25": "give a share of at most 1",
    "take=episodes:0.5": "give a number of episodes, as in take=episodes:50",
    "take=episodes:0": "give a number of episodes",
    "take=episodes:5": "has 4 episodes to take from, not 5: take fewer",
    "split=train&take=episodes:4": "has 3 episodes to take from, not 4: take fewer",
    "take=episodes:2&split=validation": "the part validation of ",
    "take=uniform:0.1&seed=99999999999999999999": "give a whole number from 0 to 999999999999999999",
    "split=test": "unknown split 'test': known are train, validation",
    "split=train&validation=1": "validation=1 leaves nothing for training: give a share below 1",
    "split=train&validation=0": "give a share of at most 1",
    "take=best:0.1&take=best:0.2": "take stands there twice: say it once",
    "validation=0.1": "validation is of a split: add split=train or split=validation",
    "split_seed=1&take=best:0.5": "split_seed is of a split",
    "take=best:0.1&seed=1": "seed draws for take=uniform:… or take=episodes:…",
    "split=train&seed=1": "and split_seed for a split: leave it out",
    "take=uniform:0.1&seed=-1": "seed=-1: give a whole number from 0",
    "split=train&split_seed=x": "split_seed=x: give a whole number from 0",
}


@pytest.mark.parametrize("query", MISTAKES)
def test_mistakes_are_one_line(make_dataset, refused, query):
    path, _ = make_dataset()
    assert MISTAKES[query] in refused("info", f"{path}?{query}")
    with pytest.raises(UserError) as error:
        load_dataset(f"{path.as_uri()}?{query}")
    assert MISTAKES[query] in str(error.value) and "\n" not in str(error.value)


def test_one_episode_cannot_be_split(make_dataset):
    path, _ = make_dataset(lengths=(5,))
    for part in ("train", "validation"):
        with pytest.raises(UserError, match=r"has 1 episodes, too few to hold out 0\.1 of them"):
            load_dataset(f"{path}?split={part}")


def test_the_command_line_shows_a_view(cli):
    shown = cli("info", f"{NAME}?split=validation&take=best:0.5").stdout
    view = load_dataset(f"{NAME}?split=validation&take=best:0.5")
    assert f"{len(view):,} in 1 shard(s)" in shown and view.fingerprint[:16] in shown
    assert f"split=validation&take=best:0.5, of {len(view.whole):,} rows" in shown
    assert cli("verify", f"{NAME}?split=validation").returncode == 0


@pytest.mark.parametrize(
    ("source", "label"),
    [
        (f"{NAME}?take=best:0.5", "breakout-replay (take=best:0.5)"),
        ("s3://b/pong?endpoint_override=h:9&split=train#" + "0" * 64, "pong (split=train)"),
        ("/data/pong?take=uniform:0.10&split=train", "pong (split=train, take=uniform:0.1)"),
        ("/data/pong?take=unform:0.1", "pong?take=unform:0.1"),
        ("file:///data/pong?x=y", "pong"),
    ],
)
def test_what_people_call_it(source, label):
    assert dataset_label(source) == label
