"""The files for machines that are not here: held against Ray's own rules for them, and read as what they are."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from dr3_ray.cli.app import main
from dr3_ray.cli.cluster_file import examine

ROOT = Path(__file__).parents[2]
CLOUD = (ROOT / "cluster.yaml").read_text()


def for_gcp(text: str) -> str:
    """The file with its blocks exchanged as its comments say."""
    lines, mode = [], "keep"
    for line in text.splitlines():
        if found := re.match(r" *# (AWS|GCP)[:.]", line):
            mode = {"AWS": "drop", "GCP": "uncomment"}[found[1]]
            continue
        if mode == "uncomment":
            bare = re.sub(r"^( *)# ", r"\1", line)
            mode = mode if bare != line else "keep"
            line = bare
        if mode != "drop":
            lines.append(line)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("aws", CLOUD),
        ("gcp", for_gcp(CLOUD)),
        ("local", (ROOT / "cluster" / "local.yaml").read_text()),
    ],
)
def test_ray_accepts_the_cluster_file(kind, text):
    config: dict[str, Any] = yaml.safe_load(text)
    assert config["provider"]["type"] == kind
    prepared = prepare_config(config)
    validate_config(prepared)
    assert "RAY_AUTH_MODE=token" in str(prepared["setup_commands"])
    assert any("auth_token" in path for path in prepared["file_mounts"])
    for here in config["file_mounts"].values():
        assert here.startswith("~") or (ROOT / here).exists()


@pytest.mark.parametrize("text", [CLOUD, for_gcp(CLOUD)], ids=["aws", "gcp"])
def test_trials_stay_away_from_the_head_and_have_gpus(text):
    types = yaml.safe_load(text)["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu"]["resources"] == {"CPU": 8, "GPU": 1}
    assert (types["gpu"]["min_workers"], types["gpu"]["max_workers"]) == (0, 8)


def test_the_kuberay_job_asks_for_a_token_and_for_the_version_that_is_installed():
    job = yaml.safe_load((ROOT / "cluster" / "kuberay.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text()
    assert f"FROM rayproject/ray:{cluster['rayVersion']}-py311-gpu" in (ROOT / "Dockerfile").read_text()


def test_the_slurm_script_is_sound_and_says_how_it_is_started():
    script = ROOT / "cluster" / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    alone = subprocess.run(["bash", script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert alone.returncode != 0
    assert "SLURM_JOB_ID: is not set: submit this script with sbatch" in alone.stderr


FILES = {"aws": CLOUD, "gcp": for_gcp(CLOUD), "local": (ROOT / "cluster" / "local.yaml").read_text()}
OWN = {
    "ACCOUNT": "123456789012",
    "ami-0123456789abcdef0": "ami-0fedcba9876543210",
    "PROJECT": "mine",
    "192.168.1.": "10.0.0.",
}


def filled_in(text: str) -> str:
    """With values of somebody's own in place of those of the file, and a file that is here for the token."""
    for placeholder, own in OWN.items():
        text = text.replace(placeholder, own)
    return text.replace(": ~/.ray/auth_token", ": LICENSE")


def wrong(path: Path, text: str, monkeypatch: pytest.MonkeyPatch, storage: str | None = None) -> dict[str, str]:
    """What fails in a cluster file, and the remedy."""
    monkeypatch.chdir(ROOT)
    path.write_text(text)
    checks = examine(path, storage)
    assert all("\n" not in f"{check.found}{check.remedy}" for check in checks)
    return {check.name: check.remedy for check in checks if check.status == "failed"}


CLIENT = "googleapiclient here"  # which only those need who use GCP


@pytest.mark.parametrize("kind", FILES)
def test_our_cluster_files_are_ready_once_they_are_filled_in(kind, tmp_path, monkeypatch):
    left = wrong(tmp_path / "cluster.yaml", FILES[kind], monkeypatch)
    assert "placeholders" in left
    storage = "gs://b/p" if kind == "gcp" else "s3://b/p"
    assert wrong(tmp_path / "cluster.yaml", filled_in(FILES[kind]), monkeypatch, storage).keys() <= {CLIENT}


