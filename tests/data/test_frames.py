"""Observations that are stored once: every value is the same as in two columns, and damage is found."""

import itertools
import json
import shutil
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dr3_ray.data import Provenance, ShardWriter, SpaceSpec, columns, episode_columns, load_dataset, verify
from dr3_ray.data import shard_files as shard_files_module
from dr3_ray.data.exporters.played import played
from dr3_ray.data.frames import Framed, Stack, overlaps, stack_of
from dr3_ray.data.n_step import FOLLOWED, gather_n_step
from dr3_ray.data.paging import runs_of
from dr3_ray.data.resident import Resident
from dr3_ray.data.spaces import named_parts
from dr3_ray.data.summary import summarize
from dr3_ray.data.verification import seal
from dr3_ray.errors import UserError
from tests.data.test_verify import read, reseal, write

ACTIONS = SpaceSpec.discrete(3)


def box(*shape, dtype="uint8"):
    return SpaceSpec.box(
        *((-np.inf, np.inf) if dtype == "float32" else (0, 1 if dtype == "bool" else 255)), shape, dtype
    )


SPACES = {  # of each: the space, and for each part how its observations are stacked
    "a vector": (box(6, dtype="float32"), {"": Stack()}),
    "a tiny vector": (box(3, dtype="float32"), {"": Stack()}),
    "bits": (box(30, 9, dtype="bool"), {"": Stack()}),
    "an image": (box(5, 4, 3), {"": Stack()}),
    "frames first": (box(4, 3, 5), {"": Stack(4, 0)}),
    "frames last": (box(3, 5, 4), {"": Stack(4, 2)}),
    "frames of three colours": (box(3, 5, 9), {"": Stack(3, 2)}),
    "frames of a vector": (box(3, 5, dtype="float32"), {"": Stack(3, 0)}),
}
PARTS = ("frames last", "a vector", "bits", "a tiny vector")
SPACES["parts"] = (
    SpaceSpec(kind="dict", spaces={name: SPACES[name][0] for name in PARTS}),
    {name: SPACES[name][1][""] for name in PARTS},
)  # fmt: skip


def stacked(space, stack, steps, rng):
    """Observations [T+1, *shape] whose frames are few, so that many are equal by chance."""
    shape = list(space.shape)
    shape[stack.axis] //= stack.frames
    frames = rng.choice(np.array([-0.0, 0.0, 1.0]), (steps + stack.frames, *shape))
    frames = frames[rng.integers(0, len(frames), len(frames))] if rng.random() < 0.3 else frames
    frames[: stack.frames] = frames[stack.frames - 1]  # as a wrapper begins an episode
    made = [np.concatenate(frames[at : at + stack.frames], stack.axis) for at in range(steps + 1)]
    return np.array(made).astype(space.dtype)


def episodes_of(kind, lengths, seed):
    space, stacks = SPACES[kind]
    rng = np.random.default_rng(seed)
    for number, steps in enumerate(lengths):
        parts = {part: stacked(space.parts[part], stack, steps, rng) for part, stack in stacks.items()}
        yield episode_columns(
            parts.get("", parts),
            rng.integers(0, 3, steps),
            rng.normal(size=steps).astype(np.float32),
            terminated=bool(number % 2),
            truncated=not number % 2,
            episode_id=number,
            gamma=0.9,
        )


