"""A live algorithm behaves as RLlib's users expect: each public method works, or says in one line what does."""

import inspect
from collections import Counter
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

import dr3_ray
from dr3_ray import UserError
from dr3_ray.rllib import methods
from dr3_ray.rllib.algorithm import OfflineAlgorithm
from tests.rllib.conftest import TINY

pytestmark = pytest.mark.usefixtures("local_ray")

WORK = {
    *("cleanup", "stop", "setup", "step", "train", "train_buffered", "training_step", "evaluate"),
    *("env_runner", "env_runner_group", "eval_env_runner", "eval_env_runner_group", "learner_group", "metrics"),
    *("get_config", "get_default_config", "get_module", "get_weights", "set_weights", "get_state", "set_state"),
    *("from_checkpoint", "save", "save_checkpoint", "save_to_path", "load_checkpoint", "restore", "restore_from_path"),
    *("get_checkpointable_components", "get_ctor_args_and_kwargs", "get_metadata", "restore_env_runners"),
    *("default_resource_request", "resource_help", "reset", "reset_config", "log_result", "logdir", "is_actor"),
    *("get_auto_filled_metrics", "get_current_ip_pid", "iteration", "training_iteration", "validate_env"),
    *("trial_id", "trial_name", "trial_resources", "config", "offline_data"),
    *("get_default_policy_class", "merge_algorithm_configs"),  # which RLlib calls itself
    *("CLASS_AND_CTOR_ARGS_FILE_NAME", "METADATA_FILE_NAME", "STATE_FILE_NAME"),
}


def tiny(data: str, members: int = 2) -> Any:
    config = dr3_ray.DR3CQLConfig().offline_data(input_=data).training(**TINY)
    return config.population([{"seed": seed} for seed in range(members)], updates_per_iteration=20)


@pytest.fixture(scope="module")
def trained(cartpole: str, local_ray: None) -> Iterator[Any]:
    """Without an environment, after two iterations."""
    algorithm = tiny(cartpole).build_algo()
    algorithm.train()
    algorithm.second = algorithm.train()
    yield algorithm
    algorithm.stop()


@pytest.fixture(scope="module")
def playing(cartpole: str, local_ray: None) -> Iterator[Any]:
    """With an environment and no settings of evaluation."""
    algorithm = tiny(cartpole).environment("CartPole-v1", env_config={"max_episode_steps": 6}).build_algo()
    yield algorithm
    algorithm.stop()


def test_every_public_method_works_or_says_what_does(trained: Any) -> None:
    public = {name for name in dir(Algorithm) if not name.startswith("_")}
    assert public - WORK - methods.REFUSED.keys() - methods.GONE.keys() == set(), "say in methods.py or here"
    for name, instead in (methods.REFUSED | methods.GONE).items():
        with pytest.raises(UserError) as caught:
            getattr(trained, name)("anything", 1)
        assert "\n" not in str(caught.value) and name in str(caught.value) and instead in str(caught.value)
    own = {name for name, _ in inspect.getmembers(OfflineAlgorithm) if not name.startswith("_")}
    assert public <= own


def test_losses_and_sizes_stand_where_rllibs_users_look(trained: Any) -> None:
    result = trained.second
    learner, rows = result["learners"][DEFAULT_MODULE_ID], list(result["members"].values())
    assert learner["loss_critic"] == pytest.approx(np.mean([row["loss_critic"] for row in rows]))
    losses = [value for name, value in learner.items() if name.startswith("loss_")]
    assert len(losses) == 3 and learner["total_loss"] == pytest.approx(sum(losses))
    sizes = [parameter.numel() for parameter in trained.get_module().parameters() if parameter.requires_grad]
    assert learner["num_trainable_parameters"] == sum(sizes)
    assert result["learners"]["__all_modules__"]["num_trainable_parameters"] == sum(sizes)


def test_a_mean_leaves_out_members_that_have_diverged(cartpole: str) -> None:
    algorithm = tiny(cartpole).population([{"seed": 0}, {"seed": 1, "critic_lr": 1e30}]).build_algo()
    for _ in range(2):
        result = algorithm.train()
    assert [row["diverged"] for row in result["members"].values()] == [False, True]
    assert result["learners"][DEFAULT_MODULE_ID]["td_error"] == result["members"]["000"]["td_error"]
    algorithm.stop()


