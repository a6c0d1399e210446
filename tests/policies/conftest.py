"""A run whose members were trained and rolled out, and policies of every algorithm that were not trained at all."""

from pathlib import Path

import pytest
import torch

from dr3_ray.algorithms.registry import ALGORITHMS
from dr3_ray.data.spaces import SpaceSpec, training_spaces
from dr3_ray.evaluation.contract import Recorded
from dr3_ray.policies.policy import Policy
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.trainable import PackTrainable
from dr3_ray.training.member import Member, build_networks
from dr3_ray.training.saved import Trained
from tests.crash.untrained import InTurn
from tests.sweep.conftest import cartpole, cluster, pendulum  # noqa: F401

PLAYERS = [form for forms in ALGORITHMS.values() for form in forms.values() if form.act is not None]


@pytest.fixture(scope="package")
def run(cartpole, tmp_path_factory) -> Path:  # noqa: F811
    """Two configurations with two seeds each, in one pack that was trained in this process."""
    out = tmp_path_factory.mktemp("policies") / "run"
    asked = {"datasets": [cartpole], "coefficients": [0, 0.1], "seeds": 2, "steps": 40, "evaluations": 2}
    asked |= {"keep_checkpoints": 2}
    spec = SweepSpec(**asked, evaluation_episodes=2, options={"hidden_sizes": [8]}, concurrent=1, out=out)
    train_sweep(spec, trials=InTurn(pack=PackTrainable))
    return out


def untrained(form, observations: SpaceSpec, actions: SpaceSpec, row: int = 1, **options) -> Policy:
    """One of three members as it begins."""
    spaces = training_spaces(observations, actions)
    members = [Member.from_dict(form, {"hidden_sizes": [8], "seed": seed} | options) for seed in range(3)]
    shapes = observations.shapes
    plain = not isinstance(shapes, dict) and observations.dtype == "float32"
    statistics = (torch.full(shapes, 0.5), torch.full(shapes, 2.0)) if plain else None
    networks = build_networks(form, spaces, members, statistics)
    recorded = Recorded("data", observations, actions)
    return Policy(Trained(form, spaces, [each.to_dict() for each in members], networks, recorded.to_dict()), row)


@pytest.fixture(scope="package")
def breakout(tmp_path_factory) -> Path:
    """A member on MinAtar's pictures that was not rolled out."""
    out = tmp_path_factory.mktemp("policies") / "breakout"
    asked = {"datasets": ["embedded:breakout-replay"], "coefficients": [0.1], "seeds": 1, "steps": 10, "evaluations": 1}
    asked |= {"environment": "none", "objective": "td_error", "options": {"hidden_sizes": [8]}, "concurrent": 1}
    train_sweep(SweepSpec(**asked, out=out), trials=InTurn(pack=PackTrainable))
    return out
