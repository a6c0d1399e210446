"""Names in somebody's bucket, manifest or index lead nowhere but into the folder that they are to lie in."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import boto3
import pyarrow.fs as pafs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dr3_ray.data.cache import cached, find_cached
from dr3_ray.data.embedded import embedded_path
from dr3_ray.data.schema import FileEntry
from dr3_ray.errors import UserError
from dr3_ray.report import write_report
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.digests import MANIFEST
from dr3_ray.runs.fetch import fetch
from dr3_ray.runs.index import INDEX, Index
from dr3_ray.runs.storage import claim
from dr3_ray.sweep.trials.loggers import Loggers
from tests.runs.runs import begin, snapshot

HOSTILE = [
    "../../victim", "../victim", "a/../../../../victim", "/victim", "//victim", "a//victim", "./victim", "a/.", "..",
    "C:victim", "C:/victim", "a\\..\\victim", "vic\0tim", "victim\n", "\x1b[31mvictim", "a" * 201,
    "a/" * 450 + "victim", "..\\..\\victim", "a/..", "\x7f",
]  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from(["..", ".", "", "a", "é", "victim", "C:", "\\", "x y", "-"]), min_size=1, max_size=6).map(
        "/".join
    ),
)
SHARED = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def listing(top: Path) -> dict[str, bytes | str]:
    """Everything but the folder that may be written to."""
    return {name: content for name, content in snapshot(top).items() if not name.startswith("in/out/")}


@pytest.fixture
def keys(moto, bucket):
    """Put an object under any key into the bucket, empty before each; the storage's URI."""
    host, port = moto.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")

    def put(files: dict[str, bytes]) -> str:
        for found in client.list_objects_v2(Bucket="results").get("Contents", []):
            client.delete_object(Bucket="results", Key=found["Key"])
        for key, content in files.items():
            client.put_object(Bucket="results", Key=key, Body=content)
        return bucket("run")

    return put


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> dict[str, bytes]:
    """The files of a run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    begin(out)
    return {name: bytes(content) for name, content in snapshot(out).items()}


@settings(max_examples=15, **SHARED)
@given(name=NAMES)
@example("../../victim")
@example("a//victim")
def test_checkpoints_of_somebodys_bucket_stay_in_out(keys, run, name):
    """Either all of them come, or one line says which name is wrong, and nothing was written anywhere else."""
    try:
        storage = keys({f"run/{file}": content for file, content in run.items()} | {f"run/checkpoints/{name}": b"x"})
    except Exception:  # boto3, or the server, do not take this name
        return
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        (top / "in").mkdir()
        (top / "victim").write_text("mine")
        before = listing(top)
        try:
            fetch(storage, top / "in" / "out", checkpoints=True)
        except UserError as error:
            assert "\n" not in str(error)
        assert listing(top) == before
        assert {path.name for path in top.iterdir()} == {"in", "victim"}
        assert {path.name for path in (top / "in").iterdir()} <= {"out"}


def test_names_of_a_bucket_that_lead_away_are_refused(keys, run, tmp_path):
    """So that the test above does not pass because nothing hostile ever arrives."""
    for name in ("../../victim", "p/../../../victim", "p/a\\b"):
        storage = keys({f"run/{file}": content for file, content in run.items()} | {f"run/checkpoints/{name}": b"x"})
        with pytest.raises(UserError, match="do not trust what it comes from"):
            fetch(storage, tmp_path / "out", checkpoints=True)
        assert not (tmp_path / "out" / "checkpoints").exists()


def test_links_in_a_folder_that_is_fetched_and_in_the_one_it_comes_to(run, tmp_path):
    storage, out, victim = tmp_path / "storage", tmp_path / "out", tmp_path / "victim"
    victim.mkdir()
    for file, content in run.items() | {("checkpoints/p/0000000001/state", b"x")}:
        (storage / file).parent.mkdir(parents=True, exist_ok=True)
        (storage / file).write_bytes(content)
    fetch(str(storage), out)
    for planted in ("checkpoints", "checkpoints/p", "checkpoints/p/0000000001", "checkpoints/p/0000000001/state"):
        path = out / planted
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(victim if path.name != "state" else victim / "file")
        with pytest.raises(UserError, match="is a link, which may lead out of"):
            fetch(str(storage), out, checkpoints=True)
        path.unlink()
        assert not list(victim.iterdir())
    for planted in ("secret", "loop"):
        (storage / "checkpoints" / "p" / planted).symlink_to("/etc/passwd" if planted == "secret" else "..")
        with pytest.raises(UserError, match=r"is a link|no file can have that name"):
            fetch(str(storage), out, checkpoints=True)
        (storage / "checkpoints" / "p" / planted).unlink()
    fetch(str(storage), out, checkpoints=True)
    assert (out / "checkpoints/p/0000000001/state").read_bytes() == b"x"


@pytest.fixture(params=["disk", "store"])
def storage(request, tmp_path) -> str:
    return str(tmp_path / "storage") if request.param == "disk" else request.getfixturevalue("bucket")(tmp_path.name)


def write(folder: str) -> None:
    (Path(folder) / "state").write_text("whole")


@settings(max_examples=12, **SHARED)
@given(name=NAMES)
@example("../../victim")
def test_a_manifest_that_names_files_elsewhere_is_not_whole(storage, tmp_path, name):
    """Whatever their digests are: nothing outside is read or written."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    claim(storage, "id", "here")
    kept = Checkpoints(storage, "pack", "id")
    kept.save(1, write)
    kept.save(2, write)
    filesystem, root = pafs.FileSystem.from_uri(storage)
    with filesystem.open_output_stream(f"{root}/checkpoints/pack/0000000002/{MANIFEST}") as file:
        file.write(json.dumps({name: "0" * 64, str(victim): "0" * 64}).encode())
    found: list[str] = []
    kept.load(lambda directory: found.append(Path(directory).name))
    assert len(found) == 1
    assert filesystem.get_file_info(f"{root}/checkpoints/pack/0000000002/{MANIFEST}").type == pafs.FileType.NotFound
    assert victim.read_text() == "mine"


