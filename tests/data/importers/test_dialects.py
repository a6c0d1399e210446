"""The same rows in every form that people keep tables in; and what is none of them is told by its name."""

import io
import pickle
from decimal import Decimal

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from dr3_ray.data import from_dataframe, from_episodes, load_dataset
from dr3_ray.data.importers import find, open_source
from dr3_ray.data.importers.source import Options
from dr3_ray.data.importers.writing import import_source
from dr3_ray.errors import UserError
from tests.data.importers.conftest import write_minari

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LENGTHS = (3, 1, 5, 2, 7)


def frame_of(rows):
    columns = {"Episode": np.repeat(range(len(LENGTHS)), LENGTHS), "Step": np.concatenate([*map(np.arange, LENGTHS)])}
    for name, key in (("State", "observations"), ("Next_State", "next_observations"), ("Action", "actions")):
        columns |= {f"{name}_{index}": rows[key][:, index] for index in range(rows[key].shape[1])}
    ends = {"Terminated": rows["terminateds"], "Truncated": rows["truncateds"]}
    return pd.DataFrame(columns | {"Reward": rows["rewards"]} | ends)


def save_hdf5(frame, path, **_):
    with h5py.File(path, "w") as file:
        for column in ("State", "Next_State", "Action"):
            file[f"{column}s"] = frame[[name for name in frame if name.startswith(f"{column}_")]].to_numpy()
        for name in ("Reward", "Terminated", "Truncated", "Episode"):
            file[name] = frame[name].to_numpy()
        file["info/goal"] = "a text"


def save_stream(frame, path):
    table = pa.Table.from_pandas(frame)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


def save_folder(frame, path):
    """As the package `datasets` does."""
    path.mkdir()
    (path / "state.json").write_text("{}")
    for place in range(3):
        save_stream(frame[6 * place : 6 * place + 6], path / f"data-{place:05d}-of-00003.arrow")