def test_the_module_is_the_learners_and_its_weights_can_be_set(trained: Any) -> None:
    module, weights = trained.get_module(), trained.get_weights()
    assert module is trained.get_module(DEFAULT_MODULE_ID) and trained.get_module("another") is None
    actions = module.forward_inference({"obs": np.zeros((3, 4), np.float32)})["actions"]
    assert actions.shape == (3,)
    zeros = {name: np.zeros_like(values) for name, values in weights[DEFAULT_MODULE_ID].items()}
    trained.set_weights({DEFAULT_MODULE_ID: zeros})
    assert all(not parameter.any() for parameter in module.parameters())
    trained.set_weights(weights)
    assert all(np.array_equal(now, weights[DEFAULT_MODULE_ID][name]) for name, now in module.get_state().items())


def test_evaluate_needs_an_environment_and_nothing_else(trained: Any, playing: Any) -> None:
    with pytest.raises(UserError, match=r"no environment to play in: .environment"):
        trained.evaluate()
    found = playing.evaluate()["env_runners"]
    assert {name: row["episodes"] for name, row in found["members"].items()} == {"000": 20, "001": 20}
    assert found["episode_len_max"] == 6.0 and found["num_episodes"] == 20  # env_config has reached them
    means = [row["episode_return_mean"] for row in found["members"].values()]
    assert found["episode_return_mean"] == pytest.approx(np.mean(means)) and max(means) <= 6.0
    assert playing.evaluate()["env_runners"]["members"] == found["members"]


@pytest.mark.parametrize("name", ["gymnasium:CartPole-v1", "CartPole-v1", "Registered-v0", "gymnasium:Registered-v0"])
def test_env_config_reaches_environments_of_every_name(name: str, cartpole: str) -> None:
    gym.registry.pop("Registered-v0", None)
    gym.register("Registered-v0", entry_point=lambda **options: gym.make("CartPole-v1", **options))
    config = tiny(cartpole, 1).environment(name, env_config={"max_episode_steps": 5})
    algorithm = config.evaluation(evaluation_duration=3).build_algo()
    assert algorithm.evaluate()["env_runners"]["episode_len_max"] == 5.0
    algorithm.stop()
    with pytest.raises(UserError, match=r"cannot be made with \{'gravitas': 1\}"):
        tiny(cartpole, 1).environment(name, env_config={"gravitas": 1}).build_algo()


def test_an_environment_of_evaluation_alone(cartpole: str) -> None:
    own = {"env": "CartPole-v1", "env_config": {"max_episode_steps": 4}, "seed": 7}
    algorithm = tiny(cartpole, 1).evaluation(evaluation_interval=1, evaluation_config=own).build_algo()
    assert algorithm.train()["evaluation"]["env_runners"]["episode_len_max"] == 4.0
    algorithm.stop()


def test_callbacks_see_every_episode_of_every_member(cartpole: str) -> None:
    calls: list[tuple[str, Any]] = []

    def note(name: str) -> Any:
        def called(**given: Any) -> None:
            calls.append((name, given))
            if name == "on_episode_end":
                given["metrics_logger"].log_value("length_seen", len(given["episode"]), reduce="max")

        return called

    names = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")
    config = tiny(cartpole).environment("CartPole-v1").resources(num_cpus_for_main_process=2)
    config = config.callbacks(**{name: note(name) for name in (*names, "on_sample_end", "on_environment_created")})
    algorithm = config.evaluation(evaluation_interval=1, evaluation_duration=3).build_algo()
    result = algorithm.train()
    counts = Counter(name for name, _ in calls)
    ended = [given for name, given in calls if name == "on_episode_end"]
    assert [counts[name] for name in ("on_episode_created", "on_episode_start", "on_episode_end")] == [6, 6, 6]
    assert counts["on_episode_step"] == sum(len(given["episode"]) for given in ended)
    assert counts["on_environment_created"] == 1 + 6 and counts["on_sample_end"] == 1
    assert result["evaluation"]["env_runners"]["length_seen"] == max(len(given["episode"]) for given in ended)
    for member, row in enumerate(result["members"].values()):
        own = [given["episode"] for given in ended if given["episode"].custom_data["member"] == member]
        assert np.mean([episode.get_return() for episode in own]) == row["episode_return_mean"]
    (samples,) = [given["samples"] for name, given in calls if name == "on_sample_end"]
    assert len(samples) == 6 and all(episode.is_numpy and episode.is_done for episode in samples)
    assert all(isinstance(given["env"].envs[given["env_index"]], gym.Env) for given in ended)
    first = samples[0]
    assert len(first.get_observations()) == len(first.get_actions()) + 1
    algorithm.stop()


