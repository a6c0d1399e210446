"""LeRobot's versions 3 and 2 as they are published: rows in tables, and videos that `av` encodes, frame by frame."""

import io
import json
import shutil
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from dr3_ray.data import load_dataset, verify
from dr3_ray.data.checks import Findings
from dr3_ray.data.importers import open_source
from dr3_ray.data.importers.source import Options
from dr3_ray.data.importers.writing import import_source
from dr3_ray.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LENGTHS, RATE = (7, 3, 12, 5), 10
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
LOSSLESS = ("libx264rgb", "rgb24", {"crf": "0", "g": "4"})
USUAL = ("libsvtav1", "yuv420p", {"crf": "30", "g": "2"})  # as LeRobot encodes


def encode(path, frames, codec=LOSSLESS, times=None):
    """Write frames [F, height, width, 3], at multiples of 1 / RATE s."""
    name, pixels, options = codec
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(name, RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.time_base = Fraction(1, 1000)
            picture.pts = 1000 * number // RATE if times is None else int(1000 * times[number])
            output.mux(stream.encode(picture))
        output.mux(stream.encode())


def decoded(path):
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def films(sizes, seed=0):
    """Return noise of each camera."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 256, (sum(LENGTHS), *size, 3), np.uint8) for name, size in sizes.items()}


def make(folder, frames, codec=LOSSLESS, **more):
    """Write a data set whose third episode begins another file; return its columns."""
    rng, rows, number = np.random.default_rng(1), sum(LENGTHS), np.repeat(range(len(LENGTHS)), LENGTHS)
    steps = np.concatenate([*map(np.arange, LENGTHS)])
    last = np.append(number[1:] != number[:-1], True)
    columns = {
        "observation.state": rng.normal(size=(rows, 3)).astype(np.float32),
        "action": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "next.reward": rng.normal(size=rows).astype(np.float32),
        "next.done": last,
        "timestamp": (steps / RATE).astype(np.float32),
        "frame_index": steps,
        "episode_index": number,
    } | more
    columns = {name: each for name, each in columns.items() if each is not None}
    table = pa.table({name: list(each) if np.ndim(each) > 1 else each for name, each in columns.items()})
    (folder / "data/chunk-000").mkdir(parents=True)
    pq.write_table(table, folder / "data/chunk-000/file-000.parquet", row_group_size=6)
    cut = sum(LENGTHS[:2])
    begins = np.array([0, LENGTHS[0], 0, LENGTHS[2]]) / RATE
    episodes = {"episode_index": np.arange(len(LENGTHS)), "length": np.array(LENGTHS)}
    for name, film in frames.items():
        for file, part in enumerate((film[:cut], film[cut:])):
            encode(folder / f"videos/{name}/chunk-000/file-{file:03d}.mp4", part, codec)
        found = {"chunk_index": np.zeros(4, int), "file_index": np.array([0, 0, 1, 1]), "from_timestamp": begins}
        found["to_timestamp"] = begins + np.array(LENGTHS) / RATE
        episodes |= {f"videos/{name}/{key}": values for key, values in found.items()}
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")
    features = {name: {"dtype": "float32"} for name in columns}
    features |= {name: {"dtype": "video", "shape": film.shape[1:]} for name, film in frames.items()}
    info = {"codebase_version": "v3.0", "fps": RATE, "features": features}
    (folder / "meta/info.json").write_text(json.dumps(info))
    return columns


def write(folder, out, rows=None, **options):
    """Import it; the rows, and the names of the checks that found something."""
    manifest = import_source(lambda: open_source(str(folder), Options(**options)), out, rows_per_shard=rows)
    data = load_dataset(out)
    verify(data)
    return data.gather(torch.arange(len(data)), data.columns), [
        note.partition(":")[0] for note in manifest.provenance.notes
    ]


def refused(folder, tmp_path, **options):
    with pytest.raises(UserError) as error:
        write(folder, tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()
    return str(error.value)


def compare(rows, frames, columns):
    """Compare every row: the last observation of an episode stands for the one after it."""
    following = np.minimum(np.arange(len(frames[FRONT])) + 1, np.repeat(np.cumsum(LENGTHS), LENGTHS) - 1)
    wanted = {"images.front": frames[FRONT], "images.wrist": frames[WRIST], "state": columns["observation.state"]}
    assert set(rows["observations"]) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(rows["observations"][name].numpy(), values)
        np.testing.assert_array_equal(rows["next_observations"][name].numpy(), values[following])
    np.testing.assert_array_equal(rows["actions"].numpy(), columns["action"])
    np.testing.assert_array_equal(rows["rewards"].numpy(), columns["next.reward"])
    np.testing.assert_array_equal(rows["terminateds"].numpy(), columns["next.done"])


def test_every_frame_of_two_cameras_and_two_files(tmp_path):
    frames = films({FRONT: (16, 24), WRIST: (32, 16)})
    columns = make(tmp_path / "arm", frames)
    rows, checks = write(tmp_path / "arm", tmp_path / "out", rows=8)
    assert checks == ["terminal-observation", "done"]
    compare(rows, frames, columns)
    shards = load_dataset(tmp_path / "out").manifest.shards
    assert len(shards) > 2
    assert {each.part for shard in shards[:1] for each in shard.frames} == {"images.front", "images.wrist"}  # once
    source = open_source(str(tmp_path / "arm"))
    whole, parts = list(source.read(Findings())), source.parts(8, Findings())
    assert len(parts) > 2
    found = [episode for read in reversed(parts) for episode in reversed(list(read(Findings())))]
    for one, other in zip(whole, reversed(found), strict=True):  # in any order, as workers read them
        for name, values in one.observations.items():
            np.testing.assert_array_equal(other.observations[name], values)


def test_videos_as_lerobot_encodes_them_and_one_camera_by_name(tmp_path):
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    frames = {FRONT: np.stack([np.roll(np.broadcast_to(ramp[:, None, None], (64, 64, 3)), each) for each in range(27)])}
    make(tmp_path / "arm", frames, USUAL)
    videos = sorted((tmp_path / "arm/videos").rglob("*.mp4"))
    wanted = np.concatenate([decoded(each) for each in videos])
    assert wanted.shape == frames[FRONT].shape
    rows, _ = write(tmp_path / "arm", tmp_path / "out", columns=f"observation={FRONT}")
    np.testing.assert_array_equal(rows["observations"].numpy(), wanted)
    rows, _ = write(tmp_path / "arm", tmp_path / "state", columns="observation=observation.state")
    assert rows["observations"].shape == (27, 3)


def test_frames_are_those_of_their_times(tmp_path):
    frames = films({FRONT: (16, 16)})
    columns = make(tmp_path / "arm", frames)
    late = columns["timestamp"] + np.where(columns["frame_index"] == 2, 0.03, 0).astype(np.float32)
    make(tmp_path / "late", frames, timestamp=late)
    rows, checks = write(tmp_path / "late", tmp_path / "out")
    assert "frame-times" in checks
    np.testing.assert_array_equal(rows["observations"]["images.front"].numpy(), frames[FRONT])
    make(tmp_path / "still", frames, timestamp=np.zeros(27, np.float32))
    note = import_source(lambda: open_source(str(tmp_path / "still")), tmp_path / "same").provenance.notes[-1]
    assert note.startswith("frame-times: 23 rows have no frame of their own") and FRONT in note
    make(tmp_path / "long", frames, timestamp=columns["timestamp"] * 2)
    assert "at 0.8000 s of episode 0 has no frame in" in refused(tmp_path / "long", tmp_path)
    cut = tmp_path / "arm/videos" / FRONT / "chunk-000/file-001.mp4"
    encode(cut, frames[FRONT][10:22])
    assert "of episode 3 has no frame" in refused(tmp_path / "arm", tmp_path)
    encode(cut, np.zeros((17, 32, 32, 3), np.uint8))
    assert "a frame of shape (32, 32, 3), the first one of (16, 16, 3)" in refused(tmp_path / "arm", tmp_path)
    cut.write_bytes(cut.read_bytes()[:200])
    assert "is not a readable video" in refused(tmp_path / "arm", tmp_path)
    cut.unlink()
    assert "file-001.mp4 does not exist" in refused(tmp_path / "arm", tmp_path)


def test_what_says_where_frames_are(tmp_path):
    folder = tmp_path / "arm"
    make(folder, films({FRONT: (16, 16)}))
    info, episodes = folder / "meta/info.json", folder / "meta/episodes/chunk-000/file-000.parquet"
    whole, table = json.loads(info.read_text()), pq.read_table(episodes)
    assert "is a video: name it as a part" in refused(
        folder, tmp_path, columns=f"observation=observation.state+{FRONT}"
    )
    assert "is a video: name it as a part" in refused(folder, tmp_path, columns=f"next_observation={FRONT}")
    pq.write_table(table.slice(0, 3), episodes)
    assert "has no episode 3" in refused(folder, tmp_path)
    pq.write_table(table.drop_columns(f"videos/{FRONT}/from_timestamp"), episodes)
    assert "from_timestamp, by which frames are found" in refused(folder, tmp_path)
    info.write_text(json.dumps({name: value for name, value in whole.items() if name != "fps"}))
    assert "has no fps" in refused(folder, tmp_path)
    whole["features"][FRONT]["info"] = {"video.is_depth_map": True}
    info.write_text(json.dumps(whole))
    assert "is a video of depths" in refused(folder, tmp_path)


def test_demonstrations_without_rewards(tmp_path):
    frames = films({FRONT: (16, 16)})
    columns = make(tmp_path / "arm", frames, **{"next.reward": None})
    assert "give --columns reward=0 for behaviour cloning" in refused(tmp_path / "arm", tmp_path)
    rows, _ = write(tmp_path / "arm", tmp_path / "out", columns="reward=0")
    assert not rows["rewards"].any() and set(rows["observations"]) == {"state", "images.front"}
    np.testing.assert_array_equal(rows["observations"]["images.front"].numpy(), frames[FRONT])
    np.testing.assert_array_equal(rows["actions"].numpy(), columns["action"])


def test_version_2_has_a_file_for_each_episode(tmp_path):
    frames, folder = films({FRONT: (16, 24), WRIST: (8, 8)}), tmp_path / "arm"
    columns = make(folder, frames)
    table = pq.read_table(folder / "data/chunk-000/file-000.parquet")
    for name in ("data", "videos", "meta/episodes"):
        shutil.rmtree(folder / name)
    for episode, (begin, rows) in enumerate(zip(np.cumsum((0, *LENGTHS[:-1])).tolist(), LENGTHS, strict=True)):
        chunk = f"chunk-{episode // 3:03d}"
        (folder / "data" / chunk).mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(begin, rows), folder / f"data/{chunk}/episode_{episode:06d}.parquet")
        for name, film in frames.items():
            encode(folder / f"videos/{chunk}/{name}/episode_{episode:06d}.mp4", film[begin : begin + rows])
    info = json.loads((folder / "meta/info.json").read_text()) | {"codebase_version": "v2.1", "chunks_size": 3}
    (folder / "meta/info.json").write_text(json.dumps(info))
    rows, checks = write(folder, tmp_path / "out", rows=8)
    assert checks == ["terminal-observation", "done"]
    compare(rows, frames, columns)


def test_images_in_the_table(tmp_path):
    frames = films({FRONT: (16, 24)})[FRONT]

    def file(frame):
        content = io.BytesIO()
        Image.fromarray(frame).save(content, "PNG")
        return {"bytes": content.getvalue(), "path": "frame.png"}

    make(tmp_path / "arm", {}, **{FRONT: np.array([file(each) for each in frames])})
    rows, _ = write(tmp_path / "arm", tmp_path / "out")
    np.testing.assert_array_equal(rows["observations"]["images.front"].numpy(), frames)
    make(tmp_path / "odd", {}, **{FRONT: np.array([file(each[: 16 - (n == 4)]) for n, each in enumerate(frames)])})
    assert "has an image of shape (15, 24, 3) at row 4" in refused(tmp_path / "odd", tmp_path)
    make(tmp_path / "apart", {}, **{FRONT: np.array([{"bytes": None, "path": "a.png"}] * 27)})
    assert "names a file at row 0, and does not hold it" in refused(tmp_path / "apart", tmp_path)
