"""The RLlib classes on real data: training, restoring, evaluating, refusing."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

import dr3_ray
from dr3_ray import UserError
from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.data import load_dataset
from dr3_ray.evaluation import processes
from dr3_ray.rllib.config import CLASSES
from tests.rllib.conftest import TINY

pytestmark = pytest.mark.usefixtures("local_ray")
UPDATES = 6  # gradient steps of an iteration


def tiny(name: str, data: str, members: list[dict[str, Any]] | None = None) -> Any:
    config = dr3_ray.config_for(name).offline_data(input_=data).training(**TINY)
    if "n_quantiles" in config.option_names():
        config.training(n_quantiles=20)
    return config.population(members or [{"seed": 0}, {"seed": 1}, {"seed": 2}], updates_per_iteration=UPDATES)


def with_rollouts(config: Any, environment: str) -> Any:
    return config.environment(env=environment).evaluation(evaluation_interval=1, evaluation_duration=2)


def close_to(row: dict[str, Any]) -> Any:
    """Equal up to the rounding of float32: a batched product may add up in another order than a single one."""
    return pytest.approx(row, rel=1e-4, abs=1e-6)


def rows(result: dict[str, Any]) -> str:
    return json.dumps(result["members"], sort_keys=True)


@pytest.mark.spread(4)
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("name", list(CLASSES))
@pytest.mark.parametrize("data", ["cartpole", "pendulum"])
def test_every_algorithm_trains_measures_and_restores_bit_for_bit(
    name: str, data: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    kind = {"cartpole": "discrete", "pendulum": "continuous"}[data]
    if kind not in kinds_of(name):
        with pytest.raises(UserError, match=f"{name} needs .* actions, the data set has .* ones: use DR3-"):
            tiny(name, request.getfixturevalue(data)).build_algo()
        return
    config = tiny(name, request.getfixturevalue(data))
    if kinds_of(name)[kind].act is not None:  # else it evaluates the behaviour policy: nothing to roll out
        config = with_rollouts(config, {"cartpole": "CartPole-v1", "pendulum": "gymnasium:Pendulum-v1"}[data])
    algorithm = config.build_algo()
    first = algorithm.train()
    assert list(first["members"]) == ["000", "001", "002"] and first["num_updates"] == UPDATES
    for row in first["members"].values():
        assert row["diverged"] is False and np.isfinite(list(row.values())).all()
        assert ("dot_product" in row) == (name != "BC")
        assert row.get("episodes", 2) == 2
    assert first["updates_per_second"] > 0

    checkpoint = algorithm.save_to_path(tmp_path / "checkpoint")
    state = algorithm.get_state()
    second = algorithm.train()
    assert rows(second) != rows(first)

    loaded = Algorithm.from_checkpoint(checkpoint)
    assert rows(loaded.train()) == rows(second) and loaded.training_iteration == 2
    loaded.stop()
    algorithm.restore_from_path(checkpoint)  # back in the same process, weights included
    assert rows(algorithm.train()) == rows(second)
    algorithm.set_state(state)
    assert rows(algorithm.train()) == rows(second)
    algorithm.stop()


def test_a_member_of_a_pack_equals_the_same_member_alone(cartpole: str) -> None:
    members = [{"seed": 3, "dr3_coeff": 0.0}, {"seed": 4, "dr3_coeff": 0.1, "critic_lr": 1e-3, "gamma": 0.9}]
    pack = with_rollouts(tiny("DR3-CQL", cartpole, members), "CartPole-v1").build_algo()
    alone = with_rollouts(tiny("DR3-CQL", cartpole, members[1:]), "CartPole-v1").build_algo()
    for _ in range(2):
        in_pack, by_itself = pack.train()["members"]["001"], alone.train()["members"]["000"]
    assert in_pack == close_to(by_itself)
    pack.stop()
    alone.stop()


def test_a_diverged_member_is_marked_keeps_its_last_metrics_and_harms_no_other(cartpole: str) -> None:
    members = [{"seed": 0}, {"seed": 1, "critic_lr": 1e30}, {"seed": 2}]
    pack = with_rollouts(tiny("DR3-CQL", cartpole, members), "CartPole-v1").build_algo()
    healthy = with_rollouts(tiny("DR3-CQL", cartpole, [members[0], members[2]]), "CartPole-v1").build_algo()
    for _ in range(2):
        result, reference = pack.train()["members"], healthy.train()["members"]
    assert [row["diverged"] for row in result.values()] == [False, True, False]
    assert result["000"] == close_to(reference["000"]) and result["002"] == close_to(reference["001"])
    pack.stop()
    healthy.stop()


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["CartPole-v1", "registered"])
def test_episodes_are_played_on_all_cpus_of_the_process(
    environment: str, cartpole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LAST", 120.0)  # beside others' work
    register_env("registered", lambda config: gym.make("CartPole-v1"))
    one, two = (
        with_rollouts(tiny("DR3-CQL", cartpole), environment).resources(num_cpus_for_main_process=cpus).build_algo()
        for cpus in (1, 2)
    )
    for _ in range(2):
        apart, together = two.train()["members"], one.train()["members"]
        for name, row in together.items():
            assert apart[name] == close_to(row)
    rollouts = two.eval_env_runner_group.local_env_runner.rollout
    assert len(rollouts._others) == 2 and one.eval_env_runner_group.local_env_runner.rollout.here
    one.stop(), two.stop()
    assert [process._process.returncode for process in rollouts._others] == [0, 0]


def test_one_member_reports_its_return_where_rllib_users_look(cartpole: str) -> None:
    algorithm = with_rollouts(tiny("DR3-DQN", cartpole, [{"seed": 0}]), "CartPole-v1").build_algo()
    for _ in range(2):
        result = algorithm.train()
        assert result["evaluation"]["env_runners"]["episode_return_mean"] == pytest.approx(
            result["members"]["000"]["episode_return_mean"]
        )
        assert result["evaluation"]["env_runners"]["num_episodes"] == result["members"]["000"]["episodes"] == 2
    algorithm.stop()


@pytest.mark.slow
def test_remote_runners_evaluate_while_training_goes_on(cartpole: str) -> None:
    config = tiny("DR3-CQL", cartpole).environment(env="CartPole-v1")
    config = config.evaluation(
        evaluation_interval=1,
        evaluation_duration=4,
        evaluation_num_env_runners=1,
        evaluation_parallel_to_training=True,
    )
    algorithm = config.build_algo()
    result = algorithm.train()
    assert [row["episodes"] for row in result["members"].values()] == [4, 4, 4]
    algorithm.stop()


def test_deterministic_actions_of_a_squashed_gaussian_are_tanh_of_the_mean(pendulum: str, tmp_path: Path) -> None:
    """Through RLlib's own runner and connectors, up to the torque that reaches the environment (±2)."""
    applied: list[float] = []

    class Recorded(gym.Wrapper):  # type: ignore[type-arg]
        def step(self, action: Any) -> Any:
            applied.append(float(action[0]))
            return self.env.step(action)

    gym.register("RecordedPendulum-v0", entry_point=lambda: Recorded(gym.make("Pendulum-v1")))
    config = tiny("BC", pendulum, [{"seed": 0}])
    config = with_rollouts(config, "RecordedPendulum-v0").env_runners(env_runner_cls=SingleAgentEnvRunner)
    config = config.evaluation(evaluation_config={"explore": False})
    algorithm = config.build_algo()
    module = RLModule.from_checkpoint(
        Path(algorithm.save_to_path(tmp_path / "c")) / "learner_group" / "learner" / "rl_module" / "default_policy"
    )
    runner = algorithm.eval_env_runner_group.local_env_runner
    applied.clear()
    (episode,) = runner.sample(num_episodes=1, explore=False)
    observations = torch.as_tensor(np.asarray(episode.get_observations())[:-1])
    mean, _ = module.networks.actor(observations[None])
    expected = 2.0 * torch.tanh(mean[0, :, 0])
    assert len(applied) == 200 and np.std(applied) > 0
    torch.testing.assert_close(torch.tensor(applied), expected, rtol=1e-4, atol=1e-4)
    algorithm.stop()