def test_timesteps_are_whole_episodes_until_each_member_has_made_them(cartpole: str) -> None:
    config = tiny(cartpole).environment("CartPole-v1", env_config={"max_episode_steps": 8})
    algorithm = config.evaluation(evaluation_duration=50, evaluation_duration_unit="timesteps").build_algo()
    found = algorithm.evaluate()["env_runners"]
    assert found["num_env_steps_sampled"] >= 50 and found["num_episodes"] >= 50 / 8
    assert {row["episodes"] for row in found["members"].values()} == {found["num_episodes"]}
    algorithm.stop()


def test_start_states_go_on_if_they_are_to(cartpole: str) -> None:
    config = tiny(cartpole, 1).environment("CartPole-v1").evaluation(evaluation_duration=3)
    algorithm = config.evaluation(evaluation_force_reset_envs_before_iteration=False).build_algo()
    first, second = (algorithm.evaluate()["env_runners"]["members"]["000"] for _ in range(2))
    again = algorithm.eval_env_runner
    again.played = 0
    assert algorithm.evaluate()["env_runners"]["members"]["000"] == first != second
    algorithm.stop()


@pytest.mark.slow
def test_a_parallel_evaluation_plays_with_the_weights_before_the_iteration_in_both_units_of_time(cartpole: str) -> None:
    config = tiny(cartpole).environment("CartPole-v1").training(critic_lr=0.1)
    config = config.evaluation(
        evaluation_interval=1, evaluation_duration=4, evaluation_num_env_runners=1, evaluation_parallel_to_training=True
    )
    algorithm = config.build_algo()
    before, result = algorithm.evaluate()["env_runners"]["members"], algorithm.train()
    for name, row in before.items():
        assert result["members"][name]["episode_return_mean"] == row["episode_return_mean"]
    algorithm.config._is_frozen = False
    algorithm.config.evaluation_duration = "auto"
    with pytest.raises(UserError, match="as long as a training iteration"):
        algorithm.evaluate()
    rows = algorithm.train()["members"].values()
    assert all(row["episodes"] >= 1 and row["episode_return_mean"] >= 1.0 for row in rows)
    algorithm.stop()


@pytest.mark.slow
def test_what_fails_in_a_remote_runner_is_raised(cartpole: str) -> None:
    class Fails(gym.Wrapper):  # type: ignore[type-arg]
        def step(self, action: Any) -> Any:
            raise UserError("the track is closed: choose another one")

    gym.register("Fails-v0", entry_point=lambda: Fails(gym.make("CartPole-v1")))
    config = tiny(cartpole, 1).environment("Fails-v0")
    algorithm = config.evaluation(evaluation_interval=1, evaluation_num_env_runners=1).build_algo()
    with pytest.raises(UserError, match=r"^the track is closed: choose another one$"):
        algorithm.train()
    algorithm.stop()


def test_a_custom_evaluation_has_its_results_and_needs_no_environment(cartpole: str) -> None:
    def evaluation(algorithm: Any, runners: Any) -> tuple[dict[str, float], int, int]:
        return {"largest": algorithm.get_module().networks.critic.head.weight.max().item()}, 0, 0

    config = tiny(cartpole, 1).evaluation(evaluation_interval=1, custom_evaluation_function=evaluation)
    algorithm = config.build_algo()
    head = algorithm.get_module().networks.critic.head
    assert algorithm.train()["evaluation"]["largest"] == head.weight.max().item()
    algorithm.stop()


def test_rllibs_own_runner_has_its_settings(cartpole: str) -> None:
    config = tiny(cartpole, 1).environment("CartPole-v1").evaluation(evaluation_duration=4)
    config = config.env_runners(env_runner_cls=SingleAgentEnvRunner, num_envs_per_env_runner=2)
    algorithm = config.build_algo()
    assert algorithm.evaluate()["env_runners"]["num_episodes"] >= 4 and algorithm.eval_env_runner.num_envs == 2
    algorithm.stop()


def test_an_iteration_goes_on_for_the_time_it_is_given(cartpole: str) -> None:
    config = tiny(cartpole, 1).population(updates_per_iteration=1).reporting(min_time_s_per_iteration=1.5)
    algorithm = config.build_algo()
    result = algorithm.train()
    assert result["time_this_iter_s"] >= 1.5 and result["num_updates"] > 1
    algorithm.stop()


def without(state: dict[str, Any], *path: str) -> dict[str, Any]:
    """The same state without what lies at a path."""
    name, *more = path
    rest = {other: value for other, value in state.items() if other != name}
    return rest | {name: without(state[name], *more)} if more else rest


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


MODULE = ("learner_group", "learner", "rl_module", DEFAULT_MODULE_ID)
POPULATION = ("learner_group", "learner", "optimizer", "population")


