"""Keys that a user gives in URIs stand nowhere in what a sweep writes and prints, but in one file of the user's own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import ray

from dr3_ray.cli.app import main
from dr3_ray.data.cache import upload
from dr3_ray.remote import open_store
from dr3_ray.trust.secrets import KEYS
from tests.sweep.conftest import statuses

pytestmark = pytest.mark.slow

KEY, SECRET, PASSWORD = "AKIAPLANTED00000KEY1", "planted/secret+of+the+bucket", "planted-pass-word"
PLANTED = [KEY, SECRET, "planted%2Fsecret%2Bof%2Bthe%2Bbucket", PASSWORD]


@pytest.fixture
def run_with_keys(cluster: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process that has no keys of its own; nothing planted is printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"RAY_ADDRESS": cluster, "AWS_EC2_METADATA_DISABLED": "true", "DR3_RAY_CACHE": str(tmp_path / "c")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dr3_ray", *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert not [each for each in PLANTED if each in done.stdout + done.stderr], done.stdout + done.stderr
        return done

    return run


def contents(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Every file in these folders."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield str(path), path.read_bytes()


def contents_at(uri: str) -> Iterator[tuple[str, bytes]]:
    """Every file in a bucket."""
    filesystem, root = open_store(uri)
    for info in filesystem.get_file_info(pafs.FileSelector(root, recursive=True)):
        if info.is_file:
            with filesystem.open_input_stream(info.path) as file:
                yield info.path, file.read()


def with_keys(uri: str) -> str:
    return uri.replace("s3://", f"s3://{KEY}:planted%2Fsecret%2Bof%2Bthe%2Bbucket@")


def test_a_sweep_with_keys_in_its_uris(
    cartpole: str, bucket: Callable[[str], str], run_with_keys: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:  # fmt: skip
    data = upload(Path(cartpole), bucket("sets")).partition("#")[0]
    run, storage = tmp_path / "run", with_keys(bucket("store"))
    words = ["--dataset", with_keys(data), "--storage", storage, "--out", str(run), "--seeds", "2", "--steps", "4"]
    words += ["--evaluations", "2", "--coefficients", "0.1", "--environment", "none", "--checkpoint-every", "1"]
    words += ["--set", "hidden_sizes=[8]", "--log", "tensorboard"]
    planned = run_with_keys("sweep", *words, "--dry-run", "--no-calibration")
    assert planned.returncode == 0, planned.stderr
    done = run_with_keys("sweep", *words)
    assert done.returncode == 0, done.stderr
    assert statuses(run) == {"finished": 2}
    assert (run / KEYS).stat().st_mode & 0o777 == 0o600 and KEY in (run / KEYS).read_text()

    again = run_with_keys("sweep", "--resume", str(run))  # which needs the keys for the storage
    assert again.returncode == 0, again.stderr
    brought = run_with_keys("fetch", storage, "--checkpoints", "--out", str(tmp_path / "home"))
    assert brought.returncode == 0, brought.stderr
    assert not (tmp_path / "home" / KEYS).exists()

    session = Path(ray._private.worker._global_node.get_session_dir_path())
    everything = [*contents(tmp_path, session), *contents_at(bucket(""))]
    found = {name for name, content in everything if any(each.encode() in content for each in PLANTED)}
    assert found == {str(run / KEYS)}
    assert any("checkpoints" in name for name, _ in everything) and any("trials" in name for name, _ in everything)


@pytest.mark.parametrize(
    "words",
    [
        ["--storage", f"s3://{KEY}:{SECRET}@nowhere/x?scheme=http&endpoint_override=127.0.0.1:1"],
        ["--storage", f"s3://{KEY}:x@nowhere/x?region=z&secret_key={PASSWORD}&session_token={PASSWORD}"],
        ["--storage", f"nonsense://{KEY}:{PASSWORD}@nowhere/x"],
        ["--dataset", f"s3://{KEY}:{PASSWORD}@nowhere/x?scheme=http&endpoint_override=127.0.0.1:1&region=z"],
        ["--search", "tpe", "--trials", "2", "--study", f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/db"],
        ["--search", "tpe", "--trials", "2", "--study", f"postgresql+psycopg://h/db?user=me&password={PASSWORD}&port=1"],
        ["--search", "tpe", "--trials", "2", "--study", f"no-such-dialect://me:{PASSWORD}@h/db"],
    ],
)  # fmt: skip
def test_an_error_does_not_quote_them(
    words: list[str], cartpole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    common = ["--dataset", cartpole, "--seeds", "1", "--steps", "2", "--evaluations", "1", "--environment", "none"]
    with pytest.raises(SystemExit) as end:
        main(["sweep", *common, *words, "--out", str(tmp_path / "run"), "--coefficients", "0.1"])
    said = "".join(capsys.readouterr())
    assert end.value.code == 2 and said.splitlines()[-1].startswith("error: ")
    assert not [each for each in PLANTED if each in said]
    for name, content in contents(tmp_path):
        assert name.endswith(KEYS) or not any(each.encode() in content for each in PLANTED), name
