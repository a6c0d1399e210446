"""RLDS's published layout as a table of episodes: `steps` are structs, the last with the final observation."""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from dr3_ray.data import from_dataframe
from dr3_ray.data.importers import find, open_source
from dr3_ray.data.importers.writing import import_source
from dr3_ray.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def make_table(make_rows):
    """A table of RLDS, and the episodes in it; `nested`: observations are structs of a vector and an image."""

    def make(lengths=(3, 1, 5), actions="box", nested=False, last_reward=0.0):
        _, episodes = make_rows(lengths, actions)
        rng = np.random.default_rng(1)
        table, wanted = [], []
        for observations, acts, rewards, terminated, truncated in episodes:
            seen = observations
            if nested:
                image = rng.integers(0, 256, (len(observations), 4, 5, 3), np.uint8)
                seen = {"arm": {"state": observations}, "image": image}
            wanted.append((seen, acts, rewards, terminated, truncated))
            steps = []
            for step in range(len(observations)):
                last = step == len(rewards)
                observation = observations[step].tolist()
                if nested:
                    observation = {"arm": {"state": observation}, "image": image[step].tolist()}
                steps.append(
                    {
                        "observation": observation,
                        "action": (np.zeros_like(acts[0]) if last else acts[step]).tolist(),
                        "reward": last_reward if last else rewards[step],
                        "discount": 0.0 if last and terminated else 1.0,
                        "is_first": step == 0,
                        "is_last": last,
                        "is_terminal": last and terminated,
                    }
                )
            table.append({"steps": steps, "episode_metadata": {"agent": "someone"}})
        found = pa.Table.from_pylist(table)
        if nested:  # as the features say: a list of uint8 for each dimension of the image
            image = pa.list_(pa.list_(pa.list_(pa.uint8())))
            kind = found.schema.field("steps").type.value_type
            fields = [field for field in kind if field.name != "observation"]
            arm = pa.struct([("state", pa.list_(pa.float64()))])
            kind = pa.struct([("observation", pa.struct([("arm", arm), ("image", image)])), *fields])
            schema = pa.schema([("steps", pa.list_(kind)), found.schema.field("episode_metadata")])
            found = pa.Table.from_pylist(table, schema=schema)
        return found, wanted

    return make


@pytest.mark.parametrize("actions", ["box", "discrete"])
@pytest.mark.parametrize("nested", [False, True], ids=["a vector", "structs"])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_every_value_of_a_table(tmp_path, make_table, assert_episodes, actions, nested, form):
    table, episodes = make_table(actions=actions, nested=nested)
    path = tmp_path / f"robot.{form}"
    pq.write_table(table, path) if form == "parquet" else feather.write_feather(table, path, "uncompressed")
    assert find(str(path)) == ("rlds", str(path))
    manifest = import_source(lambda: open_source(str(path)), tmp_path / "out")
    assert manifest.provenance.notes == () and manifest.name == "robot"
    assert_episodes(tmp_path / "out", episodes)
    kinds = {name: part.dtype for name, part in manifest.observation_space.parts.items()}
    assert kinds == ({"arm/state": "float32", "image": "uint8"} if nested else {"": "float32"})


def test_a_folder_of_files(tmp_path, make_table, assert_episodes):
    table, episodes = make_table()
    (tmp_path / "set").mkdir()
    pq.write_table(table.slice(0, 2), tmp_path / "set" / "data-00000.parquet")
    pq.write_table(table.slice(2), tmp_path / "set" / "data-00001.parquet")
    assert find(str(tmp_path / "set"))[0] == "rlds"
    import_source(lambda: open_source(str(tmp_path / "set")), tmp_path / "out", rows_per_shard=4)
    assert_episodes(tmp_path / "out", episodes)


@pytest.mark.parametrize("frame", [pl.from_arrow, lambda table: table], ids=["polars", "Arrow"])
def test_a_frame_of_episodes(tmp_path, make_table, assert_episodes, frame):
    table, episodes = make_table(nested=True)
    from_dataframe(frame(table), out=tmp_path / "out")
    assert_episodes(tmp_path / "out", episodes)


def test_a_reward_at_the_last_step_and_an_end_that_is_missing(tmp_path, make_table, assert_episodes):
    table, episodes = make_table(last_reward=1.0)
    rows = table.to_pylist()
    rows[1]["steps"][-1]["is_last"] = False
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    notes = import_source(lambda: open_source(str(tmp_path / "x.parquet")), tmp_path / "out").provenance.notes
    assert [note.partition(":")[0] for note in notes] == ["no-end", "last-reward"]
    assert "3 episodes have a reward at their last step" in notes[1] and "first episode 0, step 3" in notes[1]
    assert_episodes(tmp_path / "out", episodes)


def broken(rows, what):
    steps = rows[1]["steps"]
    if what == "no is_terminal":
        for row in rows:
            for step in row["steps"]:
                del step["is_terminal"]
    elif what == "an early end":
        rows[2]["steps"][1]["is_last"] = True
    elif what == "no steps":
        steps.clear()
    elif what == "an empty cell":
        steps[0]["reward"] = None
    else:
        steps[1]["observation"] = steps[1]["observation"][:2]
    return pa.Table.from_pylist(rows)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no is_terminal", "has no steps.is_terminal: an RLDS table has a column steps, of observation, action"),
        ("an early end", "episode 2, steps go on after step 1, which is last or terminal: cut it there in the source"),
        ("no steps", "episode 1, steps is empty: drop that episode from the source"),
        ("an empty cell", "episode 1, steps.reward is empty at row 0: drop that episode, or repair it"),
        ("another length", "episode 1, steps.observation has lists of 2 to 3 numbers: they have to be as long"),
    ],
)
def test_one_line_for_what_is_wrong(tmp_path, make_table, what, says):
    table, _ = make_table()
    pq.write_table(broken(table.to_pylist(), what), tmp_path / "x.parquet")
    with pytest.raises(UserError) as error:
        import_source(lambda: open_source(f"rlds:{tmp_path / 'x.parquet'}"), tmp_path / "out")
    assert says in str(error.value) and not (tmp_path / "out").exists()
