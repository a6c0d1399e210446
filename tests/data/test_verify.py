"""Damage with right digests: `verify` finds it by the rules of import, and opening what is cheap to find."""

import contextlib
import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dr3_ray.data import Manifest, Provenance, ShardWriter, SpaceSpec, load_dataset, verify
from dr3_ray.data.content import read_content
from dr3_ray.errors import UserError

LENGTHS = (3, 1, 5, 2, 4)


def read(path):
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(0)


def write(path, batch, **options):
    """Replace an Arrow file."""
    new = path.with_name("new")
    with pa.OSFile(str(new), "wb") as sink, pa.ipc.new_file(sink, batch.schema, **options) as writer:
        writer.write_batch(batch)
    new.rename(path)


def reseal(path, change=lambda manifest: None):
    """A manifest whose digests, sizes and counts are right for the files, whatever they hold."""
    manifest = json.loads((path / "manifest.json").read_text())
    frames = [frames for entry in manifest["shards"] for frames in entry.get("frames", ())]
    for entry in (*manifest["shards"], *frames, manifest["episodes"]):
        content = (path / entry["file"]).read_bytes()
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    for name in ("terminateds", "truncateds"):
        columns = [read(path / entry["file"])[name].to_numpy(zero_copy_only=False) for entry in manifest["shards"]]
        manifest["counts"][name] = int(np.concatenate(columns).sum())
    change(manifest)
    sealed = Manifest.parse(json.dumps(manifest).encode(), path).sealed()
    (path / "manifest.json").write_text(sealed.text())
    with contextlib.suppress(UserError, IndexError):  # what cannot be read has no digest of its rows
        sealed = sealed.model_copy(update={"content": read_content(load_dataset(path))}).sealed()
        (path / "manifest.json").write_text(sealed.text())


def columns(change, number=0):
    """Change the columns of one shard, as arrays that can be written to."""

    def damage(path):
        file = path / f"shard-{number:05d}.arrow"
        batch = read(file)
        found = {name: batch[name].to_numpy(zero_copy_only=False).copy() for name in batch.schema.names}
        change(found)
        arrays = [
            pa.array(found[name], field.type) if batch[name].type == field.type and found[name].dtype != object
            else pa.array(list(found[name]), field.type)
            for name, field in zip(batch.schema.names, batch.schema, strict=True)
        ]  # fmt: skip
        write(file, pa.RecordBatch.from_arrays(arrays, schema=batch.schema))
        reseal(path)

    return damage


def table(change):
    def damage(path):
        batch = read(path / "episodes.arrow")
        found = {name: batch[name].to_numpy(zero_copy_only=False).copy() for name in batch.schema.names}
        change(found)
        arrays = [pa.array(found[name], field.type) for name, field in zip(found, batch.schema, strict=True)]
        write(path / "episodes.arrow", pa.RecordBatch.from_arrays(arrays, schema=batch.schema))
        reseal(path)

    return damage


def put(name, where, value):
    return columns(lambda found: found[name].__setitem__(where, value))


def enter(name, where, value):
    return table(lambda found: found[name].__setitem__(where, value))


def swap_shards(path):
    reseal(path, lambda manifest: manifest["shards"].reverse())


def swap_contents(path):
    """Two shards of the same rows change places on disk, and the manifest knows of it."""
    first, second = path / "shard-00000.arrow", path / "shard-00001.arrow"
    contents = second.read_bytes(), first.read_bytes()
    first.write_bytes(contents[0])
    second.write_bytes(contents[1])
    reseal(path)


def move_terminal(path):
    columns(lambda found: found["truncateds"].__setitem__([1, 2], [True, False]))(path)


def shift_ids(found):
    found["episode_ids"] += 1


def more_gamma(manifest):
    manifest["gamma"] = 0.91


def statistics(manifest):
    manifest["statistics"]["rewards"]["mean"] += 0.1


def twice(path):
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"gamma": 0.9,', '"gamma": 0.9, "gamma": 0.8,', 1))


def said(field, **values):
    """A manifest that says other things of a space, or of itself, under digests that are right."""
    return lambda path: reseal(path, lambda manifest: manifest[field].update(values))


def calls_it_a_subsample(manifest):
    manifest["complete_episodes"] = False


def two_lines(path):
    manifest = json.loads((path / "manifest.json").read_text()) | {"environment": "gymnasium:A\n-v0"}
    (path / "manifest.json").write_text(json.dumps(manifest))


