"""Rollouts against episodes played one by one, and the environments behind the names."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from dr3_ray import UserError
from dr3_ray.data import SpaceSpec
from dr3_ray.evaluation.contract import Recorded
from dr3_ray.evaluation.environments import MINATAR_MAX_STEPS, make_environment
from dr3_ray.evaluation.rollout import Rollout


def rollout_of(make: Callable[[], Any], members: int, episodes: int) -> Rollout:
    """Of policies trained on data that were recorded there."""
    environment = make()
    spaces = map(SpaceSpec.from_gymnasium, (environment.observation_space, environment.action_space))
    return Rollout(make, Recorded("here", *spaces), members, episodes)


def played_alone(name: str, policy: Any, seed: int) -> tuple[float, int]:
    env = make_environment(name)
    observation, _ = env.reset(seed=seed)
    total, steps, ended = 0.0, 0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(policy(observation))
        total, steps, ended = total + float(reward), steps + 1, terminated or truncated
    return total, steps


def test_each_member_plays_its_own_policy_from_the_same_starts() -> None:
    """CartPole: member 0 always pushes left, member 1 pushes against the fall."""

    def act(observations: Tensor) -> Tensor:
        left = torch.zeros(observations.shape[1], dtype=torch.long)
        return torch.stack([left, (observations[1, :, 2] > 0).long()])

    returns, lengths, *_ = rollout_of(lambda: make_environment("CartPole-v1"), 2, 3).play(act, [7, 8, 9])
    for episode, seed in enumerate((7, 8, 9)):
        expected = (
            played_alone("CartPole-v1", lambda _: 0, seed),
            played_alone("CartPole-v1", lambda o: int(o[2] > 0), seed),
        )
        assert [(returns[k, episode], lengths[k, episode]) for k in (0, 1)] == list(expected)


def test_actions_are_scaled_from_minus_one_one_to_the_box() -> None:
    """Pendulum's torque is in [−2, 2]: a policy that says 0.5 applies 1."""
    rollout = rollout_of(lambda: make_environment("gymnasium:Pendulum-v1"), 1, 2)
    returns, lengths, *_ = rollout.play(lambda o: torch.full((1, o.shape[1], 1), 0.5), [3, 4])
    alone = [played_alone("gymnasium:Pendulum-v1", lambda _: np.array([1.0], np.float32), seed) for seed in (3, 4)]
    assert returns[0].tolist() == pytest.approx([total for total, _ in alone]) and (lengths == 200).all()


def test_a_second_round_repeats_the_first() -> None:
    rollout = rollout_of(lambda: make_environment("minatar:breakout"), 2, 4)
    source = torch.Generator()

    def play() -> Any:
        source.manual_seed(0)
        return rollout.play(lambda o: torch.randint(3, o.shape[:2], generator=source), range(4))

    first, second = play(), play()
    assert first[0].tolist() == second[0].tolist() and first[1].tolist() == second[1].tolist()
    assert (first[1] > 0).all()


class Seek(gym.Env):  # type: ignore[type-arg]
    """Four steps on a line, rewarded by the position; the image is bright where the observer stands."""

    observation_space = gym.spaces.Dict(
        image=gym.spaces.Box(0, 255, (2, 9, 3), np.uint8), body=gym.spaces.Dict(place=gym.spaces.Box(-9, 9, (1,)))
    )
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.place, self.steps = int(seed or 0), 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.place += 1 if action else -1
        self.steps += 1
        return self.observe(), float(self.place), False, self.steps == 4, {}

    def observe(self) -> Any:
        image = np.zeros((2, 9, 3), np.uint8)
        image[:, self.place] = 200 + self.steps
        return {"image": image, "body": {"place": np.array([self.place], np.float32)}}


def test_the_parts_of_dict_observations_come_by_name() -> None:
    """Member 0 looks at the image and stays around 7, member 1 at the nested number and stays around 3."""
    steps = []

    def act(observations: Any) -> Tensor:
        image, place = observations["image"], observations["body/place"]
        assert image.dtype == torch.uint8 and image.shape == (2, 2, 2, 9, 3) and place.shape == (2, 2, 1)
        bright = image[:, :, 0, :, 0].argmax(-1)
        assert torch.equal(bright, place[..., 0].long())
        steps.append(int(image.max()) - 200)
        return torch.stack([(bright[0] < 7).long(), (place[1, :, 0] <= 3).long()])

    returns, lengths, *_ = rollout_of(Seek, 2, 2).play(act, [4, 5])
    assert returns.tolist() == [[5.0 + 6 + 7 + 6, 6.0 + 7 + 6 + 7], [3.0 + 4 + 3 + 4, 4.0 + 3 + 4 + 3]]
    assert (lengths == 4).all() and steps == [0, 1, 2, 3]


@pytest.mark.parametrize("game", ["asterix", "breakout", "freeway", "seaquest", "space_invaders"])
def test_minatar_games_are_real_seeded_and_boolean(game: str) -> None:
    def trace(seed: int) -> list[float]:
        env, rng = make_environment(f"minatar:{game}"), np.random.default_rng(0)
        observation, _ = env.reset(seed=seed)
        assert isinstance(env.action_space, gym.spaces.Discrete)
        seen: list[float] = []
        for _ in range(60):
            assert observation in env.observation_space and observation.dtype == np.bool_
            observation, reward, terminated, _, _ = env.step(rng.integers(env.action_space.n))
            seen += [float(reward), float(observation.sum()), float(np.flatnonzero(observation).sum())]
            if terminated:
                break
        return seen

    assert trace(1) == trace(1) != trace(2)


def test_a_minatar_game_is_cut_by_truncation_not_termination() -> None:
    """Freeway never kills, and ends itself after 2,500 steps; breakout is cut when it would go on."""
    env = make_environment("minatar:breakout")
    env.reset(seed=0)
    env.unwrapped.steps = MINATAR_MAX_STEPS - 1  # type: ignore[attr-defined]
    _, _, terminated, truncated, _ = env.step(0)
    assert truncated and not terminated


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minatar:pong", "unknown game of MinAtar 'pong': known are asterix"),
        ("gymnasium:Nothing-v0", "'gymnasium:Nothing-v0' cannot be made"),
    ],
)
def test_an_unknown_environment_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_environment(name)
    assert "\n" not in str(caught.value)
