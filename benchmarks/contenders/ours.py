"""The RLlib Algorithm of this package: one `train()` a turn, with all that belongs to it but rollouts."""

import torch
from turns import asked, take_turns

from dr3_ray.rllib import config_for

torch.set_num_threads(1)
case = asked()
config = config_for(case["algorithm"]).offline_data(input_=case["dataset"])
training = case["options"] | {"precision": case["precision"], "compile": case.get("compile", False)}
config.training(**training).regularization(dr3_coeff=case["dr3_coeff"])
config.population(updates_per_iteration=case["updates"])
algorithm = config.build_algo()
(answer,) = algorithm.learner_group.foreach_learner(lambda learner: learner.population)
population = answer.get()
population.record()  # a turn is far shorter than a run, which replays all but its first steps
if population.compiler:
    population.compiler.choice = True
take_turns(lambda n: algorithm.train(), {"probe": population.probe})
