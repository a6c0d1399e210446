"""Tune keeps results on s3:// with the core dependencies alone: a real run against a server on this machine."""

import pytest
import ray
from ray import tune


@pytest.mark.slow
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
