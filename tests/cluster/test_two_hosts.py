"""A cluster of two hosts from beginning to end, by the commands that people type on their laptop.

The tests share one cluster: it takes most of a minute to start.
"""

import json
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dr3_ray.data.embedded import embedded_path
from dr3_ray.runs.histories import HISTORIES, read_histories
from dr3_ray.runs.index import INDEX, read_index

SWEEP = (
    "--environment none --coefficients 0,0.03 --seeds 2 --set hidden_sizes=[16,16] --set batch_size=16 --pack 1 "
    "--steps 10000 --evaluations 20 --checkpoint-every 1 --retries 3"  # a host that starts late has work left
)
SUBMIT = f"ray submit ~/cluster.yaml sweeps/coefficient_sweep.py -- {SWEEP} --nodes 2"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # a machine with other work takes its time

QUICK = "--steps 2 --set hidden_sizes=[8] --nodes 2"
ONE = f"{QUICK} --seeds 1 --evaluations 1 --environment none --concurrent 1"
OTHERS = {  # arguments of scripts that do more than sweep, and what stands in their answers
    "offline_selection": ("/mnt/shared/both --fqe-steps 2", "fitted Q"),
    "optuna_search": (f"{ONE} --trials 2 --objective td_error --out /mnt/shared/optuna", "report: /mnt/shared/optuna"),
    "population_based": (f"{QUICK} --members 4 --intervals 2 --episodes 1 --out /mnt/shared/pbt", "what everyone"),
}

S3 = "10.77.0.1:5555"  # on the laptop
BUCKET = f"s3://results/cut?scheme=http&region=us-east-1&endpoint_override={S3}"
TUNNEL = "ssh -o StrictHostKeyChecking=no -f -N -L 8265:127.0.0.1:8265 10.77.0.11 &>/dev/null"
PARAMETERS = "learner_group/learner/rl_module/default_policy/module_state.safetensors"


@pytest.fixture(scope="module")
def cluster(testbed):
    """The laptop of a cluster that `ray up` has started."""
    testbed.run("ray get-auth-token --generate")
    testbed.run("ray up -y ~/cluster.yaml --no-config-cache")
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


@pytest.fixture(scope="module")
def undisturbed(cluster):
    """A sweep on both hosts, in the folder that they share."""
    cluster.run(f"{SUBMIT} --dataset embedded:breakout-replay --out /mnt/shared/both")
    return cluster.shared / "both"


def outcome(run: Path) -> tuple[dict[str, str], list[str]]:
    """Digests of parameters, and all rows but for what they took and where the data lay. Every member finished once."""
    lines = [json.loads(line) for line in (run / INDEX).read_text().splitlines()]
    assert Counter(line["member"] for line in lines if line["status"] == "finished") == Counter(
        record["member"] for record in read_index(run)
    )
    kept = {path.parent.parent.name: path for path in run.glob("checkpoints/*/0*/manifest.json")}
    rows = read_histories(run).drop_columns(["dataset", "time_s", "updates_per_second"]).to_pylist()
    assert len(rows) == 4 * 20
    digests = {pack: json.loads(path.read_text())[PARAMETERS] for pack, path in kept.items()}
    return digests, sorted(map(repr, rows))


def hosts_of(run: Path) -> set[str]:
    """The hosts that trained, from Tune's records."""
    state = json.loads(max((run / "trials").glob("experiment_state-*.json")).read_text())
    return {json.loads(runtime)["last_result"]["hostname"] for _, runtime in state["trial_data"]}


def begun(run: Path) -> Counter[str]:
    """How often each member was begun."""
    lines = (run / INDEX).read_text().splitlines() if (run / INDEX).exists() else []
    changes = [json.loads(line) for line in lines if line.endswith("}")]
    return Counter(change["member"] for change in changes if change["status"] == "running")


def steps(run: Path) -> Counter[str]:
    """Rows of each member."""
    return Counter(read_histories(run)["member"].to_pylist() if (run / HISTORIES).exists() else ())