def ids_below_zero(path):
    for number in range(3):
        columns(lambda found: found["episode_ids"].__isub__(5), number)(path)
    table(lambda found: found["episode_ids"].__isub__(5))(path)


def bounds(value):
    def damage(path):
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["observation_space"]["low"] = [value]
        (path / "manifest.json").write_text(json.dumps(manifest))

    return damage


def compressed(path):
    write(
        path / "shard-00000.arrow", read(path / "shard-00000.arrow"), options=pa.ipc.IpcWriteOptions(compression="zstd")
    )
    reseal(path)


DAMAGE = {
    "NaN reward": (put("rewards", 2, np.nan), "rewards has NaN or infinite values"),
    "infinite reward": (put("rewards", 1, np.inf), "rewards has NaN or infinite values"),
    "another reward": (put("rewards", 1, 9.0), "are not those of the rewards"),
    "a wrong return": (put("monte_carlo_returns", 1, 0.123), "are not those of the rewards with gamma 0.9"),
    "a wrong last return": (put("monte_carlo_returns", 2, 0.123), "are not those of the rewards with gamma 0.9"),
    "gamma edited": (lambda path: reseal(path, more_gamma), "are not those of the rewards with gamma 0.91"),
    "gamma twice": (twice, "'gamma' stands there twice"),
    "bounds NaN": (bounds("NaN"), "a bound is NaN, or low is above high"),
    "bounds NaN in JSON": (bounds(float("nan")), "NaN is no number"),
    "a bound edited": (bounds(99), "says other things about the data"),
    "terminal moved": (put("terminateds", [1, 2], [True, False]), "does not end with a terminal flag"),
    "terminal moved ahead": (put("terminateds", 1, True), "is terminated or truncated at step 1 but has 3 steps"),
    "truncated, not terminated": (
        columns(lambda found: (found["terminateds"].fill(False), found["truncateds"].__setitem__([2, 3], True))),
        "is terminated by its rows or by its entry",
    ),
    "masks all true": (columns(lambda found: found["next_actions_valid"].fill(True)), "next_actions_valid is wrong"),
    "masks all false": (columns(lambda found: found["next_actions_valid"].fill(False)), "next_actions_valid is wrong"),
    "next actions shifted": (
        columns(lambda found: found["next_actions"].__setitem__(slice(0, 3), [1, 1, 1])),
        "next_actions at step",
    ),
    "an action 7": (put("actions", 1, 7), "actions has a 7, which is outside the space Discrete(4)"),
    "a next action 7": (put("next_actions", 0, 7), "next_actions has a 7"),
    "an action -1": (put("actions", 1, -1), "actions has a -1"),
    "ids shifted": (columns(shift_ids), "not in the order of its episodes"),
    "an id in the middle": (put("episode_ids", 1, 3), "its rows belong to another episode"),
    "timesteps shifted": (columns(lambda found: found["timesteps"].__iadd__(1)), "its timesteps start at 1"),
    "timesteps swapped": (put("timesteps", [1, 2], [2, 1]), "its timesteps are out of order"),
    "next observations shifted": (
        columns(lambda found: found["next_observations"].__setitem__(0, [5, 5, 5])),
        "next_observations at step 0 are not the observations of the step after",
    ),
    "an observation of NaN": (
        columns(lambda found: found["observations"].__setitem__(0, [5, np.nan, 5])),
        "observations has NaN",
    ),
    "offsets shifted": (enter("offsets", 1, 2), "do not add up to the rows"),
    "lengths moved": (
        table(lambda found: (found["lengths"].__setitem__([0, 1], [2, 2]), found["offsets"].__setitem__(1, 2))),
        "not in the order of its episodes",
    ),
    "ids in the table": (enter("episode_ids", 0, -1), "do not grow from 0 on"),
    "ids below 0": (ids_below_zero, "do not grow from 0 on"),
    "ids in the table swapped": (enter("episode_ids", [0, 1], [1, 0]), "do not grow"),
    "a return in the table": (enter("returns", 2, 99.0), "does not have the return of its rewards"),
    "a return of NaN in the table": (enter("returns", 2, np.nan), "NaN or infinite"),
    "terminated in the table": (enter("terminated", 0, False), "is terminated by its rows or by its entry"),
    "swapped shards": (swap_shards, "not in the order of its episodes"),
    "swapped contents": (swap_contents, "not in the order of its episodes"),
    "statistics": (lambda path: reseal(path, statistics), "the statistics of rewards"),
    "a compressed shard": (compressed, "is compressed, which cannot be mapped"),
    "a next action of none": (put("next_actions", 2, 3), "has a next action at step 2, after which there is none"),
    "no subsample": (lambda path: reseal(path, calls_it_a_subsample), "calls the rows a subsample"),
    "an environment of two lines": (two_lines, "wrong at environment"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_with_right_digests_is_found(make_dataset, case):
    damage, says = DAMAGE[case]
    path, _ = make_dataset(action="discrete", lengths=LENGTHS, rows_per_shard=5)
    damage(path)
    with pytest.raises(UserError) as error:
        verify(load_dataset(path))
    assert says in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    low=st.sampled_from([-np.inf, -3.4e38, -(2.0**25), -2.0, 0.0]),
    high=st.sampled_from([1.0, 2.0**25, 3.4e38, np.inf]),
    dtype=st.sampled_from(["float32", "uint8", "bool"]),
    env_dtype=st.sampled_from([None, "bool", "int16", "float16", "float32", "float64"]),
)
def test_spaces_that_cannot_be_written_do_not_open(make_dataset, low, high, dtype, env_dtype):
    """A manifest with right digests names no actions that a writer refuses."""
    path, _ = make_dataset("x", action="box", lengths=(2,))
    spec = {"low": [low], "high": [high], "dtype": dtype, "env_dtype": env_dtype}
    about = {"gamma": 0.9, "name": "y", "provenance": Provenance(source="test")}
    try:
        actions = SpaceSpec.model_validate({"kind": "box", "shape": [2]} | spec)
        ShardWriter(path.with_name("y"), observation_space=SpaceSpec.box(-1, 1, (3,)), action_space=actions, **about)
        written = dtype == "float32"  # the type on disk, whatever a writer is told
    except (UserError, ValidationError):
        written = False
    try:
        said("action_space", **spec)(path)
        verify(load_dataset(path))
        assert written
    except UserError as error:
        assert not written and "\n" not in str(error)
    finally:
        shutil.rmtree(path)


# of a subsample as far as the rows are there
SUBSAMPLED = (
    "NaN reward", "gamma twice", "masks all true", "an action 7", "ids shifted", "offsets shifted",
    "timesteps swapped", "swapped shards", "a return of NaN in the table", "statistics", "a compressed shard",
)  # fmt: skip


@pytest.mark.parametrize("case", SUBSAMPLED)
def test_damage_of_a_subsample_is_found(make_dataset, case):
    path, _ = make_dataset(action="discrete", lengths=(9, 9, 9, 9), rows_per_shard=12, keep=0.8)
    verify(load_dataset(path))
    assert not load_dataset(path).manifest.complete_episodes
    DAMAGE[case][0](path)
    with pytest.raises(UserError):
        verify(load_dataset(path))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["rewards", "monte_carlo_returns", "terminateds", "truncateds", "next_actions_valid",
                          "episode_ids", "timesteps", "actions"]),
    row=st.integers(0, 4),
    data=st.data(),
)  # fmt: skip
def test_any_changed_value_is_found_or_changes_another_identity(make_dataset, name, row, data):
    """Whatever one value becomes, verify refuses it.

    Only another choice of an action may be one that was taken, and a step that is terminated may be cut off as well.
    """
    path, _ = make_dataset("x", action="discrete", lengths=LENGTHS, rows_per_shard=5)
    try:
        was = load_dataset(path).fingerprint
        before = read(path / "shard-00000.arrow")[name].to_numpy(zero_copy_only=False)[row]
        value = data.draw(
            st.just(not before) if before.dtype == bool
            else st.floats(width=32) if before.dtype.kind == "f"
            else st.integers(-(2**31), 2**31 - 1)
        )  # fmt: skip
        if before.dtype.kind == "f" and abs(value - before) <= 1e-4:
            return
        if value == before:
            return
        put(name, row, value)(path)
        try:
            verify(load_dataset(path))
        except UserError as error:
            assert "\n" not in str(error)
        else:
            ends = read(path / "shard-00000.arrow")["terminateds"].to_numpy(zero_copy_only=False)
            assert (name == "actions" and 0 <= value < 4) or (name == "truncateds" and ends[row])
            assert load_dataset(path).fingerprint != was
    finally:
        shutil.rmtree(path)