def write_both(folder, kind, lengths, seed=0, rows_per_shard=None, keep=None):
    """The same rows in both ways: `once` and `twice`."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("once", "twice"):
        rng = np.random.default_rng(seed)
        about = {"observation_space": SPACES[kind][0], "action_space": ACTIONS, "gamma": 0.9, "name": "data"}
        about |= {"provenance": Provenance(source="test"), "rows_per_shard": rows_per_shard, "once": name == "once"}
        with ShardWriter(folder / name, **about) as writer:
            for episode in episodes_of(kind, lengths, seed):
                mask = None if keep is None else rng.random(len(episode["rewards"])) < keep
                writer.write(episode, mask)
    return folder / "once", folder / "twice"


def assert_equal(one, other):
    one, other = named_parts(one), named_parts(other)
    assert one.keys() == other.keys()
    for name, values in other.items():
        assert one[name].dtype == values.dtype and one[name].shape == values.shape, name
        assert one[name].is_contiguous() == values.is_contiguous(), name
        assert one[name].numpy().tobytes() == values.numpy().tobytes(), name


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(SPACES)),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    rows_per_shard=st.integers(1, 30),
    shard_bytes=st.sampled_from([1, 700, 2**28]),
    keep=st.sampled_from([None, None, 0.2, 0.7, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
@example("frames last", [9, 8], 30, 2**28, 0.7, 1)
@example("parts", [12, 12], 30, 2**28, None, 1)
@example("frames first", [12, 9], 30, 700, None, 1)
def test_every_value_is_the_same_in_both_ways(tmp_path, kind, lengths, rows_per_shard, shard_bytes, keep, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_files_module, "SHARD_BYTES", shard_bytes)
        try:
            paths = write_both(tmp_path / "both", kind, lengths, seed, rows_per_shard, keep)
        except UserError as error:
            assert keep == 0.2 and "no rows" in str(error)
            return
    once, twice = map(load_dataset, paths)
    verify(once)
    assert len(once) == len(twice) and once.columns == twice.columns
    for name in twice.episodes:
        np.testing.assert_array_equal(once.episodes[name], twice.episodes[name])
    assert once.manifest.counts == twice.manifest.counts and once.statistics() == twice.statistics()
    rng = np.random.default_rng(seed)
    for rows in (
        torch.arange(len(once)),
        torch.from_numpy(rng.integers(0, len(once), (2, 3, 5))),
        torch.empty(0, 2, dtype=torch.int64),
    ):
        assert_equal(once.gather(rows, once.columns), twice.gather(rows, once.columns))
        assert_equal(gather_n_step(once, rows, once.columns, 3), gather_n_step(twice, rows, once.columns, 3))


@pytest.mark.parametrize("kind", SPACES)
def test_all_that_reads_rows_finds_the_same(tmp_path, kind):
    paths = write_both(tmp_path, kind, [9, 1, 14, 6, 3], rows_per_shard=13)
    once, twice = map(load_dataset, paths)
    assert summarize(once) == summarize(twice)
    found = [once.stored(3, 20), twice.stored(3, 20)]
    assert found[0].keys() == found[1].keys()
    for name, values in found[1].items():
        assert found[0][name].dtype == values.dtype and found[0][name].tobytes() == values.tobytes()
    for ours, theirs in zip(played(once), played(twice), strict=True):
        assert_equal(*(torch.utils._pytree.tree_map(torch.from_numpy, each.observations) for each in (ours, theirs)))
    some = {"take=uniform:0.4": 13, "split=train": 20, "take=best:0.5": 14}
    for words, least in some.items():
        views = [load_dataset(f"{path}?{words}") for path in paths]
        assert len(views[0]) == len(views[1]) >= least
        assert_equal(*(view.gather(torch.arange(len(view)), view.columns) for view in views))
        assert views[0].statistics() == views[1].statistics()
    mixed = load_dataset(f"mix:{paths[0]}=1,{paths[1]}=1")
    rows = torch.arange(len(once))
    assert_equal(mixed.gather(rows, once.columns), mixed.gather(rows + len(once), once.columns)
                 | {"episode_ids": once.gather(rows, ["episode_ids"])["episode_ids"]})  # fmt: skip
    names = sorted({*FOLLOWED, "observations", "next_observations"})
    here, there = (Resident(data, names, torch.device("cpu")) for data in (once, twice))
    assert_equal(here.gather(rows, names), there.gather(rows, names))
    again = load_dataset(paths[0], gamma=0.5).gather(rows, ["monte_carlo_returns"])
    assert_equal(again, load_dataset(paths[1], gamma=0.5).gather(rows, ["monte_carlo_returns"]))


def test_which_parts_are_stored_once(tmp_path):
    """What saves a quarter of two columns; the others stay as they were, in a format that older versions read."""
    (once, twice) = map(load_dataset, write_both(tmp_path / "long", "parts", [40, 40]))
    (shard,) = once.manifest.shards
    assert {frames.part: Stack(frames.stack, frames.axis) for frames in shard.frames} == {
        "frames last": Stack(4, 2),
        "a vector": Stack(),
        "bits": Stack(),
    }
    assert (once.manifest.format, twice.manifest.format) == (4, 2)
    assert not any(word in twice.manifest.text() for word in ('"frames": ', '"content": '))
    assert {path.name for path in once.path.iterdir()} == {
        "manifest.json",
        *(file.file for file in once.manifest.files),
    }
    assert once.fingerprint != twice.fingerprint  # the older fingerprint is of files
    assert seal(twice.path).fingerprint == once.fingerprint
    few, _ = write_both(tmp_path / "few", "a vector", [400], keep=0.1)  # hardly two rows follow each other
    stacks, _ = write_both(tmp_path / "stacks", "frames first", [400], keep=0.1)  # which share all frames but one
    assert not load_dataset(few).manifest.shards[0].frames and load_dataset(stacks).manifest.shards[0].frames


def test_a_row_of_atari_takes_seven_kilobytes(tmp_path):
    rng = np.random.default_rng(0)
    space, steps = box(84, 84, 4), 400
    with ShardWriter(
        tmp_path / "atari", observation_space=space, action_space=ACTIONS, gamma=0.99, name="atari",
        provenance=Provenance(source="test"),
    ) as writer:  # fmt: skip
        frames = rng.integers(0, 256, (steps + 4, 84, 84), np.uint8)
        stacks = np.stack([frames[at : at + steps + 1] for at in range(4)], -1)
        ends = {"terminated": True, "truncated": False}
        writer.write(episode_columns(stacks, np.zeros(steps, int), np.zeros(steps), **ends, episode_id=0, gamma=0.99))
    data = load_dataset(tmp_path / "atari")
    assert sum(path.stat().st_size for path in data.path.iterdir()) / steps < 84 * 84 * (1 + 4 / steps) + 60
    rows = torch.tensor([0, 399, 17])
    found = data.gather(rows, ["observations", "next_observations"])
    np.testing.assert_array_equal(found["observations"], stacks[rows])
    np.testing.assert_array_equal(found["next_observations"], stacks[rows + 1])


@given(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=2, max_size=6))
def test_overlaps(stacks):
    pairs = list(itertools.pairwise(stacks))
    found = overlaps(*(np.array(side)[:, :, None] for side in zip(*pairs, strict=True)))
    assert found.tolist() == [
        max(count for count in range(4) if one[3 - count :] == other[:count]) for one, other in pairs
    ]


def test_what_never_changes_tells_of_no_stack():
    column = columns.columns_of(box(4, 6, 6), ACTIONS)["observations"]
    still = np.zeros((9, 4 * 6 * 6), np.uint8)
    assert stack_of(column, still, still) == Stack()


def frames_of(path):
    return json.loads((path / "manifest.json").read_text())["shards"][0]["frames"]


def put(name, row, value):
    """Change a column of the first shard, and seal it again."""

    def damage(path):
        batch = read(path / "shard-00000.arrow")
        values = batch[name].to_numpy().copy()
        values[row] = value
        at = batch.schema.get_field_index(name)
        write(path / "shard-00000.arrow", batch.set_column(at, batch.schema.field(at), pa.array(values)))
        reseal(path)

    return damage


def say(**changes):
    return partial(reseal, change=lambda manifest: manifest["shards"][0]["frames"][0].update(changes))


def cut(path):
    file = path / "shard-00000-frames-0.arrow"
    file.write_bytes(file.read_bytes()[:-100])


def flip(path):
    file = path / "shard-00000-frames-0.arrow"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def fewer(path):
    file = path / "shard-00000-frames-0.arrow"
    write(file, read(file).slice(0, 5))
    reseal(path, change=lambda manifest: manifest["shards"][0]["frames"][0].update(rows=5))


DAMAGE = {
    "a frame below": (put("frames", 3, -1), "has rows whose frames are not in shard-00000-frames-0.arrow"),
    "a frame beyond": (put("next_frames", 3, 10_000), "has rows whose frames are not in"),
    "a stack beyond": (put("next_frames", 3, 35), "has rows whose frames are not in"),
    "frames missing": (lambda path: (path / "shard-00000-frames-0.arrow").unlink(), "is missing"),
    "frames cut": (cut, "bytes instead of"),
    "fewer frames": (fewer, "has rows whose frames are not in"),
    "another number of frames": (say(rows=7), "frames-0.arrow has 38 rows, the manifest says 7"),
    "another stack": (say(stack=2), "does not have the columns"),
    "no stack": (say(stack=7), "that are not of its observations"),
    "another axis": (say(axis=9), "that are not of its observations"),
    "another part": (say(part="x"), "does not have the columns"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_found_on_opening(tmp_path, case):
    path, _ = write_both(tmp_path, "frames first", [20, 10])
    assert frames_of(path)[0]["rows"] == 38
    damage, says = DAMAGE[case]
    damage(path)
    with pytest.raises(UserError, match=says) as error:
        load_dataset(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_another_frame_is_found_by_verify_and_another_order_of_frames_is_another_identity(tmp_path):
    path, _ = write_both(tmp_path / "a", "frames first", [20, 10])
    was = load_dataset(path).fingerprint
    flip(path)
    with pytest.raises(UserError, match=r"frames-0\.arrow have changed since they were written"):
        verify(load_dataset(path))
    path, _ = write_both(tmp_path / "b", "frames first", [20, 10])
    put("next_frames", 3, 7)(path)
    assert load_dataset(path).fingerprint != was
    with pytest.raises(UserError, match="next_observations at step 3 are not the observations of the step after it"):
        verify(load_dataset(path))


def test_frames_that_are_cut_while_they_are_read(tmp_path):
    data = load_dataset(write_both(tmp_path, "frames first", [20])[0])
    data.check_files()
    with open(data.path / "shard-00000-frames-0.arrow", "r+b") as file:
        file.truncate(100)
    with pytest.raises(UserError, match=r"frames-0\.arrow was cut to 100 bytes"):
        data.check_files()


def test_a_copy_of_a_store_has_the_frames(tmp_path, monkeypatch):
    monkeypatch.setenv("DR3_RAY_CACHE", str(tmp_path / "cache"))
    path, _ = write_both(tmp_path, "frames first", [20])
    copied = load_dataset(path.as_uri())
    assert copied.path != path
    assert {file.name for file in copied.path.iterdir()} == {file.name for file in path.iterdir()}


@pytest.mark.parametrize("kind", sorted(SPACES))
def test_the_bytes_in_which_rows_lie_are_those_of_their_frames(tmp_path, kind):
    """What is read ahead of a window: nothing that a gather of these rows reads is missing."""
    data = load_dataset(write_both(tmp_path, kind, (5, 40, 9), rows_per_shard=16)[0])
    rows = torch.tensor([0, 1, 2, 14, 15, 16, 17, 30, 53])
    stored = list(data.stored_bytes(data.columns))
    found = [data.extents(*runs_of(rows.numpy()), [name]) for name in stored]
    spans = [
        (file.address + start, file.address + stop)
        for extents in found
        for file, starts, stops in extents
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]
    ends = [0, *data._ends.tolist()]
    for row in rows.tolist():
        number = int(np.searchsorted(ends, row, "right")) - 1
        for name in stored:
            column = data._shards[number][name]
            if isinstance(column, Framed):
                first = int(column.starts[row - ends[number]])
                for frame in column.frames[first : first + column.stack.frames]:
                    address = frame.ctypes.data
                    assert any(low <= address and address + frame.nbytes <= high for low, high in spans)
    # and no file is counted twice
    files = sum(
        (data.path / entry.file).stat().st_size for entry in data.manifest.files if "episodes" not in entry.file
    )
    assert sum(data.stored_bytes(data.columns).values()) * len(data) <= files
