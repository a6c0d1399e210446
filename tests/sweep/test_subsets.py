"""A sweep over rows of one data set: views are data sets of their own, from the specification to the report."""

import html
import re

import pytest

from dr3_ray.data import load_dataset
from dr3_ray.report.html import write_report
from dr3_ray.runs.index import read_index
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec


@pytest.mark.slow
def test_two_views_are_two_facets(cluster, cartpole, tmp_path):
    names = [f"{cartpole}?split=train&validation=0.25", f"{cartpole}?take=uniform:0.5", cartpole]
    tiny = {"options": {"hidden_sizes": [16, 16], "n_step": 3}, "steps": 20, "evaluations": 2, "environment": "none"}
    tiny["concurrent"] = 1
    sweep = SweepSpec(algorithms=["DR3-DQN"], datasets=names, coefficients=[0], seeds=2, out=tmp_path / "run", **tiny)
    summary = train_sweep(sweep)
    assert summary.statuses == {"finished": 6}
    used = {record["config"]["dataset"]: record["config"]["data_fingerprint"] for record in read_index(sweep.out)}
    assert used == {name: load_dataset(name).fingerprint for name in names} and len(set(used.values())) == 3
    assert {config["data_fingerprint"] for config in members(sweep).values()} == set(used.values())
    text = html.unescape(re.sub("<[^>]*>", " ", write_report(sweep.out).page.read_text()))
    for label in ("cartpole (split=train, validation=0.25)", "cartpole (take=uniform:0.5)", "cartpole"):
        assert f"DR3-DQN · {label}" in text
    assert f"{len(load_dataset(names[1]))} steps of 4 episodes" in text and "subset take=uniform:0.5" in " ".join(
        text.split()
    )
