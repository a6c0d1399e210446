"""Tune keeps results on s3:// with the core dependencies alone: a real run against a server on this machine."""

import pyarrow.fs
import pytest
import ray
from moto.server import ThreadedMotoServer
from ray import tune


@pytest.fixture
def bucket(monkeypatch):
    """URI options and all of an empty bucket, as a function of the path in it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"scheme=http&region=us-east-1&endpoint_override={host}:{port}"
    filesystem, _ = pyarrow.fs.FileSystem.from_uri(f"s3://?{options}&allow_bucket_creation=true")
    filesystem.create_dir("results")
    yield lambda path: f"s3://results/{path}?{options}"
    server.stop()


def test_tune_reads_back_what_it_stored(bucket):
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        run_config = tune.RunConfig(name="run", storage_path=bucket("sweeps"), verbose=0)
        tuner = tune.Tuner(
            lambda config: tune.report({"loss": config["x"] ** 2}),
            param_space={"x": tune.grid_search([1.0, 3.0])},
            run_config=run_config,
        )
        tuner.fit()
        restored = tune.Tuner.restore(bucket("sweeps/run"), trainable=lambda config: None).get_results()
        assert sorted(result.metrics["loss"] for result in restored) == [1.0, 9.0]
    finally:
        ray.shutdown()
