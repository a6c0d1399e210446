"""Rollouts in processes: what is played there, and what becomes of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from textwrap import dedent
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from dr3_ray import UserError
from dr3_ray.algorithms.registry import find
from dr3_ray.data import SpaceSpec
from dr3_ray.evaluation import processes, turns
from dr3_ray.evaluation.contract import Recorded
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.evaluation.processes import Process, Rollouts
from dr3_ray.networks.members import member_view
from dr3_ray.training.member import Member, build_networks
from dr3_ray.training.population import act
from dr3_ray.types import Spaces
from tests.evaluation.worlds import World

BOX = gym.spaces.Box(-1, 1, (1,), np.float32)
CART_POLE = partial(make_environment, "CartPole-v1")


def recorded(make: Callable[[], Any]) -> Recorded:
    """What data have that come from there."""
    environment = make()
    return Recorded("here", *map(SpaceSpec.from_gymnasium, (environment.observation_space, environment.action_space)))


def policies(environment: str, members: int) -> Callable[[range], Any]:
    """Of networks as they are built."""
    discrete = environment == "CartPole-v1"
    spaces = Spaces((4,), "discrete", 2) if discrete else Spaces((3,), "continuous", 1)
    spec = find("DR3-IQL", spaces.action_kind)
    pack = [Member.from_dict(spec, {"seed": seed, "hidden_sizes": [8]}) for seed in range(members)]
    networks = build_networks(spec, spaces, pack, None)
    return lambda rows: partial(act, spec, member_view(networks, list(rows)))


@pytest.mark.spread(2)
@pytest.mark.parametrize("environment", ["CartPole-v1", "gymnasium:Pendulum-v1"])
def test_processes_play_what_one_plays(environment: str) -> None:
    policy, make = policies(environment, 5), partial(make_environment, environment)
    alone, together = (Rollouts(make, recorded(make), 5, 2, processes) for processes in (1, 3))
    rounds = [[rollouts.play(policy, seeds) for seeds in ([1, 2], [3, 4])] for rollouts in (alone, together)]
    for (ours, our_lengths, *_), (theirs, their_lengths, *_) in zip(*rounds, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert np.array_equal(our_lengths, their_lengths) and len(set(ours.ravel().tolist())) >= 3
    assert list(map(len, together._shares)) == [1, 2, 2]
    processes = [each._process for each in together._others]
    alone.close(), together.close()
    assert [process.returncode for process in processes] == [0, 0, 0]


def test_there_are_no_more_processes_than_members() -> None:
    rollouts = Rollouts(CART_POLE, recorded(CART_POLE), 1, 2, 8)
    assert not rollouts._others
    rollouts.close()


def fails(observations: Tensor) -> Tensor:
    raise ValueError("no action")


def left(observations: Tensor) -> Tensor:
    return torch.zeros(observations.shape[:2], dtype=torch.long)


def test_what_fails_in_a_process_is_raised_here_and_its_end_is_told() -> None:
    process = Process(CART_POLE, recorded(CART_POLE), 1, 1)
    process.begin(fails, [4])
    with pytest.raises(ValueError, match="no action"):
        process.end()
    process.begin(left, [4])
    returns, lengths, *_ = process.end()
    assert returns.shape == (1, 1) and returns[0, 0] == lengths[0, 0] > 1
    process._process.kill()
    process.begin(left, [4])
    with pytest.raises(RuntimeError, match="a process that plays episodes has ended with exit status -9"):
        process.end()
    process.close()


def hanging(until: str) -> gym.Env[Any, Any]:
    """An environment that does not answer to a 1 until a file is there."""

    def earn(action: Any, step: int) -> float:
        while action == 1 and not os.path.exists(until):
            time.sleep(0.01)
        return 1.0

    return World(BOX, gym.spaces.Discrete(2), lambda step: np.zeros(1, np.float32), earn, length=3)


def chosen(rows: range, observations: Tensor) -> Tensor:
    """A 1 of member 3, a 0 of the others."""
    return left(observations) + torch.tensor([[int(row == 3)] for row in rows])


def test_an_environment_that_hangs_in_a_process_is_told_here_with_its_member(tmp_path, monkeypatch) -> None:
    calls: list[Any] = []

    def tell(call: Any) -> None:
        calls.append(call)
        (tmp_path / "answer").touch()

    monkeypatch.setattr(turns._Listener, "tell", staticmethod(tell))
    make = partial(hanging, str(tmp_path / "answer"))
    rollouts = Rollouts(make, recorded(make), 5, 2, 2, silent=0.2)
    played = rollouts.play(lambda rows: partial(chosen, rows), [1, 2])
    rollouts.close()
    assert (played.returns == 3).all() and calls[-1] is None
    assert [call.place for call in calls[:-1]] == [(3, 0)]


def test_a_process_in_which_an_environment_hangs_is_ended(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(processes, "LAST", 0.2)
    make = partial(hanging, str(tmp_path / "never"))
    process = Process(make, recorded(make), 4, 1, silent=0.2)
    process.begin(partial(chosen, range(4)), [1])
    monkeypatch.setattr(turns._Listener, "tell", staticmethod(interrupt))
    with pytest.raises(KeyboardInterrupt):
        process.end()
    process.close()
    assert process._process.returncode == -signal.SIGKILL


def interrupt(call: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_processes_end_with_the_one_that_they_play_for() -> None:
    script = """
        import os, signal
        from dr3_ray.evaluation.processes import Process
        from tests.evaluation.test_processes import CART_POLE, left, recorded
        process = Process(CART_POLE, recorded(CART_POLE), 1, 1)
        process.begin(left, [0])
        process.end()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    # what they print ends where all processes have that could
    ended = subprocess.run([sys.executable, "-c", dedent(script)], stdout=subprocess.PIPE, timeout=300)
    assert ended.returncode == -signal.SIGKILL


def undecided(rows: range, observations: Tensor) -> Tensor:
    """Left, but of member 3, whose critic has no largest value."""
    chosen = left(observations)
    if 3 in rows:
        chosen[rows.index(3)] = -1
    return chosen


@pytest.mark.slow
def test_processes_tell_of_whom_no_action_came_and_of_spaces_that_do_not_agree() -> None:
    for number in (1, 3):
        rollouts = Rollouts(CART_POLE, recorded(CART_POLE), 5, 2, number)
        played = rollouts.play(lambda rows: partial(undecided, rows), [1, 2])
        assert played.no_action.tolist() == [False, False, False, True, False] and not played.broken.any()
        assert np.isnan(played.returns).all(1).tolist() == played.no_action.tolist()
        rollouts.close()
    process = Process(CART_POLE, recorded(partial(make_environment, "Acrobot-v1")), 1, 1)
    process.begin(left, [4])
    with pytest.raises(UserError, match=r"environment CartPole-v1 has observations .*, the data set here Box.*shapes"):
        process.end()
    process.close()
