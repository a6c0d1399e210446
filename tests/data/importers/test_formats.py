"""Files made by the published layout of each library, and every value of them in the data set."""

import gzip
import io
import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dr3_ray.data.importers import IMPORTERS, find, open_source
from dr3_ray.data.importers.source import Options
from dr3_ray.data.importers.writing import import_source
from dr3_ray.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LENGTHS = (3, 1, 5)


def write(source, out, **options):
    """Import by the layout alone; the names of the checks that found something."""
    manifest = import_source(lambda: open_source(str(source), Options(**options)), out)
    return [note.partition(":")[0] for note in manifest.provenance.notes]


def refused(source, tmp_path, **options):
    with pytest.raises(UserError) as error:
        write(source, tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()
    return str(error.value)


def ended(episodes):
    """As they come back from a source without final observations."""
    kept = []
    for observations, actions, rewards, terminated, truncated in episodes:
        if terminated:
            kept.append((np.append(observations[:-1], observations[-2:-1], 0), actions, rewards, True, truncated))
        elif len(rewards) > 1:
            kept.append((observations[:-1], actions[:-1], rewards[:-1], False, True))
    return kept


@pytest.fixture
def d4rl(tmp_path, make_rows):
    rows, episodes = make_rows((3, 4, 5, 1))
    path = tmp_path / "hopper.hdf5"
    with h5py.File(path, "w") as file:
        for name in ("observations", "actions", "rewards"):
            file.create_dataset(name, data=rows[name], compression="gzip")
        file["terminals"], file["timeouts"] = rows["terminateds"], rows["truncateds"]
        file["infos/qpos"] = np.zeros((13, 2))
    return path, rows, episodes


def test_d4rl(tmp_path, d4rl, assert_episodes):
    path, rows, episodes = d4rl
    for given in (str(path), f"d4rl:{path}", f"file://{path}", f"file:{path}", f"d4rl:file://{path}"):
        assert find(given) == ("d4rl", str(path))
    for elsewhere in ("s3://bucket/flat.hdf5", "d4rl:s3://bucket/flat.hdf5", "file://other/flat.hdf5"):
        with pytest.raises(UserError, match=r"(is a URI: give a path of this machine|is a file of other)"):
            find(elsewhere)
    checks = ["no-final-observation", "terminal-observation", "one-step"]
    assert write(path, tmp_path / "out") == checks
    assert_episodes(tmp_path / "out", ended(episodes))
    with h5py.File(path, "a") as file:
        for name in ("rewards", "terminals", "timeouts"):
            values = file[name][...][:, None]
            del file[name]
            file[name] = values
    assert write(path, tmp_path / "narrow") == checks
    assert_episodes(tmp_path / "narrow", ended(episodes))
    with h5py.File(path, "a") as file:
        file["next_observations"] = rows["next_observations"]
    assert write(f"d4rl:{path}", tmp_path / "next") == []
    assert_episodes(tmp_path / "next", episodes)


def test_d4rl_with_terminal_and_timeout_on_one_row(tmp_path, d4rl, assert_episodes):
    path, _, episodes = d4rl
    with h5py.File(path, "a") as file:
        file["timeouts"][2] = True
    assert "both-ends" in write(path, tmp_path / "out")
    assert_episodes(tmp_path / "out", ended([(*episodes[0][:4], True), *episodes[1:]]))


def test_d4rl_without_timeouts(tmp_path, d4rl, assert_episodes):
    path, _, episodes = d4rl
    with h5py.File(path, "a") as file:
        del file["timeouts"]
    assert "has no timeouts: give --max-steps" in refused(path, tmp_path)
    write(path, tmp_path / "out", max_steps=4)
    parts = []
    for observations, actions, rewards, terminated, _ in episodes:
        for start in range(0, len(rewards), 4):
            steps = slice(start, start + 4)
            last = terminated and start + 4 >= len(rewards)
            parts.append((observations[start : start + 5], actions[steps], rewards[steps], last, not last))
    assert_episodes(tmp_path / "out", ended(parts))


def test_d4rl_files_that_are_broken(tmp_path, d4rl):
    path, *_ = d4rl
    with h5py.File(path) as file:
        place = file["rewards"].id.get_chunk_info(0).byte_offset
    content = path.read_bytes()
    damaged = path.with_name("damaged.hdf5")  # another file: HDF5 knows one that it has open
    damaged.write_bytes(content[:place] + bytes(20) + content[place + 20 :])
    assert "the table cannot be read (Can't synchronously read data" in refused(damaged, tmp_path)
    path.write_bytes(content[: len(content) // 2])
    assert "is not a readable HDF5 file" in refused(f"d4rl:{path}", tmp_path)
    path.write_bytes(b"<html>not found</html>")
    assert "is not a readable HDF5 file" in refused(f"d4rl:{path}", tmp_path)
    assert "cannot tell what" in refused(path, tmp_path) and "there are d4rl, robomimic" in refused(path, tmp_path)
    assert "--goal says nothing to a D4RL HDF5 file" in refused(f"d4rl:{path}", tmp_path, goal="1,2,3")


@pytest.fixture
def ogbench(tmp_path):
    rng = np.random.default_rng(0)
    rows = [steps + 1 for steps in LENGTHS]
    arrays = {
        "observations": rng.normal(size=(sum(rows), 4)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (sum(rows), 2)).astype(np.float32),
        "terminals": np.concatenate([np.eye(1, n, n - 1)[0] for n in rows]).astype(np.float32),
        "qpos": np.cumsum(np.ones((sum(rows), 3)), 0),
    }
    return tmp_path / "maze.npz", arrays, np.cumsum(rows)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_ogbench(tmp_path, ogbench, assert_episodes, save):
    path, arrays, ends = ogbench
    save(path, **arrays)
    assert find(str(path))[0] == "ogbench"
    assert "has no rewards and masks, which depend on a task: give --goal" in refused(path, tmp_path)
    assert "write X,Y,TOLERANCE" in refused(path, tmp_path, goal="here")
    # rows 2 (the last step of the first trajectory), 7 and 8 (in the midst of the third) are at the goal
    success = np.zeros(12, bool)
    success[[2, 7, 8]] = True
    expected = []
    for begin, end in zip([0, *ends], ends - 1, strict=False):
        start = begin
        for row in range(begin, end):
            if success[row] or row == end - 1:
                steps = slice(start, row + 1)
                expected.append(
                    (
                        arrays["observations"][start : row + 2],
                        arrays["actions"][steps],
                        np.where(success[steps], 0.0, -1.0),
                        bool(success[row]),
                        not success[row],
                    )
                )
                start = row + 1
    save(path, **arrays, rewards=success - 1.0, masks=1.0 - success)
    assert write(path, tmp_path / "out") == ["early-flag"]
    assert_episodes(tmp_path / "out", expected)
    place = arrays["qpos"][7, :2] + 0.5
    arrays["qpos"][2, :2] = arrays["qpos"][7, :2]
    save(path, **arrays)
    goal = f"{place[0]},{place[1]},{0.8}"
    assert write(path, tmp_path / "goal", goal=goal) == ["early-flag"]
    assert_episodes(tmp_path / "goal", expected)


def test_ogbench_files_that_are_broken(tmp_path, ogbench):
    path, arrays, _ = ogbench
    whole = arrays | {"rewards": np.zeros(12), "masks": np.ones(12)}
    np.savez(path, **whole | {"terminals": np.zeros(12)})
    assert "does not end with the last row of a trajectory" in refused(path, tmp_path)
    np.savez(path, **whole)
    content = bytearray(path.read_bytes())
    content[content.index(arrays["observations"].tobytes()) + 5] ^= 1
    path.write_bytes(content)
    assert "cannot be read (BadZipFile: Bad CRC-32" in refused(path, tmp_path)
    path.write_bytes(content[:-30])
    assert "is not a readable .npz file" in refused(f"ogbench:{path}", tmp_path)


def test_neorl(tmp_path, make_rows, assert_episodes):
    rows, episodes = make_rows(LENGTHS)
    path = tmp_path / "pipeline-train.npz"
    arrays = {
        "obs": rows["observations"],
        "next_obs": rows["next_observations"],
        "action": rows["actions"],
        "reward": rows["rewards"][:, None],
        "done": rows["terminateds"][:, None].astype(np.float32),
        "index": np.array([0, 3, 4]),
    }
    np.savez(path, **arrays)
    assert find(str(path))[0] == "neorl"
    assert write(path, tmp_path / "out") == ["no-end"]  # NeoRL marks no truncation; its index does
    assert_episodes(tmp_path / "out", episodes)
    np.savez(path, **arrays, truncated=np.ones((9, 1)) * (rows["truncateds"] | rows["terminateds"])[:, None])
    assert write(path, tmp_path / "two") == []
    assert_episodes(tmp_path / "two", episodes)
    np.savez(path, **arrays | {"index": np.array([0, 9])})
    assert "index that does not begin at row 0" in refused(path, tmp_path)


def test_robomimic(tmp_path, make_rows, assert_episodes):
    _, episodes = make_rows((3, 2, 5) + (2,) * 9)  # demo_10 comes after demo_9
    path, expected = tmp_path / "lift.hdf5", []
    with h5py.File(path, "w") as file:
        for number, (observations, actions, rewards, _, _) in enumerate(episodes):
            images = np.random.default_rng(number).integers(0, 256, (len(observations), 4, 4, 3), np.uint8)
            demo, last = file.create_group(f"data/demo_{number}"), np.arange(len(rewards)) == len(rewards) - 1
            solved = number % 2 == 0
            for name, values in (("state", observations), ("image", images)):
                demo[f"obs/{name}"], demo[f"next_obs/{name}"] = values[:-1], values[1:]
            demo["actions"], demo["rewards"], demo["dones"] = actions, 1.0 * last * solved, last.astype(int)
            seen = {"state": observations, "image": images}
            expected.append((seen, actions, last * solved, solved, not solved))
    assert find(str(path))[0] == "robomimic"
    assert write(path, tmp_path / "out") == []
    assert_episodes(tmp_path / "out", expected)
    with h5py.File(path, "a") as file:
        del file["data/demo_2/rewards"]
    assert "demo_2 has no rewards" in refused(path, tmp_path)


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_v_d4rl(tmp_path, assert_episodes, kind):
    rng, expected, parts = np.random.default_rng(0), [], []
    for steps in LENGTHS:
        images = rng.integers(0, 256, (steps + 1, 6, 6, 3), np.uint8)
        actions = rng.uniform(-1, 1, (steps + 1, 2)).astype(np.float32)
        rewards = rng.normal(size=steps + 1).astype(np.float32)
        parts.append((images, actions, rewards))
        expected.append((images, actions[1:], rewards[1:], False, True))
    folder = tmp_path / "walker"
    folder.mkdir()
    source = folder if kind == "npz" else folder / "walker.hdf5"
    if kind == "npz":
        for number, (images, actions, rewards) in enumerate(parts):
            zeros = np.zeros(len(rewards), bool)
            first, last = zeros.copy(), zeros.copy()
            first[0] = last[-1] = True
            flags = {"is_first": first, "is_last": last, "is_terminal": zeros, "discount": np.ones(len(rewards))}
            np.savez_compressed(folder / f"{number:05d}.npz", image=images, action=actions, reward=rewards, **flags)
    else:
        with h5py.File(source, "w") as file:
            for name, index in (("observation", 0), ("action", 1), ("reward", 2)):
                file[name] = np.concatenate([part[index] for part in parts])
            file["step_type"] = np.concatenate([[0, *[1] * (steps - 1), 2] for steps in LENGTHS])
            file["discount"] = np.ones(sum(LENGTHS) + len(LENGTHS))
    assert find(str(source))[0] == "v-d4rl"
    assert write(source, tmp_path / "out") == []
    assert_episodes(tmp_path / "out", expected)


def gzipped(path, array):
    content = io.BytesIO()
    np.save(content, array)
    path.write_bytes(gzip.compress(content.getvalue()))


@pytest.mark.parametrize("added", [9, 13], ids=["not full", "a ring"])
def test_dqn_replay(tmp_path, assert_episodes, added):
    """Rows 0 to 8 hold what was added; after 13 in a ring of 9, the oldest is row 4."""
    rng, size = np.random.default_rng(0), 9
    frames = rng.integers(0, 256, (size, 5, 5), np.uint8)
    terminal = np.array([0, 0, 1, 0, 0, 0, 0, 1, 0], np.uint8)
    arrays = {"observation": frames, "action": np.arange(size, dtype=np.int32) % 3, "terminal": terminal}
    arrays["reward"] = rng.normal(size=size).astype(np.float32)
    for name, values in arrays.items():
        gzipped(tmp_path / f"$store$_{name}_ckpt.0.gz", values)
    gzipped(tmp_path / "add_count_ckpt.0.gz", np.array(added))
    order = np.arange(9) if added == 9 else (np.arange(9) + 4) % 9
    wanted = [[0, 1, 2], [3, 4, 5, 6, 7]] if added == 9 else [[7], [8, 0, 1, 2]]  # 3 and 8 have no frame after them
    began = {3: 3, 0: 0, 7: 4, 8: 8}
    expected = []
    for rows in wanted:
        history = order.tolist()[order.tolist().index(began[rows[0]]) :]
        stacks = [
            np.stack([frames[history[at - back]] if at >= back else np.zeros((5, 5)) for back in (3, 2, 1, 0)], -1)
            for at in map(history.index, rows)
        ]
        expected.append((np.array([*stacks, stacks[-1]]), arrays["action"][rows], arrays["reward"][rows], True, False))
    assert find(str(tmp_path))[0] == "dqn-replay"
    assert set(write(tmp_path, tmp_path / "out")) == {"no-end", "one-step", "terminal-observation"}
    (shard,) = assert_episodes(tmp_path / "out", expected).manifest.shards
    assert [(frames.stack, frames.axis) for frames in shard.frames] == [(4, 2)]
    (tmp_path / "$store$_reward_ckpt.0.gz").write_bytes(gzip.compress(b"nothing"))
    assert "is not a readable log" in refused(f"dqn-replay:{tmp_path}", tmp_path)


def test_lerobot(tmp_path, make_rows, assert_episodes):
    rows, episodes = make_rows(LENGTHS)
    folder = tmp_path / "pusht"
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    number = np.repeat(range(3), LENGTHS)
    table = pa.table(
        {
            "observation.state": pa.array(list(rows["observations"].astype(np.float32))),
            "action": pa.array(list(rows["actions"].astype(np.float32))),
            "episode_index": number,
            "frame_index": np.concatenate([*map(np.arange, LENGTHS)]),
            "timestamp": np.arange(9) / 10,
            "next.reward": rows["rewards"].astype(np.float32),
            "next.done": rows["terminateds"] | rows["truncateds"],
            "task_index": np.zeros(9, int),
        }
    )
    for file in range(2):  # the files of a chunk in their order, cut within an episode
        pq.write_table(table.slice(5 * file, 5 - file), folder / f"data/chunk-000/file-{file:03d}.parquet")
    features = {name: {"dtype": "float32"} for name in table.column_names}
    info = {"codebase_version": "v3.0", "fps": 10, "features": features | {"observation.image": {"dtype": "video"}}}
    (folder / "meta/info.json").write_text(json.dumps(info))
    assert find(str(folder))[0] == "lerobot"
    assert "meta/episodes" in refused(folder, tmp_path)  # the frames of the video
    notes = write(folder, tmp_path / "out", columns="observation=observation.state")
    assert notes == ["terminal-observation", "done"]
    done = [(*episode[:3], True, False) for episode in episodes]
    assert_episodes(tmp_path / "out", ended(done))
    (folder / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v1.6"}))
    assert "is of LeRobot v1.6, and v2 and v3 can be read" in refused(folder, tmp_path)
    (folder / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(table.drop_columns("next.reward"), folder / "data/chunk-000/file-000.parquet")
    (folder / "data/chunk-000/file-001.parquet").unlink()
    assert "has no next.reward" in refused(folder, tmp_path)


def test_every_importer_says_what_it_reads():
    for scheme, importer in IMPORTERS.items():
        assert importer.what and callable(importer._function(importer.reads)), scheme
        assert set(importer.options) <= set(Options.__dataclass_fields__)
