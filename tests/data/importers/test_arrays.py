"""From Python: arrays, episodes and frames, and what each lacks."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from dr3_ray.data import from_arrays, from_dataframe, from_episodes, import_minari, load_dataset
from dr3_ray.data.checks import CHECKS, Findings
from dr3_ray.data.importers.rows import episodes_of
from dr3_ray.data.importers.timeouts import with_timeouts
from dr3_ray.errors import UserError


@pytest.mark.parametrize("actions", ["box", "discrete"])
def test_arrays(tmp_path, make_rows, assert_episodes, actions):
    rows, episodes = make_rows(actions=actions)
    manifest = from_arrays(**rows, out=tmp_path / "out", name="mine", gamma=0.9)
    assert_episodes(tmp_path / "out", episodes)
    assert (manifest.name, manifest.gamma, manifest.provenance.notes) == ("mine", 0.9, ())
    assert manifest.action_space.n == (3 if actions == "discrete" else None)


def test_columns_of_one_element_are_numbers(tmp_path, make_rows, assert_episodes):
    rows, episodes = make_rows(actions="discrete")
    narrow = {name: rows[name][:, None] for name in ("rewards", "terminateds", "truncateds", "actions")}
    from_arrays(**rows | narrow, out=tmp_path / "out")
    assert_episodes(tmp_path / "out", episodes)


def test_without_next_observations_the_next_episode_is_not_looked_at(tmp_path, make_rows, assert_episodes):
    rows, episodes = make_rows(lengths=(3, 4, 1, 1, 2))
    del rows["next_observations"]
    with pytest.warns(UserWarning) as warned:
        from_arrays(**rows, out=tmp_path / "out")
    kept = []
    for observations, actions, rewards, terminated, truncated in episodes:
        if terminated:  # the step's own observation stands after it
            kept.append((np.append(observations[:-1], observations[-2:-1], 0), actions, rewards, True, False))
        elif len(rewards) > 1:
            kept.append((observations[:-1], actions[:-1], rewards[:-1], terminated, truncated))
    dataset = assert_episodes(tmp_path / "out", kept)
    notes = dataset.manifest.provenance.notes
    assert [str(each.message) for each in warned] == list(notes)
    assert [note.partition(":")[0] for note in notes] == ["no-final-observation", "terminal-observation", "one-step"]
    assert notes[0] == "no-final-observation: " + CHECKS["no-final-observation"].format(count=1)


def test_shuffled_transitions_become_episodes_of_one_step(tmp_path, make_rows):
    rows, _ = make_rows(lengths=(30,))
    order = np.random.default_rng(1).permutation(30)
    with pytest.warns(UserWarning, match=r"broken-chain: 2\d steps lead elsewhere"):
        from_arrays(**{name: values[order] for name, values in rows.items()}, out=tmp_path / "out")
    dataset = load_dataset(tmp_path / "out")
    assert len(dataset) == 30 and len(dataset.episodes["lengths"]) > 20
    assert dataset.manifest.name == "out"  # that of the folder, where none was given


def test_the_last_rows_without_an_end(tmp_path, make_rows, assert_episodes):
    rows, episodes = make_rows(lengths=(3, 4))
    rows["truncateds"][-1] = False
    with pytest.warns(UserWarning, match="no-end: 1 episodes end without terminal or timeout: marked truncated"):
        from_arrays(**rows, out=tmp_path / "out")
    assert_episodes(tmp_path / "out", episodes)
    with pytest.raises(UserError, match=r"no-end: .*: mend that in the source, or import without --strict"):
        from_arrays(**rows, out=tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_dict_observations_and_bounds_from_the_data(tmp_path, make_rows, assert_episodes):
    rows, episodes = make_rows()
    image = np.random.default_rng(2).integers(0, 256, (9, 4, 4), np.uint8)
    later = np.concatenate([image[1:3], image[:1], image[:1], image[5:], image[:1]])
    rows |= {
        "observations": {"image": image, "state": rows["observations"]},
        "next_observations": {"image": later, "state": rows["next_observations"]},
        "actions": 3 * rows["actions"],
    }
    with pytest.warns(UserWarning, match="action-bounds: the bounds of the actions are the range"):
        manifest = from_arrays(**rows, out=tmp_path / "out")
    parts, start = [], 0
    for observations, actions, rewards, *ends in episodes:
        stop = start + len(rewards)
        seen = {"image": np.append(image[start:stop], later[stop - 1 : stop], 0), "state": observations}
        parts.append((seen, 3 * actions, rewards, *ends))
        start = stop
    assert_episodes(tmp_path / "out", parts)
    low, high = manifest.action_space.bounds()
    np.testing.assert_array_equal([low, high], [rows["actions"].min(0), rows["actions"].max(0)])
    given_bounds = from_arrays(**rows, out=tmp_path / "given", action_space=spaces.Box(-3, 3, (2,), np.float64))
    assert given_bounds.action_space.low == (-3,) and given_bounds.provenance.notes == ()


def test_episodes_of_a_list_and_of_a_generator(tmp_path, make_rows, assert_episodes):
    _, episodes = make_rows()
    names = ("observations", "actions", "rewards", "terminated", "truncated")
    listed = [dict(zip(names, episode, strict=True)) for episode in episodes]
    from_episodes(listed, out=tmp_path / "list")
    assert_episodes(tmp_path / "list", episodes)
    from_episodes(iter(listed), out=tmp_path / "iterator", action_space="box:-1,1")
    assert_episodes(tmp_path / "iterator", episodes)
    with pytest.raises(UserError, match="can be read once only: give a list of them, or an action_space"):
        from_episodes(iter(listed), out=tmp_path / "none")
    listed[1] = listed[1] | {"observations": listed[1]["observations"][:-1]}
    with pytest.raises(UserError, match="episode 1 has 1 rewards, 1 actions and 1 observations"):
        from_episodes(listed, out=tmp_path / "none")
    with pytest.raises(UserError, match="there are no episodes"):
        from_episodes([], out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def framed(rows, episodes, **more):
    lengths = [len(each[2]) for each in episodes]
    columns = {f"obs_{index}": rows["observations"][:, index] for index in range(3)}
    columns |= {f"next_obs_{index}": rows["next_observations"][:, index] for index in range(3)}
    columns |= {f"action_{index}": rows["actions"][:, index] for index in range(2)}
    columns |= {"r": rows["rewards"], "terminal": rows["terminateds"], "timeout": rows["truncateds"]}
    columns |= {"episode": np.repeat(np.arange(len(lengths)), lengths), "t": np.concatenate([*map(np.arange, lengths)])}
    return pd.DataFrame(columns | more)


@pytest.mark.parametrize(
    "kind", [lambda frame: frame, pa.Table.from_pandas, pl.from_pandas], ids=["pandas", "arrow", "polars"]
)
def test_frames(tmp_path, make_rows, assert_episodes, kind):
    rows, episodes = make_rows()
    manifest = from_dataframe(kind(framed(rows, episodes, note="x")), out=tmp_path / "out")
    assert_episodes(tmp_path / "out", episodes)
    assert "observations: obs_0, obs_1, obs_2; actions: action_0, action_1" in manifest.provenance.details["columns"]
    assert "(not taken): note" in manifest.provenance.details["columns"]


def test_frames_of_polars_with_lists_arrays_and_several_chunks(tmp_path, make_rows, assert_episodes):
    rows, episodes = make_rows(actions="discrete")
    frame = pl.DataFrame(
        {
            "obs": pl.Series(rows["observations"].tolist(), dtype=pl.List(pl.Float64)),
            "next_obs": pl.Series(rows["next_observations"], dtype=pl.Array(pl.Float64, 3)),
            "action": pl.Series(rows["actions"], dtype=pl.UInt8),
            "reward": rows["rewards"],
            "episode": pl.Series(np.repeat(list("abc"), [3, 1, 5]), dtype=pl.String),
            "terminated": rows["terminateds"],
            "truncated": rows["truncateds"],
        }
    )
    from_dataframe(pl.concat([frame[:4], frame[4:]], rechunk=False), out=tmp_path / "out")
    dataset = assert_episodes(tmp_path / "out", episodes)
    assert dataset.action_space.n == 3
    with pytest.raises(UserError, match="LazyFrame is no frame: collect it first"):
        from_dataframe(frame.lazy(), out=tmp_path / "none")
    with pytest.raises(UserError, match="reward is empty at row 1: drop that episode, or repair it"):
        from_dataframe(frame.with_columns(reward=pl.Series([0.0, None, *[1.0] * 7])), out=tmp_path / "none")


def test_frames_with_lists_and_named_columns(tmp_path, make_rows, assert_episodes):
    rows, episodes = make_rows()
    frame = pd.DataFrame({"x": list(rows["observations"]), "y": list(rows["next_observations"])})
    frame["u"], frame["gain"], frame["id"] = list(rows["actions"]), rows["rewards"], np.repeat(list("abc"), [3, 1, 5])
    frame["over"], frame["cut"] = rows["terminateds"].astype(int), rows["truncateds"].astype(float)
    said = "observation=x,next_observation=y,action=u,reward=gain,episode=id,terminated=over,truncated=cut"
    from_dataframe(frame, said, out=tmp_path / "out")
    assert_episodes(tmp_path / "out", episodes)
    with pytest.raises(UserError, match="no column looks like observation: there are x, y"):
        from_dataframe(frame, out=tmp_path / "none")
    with pytest.raises(UserError, match="no column is called 'z', which --columns names for observation"):
        from_dataframe(frame, "observation=z", out=tmp_path / "none")
    with pytest.raises(UserError, match="--columns has 'watch=x': write NAME=COLUMN"):
        from_dataframe(frame, "watch=x", out=tmp_path / "none")


def change(**columns):
    def apply(frame):
        for name, values in columns.items():
            frame[name] = values
        return frame

    return apply


BAD = {
    "a gap": (change(t=[0, 1, 3, 0, 0, 1, 2, 3, 4]), r"t is irregular or has a gap at row 2 \(episode 0\)"),
    "a repeated step": (change(t=[0, 1, 1, 0, 0, 1, 2, 3, 4]), r"t is repeated at row 2 \(episode 0\): it goes from 1"),
    "an unsorted step": (change(t=[0, 1, 2, 0, 0, 2, 1, 3, 4]), r"t is irregular or has a gap at row 5 \(episode 2\)"),
    "a step back": (change(t=[0, 1, 2, 0, 4, 3, 2, 1, 0]), r"t goes back at row 5 \(episode 2\): it goes from 4 to 3"),
    "unsorted episodes": (change(episode=[0, 1, 0, 2, 3, 3, 3, 3, 3]), "episode 0 begins again at row 2: sort"),
    "NaN": (
        change(obs_1=[0, 0, 0, 0, 0, np.nan, 0, 0, 0]),
        r"obs_1 is empty at row 5|observations\[1\] is NaN at row 5",
    ),
    "an infinite reward": (change(r=[0, np.inf, 0, 0, 0, 0, 0, 0, 0]), r"rewards is infinite at row 1 \(episode 0\)"),
    "a flag of two": (change(terminal=[0, 0, 2, 0, 0, 0, 0, 0, 1]), "terminateds is 2 at row 2, not 0 or 1"),
    "words": (change(r=list("abcdefghi")), "r holds (large_)?string, such as .a., and rewards are numbers"),
    "no rows": (lambda frame: frame[:0], "there are no rows to write"),
}


@pytest.mark.parametrize("case", BAD)
def test_tables_that_cannot_be_learned_from(tmp_path, make_rows, case):
    spoil, says = BAD[case]
    rows, episodes = make_rows()
    with pytest.raises(UserError, match=says):
        from_dataframe(spoil(framed(rows, episodes)), out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_arrays_that_do_not_fit(tmp_path, make_rows):
    rows, _ = make_rows()
    cases = {
        "the lengths differ: observations has 9, actions has 9, rewards has 8": {"rewards": rows["rewards"][:-1]},
        "nothing says where an episode ends": {"terminateds": None, "truncateds": None},
        "rewards has shape": {"rewards": np.zeros((9, 2))},
        "actions are whole numbers of shape": {"actions": np.zeros((9, 2), int)},
        "an action is NaN or infinite": {"actions": np.full((9, 2), np.nan)},
        "holds Python objects": {"observations": np.array([{}] * 9)},
    }
    for says, wrong in cases.items():
        with pytest.raises(UserError, match=says):
            from_arrays(**rows | wrong, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 7), st.integers(0, 2**32 - 1), st.booleans())
def test_any_batches_give_the_same_episodes(make_rows_once, lengths, size, seed, with_ids):
    rows, episodes = make_rows_once(tuple(lengths), seed=seed)
    if with_ids:
        rows |= {
            "episode_ids": np.repeat(np.arange(len(lengths)), lengths),
            "timesteps": np.concatenate([*map(np.arange, lengths)]),
        }
        del rows["terminateds"]
    batches = [
        {name: values[start : start + size] for name, values in rows.items()} for start in range(0, sum(lengths), size)
    ]
    findings = Findings()
    found = list(episodes_of(batches, findings))
    assert [each.number for each in found] == list(range(len(lengths)))
    for one, (observations, actions, rewards, terminated, truncated) in zip(found, episodes, strict=True):
        np.testing.assert_array_equal(one.observations, observations)
        np.testing.assert_array_equal(one.actions, actions)
        np.testing.assert_array_equal(one.rewards, rewards)
        ends = (False, True) if with_ids else (terminated, truncated)
        assert (one.terminateds[-1], one.truncateds[-1]) == ends
        assert not (one.terminateds[:-1] | one.truncateds[:-1]).any()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 6), st.integers(1, 9))
def test_timeouts_come_after_so_many_steps(flags, limit, size):
    terminated = np.array(flags)
    batches = [{"rewards": part, "terminateds": part} for part in np.split(terminated, range(size, len(flags), size))]
    found = np.concatenate(
        [batch["truncateds"] for batch in with_timeouts((b for b in batches if len(b["rewards"])), limit)]
    )
    steps, expected = 0, []
    for flag in flags:
        steps += 1
        expected.append(not flag and steps == limit)
        steps = 0 if flag or steps == limit else steps
    assert found.tolist() == expected


@pytest.fixture(scope="module")
def make_rows_once():
    def make(lengths, seed):
        rng = np.random.default_rng(seed)
        episodes = [
            (rng.normal(size=(n + 1, 2)), rng.integers(0, 3, n), rng.normal(size=n), bool(i % 2), not i % 2)
            for i, n in enumerate(lengths)
        ]
        last = np.concatenate([np.arange(n) == n - 1 for n in lengths])
        terminated = np.repeat([each[3] for each in episodes], lengths)
        rows = {
            "observations": np.concatenate([each[0][:-1] for each in episodes]),
            "next_observations": np.concatenate([each[0][1:] for each in episodes]),
            "actions": np.concatenate([each[1] for each in episodes]),
            "rewards": np.concatenate([each[2] for each in episodes]),
            "terminateds": last & terminated,
            "truncateds": last & ~terminated,
        }
        return rows, episodes

    return make


@pytest.mark.parametrize("function", [from_arrays, from_episodes, from_dataframe, import_minari])
def test_an_unknown_option_is_that_of_the_function_called(tmp_path, function):
    rows = {"observations": [[0.0]], "actions": [[0.0]], "rewards": [0.0]} if function is from_arrays else {}
    given = () if rows else ([],)
    out = (tmp_path / "out",) if function is import_minari else ()
    target = {} if out else {"out": tmp_path / "out"}
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) got an unexpected keyword .*'observation_space'"):
        function(*given, *out, **rows, **target, observation_space=None)