@settings(max_examples=12, **SHARED)
@given(name=NAMES)
def test_a_pack_of_somebodys_index_has_no_folder_elsewhere(tmp_path, name):
    """Reading it would remove what is there and no checkpoint."""
    victim = tmp_path / "victim" / "0000000001"
    victim.mkdir(parents=True, exist_ok=True)
    claim(str(tmp_path / "storage"), "id", "here")
    try:
        Checkpoints(str(tmp_path / "storage"), name, "id").load(lambda directory: None)
    except UserError as error:
        assert "do not trust what it comes from" in str(error)
    assert victim.exists()


@pytest.mark.parametrize("name", [*HOSTILE, "shard-00000.arrow\n", "a/shard.arrow", "ß" * 120 + ".arrow", ".arrow"])
def test_a_data_sets_manifest_names_files_beside_it(name):
    for file in (name, f"{name}.arrow"):
        with pytest.raises(ValueError, match="file"):
            FileEntry(file=file, rows=1, bytes=1, sha256="0" * 64)


@pytest.mark.parametrize("fingerprint", ["../x", "..", "/etc", "0" * 64 + "/../../x", "a\0", "0" * 300])
def test_a_fingerprint_names_a_folder_of_the_cache(fingerprint, tmp_path, monkeypatch):
    monkeypatch.setenv("DR3_RAY_CACHE", str(tmp_path / "cache"))
    outside = shutil.copytree(embedded_path("breakout-replay"), tmp_path / "cache" / "x")
    used = os.stat(outside).st_mtime
    assert find_cached(fingerprint) is None
    with pytest.raises(UserError, match=r"is not a data set|holds a sign that no name"):
        cached(f"{(tmp_path / 'nothing').as_uri()}#{fingerprint}")
    assert os.stat(outside).st_mtime == used


def test_what_a_report_and_an_index_write_follows_no_link(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")
    out = begin(tmp_path / "run").out
    (out / "report").symlink_to(victim)
    with pytest.raises(UserError, match="is a link, which may lead out of"):
        write_report(out)
    (out / INDEX).rename(victim / INDEX)
    (out / INDEX).symlink_to(victim / INDEX)
    before = snapshot(victim)
    with pytest.raises(OSError, match="symbolic links"):
        Index(out)
    assert snapshot(victim) == before


@pytest.mark.parametrize("data", ["/x/..", "s3://b/..", "/x/a\\..\\b", "/x/" + "n" * 255, "/x/a\nb", "/"])
def test_logs_of_any_data_set_lie_in_their_folder(tmp_path, data):
    config = {"algorithm": "DR3-CQL", "dataset": data, "dr3_coeff": 0.03, "seed": 0}
    said: list[str] = []
    loggers = Loggers(["tensorboard"], tmp_path / "run", {"m": config}, said.append)
    loggers.row("m", 1, {"loss": 0.5})
    loggers.close()
    assert not said
    found = [path.relative_to(tmp_path).parts[:3] for path in tmp_path.rglob("*") if path.is_file()]
    assert {parts[2] for parts in found} == {"tensorboard"}
    assert {parts[:2] for parts in found} == {("run", "logs")}
