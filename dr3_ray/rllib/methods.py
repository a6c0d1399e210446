"""RLlib's public methods that an offline algorithm cannot have, each with what takes its place."""

from typing import Any, NoReturn, TypeVar

from dr3_ray.errors import UserError

A = TypeVar("A", bound=type)

MODULE = "algorithm.get_module().forward_inference({'obs': observations}) returns actions of the first member"
ONE_POLICY = "one policy is trained for one agent; build an algorithm for each agent"
ON_DATA = "every result of train() holds what is measured on the data, under members"
SAVED = "algorithm.save_to_path(directory) writes checkpoints, the networks alone below learner_group/learner/rl_module"
# name -> what to do instead
REFUSED = {
    "add_module": ONE_POLICY,
    "add_policy": ONE_POLICY,
    "compute_actions": MODULE,
    "compute_single_action": MODULE,
    "evaluate_offline": ON_DATA,
    "export_model": SAVED,
    "export_policy_checkpoint": SAVED,
    "export_policy_model": SAVED,
    "from_state": "give a checkpoint to from_checkpoint(), or what get_state() returned to set_state()",
    "get_policy": "algorithm.get_module() returns the networks of all members",
    "remove_module": ONE_POLICY,
    "remove_policy": ONE_POLICY,
    "restore_offline_eval_runners": ON_DATA,
    "restore_workers": "restart_failed_env_runners in .fault_tolerance() brings lost runners back",
}
# properties
GONE = {
    "evaluation_workers": "it is called eval_env_runner_group",
    "workers": "no episodes are collected for training; what plays is eval_env_runner_group",
}


def refuses_what_has_no_effect(algorithm: A) -> A:
    """Make each of these methods of a class raise a UserError in one line."""
    for name, instead in REFUSED.items():
        setattr(algorithm, name, _refusing(name, instead))
    for name, instead in GONE.items():
        setattr(algorithm, name, property(_refusing(name, instead)))
    return algorithm


def _refusing(name: str, instead: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(f"an offline algorithm has no {name}: {instead}")

    refuse.__name__, refuse.__doc__ = name, f"Not here: {instead}."
    return refuse
