"""What is overridden and read of RLlib's and Tune's classes that is not public: their names, which a test looks for.

Overriding has to name them where it does so. Where one is gone, RLlib would never call what is written in its place.
"""

OVERRIDDEN = {
    "ray.rllib.algorithms.algorithm.Algorithm": {
        "_evaluate_with_auto_duration": "rllib/evaluating.py",
        "_evaluate_with_custom_eval_function": "rllib/evaluating.py",
        "_get_env_id_and_creator": "rllib/algorithm.py",
        "_maybe_wait_for_eval_env_runner_recovery": "rllib/evaluating.py",
        "_run_one_evaluation": "rllib/evaluating.py",
        "_run_one_training_iteration_and_evaluation_in_parallel": "rllib/evaluating.py",
        "_should_create_evaluation_env_runners": "rllib/evaluating.py",
    },
    "ray.rllib.algorithms.algorithm_config.AlgorithmConfig": {
        "_model_config_auto_includes": "rllib/config.py",
        "_value_error": "rllib/checked.py",
    },
    "ray.rllib.core.learner.torch.torch_learner.TorchLearner": {
        "_get_optimizer_state": "rllib/learner.py",
        "_make_modules_ddp_if_necessary": "rllib/learner.py",
        "_set_optimizer_state": "rllib/learner.py",
    },
    "ray.rllib.core.rl_module.rl_module.RLModule": {"_forward": "rllib/module.py"},
    "ray.tune.schedulers.pb2.PB2": {
        "_get_new_config": "evolution/schedulers.py",
        "_save_trial_state": "evolution/schedulers.py",
    },
    "ray.tune.schedulers.pbt.PopulationBasedTraining": {"_exploit": "evolution/schedulers.py"},
    "ray.tune.trainable.trainable.Trainable": {"_setup_logdir": "rllib/algorithm.py"},
}
"""Methods of a class, and the file that overrides them."""

READ = {
    "ray.rllib.algorithms.algorithm.Algorithm": {
        "_make_on_env_runners_recreated_callbacks": "rllib/evaluating.py",
    },
    "ray.rllib.algorithms.algorithm_config.AlgorithmConfig": {
        "_learner_class": "rllib/checked.py",
        "_rl_module_spec": "rllib/checked.py",
        "_translate_special_keys": "rllib/checked.py",
    },
    "ray.rllib.core.learner.learner.Learner": {
        "_check_is_built": "rllib/learner.py",
        "_log_trainable_parameters": "rllib/learner.py",
    },
    "ray.rllib.env.single_agent_env_runner.SingleAgentEnvRunner": {
        "_callbacks": "rllib/episodes.py",
        "_increase_sampled_metrics": "rllib/env_runner.py",
    },
    "ray.tune.trainable.trainable.Trainable": {
        "_monitor": "rllib/reuse.py",
        "_storage": "rllib/algorithm.py, rllib/reuse.py, evolution/evolution.py",
        "_trial_info": "rllib/reuse.py",
    },
    "ray.tune.schedulers.pbt.PopulationBasedTraining": {
        "_next_perturbation_sync": "evolution/schedulers.py",
        "_trial_state": "evolution/schedulers.py",
    },
    "ray.tune.tuner.Tuner": {"_local_tuner": "compat/ray.py"},
}
"""Methods and attributes of a class, and the files that use them."""