@pytest.mark.parametrize(
    ("kind", "old", "new", "name"),
    [
        ("aws", "region: us-west-2\n", "\n", "provider's keys"),
        ("aws", "head_node_type: head", "head_node_tipe: head", "Ray's rules"),
        ("aws", "IamInstanceProfile: {Arn: \"arn:aws:iam::123456789012:instance-profile/dr3-head\"}", "X: y",
         "IamInstanceProfile of head"),
        ("aws", "IamInstanceProfile: {Arn: \"arn:aws:iam::123456789012:instance-profile/dr3-node\"}", "X: y",
         "IamInstanceProfile of gpu"),
        ("gcp", "serviceAccounts:\n        - email: dr3-node@", "x:\n        - email: y@", "serviceAccounts of gpu"),
        ("aws", "[minatar]", "", "extras"),
        ("local", "[minatar]", "[s3]", "extras"),
        ("aws", "--constraint ~/dr3-ray/constraints.txt", "", "constraints"),
        ("aws", "--editable \"$HOME/dr3-ray[minatar]\"", "torch", "package"),
        ("gcp", "ray:2.60.0-py311", "ray:2.59.0-py311", "Ray in the image"),
        ("local", "RAY_enable_autoscaler_v2=0", "X=0", "autoscaler"),
        ("local", "worker_ips: [10.0.0.11, 10.0.0.12]", "", "provider's keys"),
        ("aws", ": pyproject.toml", ": nowhere.toml", "file_mounts"),
        ("aws", "RAY_AUTH_MODE", "RAY_AUTH", "token"),
        ("aws", "/auth_token", "/other", "token"),
        ("aws", "available_node_types:", "available_node_types: 3\nx:", "Ray's rules"),
        ("aws", "provider:", "provider: [1]\nx:", "Ray's rules"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_cluster_file_is_one_line(kind, old, new, name, tmp_path, monkeypatch):
    text = filled_in(FILES[kind])
    assert old in text
    found = wrong(tmp_path / "cluster.yaml", text.replace(old, new), monkeypatch)
    assert found.get(name)


@pytest.mark.parametrize("storage", ["/mnt/shared", "runs/a", "file:///mnt/x"])
def test_the_storage_of_a_cloud_is_a_uri(storage, tmp_path, monkeypatch):
    assert "storage" in wrong(tmp_path / "c.yaml", filled_in(FILES["aws"]), monkeypatch, storage)
    assert "storage" not in wrong(tmp_path / "c.yaml", filled_in(FILES["local"]), monkeypatch, storage)


@pytest.mark.parametrize("content", ["", "- a", "{", "3", "a: [", "\x00", "provider:", "x: y"])
def test_what_is_no_cluster_file_is_one_line(content, tmp_path, monkeypatch):
    assert wrong(tmp_path / "c.yaml", content, monkeypatch)


def test_doctor_examines_a_cluster_file(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--cluster", "cluster.yaml", "--storage", "s3://b/p"])
    shown = capsys.readouterr().out
    assert end.value.code == 1
    assert "iam:PassRole" in shown
    assert "put your own values in their places" in shown
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--storage", "s3://b/p"])
    assert end.value.code == 2


def test_every_machine_gets_minatar_and_the_head_its_rights():
    for name in ("cluster.yaml", "cluster/local.yaml", "Dockerfile", "cluster/slurm.sh"):
        assert re.search(r"pip install [^#]*\[minatar\]", (ROOT / name).read_text().replace("\n", " ")), name
    head, node = (json.loads((ROOT / "cluster" / f"aws-{who}.json").read_text()) for who in ("head", "node"))
    allowed = {action for each in head["Statement"] for action in [each["Action"]] if isinstance(action, str)}
    assert allowed == {"iam:PassRole"}
    assert [each for each in head["Statement"] if each["Sid"] == "UseBucket"] == node["Statement"]