FORMS = {
    "comma.csv": (pd.DataFrame.to_csv, {"index": False}),
    "excel.csv": (pd.DataFrame.to_csv, {"index": False, "encoding": "utf-8-sig"}),
    "german.csv": (pd.DataFrame.to_csv, {"index": False, "sep": ";", "decimal": ","}),
    "half.csv": (pd.DataFrame.to_csv, {"index": False, "sep": ";"}),
    "bars.csv": (pd.DataFrame.to_csv, {"index": False, "sep": "|"}),
    "tabs.tsv": (pd.DataFrame.to_csv, {"index": False, "sep": "\t"}),
    "packed.csv.gz": (pd.DataFrame.to_csv, {"index": False}),
    "packed.TSV.bz2": (pd.DataFrame.to_csv, {"index": False, "sep": "\t", "compression": "bz2"}),
    "plain.feather": (pd.DataFrame.to_feather, {}),
    "plain.h5": (save_hdf5, {}),
    "spaces.csv": (lambda frame, path: path.write_text(frame.to_csv(index=False).replace(",", ", ")), {}),
    "stream.arrow": (save_stream, {}),
    "saved": (save_folder, {}),
    "hub/data/train-00000-of-00001.parquet": (lambda frame, path: frame.to_parquet(path), {}),
    "folders": (pd.DataFrame.to_parquet, {"partition_cols": ["Episode"]}),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_table_is_the_same_in_any_form(tmp_path, make_rows, assert_episodes, name):
    rows, episodes = make_rows(LENGTHS)
    save, how = FORMS[name]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    save(frame_of(rows), tmp_path / name, **how)
    name = name.partition("/")[0]
    for limit in (None, 4):  # in one part, and in several
        out = tmp_path / f"out-{limit}"
        import_source(lambda: open_source(str(tmp_path / name)), out, rows_per_shard=limit)
        assert_episodes(out, episodes)


@pytest.mark.parametrize("form", ["parquet", "feather", "polars", "hdf5"])
def test_structs_and_groups_are_parts(tmp_path, make_rows, assert_episodes, form):
    rows, episodes = make_rows(LENGTHS)
    table = pa.Table.from_pandas(
        frame_of(rows).drop(columns=[f"{name}_{n}" for name in ("State", "Next_State") for n in range(3)])
    )
    for name, seen in (("obs", rows["observations"]), ("next_obs", rows["next_observations"])):
        parts = [{"arm": {"at": each[:2].tolist()}, "speed": float(each[2])} for each in seen]
        table = table.append_column(name, pa.array(parts))
    path = tmp_path / f"parts.{form}"
    if form == "hdf5":
        with h5py.File(path, "w") as file:
            for name, seen in (("obs", rows["observations"]), ("next_obs", rows["next_observations"])):
                file[f"{name}/arm/at"], file[f"{name}/speed"] = seen[:, :2], seen[:, 2]
            for name in ("actions", "rewards", "terminateds", "truncateds"):
                file[name] = rows[name]
    elif form == "polars":
        from_dataframe(pl.from_arrow(table), out=tmp_path / "out")
    else:
        (pq.write_table if form == "parquet" else feather.write_feather)(table, path)
    if form != "polars":
        import_source(lambda: open_source(str(path)), tmp_path / "out", rows_per_shard=4)
    wanted = [({"arm/at": seen[:, :2], "speed": seen[:, 2]}, *more) for seen, *more in episodes]
    assert_episodes(tmp_path / "out", wanted)


def test_decimals_are_numbers(tmp_path, make_rows, assert_episodes):
    rows, episodes = make_rows(LENGTHS)
    table = pa.Table.from_pandas(frame_of(rows))
    gains = [Decimal(f"{each:.3f}") for each in rows["rewards"]]
    table = table.set_column(table.schema.names.index("Reward"), "Reward", pa.array(gains, pa.decimal128(10, 3)))
    pq.write_table(table, tmp_path / "money.parquet")
    import_source(lambda: open_source(str(tmp_path / "money.parquet")), tmp_path / "out")
    assert_episodes(tmp_path / "out", [(*each[:2], np.round(each[2], 3), *each[3:]) for each in episodes])


def test_names_as_they_are_written_come_first(tmp_path, make_rows):
    rows, _ = make_rows(LENGTHS)
    frame = frame_of(rows)
    frame["reward"] = 1.0
    frame.to_csv(tmp_path / "two.csv", index=False)
    assert open_source(str(tmp_path / "two.csv")).columns["rewards"] == "reward"
    with pytest.raises(UserError, match="no column is called 'reward_2', which --columns names"):
        open_source(str(tmp_path / "two.csv"), Options(columns="reward=reward_2"))
    wide = pd.DataFrame({f"x{number}": [1.0] for number in range(900)})
    wide.to_csv(tmp_path / "wide.csv", index=False)
    with pytest.raises(UserError, match="x19 and 880 more; say which it is"):
        open_source(str(tmp_path / "wide.csv"))


@pytest.mark.parametrize("name", ["plain.csv", "plain.parquet", "plain.npz"])
def test_demonstrations_need_no_rewards(tmp_path, make_rows, assert_episodes, name):
    rows, episodes = make_rows(LENGTHS)
    if name == "plain.npz":
        np.savez(tmp_path / name, **{key: values for key, values in rows.items() if key != "rewards"})
    else:
        frame = frame_of(rows).drop(columns="Reward")
        frame.to_csv(tmp_path / name, index=False) if name == "plain.csv" else frame.to_parquet(tmp_path / name)
    with pytest.raises(
        UserError, match=r"no column looks like reward.*; without rewards, for behaviour cloning, write"
    ):
        open_source(str(tmp_path / name))
    source = open_source(str(tmp_path / name), Options(columns="reward=0"))
    assert source.columns["rewards"] == "none: 0 at every step"
    import_source(lambda: source, tmp_path / "out", rows_per_shard=4)
    assert_episodes(tmp_path / "out", [(*each[:2], np.zeros_like(each[2]), *each[3:]) for each in episodes])


def test_episodes_with_next_observations(tmp_path, make_rows, assert_episodes):
    """As Decision Transformer's files have them: lists of dicts with as many observations as actions."""
    _, episodes = make_rows(LENGTHS)
    given = [
        {
            "observations": seen[:-1],
            "next_observations": seen[1:],
            "actions": acts,
            "rewards": gains,
            "terminals": np.arange(len(gains)) == (len(gains) - 1 if terminated else -1),
        }
        for seen, acts, gains, terminated, _ in episodes
    ]
    from_episodes(given, out=tmp_path / "out")
    assert_episodes(tmp_path / "out", episodes)
    given[2]["next_observations"] = given[2]["next_observations"][:-1]
    with pytest.raises(UserError, match=r"episode 2.*or as many with next_observations"):
        from_episodes(given, out=tmp_path / "none")


def test_whole_numbers_that_begin_elsewhere(tmp_path, make_rows, assert_episodes):
    rows, episodes = make_rows(LENGTHS, actions="discrete")
    rows["actions"] = rows["actions"] + 1
    np.savez(tmp_path / "one.npz", **rows)
    manifest = import_source(lambda: open_source(str(tmp_path / "one.npz")), tmp_path / "guessed")
    assert [note.partition(":")[0] for note in manifest.provenance.notes] == ["first-action"]
    asked = Options(action_space="discrete:3,1")
    manifest = import_source(lambda: open_source(str(tmp_path / "one.npz"), asked), tmp_path / "out")
    assert manifest.action_space.n == 3 and manifest.action_space.start == 1 and not manifest.provenance.notes
    assert_episodes(tmp_path / "out", [(seen, acts + 1, *more) for seen, acts, *more in episodes])


def test_several_choices_at_once(tmp_path, make_rows, assert_episodes):
    rows, episodes = make_rows(LENGTHS, actions="discrete")
    rows["actions"] = np.stack([rows["actions"], rows["actions"] % 2], 1)
    np.savez(tmp_path / "two.npz", **rows)
    with pytest.raises(UserError, match=r"shape \(2,\): give --action-space multidiscrete:N,N,… or box:LOW,HIGH"):
        open_source(str(tmp_path / "two.npz"))
    for wrong in ("multidiscrete:3", "multidiscrete:3,0"):
        with pytest.raises(UserError, match="give how many choices each has"):
            open_source(str(tmp_path / "two.npz"), Options(action_space=wrong))
    asked = Options(action_space="multidiscrete:3,2")
    manifest = import_source(lambda: open_source(str(tmp_path / "two.npz"), asked), tmp_path / "out")
    assert manifest.action_space.choices == (3, 2)
    assert_episodes(tmp_path / "out", [(seen, np.stack([acts, acts % 2], 1), *more) for seen, acts, *more in episodes])


def test_text_in_the_place_of_numbers_is_shown(tmp_path, make_rows):
    frame = frame_of(make_rows(LENGTHS)[0])
    frame["Reward"] = [f"{each:,.2f}" for each in frame["Reward"] * 1e4]
    frame.to_csv(tmp_path / "text.csv", index=False)
    with pytest.raises(UserError, match=r"Reward holds string, such as '.*', and rewards are numbers: convert it"):
        open_source(str(tmp_path / "text.csv"))


def test_images_in_files_in_a_column(tmp_path, make_rows):
    rows, pixels = make_rows(LENGTHS)[0], np.random.default_rng(0).integers(0, 256, (sum(LENGTHS), 6, 5, 3), np.uint8)
    contents = []
    for each in pixels:
        contents.append(io.BytesIO())
        Image.fromarray(each).save(contents[-1], "PNG")
    table = pa.Table.from_pandas(frame_of(rows)).append_column("Pixels", [[each.getvalue() for each in contents]])
    pq.write_table(table, tmp_path / "pixels.parquet")
    asked = Options(columns="observation=Pixels,next_observation=")
    import_source(lambda: open_source(str(tmp_path / "pixels.parquet"), asked), tmp_path / "out")
    found = load_dataset(tmp_path / "out").gather(torch.arange(3), ["observations"])["observations"]
    assert (found.numpy() == pixels[:3]).all()


STRANGERS = {
    "walks.zip": (b"PK\x03\x04", "is an archive: unpack it"),
    "walks.tar.gz": (b"\x1f\x8b", "is an archive: unpack it"),
    "walks.pkl": (pickle.dumps([{"observations": []}]), "is a pickle, which can run code"),
    "one.npy": (b"\x93NUMPY", "is one array: save all of them"),
    "table.xlsx": (b"PK\x03\x04", "is a spreadsheet: save it as CSV"),
    "old.json": (b'{"type": "SampleBatch", "obs": "BCJ"}', "is a recording of RLlib's old API stack"),
    "fractal-train.tfrecord-00000-of-01024": (b"\x00\x01", "is a file of TensorFlow: write its episodes as a Parquet"),
    "what.bin": (b"\x00\x01", "cannot tell what"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_cannot_be_read_is_told_by_its_name(tmp_path, name):
    content, said = STRANGERS[name]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_bytes(content)
    for place in (folder / name, folder):
        with pytest.raises(UserError) as error:
            find(str(place))
        assert said in str(error.value)


def test_folders_of_other_libraries_are_told(tmp_path, minari_home, make_rows, monkeypatch):
    (tmp_path / "pusht.zarr").mkdir()
    (tmp_path / "pusht.zarr/.zgroup").write_text("{}")
    with pytest.raises(UserError, match="is a folder of Zarr: read its arrays"):
        find(str(tmp_path / "pusht.zarr"))
    write_minari("mine/walk-v0", make_rows(LENGTHS)[1])
    with pytest.raises(UserError, match=f"set MINARI_DATASETS_PATH={minari_home}, say minari:mine/walk-v0"):
        find(str(minari_home / "mine/walk-v0"))
    (minari_home / "mine/walk-v0").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is the data set mine/walk-v0 of Minari: put it below MINARI_DATASETS_PATH"):
        find(str(tmp_path / "elsewhere"))
