"""A sweep on a mixture with tasks: rollouts, the report, and a policy that acts in the target's task."""

import html
import re

import numpy as np
import pytest
import torch

from dr3_ray import load_policy
from dr3_ray.data import load_dataset
from dr3_ray.errors import UserError
from dr3_ray.policies.export import export
from dr3_ray.report.diagnosis import diagnose_member
from dr3_ray.report.html import write_report
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.index import read_index
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec


@pytest.mark.slow
def test_a_mixture_is_a_data_set(cluster, pendulum, collected, tmp_path):
    other = collected(tmp_path / "other", "Pendulum-v1", 1)
    parts = [{"data": other, "weight": 3, "task": "swing"}, {"data": pendulum, "weight": 1, "task": "hold"}]
    sweep = SweepSpec(
        algorithms=["DR3-IQL"], datasets=[{"mixture": parts}], coefficients=[0], axes={"target_share": [0, 0.5]},
        seeds=1, steps=20, evaluations=2, evaluation_episodes=1, concurrent=1, out=tmp_path / "run",
        options={"hidden_sizes": [16], "batch_size": 32, "normalize_observations": True}
        | {"reward_scaling": "return_range"},
    )  # fmt: skip
    assert train_sweep(sweep).statuses == {"finished": 2}
    (name,) = sweep.datasets
    used = {record["config"]["dataset"]: record["config"]["data_fingerprint"] for record in read_index(sweep.out)}
    assert used == {name: load_dataset(name).fingerprint}
    rows = read_histories(sweep.out).to_pandas()
    assert rows["episode_return_mean"].notna().all() and rows[["td_error_1", "td_error_2"]].notna().all(axis=None)
    assert rows.groupby("member")["td_error_2"].last().nunique() == 2
    text = html.unescape(re.sub("<[^>]*>", " ", write_report(sweep.out).page.read_text()))
    assert "DR3-IQL · other 75% + pendulum 25%" in text and f"{len(load_dataset(name))} steps of 3 episodes" in text
    diagnosis = diagnose_member(sweep.out, member={"target_share": 0.5})
    assert diagnosis.probes["train"].rows == 2048 and any("no held-out data" in note for note in diagnosis.notes)
    with pytest.raises(UserError, match="has not the tasks that the member was trained with: give a mixture"):
        diagnose_member(sweep.out, data=pendulum)
    policy = load_policy(sweep.out, {"target_share": 0.5})
    assert policy.observation_space.shape == (3,) and policy.networks.observation_task.tolist() == [0.0, 1.0]
    assert policy._scale == pytest.approx(1.0 / np.ptp(load_dataset(name).episodes["returns"]))
    seen = load_dataset(pendulum).gather(torch.arange(8), ["observations"])["observations"].numpy()
    acted = policy.act(seen)
    policy.networks.observation_task.copy_(torch.tensor([1.0, 0.0]))
    assert not np.array_equal(policy.act(seen), acted)
    policy.networks.observation_task.copy_(torch.tensor([0.0, 1.0]))
    export(policy, "torchscript", tmp_path / "policy.ts")
    np.testing.assert_allclose(torch.jit.load(tmp_path / "policy.ts")(torch.from_numpy(seen)).numpy(), acted, atol=1e-5)
