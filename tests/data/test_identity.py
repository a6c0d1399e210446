"""Which data are the same: everything that changes what is learned is in the fingerprint, and nothing else."""

import itertools
import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.data import Manifest, Provenance, SpaceSpec, content, load_dataset, verify
from dr3_ray.data.cache import CACHE, contents
from dr3_ray.data.identity import DESCRIPTION
from dr3_ray.data.schema import Counts, FileEntry, FramesEntry, ShardEntry, Statistic, format_of
from dr3_ray.data.verification import seal
from dr3_ray.errors import UserError
from tests.data.conftest import GAMMA

sha256 = st.text("0123456789abcdef", min_size=64, max_size=64)
amounts = st.integers(1, 1000)
finite = st.floats(-1e6, 1e6)
words = st.text("abcdef ", max_size=8)
BOUNDS = [  # of each type: what low may be, and how far high may be above it
    ("float32", finite, st.floats(0.5, 9)),
    ("uint8", st.integers(0, 246), st.integers(1, 9)),
    ("bool", st.just(0), st.just(1)),
]


@st.composite
def boxes(draw):
    shape = draw(st.lists(st.integers(1, 3), max_size=2))
    dtype, lows, widths = draw(st.sampled_from(BOUNDS))
    low = draw(st.lists(lows, min_size=max(1, int(np.prod(shape))), max_size=max(1, int(np.prod(shape)))))
    return SpaceSpec.box(np.reshape(low, shape), np.reshape(low, shape) + draw(widths), tuple(shape), dtype)


dicts = st.dictionaries(st.text("abc", min_size=1, max_size=3), boxes(), min_size=1, max_size=3).map(
    lambda spaces: SpaceSpec(kind="dict", spaces=spaces)
)
discretes = st.builds(SpaceSpec.discrete, amounts, st.integers(-5, 5))


@st.composite
def manifests(draw, once=st.booleans()):  # noqa: B008  # a strategy
    def entry(name, of=FileEntry, **more):
        return of(file=f"{name}.arrow", rows=draw(amounts), bytes=draw(amounts), sha256=draw(sha256), **more)

    def shard(number):
        frames = entry(f"frames-{number}", FramesEntry, part=draw(words), stack=draw(amounts)) if draw(once) else None
        return entry(f"shard-{number}", ShardEntry, frames=frames and (frames,))

    shards = tuple(shard(number) for number in range(draw(st.integers(1, 3))))
    content = draw(st.none() | sha256)

    return Manifest(
        name=draw(words),
        gamma=draw(st.floats(0, 1)),
        complete_episodes=draw(st.booleans()),
        observation_space=draw(boxes() | dicts),
        action_space=draw(boxes() | discretes),
        environment=draw(st.none() | words),
        counts=Counts(rows=draw(amounts), episodes=draw(amounts), terminateds=draw(amounts), truncateds=draw(amounts)),
        format=format_of(shards, content),
        content=content,
        shards=shards,
        episodes=entry("episodes"),
        statistics={"rewards": Statistic(min=0, max=1, mean=0.5, std=draw(st.floats(0, 1)))},
        provenance=Provenance(source=draw(words), notes=tuple(draw(st.lists(words, max_size=2)))),
    ).sealed()