def test_a_state_is_taken_as_a_whole_or_changes_nothing(trained: Any) -> None:
    """Every part of a state that is missing, of another shape, or of another name is one line."""
    whole = trained.get_state()
    before = trained.get_weights()[DEFAULT_MODULE_ID]
    networks = whole["learner_group"]["learner"]["rl_module"][DEFAULT_MODULE_ID]
    states: list[Any] = [None, {}, {"networks": networks}, without(whole, *MODULE)]
    states += [without(whole, *MODULE, name) for name in networks]
    states += [without(whole, *POPULATION, name) for name in ("adam", "sampler", "step", "diverged")]
    for name, values in networks.items():
        module = {DEFAULT_MODULE_ID: networks | {name: np.zeros((*np.shape(values), 2))}}
        states.append({"learner_group": {"learner": {"rl_module": module}}})
    for state in states:
        with pytest.raises(UserError) as error:
            trained.set_state(state)
        assert "\n" not in str(error.value) and same(trained.get_weights()[DEFAULT_MODULE_ID], before)
    for weights in ({}, {"another": networks}, {DEFAULT_MODULE_ID: dict(list(networks.items())[:1])}):
        with pytest.raises(UserError):
            trained.set_weights(weights)
    assert same(trained.get_weights()[DEFAULT_MODULE_ID], before)
    trained.set_state(trained.get_state(components="learner_group"))


def test_what_was_built_takes_no_other_settings_and_no_rows(trained: Any) -> None:
    with pytest.raises(UserError, match="critic_lr cannot change in an algorithm that was built"):
        trained.config.critic_lr = 0.1
    with pytest.raises(UserError, match="draws its own rows from input_: leave out batch"):
        trained.learner_group.update(batch={})


@pytest.mark.parametrize("shape", [(4,), (2, 3), (0, 4), None])
def test_a_batch_of_another_shape_is_one_line(shape: Any, trained: Any) -> None:
    batch = {} if shape is None else {"obs": np.zeros(shape, np.float32)}
    with pytest.raises(UserError, match=r"^(observations are|the batch has no observations)"):
        trained.get_module().forward_inference(batch)


def test_one_that_was_stopped_or_cannot_be_reset_says_so(cartpole: str) -> None:
    algorithm = tiny(cartpole).environment("CartPole-v1").build_algo()
    algorithm.stop()
    algorithm.stop()
    for use in (algorithm.train, algorithm.evaluate, algorithm.save_to_path):
        with pytest.raises(UserError, match="this algorithm was stopped"):
            use()
    algorithm = tiny(cartpole).build_algo()
    for use in (lambda: algorithm.reset_config({}), algorithm.train):
        with pytest.raises(UserError, match="needs data"):
            use()
    algorithm.stop()


class Unlike(gym.Env):
    """An environment whose `reset` and `step` return what they are told."""

    observation_space = gym.make("CartPole-v1").observation_space
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config: dict[str, Any]) -> None:
        self.first, self.then = config["first"], config["then"]

    def reset(self, **_: Any) -> Any:
        return self.first

    def step(self, action: Any) -> Any:
        return self.then


SEEN = np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("first", "then", "says"),
    [
        (SEEN, None, "does not return an observation and a dict from `reset`"),
        ((SEEN, {}), (SEEN, 1.0, True, {}), "does not return five values from `step`"),
        ((SEEN, {}), (SEEN, "one", True, False, {}), "gives 'one' for reward"),
        ((SEEN, {}), (SEEN, np.ones(2), True, False, {}), "for reward: correct it to one number"),
        ((SEEN, {}), (SEEN, np.ones(1), True, False, {}), None),
    ],
)
def test_an_environment_unlike_gymnasiums_is_one_line(first: Any, then: Any, says: str | None, cartpole: str) -> None:
    algorithm = tiny(cartpole).environment(Unlike, env_config={"first": first, "then": then}).build_algo()
    if says is None:
        assert algorithm.evaluate()["env_runners"]["members"]["000"]["episode_return_mean"] == 1.0
    else:
        with pytest.raises(UserError, match=says):
            algorithm.evaluate()
    algorithm.stop()


@pytest.mark.parametrize("returned", [None, {"score": 1.0}, ({"score": 1.0}, 0), ({"score": 1.0}, 0.0, 0)])
def test_a_custom_evaluation_that_returns_something_else(returned: Any, cartpole: str) -> None:
    config = tiny(cartpole).evaluation(custom_evaluation_function=lambda *_: returned)
    algorithm = config.build_algo()
    with pytest.raises(UserError, match="custom_evaluation_function returned"):
        algorithm.evaluate()
    algorithm.stop()
