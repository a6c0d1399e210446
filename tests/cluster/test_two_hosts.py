"""A cluster of two hosts from beginning to end, by the commands that people type on their laptop.

The tests share one cluster: it takes most of a minute to start.
"""

import json
import shlex
import time
from collections import Counter
from pathlib import Path

import pytest

from dr3_ray.sweep.histories import HISTORIES, read_histories
from dr3_ray.sweep.index import INDEX, read_index

SWEEP = (
    "--dataset embedded:breakout-replay --environment none --coefficients 0,0.03 --seeds 2 --set hidden_sizes=[16,16] "
    "--set batch_size=16 --pack 2 --nodes 2"
)
pytestmark = pytest.mark.timeout(600)  # a machine with other work takes its time

S3 = "10.77.0.1:5555"  # on the laptop
BUCKET = f"s3://results/cut?scheme=http&region=us-east-1&endpoint_override={S3}"
TUNNEL = "ssh -o StrictHostKeyChecking=no -f -N -L 8265:127.0.0.1:8265 10.77.0.11 &>/dev/null"


@pytest.fixture(scope="module")
def cluster(testbed):
    """The laptop of a cluster that `ray up` has started."""
    testbed.run("ray get-auth-token --generate")
    testbed.run("ray up -y ~/cluster.yaml --no-config-cache", timeout=300)
    yield testbed
    testbed.run("ray down -y ~/cluster.yaml")
    assert "raylet" not in testbed.run("ssh -o StrictHostKeyChecking=no 10.77.0.11 ps -A -o comm")


@pytest.fixture
def bucket(cluster):
    """A server for S3 on the laptop, with a bucket."""
    server = cluster.start(f"exec python -m moto.server -H 0.0.0.0 -p {S3.partition(':')[2]} >/dev/null 2>&1")
    make = f"s3://?scheme=http&region=us-east-1&endpoint_override={S3}&allow_bucket_creation=true"
    script = f"import pyarrow.fs; pyarrow.fs.FileSystem.from_uri({make!r})[0].create_dir('results')"
    cluster.run(f"until python -c {shlex.quote(script)} 2>/dev/null; do sleep 0.2; done")
    yield BUCKET
    server.kill()


def hosts_of(run: Path) -> set[str]:
    """The hosts that trained, from Tune's records."""
    state = json.loads(max((run / "trials").glob("experiment_state-*.json")).read_text())
    return {json.loads(runtime)["last_result"]["hostname"] for _, runtime in state["trial_data"]}


def steps(run: Path) -> list[tuple[str, int]]:
    return sorted((row["member"], row["step"]) for row in read_histories(run).select(["member", "step"]).to_pylist())


def test_a_sweep_on_both_hosts_comes_home(cluster):
    script = f"ray submit ~/cluster.yaml sweeps/coefficient_sweep.py -- {SWEEP} --steps 8000 --evaluations 4"
    cluster.run(f"{script} --out /mnt/shared/both", timeout=400)
    run, home = cluster.shared / "both", cluster.disks / "laptop" / "root" / "both"
    assert hosts_of(run) == {"host1", "host2"}
    assert [record["status"] for record in read_index(run)] == ["finished"] * 4

    shown = cluster.run("python -m dr3_ray.cli fetch /mnt/shared/both --cluster ~/cluster.yaml --out ~/both")
    assert "2/2" in shown
    assert all((home / name).read_bytes() == (run / name).read_bytes() for name in (INDEX, HISTORIES))
    assert (home / "report" / "report.html").stat().st_size > 10_000


def test_what_is_not_shared_and_what_is_not_there_is_said_in_one_line(cluster):
    script = f"ray submit ~/cluster.yaml sweeps/coefficient_sweep.py -- {SWEEP} --steps 4 --evaluations 2"
    shown = cluster.run(f"{script} --out /root/alone; true", check=False)
    assert "error: /root/alone is another directory on 10.77.0.12: give --storage a path or URI" in shown
    shown = cluster.run(
        "python -m dr3_ray.cli fetch /mnt/shared/nothing --cluster ~/cluster.yaml --out ~/none", check=False
    )
    assert "error: /mnt/shared/nothing is not a run directory" in shown


def test_a_host_that_is_lost_in_mid_sweep_costs_no_member(cluster, bucket):
    """By `ray job submit`, with checkpoints and results on S3; then host 2 loses its network for good."""
    cluster.run(TUNNEL)
    script = f"python coefficient_sweep.py {SWEEP} --steps 16000 --evaluations 16 --checkpoint-every 1 --retries 3"
    command = f"{script} --out /root/cut --storage {shlex.quote(bucket)}"
    job = cluster.start(f"ray job submit --address http://127.0.0.1:8265 --working-dir sweeps -- {command}")
    run = cluster.disks / "host1" / "root" / "cut"
    deadline = time.monotonic() + 300
    while not (run / HISTORIES).exists() or len({member for member, _ in steps(run)}) < 4:
        assert time.monotonic() < deadline, job.communicate(timeout=5)[0]
        time.sleep(0.2)
    assert "running" in {record["status"] for record in read_index(run)}  # host 2 is the later one
    cluster.network(2, "down")
    try:
        shown, _ = job.communicate(timeout=400)
    finally:
        cluster.network(2, "up")
    assert job.returncode == 0, shown
    changes = [json.loads(line) for line in (run / INDEX).read_text().splitlines()]
    begun = Counter(change["member"] for change in changes if change["status"] == "running")
    assert sorted(begun.values()) == [1, 1, 2, 2]  # those of host 2 went on elsewhere

    cluster.run(f"python -m dr3_ray.cli fetch {shlex.quote(bucket)} --out ~/cut")
    home = cluster.disks / "laptop" / "root" / "cut"
    assert [record["status"] for record in read_index(home)] == ["finished"] * 4
    members = [record["member"] for record in read_index(home)]
    assert steps(home) == sorted((member, step) for member in members for step in range(1000, 16001, 1000))
