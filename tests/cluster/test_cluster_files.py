"""The files for machines that are not here: held against Ray's own rules for them, and read as what they are."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

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
    assert f"FROM rayproject/ray:{cluster['rayVersion']}-py311-gpu" in (ROOT / "cluster" / "Dockerfile").read_text()


def test_the_slurm_script_is_sound_and_says_how_it_is_started():
    script = ROOT / "cluster" / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    alone = subprocess.run(["bash", script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert alone.returncode != 0
    assert "SLURM_JOB_ID: is not set: submit this script with sbatch" in alone.stderr