@pytest.mark.slow
def test_statistics_of_observations_travel_with_the_module(pendulum: str, tmp_path: Path) -> None:
    config = tiny("BC", pendulum, [{"seed": 0}]).training(normalize_observations=True)
    algorithm = with_rollouts(config, "Pendulum-v1").build_algo()
    before = algorithm.train()
    checkpoint = Path(algorithm.save_to_path(tmp_path / "c"))
    module = RLModule.from_checkpoint(checkpoint / "learner_group" / "learner" / "rl_module" / "default_policy")
    rows = load_dataset(pendulum)
    observations = rows.gather(torch.arange(len(rows)), ("observations",))["observations"]
    scaled = (observations - observations.mean(0)) / (observations.std(0) + 1e-3)
    expected = torch.tanh(module.networks.actor(scaled[None])[0])
    torch.testing.assert_close(module.act_all(observations[None]), expected, rtol=1e-2, atol=1e-3)
    again = Algorithm.from_checkpoint(checkpoint)
    assert again.train()["num_updates"] == 2 * before["num_updates"]
    again.stop()
    algorithm.stop()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.training(cql_alhpa=1.0), "no option 'cql_alhpa'; it has"),
        (lambda c: c.training(lr=1e-4), "no option 'lr'"),
        (lambda c: c.regularization(coeff=1.0), "no option 'coeff'; it has dr3_coeff"),
        (lambda c: c.population([{"hidden_sizes": [8]}, {}]), "hidden_sizes cannot differ inside a pack"),
        (lambda c: c.population([{"dr3_coef": 0.1}]), "unknown option 'dr3_coef'"),
        (lambda c: c.population([]), "at least one member"),
        (lambda c: c.population(updates_per_iteration=0), "updates_per_iteration must be"),
        (lambda c: c.training(cql_alpha=-1.0), "cql_alpha = -1.0 is outside"),
        (lambda c: c.learners(num_learners=3), "batch_size = 8 cannot be shared by 3 learners: choose a multiple of 3"),
        (lambda c: c.learners(num_learners=2, num_gpus_per_learner=0.5), "NCCL wants a GPU for each"),
        (lambda c: c.offline_data(input_="/nowhere"), "nowhere"),
        (lambda c: c.offline_data(input_="embedded:nothing"), "unknown embedded data set 'nothing': known are "),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_built(cartpole: str, change: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        change(tiny("DR3-CQL", cartpole)).build_algo()
    assert "\n" not in str(caught.value)


def test_an_environment_that_does_not_fit_the_data_is_an_error(cartpole: str) -> None:
    with pytest.raises(
        UserError, match=r"^environment Acrobot-v1 has observations Box.*\(6,\).* the data set cartpole Box.*\(4,\)"
    ):
        with_rollouts(tiny("DR3-CQL", cartpole), "Acrobot-v1").build_algo()
    with pytest.raises(
        UserError, match=r"^the config has observations Box.*\(7,\).* the data set cartpole Box.*\(4,\)"
    ):
        tiny("DR3-CQL", cartpole).environment(observation_space=gym.spaces.Box(-1.0, 1.0, (7,))).build_algo()


def test_an_unknown_algorithm_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown algorithm 'CQL': did you mean 'DR3-CQL'"):
        dr3_ray.config_for("CQL")


def test_sarsa_on_box_actions_has_no_policy_to_roll_out(pendulum: str) -> None:
    with pytest.raises(UserError, match="leave out the environment"):
        with_rollouts(tiny("DR3-SARSA", pendulum), "Pendulum-v1").build_algo()


def test_options_describe_themselves() -> None:
    text = dr3_ray.DR3CQLConfig.describe_options()
    assert "discrete: cql_alpha = 0.1" in text and "continuous: cql_alpha = 5.0" in text and "dr3_coeff = 0.03" in text
