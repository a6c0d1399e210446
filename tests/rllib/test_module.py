"""What is left of a module where it only acts."""

import pytest

from dr3_ray.data import load_dataset
from dr3_ray.evaluation.contract import Recorded
from dr3_ray.rllib.module import PopulationModule


@pytest.mark.parametrize(
    ("algorithm", "data", "acting"),
    [
        ("DR3-CQL", "embedded:breakout-replay", {"critic"}),
        ("DR3-TD", "embedded:breakout-replay", {"critic", "behaviour"}),
        ("DR3-CQL", "embedded:pendulum-replay", {"actor"}),
        ("BC", "embedded:breakout-replay", {"actor"}),
    ],
)
def test_it_acts_without_targets_and_without_networks_of_regularisers(algorithm, data, acting):
    recorded = Recorded.of(load_dataset(data))
    trained = {} if algorithm == "BC" else {"dr3_coeff": 0.1, "dr3_adaptive": "cosine"}
    observations, actions = recorded.to_gymnasium()
    modules = [
        PopulationModule(
            observation_space=observations,
            action_space=actions,
            inference_only=inference_only,
            model_config={
                "algorithm": algorithm,
                "members": [{"hidden_sizes": [8], "seed": 0, **trained}],
                "recorded": recorded.to_dict(),
            },
        )
        for inference_only in (True, False)
    ]
    names = [{name for name, _ in module.networks.named_children()} for module in modules]
    assert names[0] == acting
    assert {f"networks.{name}" for name in names[1] - acting} == set(modules[1].get_non_inference_attributes())
    assert ("dr3_multiplier" in names[1]) == (algorithm != "BC")
