"""Waiting for machines, and what they have to share: on a Ray cluster of several nodes in this one."""

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from ray.cluster_utils import Cluster

import dr3_ray
from dr3_ray.cluster import lack
from dr3_ray.cluster.nodes import wait_for_nodes
from dr3_ray.cluster.sharing import share
from dr3_ray.data import load_dataset
from dr3_ray.data.embedded import embedded_path
from dr3_ray.errors import UserError
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec

SMALL = {"num_cpus": 1, "object_store_memory": 100_000_000}


@pytest.fixture(scope="module")
def cluster():
    """One node, to which tests add."""
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args=SMALL | {"include_dashboard": False})
    ray.init(cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_several_machines_without_a_cluster_are_refused(tmp_path):
    ray.shutdown()
    tiny = {"environment": "none", "steps": 1, "evaluations": 1, "coefficients": [0], "seeds": 1}
    try:
        with pytest.raises(UserError, match="2 machines need a Ray cluster, and none is here"):
            train_sweep(SweepSpec(datasets=["embedded:breakout-replay"], nodes=2, out=tmp_path / "run", **tiny))
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_what_is_missing_is_said_until_it_is_there(cluster):
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        cluster.add_node(**SMALL)

    wait_for_nodes(2, {"CPU": 1.0, "GPU": 0.0}, say)
    address = ray.nodes()[0]["NodeManagerAddress"]
    assert said == [f"waiting for 1 more of 2 machines with 1 CPUs (in the cluster: {address} with 1 CPUs and 0 GPUs)"]
    wait_for_nodes(2, {"CPU": 1.0}, say)
    assert len(said) == 1


@pytest.mark.slow
def test_a_machine_without_what_a_trial_needs_does_not_count(cluster):
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        cluster.add_node(**SMALL, num_gpus=1)

    wait_for_nodes(1, {"CPU": 1.0, "GPU": 0.5}, say)
    assert said[0].startswith("waiting for 1 more of 1 machines with 1 CPUs and 0.5 GPUs")


def test_patience_has_an_end(cluster):
    said: list[str] = []
    with pytest.raises(UserError, match=r"^no longer waiting for 1 more of 1 machines with 100 GPUs .*: start"):
        wait_for_nodes(1, {"GPU": 100.0}, said.append, patience=0.02)
    assert len(said) == 1


@pytest.mark.slow
def test_learners_that_no_machine_has_room_for_wait_with_a_word(cluster, monkeypatch, caplog):
    """Until a machine joins: said after a while, and again; then they train."""
    monkeypatch.setattr(lack, "SILENT", 0.5)
    monkeypatch.setattr(lack, "AGAIN", 1.0)
    config = dr3_ray.DR3CQLConfig().offline_data(input_="embedded:breakout-replay").training(hidden_sizes=[8])
    config = config.learners(num_learners=1, num_cpus_per_learner=3)
    with ThreadPoolExecutor() as pool:  # because nodes are added in the main thread alone
        building = pool.submit(config.build_algo)
        while len(said := [each.message for each in caplog.records if each.name == "dr3_ray"]) < 2:
            assert not building.done()
            time.sleep(0.05)
        cluster.add_node(**SMALL | {"num_cpus": 3})
        algorithm = building.result(timeout=120)
    assert re.fullmatch(
        r"learners and evaluation runners wait for room: 1 for 3 CPUs each; the cluster has (\S+ with 1 CPUs and "
        r"[01] GPUs(, )?)+, where .* are free; no machine is starting\. They begin once a machine with as much has "
        "joined; else stop this and ask for less",
        said[0],
    )
    assert said[1] == said[0]
    assert algorithm.train()["num_updates"] > 0
    algorithm.stop()


@pytest.mark.slow
def test_what_waits_for_others_is_told_so(cluster):
    everything = ray.remote(num_cpus=1)(threading.Event)
    holding = [everything.remote() for _ in range(int(ray.cluster_resources()["CPU"]) + 1)]  # one has to wait
    end = time.monotonic() + 60
    while not (line := lack.lack_of("runners", [{"CPU": 1.0, "GPU": 0.0}])) and time.monotonic() < end:
        time.sleep(0.1)
    assert line.startswith("runners wait for room: 1 for 1 CPUs each; the cluster has ")
    assert "once others have ended or a machine has joined" in line
    assert not lack.lack_of("learners", [{"CPU": 2.0}])
    del holding


@pytest.mark.slow
def test_what_all_machines_see_is_used_where_it_is(cluster, tmp_path):
    said: list[str] = []
    data = {"a": "embedded:breakout-replay", "b": str(embedded_path("breakout-replay")), "c": "s3://bucket/data?x=y"}
    found = share(str(tmp_path / "run"), True, data, said.append)
    assert found == {name: f"{at}#{name}" for name, at in data.items()}
    assert not said
    assert not list((tmp_path / "run").iterdir())


def test_a_subset_of_what_is_here_alone_goes_through_the_storage(cluster, tmp_path):
    """Its folder is known by a number that only this process has; two subsets, and a mixture, share one copy."""
    if len(ray.nodes()) < 2:
        cluster.add_node(**SMALL)
    folder = os.open(embedded_path("breakout-replay"), os.O_RDONLY)
    try:
        names = [f"/proc/self/fd/{folder}?{subset}" for subset in ("take=best:0.1", "split=validation")]
        data, said = {load_dataset(name).fingerprint: name for name in names}, []
        mixture = f"mix:{names[0]}=0.9,{names[1]}=0.1"
        mixed = load_dataset(mixture).fingerprint
        found = share(str(tmp_path / "run"), True, data | {mixed: mixture}, said.append)
    finally:
        os.close(folder)
    assert all("is not there on" in line and "machines take it from" in line for line in said) and len(said) == 2
    (copy,) = (tmp_path / "run" / "data").iterdir()
    for fingerprint, name in data.items():
        assert found[fingerprint] == f"{copy.as_uri()}?{name.partition('?')[2]}#{fingerprint}"
        assert load_dataset(found[fingerprint]).fingerprint == fingerprint
    assert found[mixed] == "mix:{}=0.9,{}=0.1".format(*(found[fingerprint] for fingerprint in data))
    assert load_dataset(found[mixed]).fingerprint == mixed