def leaves(value, path=()):
    """Every place in a document that holds a value, lists of numbers as one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*path, number))
    else:
        yield path, value


CHANGES = {
    bool: st.booleans(),
    int: st.integers(-9, 2000),
    float: st.floats(-3, 1).map(lambda number: number + 0.0),  # -0.0 is another text, and no other number
    str: words | sha256 | st.sampled_from(["float32", "uint8", "bool", "int64", "box", "x.arrow"]),
    list: st.lists(st.integers(1, 9), max_size=3) | st.lists(finite, min_size=1, max_size=9),
    type(None): st.integers(1, 9) | words | st.just([1.0]),
}


@settings(max_examples=40, deadline=None)
@given(manifests(), st.data())
def test_every_change_of_one_field_is_another_identity_or_a_documented_description(manifest, data):
    document = json.loads(manifest.text())
    places = [each for each in leaves(document) if each[0][0] != "digests"]
    for path, value in data.draw(st.lists(st.sampled_from(places), min_size=20, max_size=20, unique_by=str)):
        changed = json.loads(manifest.text())
        target = changed
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = data.draw(CHANGES[type(value)])
        try:
            other = Manifest.parse(json.dumps(changed).encode(), "there")
        except UserError:
            continue  # no manifest at all
        same = other.model_dump(exclude={"digests"}) == manifest.model_dump(exclude={"digests"})
        of_files = path[0] in ("shards", "episodes")
        described = (path[0] in DESCRIPTION and not (of_files and manifest.content is None)) or path[-1] == "file"
        assert (other.fingerprint == manifest.fingerprint) == (same or described or _spelling(path, value, target)), (
            path
        )
        unsaid = path == ("format",)  # how it is written down
        spelled = _spelling(path, value, target) and path[-1] != "file"
        assert (other.digest == manifest.digest) == (same or unsaid or spelled)


def _spelling(path, value, target):
    """Whether a bound says the same in another way: one number for all elements, or -0."""
    new = target[path[-1]]
    return path[-1] in ("low", "high") and {each + 0.0 for each in new} == {each + 0.0 for each in value}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    observation=st.sampled_from(["float32", "bool", "dict"]),
    action=st.sampled_from(["box", "discrete"]),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    keep=st.sampled_from([None, 0.4]),
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=2),
    pieces=st.integers(1, 12),
    data=st.data(),
)
def test_the_files_of_rows_are_no_part_of_them_and_every_value_is(
    make_dataset, tmp_path, observation, action, lengths, keep, sizes, pieces, data
):
    """Shards of any size have one identity, and so does what is read back; a row with another value has another."""
    lengths = (*lengths, 30)  # of the last episode some rows are kept
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(content, "CHUNK", pieces * 60)
        opened = []
        for name, size in zip(("one", "two"), sizes, strict=True):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            opened.append(load_dataset(make_dataset(name, lengths, observation, action, size, keep)[0]))
            verify(opened[-1])
    one, two = opened
    assert one.fingerprint == two.fingerprint == seal(two.path).fingerprint
    same_files = one.manifest.shards == two.manifest.shards
    assert (one.manifest.identities.of_files == two.manifest.identities.of_files) == same_files
    rows = one.stored(0, len(one))
    name = data.draw(st.sampled_from([each for each in rows if each != "episode_ids"]))
    row = data.draw(st.integers(0, len(one) - 1))
    altered = rows | {name: rows[name].copy()}
    altered[name].view(np.uint8).reshape(len(one), -1)[row, 0] ^= 1
    digests = []
    for values in (rows, altered, rows | {"episode_ids": rows["episode_ids"] + 7}):
        digest = content.EpisodeDigest(rows)
        for start in range(0, len(one), pieces):
            digest.add({each: column[start : start + pieces] for each, column in values.items()})
        digests.append(digest.digest())
    assert digests[0] == digests[2] != digests[1]


def test_a_next_observation_counts_where_it_is_not_the_next_row_s():
    """What is left out can be told from what is there: no two episodes have one digest."""
    found = {}
    for now in itertools.product([0.0, 1.0], repeat=3):
        for following in itertools.product([0.0, 1.0], repeat=3):
            digest = content.EpisodeDigest(["observations", "rewards", "next_observations"])
            columns = {"observations": now, "rewards": (0, 0, 0), "next_observations": following}
            digest.add({name: np.array(values) for name, values in columns.items()})
            found.setdefault(digest.digest(), []).append((now, following))
    assert len(found) == 64


@settings(max_examples=30, deadline=None)
@given(manifests(), st.randoms())
def test_how_a_manifest_is_written_down_is_no_part_of_it(manifest, random):
    def shuffled(value):
        if isinstance(value, dict):
            keys = random.sample(list(value), len(value))
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(inner) for inner in value] if isinstance(value, list) else value

    document = shuffled(json.loads(manifest.text()))
    for text in (json.dumps(document), json.dumps(document, indent=3, ensure_ascii=False)):
        again = Manifest.parse(text.encode(), "there")
        assert (again.fingerprint, again.digest, again.note) == (manifest.fingerprint, manifest.digest, None)
    del document["digests"]
    if manifest.format > 2:
        with pytest.raises(UserError, match=r"has no (frames|content)"):
            Manifest.parse(json.dumps(document | {"format": 1}).encode(), "there")
        return
    assert not any(word in manifest.text() for word in ("frames", "content"))  # so that older versions read it
    old = Manifest.parse(json.dumps(document | {"format": 1}).encode(), "there")
    assert old.fingerprint == manifest.fingerprint == old.sealed().fingerprint and "format 1" in old.note


def edit(path, **changes):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | changes))


def as_format(path, number):
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["content"], manifest["digests"]
    old = Manifest.parse(json.dumps(manifest | {"format": 1}).encode(), path)
    (path / "manifest.json").write_text((old if number == 1 else old.sealed()).text())


@pytest.mark.parametrize("number", [1, 2])
def test_an_old_set_has_its_identity_before_and_after_it_is_sealed(make_dataset, cli, refused, number):
    path, _ = make_dataset()
    new = load_dataset(path).manifest.identities
    as_format(path, number)
    old = load_dataset(path)
    assert old.fingerprint == new.of_files and old.manifest.identities[1:] == new[1:] and len(set(new)) == 3
    result = cli("verify", path)
    assert result.stdout.startswith("ok: 11 rows")
    assert result.stderr.startswith("note: its manifest is of format 1") == (number == 1)
    assert "of an older version, which left out spaces and gamma" in refused("info", f"{path}#{new.of_format_1}")
    assert cli("info", f"{path}#{new.of_files}").returncode == 0
    assert cli("verify", path, "--seal").stdout.startswith(f"sealed: the fingerprint is {new.now}\n")
    assert load_dataset(path).manifest.note is None
    said = refused("info", f"{path}#{new.of_files}")
    assert f"which was of files and not of rows: write {path}#{new.now}" in said
    assert cli("info", f"{path}#{new.now}").returncode == 0


def test_an_edited_identity_does_not_open_and_an_edited_description_is_noted(make_dataset, refused, cli):
    path, _ = make_dataset(action="discrete")
    was = load_dataset(path).fingerprint
    edit(path, name="another", environment="gymnasium:CartPole-v1")
    assert load_dataset(path).fingerprint == was and "were edited" in load_dataset(path).manifest.note
    assert "manifest.json was edited since it was written" in refused("verify", path)
    edit(path, action_space=json.loads(SpaceSpec.discrete(6).model_dump_json()))
    for command in ("info", "verify"):
        assert "says other things about the data than when it was written" in refused(command, path)
    assert cli("verify", path, "--seal").returncode == 0
    assert cli("verify", path.as_uri(), "--seal").returncode == 0
    assert load_dataset(path).fingerprint != was
    edit(path, gamma=0.8)
    assert "are not those of the rewards with gamma 0.8" in refused("verify", path, "--seal")


def test_of_the_same_rows_each_address_keeps_its_own(make_dataset, monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    path, _ = make_dataset("one", action="discrete")
    two, three = (shutil.copytree(path, tmp_path / name) for name in ("two", "three"))
    edit(two, environment="minatar:breakout")
    edit(three, action_space=json.loads(SpaceSpec.discrete(6).model_dump_json()))
    seal(three)
    opened = [load_dataset(each.as_uri()) for each in (path, two, three)]
    assert opened[0].fingerprint == opened[1].fingerprint != opened[2].fingerprint
    pinned = [f"{place.as_uri()}#{data.fingerprint}" for place, data in zip((path, two, three), opened, strict=True)]
    for each in (path, two, three):
        shutil.rmtree(each)
    for data, uri in zip(opened, pinned, strict=True):
        for again in (pickle.loads(pickle.dumps(data)), load_dataset(uri)):
            assert again.manifest == data.manifest and again.path == data.path
    assert len(contents()) == 3


def test_a_pickle_opens_that_data_set_or_none(make_dataset, tmp_path):
    path, _ = make_dataset(action="discrete")
    pickled = pickle.dumps(load_dataset(path))
    edit(path, action_space=json.loads(SpaceSpec.discrete(7).model_dump_json()))
    seal(path)
    with pytest.raises(UserError, match="holds other data"):
        pickle.loads(pickled)
    verify(load_dataset(path))


def test_a_file_that_is_cut_while_it_is_read_is_said(make_dataset):
    import torch

    path, _ = make_dataset(lengths=(2000,), rows_per_shard=5000)
    data = load_dataset(path)
    shard = path / "shard-00000.arrow"
    os.replace(shard, path / "moved")  # as a whole: what is mapped stays
    shutil.copy(path / "moved", shard)
    data._looked = 0
    data.gather(torch.arange(2000), ["rewards"])
    data = load_dataset(path)
    os.truncate(shard, 100)
    with pytest.raises(UserError, match="was cut to 100 bytes while it was read"):
        data.check_files()
    data._looked = 0
    with pytest.raises(UserError, match="was cut to 100 bytes while it was read"):
        data.gather(torch.arange(2000), ["rewards"])


@pytest.mark.parametrize("form", ["{one}", "{one}?split=train", "{one}?take=uniform:0.5", "mix:{one}=1,{two}=1"])
def test_another_discount_of_the_returns_is_another_identity(make_dataset, form):
    """However data are opened: equal identities have equal returns, and pickles keep both."""
    one, two = make_dataset("one")[0], make_dataset("two", seed=1)[0]
    name = form.format(one=one, two=two)
    opened = [load_dataset(name, gamma) for gamma in (None, GAMMA, 0.5, 0.0)]
    assert [each.fingerprint == opened[0].fingerprint for each in opened] == [True, True, False, False]
    assert len({each.fingerprint for each in opened}) == 3
    for data in opened:
        again = pickle.loads(pickle.dumps(data))
        rows = torch.arange(len(data))
        returns = [each.gather(rows, ["monte_carlo_returns"])["monte_carlo_returns"] for each in (data, again)]
        assert again.fingerprint == data.fingerprint and torch.equal(*returns)