def test_a_sweep_on_both_hosts_comes_home(cluster, undisturbed):
    run, home = undisturbed, cluster.disks / "laptop" / "root" / "both"
    assert hosts_of(run) == {"host1", "host2"}
    assert [record["status"] for record in read_index(run)] == ["finished"] * 4

    shown = cluster.run("python -m dr3_ray fetch /mnt/shared/both --cluster ~/cluster.yaml --out ~/both")
    assert "2/2" in shown
    assert all((home / name).read_bytes() == (run / name).read_bytes() for name in (INDEX, HISTORIES))
    assert (home / "report" / "report.html").stat().st_size > 10_000


def test_other_scripts_are_sent_to_the_cluster_alike(cluster, undisturbed):
    for name, (arguments, answer) in OTHERS.items():
        assert answer in cluster.run(f"ray submit ~/cluster.yaml sweeps/{name}.py -- {arguments}")


def test_what_is_not_shared_and_what_is_not_there_is_said_in_one_line(cluster):
    shown = cluster.run(f"{SUBMIT} --dataset embedded:breakout-replay --out /root/alone; true", check=False)
    assert "error: /root/alone is another directory on 10.77.0.12: give --storage a path or URI" in shown
    shown = cluster.run(
        "python -m dr3_ray fetch /mnt/shared/nothing --cluster ~/cluster.yaml --out ~/none", check=False
    )
    assert "error: /mnt/shared/nothing is not a run directory" in shown


def test_hosts_are_lost_in_mid_sweep_and_come_back(cluster, bucket, undisturbed):
    """The data lie on the head alone, and nothing is shared but a bucket.

    Host 2 loses its network for a while and gets work again; then everything on the head is killed, and its run
    directory is lost.
    """
    head = cluster.disks / "host1"
    run, data = head / "root" / "cut", "/root/breakout"
    shutil.copytree(embedded_path("breakout-replay"), f"{head}{data}")
    cluster.run(TUNNEL)
    command = f"python coefficient_sweep.py {SWEEP} --dataset {data} --out /root/cut --storage {shlex.quote(bucket)}"
    job = cluster.start(f"ray job submit --address http://127.0.0.1:8265 --working-dir sweeps -- {command}")

    def wait_for(condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 400
        while not condition():
            if time.monotonic() > deadline or job.poll() is not None:
                job.kill()
                pytest.fail(job.communicate()[0] + cluster.logs())
            time.sleep(0.2)

    def head_has_lost_host_2() -> bool:
        logs = (head / "tmp/ray").glob("session_2*/logs/gcs_server.out")
        return "remaining checks 0" in max(logs).read_text()

    wait_for(lambda: len(steps(run)) == 2)
    cluster.network(2, "down")
    wait_for(lambda: len(begun(run)) == 3)
    cluster.on(1, "pkill -STOP -f '[r]ay::PackTrainable'")  # the rest waits for host 2
    wait_for(head_has_lost_host_2)
    cluster.network(2, "up")
    wait_for(lambda: len(begun(run)) == 4 or begun(run).most_common(1)[0][1] == 2)
    assert "ray::PackTrainable" in cluster.on(2, "ps -A -o args")
    cluster.on(1, "pkill -CONT -f '[r]ay::PackTrainable'")
    wait_for(lambda: len(begun(run)) == 4 and begun(run).total() == 5)  # what host 2 had begun goes on
    unfinished = {record["member"] for record in read_index(run) if record["status"] == "running"}
    assert unfinished

    cluster.on(1, "kill -9 -1", check=False)
    said = job.communicate(timeout=400)[0]
    assert f"{data} is not there on 10.77.0.12: machines take it from s3://results/cut" in said
    shutil.rmtree(run)
    cluster.run("ray up -y ~/cluster.yaml --no-config-cache --restart-only")
    resume = f"ray submit ~/cluster.yaml sweeps/coefficient_sweep.py -- --resume {shlex.quote(shlex.quote(bucket))}"
    cluster.run(resume)

    cluster.run(f"python -m dr3_ray fetch {shlex.quote(bucket)} --checkpoints --out ~/cut")
    assert outcome(cluster.disks / "laptop" / "root" / "cut") == outcome(undisturbed)
