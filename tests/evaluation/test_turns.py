"""Whatever an environment does amiss is its own error, in one line; everything that plays one goes by `turns`."""

import ast
import math
import threading
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from hypothesis import given
from hypothesis import strategies as st

import dr3_ray
from dr3_ray.errors import UserError
from dr3_ray.evaluation import turns
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.evaluation.online import Learning
from dr3_ray.evaluation.recipes import RANDOM, recipe_of
from dr3_ray.evaluation.rollout import Rollout
from tests.evaluation.worlds import World, recorded

BOX = gym.spaces.Box(-1, 1, (1,), np.float32)
ERRORS = st.sampled_from([RuntimeError, ValueError, AssertionError, KeyError, gym.error.ResetNeeded, StopIteration])
GOOD = st.sampled_from([1, 1.0, True, np.float32(1), np.int8(1), np.array(1.0), np.array([1.0]), np.array([[True]])])
BAD = st.sampled_from([None, "1", [1, 2], np.array([1.0, 2.0]), np.array([]), {}, 1j, np.array("x"), object()])


class Odd(World):
    """An environment that does `amiss` in its third step, or at the beginning of an episode."""

    def __init__(self, amiss, where):
        super().__init__(BOX, BOX, lambda step: np.zeros(1, np.float32), lambda action, step: 1.0, length=5)
        self.amiss, self.where = amiss, where

    def reset(self, **how):
        return self.amiss(super().reset(**how)) if self.where == "reset" else super().reset(**how)

    def step(self, action):
        turn = super().step(action)
        return self.amiss(turn) if self.where != "reset" and self.steps == 3 else turn


def played(amiss, where):
    rollout = Rollout(lambda: Odd(amiss, where), recorded(BOX, BOX), 1, 1)
    return rollout.play(lambda seen: torch.zeros(1, seen.shape[1], 1), [0])


@given(ERRORS, st.sampled_from(["reset", "step"]))
def test_what_it_raises_is_told_in_one_line(error, where):
    def amiss(turn):
        raise error("the motor is off\n\x1b[2Jand more")

    with pytest.raises(UserError, match=f"^environment Odd raises in `{where}`: {error.__name__}: .?the motor is off"):
        played(amiss, where)


@given(st.sampled_from(["reset", "step"]), st.sampled_from([None, (), (1,), (1, 2, 3, 4), 7]))
def test_other_than_the_values_of_gymnasium_too(where, returned):
    with pytest.raises(
        UserError, match=f"^environment Odd does not return .* from `{where}`, as Gymnasium's do: wrap it$"
    ):
        played(lambda turn: returned, where)


@given(st.integers(1, 3), BAD)
def test_what_is_no_number_and_no_end_too(place, value):
    name = ("reward", "terminated", "truncated")[place - 1]
    with pytest.raises(UserError, match=f"^environment Odd gives .* for {name}: correct it to one number$"):
        played(lambda turn: (*turn[:place], value, *turn[place + 1 :]), "step")


@given(GOOD)
def test_a_number_is_one_however_it_comes(value):
    found = played(lambda turn: (turn[0], value, *turn[2:]), "step")
    assert found.returns.tolist() == [[5.0]] and found.lengths.tolist() == [[5]]
    assert played(lambda turn: (*turn[:2], value, *turn[3:]), "step").lengths.tolist() == [[3]]


def test_a_reward_that_is_not_finite_breaks_the_episode_alone():
    found = played(lambda turn: (turn[0], np.array([math.nan]), *turn[2:]), "step")
    assert found.broken.all() and np.isnan(found.returns).all()


@pytest.fixture
def told(monkeypatch):
    """What is told of calls without an answer, and an event that lets them answer as soon as something is."""
    calls, answer = [], threading.Event()

    def tell(call):
        calls.append(call)
        answer.set()

    monkeypatch.setattr(turns._Listener, "tell", staticmethod(tell))
    return SimpleNamespace(calls=calls, answer=answer)


@pytest.mark.parametrize("method", ["reset", "step"])
def test_what_does_not_answer_is_told_and_waited_for(told, method):
    def hangs(turn):
        assert told.answer.wait(60)
        return turn

    rollout = Rollout(lambda: Odd(hangs, method), recorded(BOX, BOX), 2, 3, silent=0.05)
    played = rollout.play(lambda seen: torch.zeros(*seen.shape[:2], 1), [0, 1, 2])
    call, answered = told.calls
    assert (call.where, call.method, call.place) == ("environment Odd", method, (0, 0)) and 0.05 <= call.seconds < 60
    assert answered is None and (played.returns == 5).all()
    assert str(call._replace(seconds=61.0)) == (
        f"environment Odd has not answered `{method}` for 61 s (member 0, episode 0)"
    )


def test_the_making_of_an_environment_is_waited_for_too_and_told_once(told, monkeypatch):
    def hangs():
        assert told.answer.wait(60)
        return Odd(lambda turn: turn, "step")

    monkeypatch.setattr(turns, "SILENT", 0.05)
    monkeypatch.setitem(gym.registry, "Slow-v0", EnvSpec("Slow-v0", hangs, disable_env_checker=True))
    with turns.being_made("what makes another"):
        make_environment("Slow-v0")
    call, answered = told.calls
    assert call.method == "make" and call.where == "what makes another" and answered is None
    told.answer.clear()
    make_environment("gymnasium:Slow-v0")
    assert str(told.calls[2]) == "environment 'gymnasium:Slow-v0' has not answered `make` for 0 s"


def test_it_is_told_again_now_and_then_and_of_learners_too(told, monkeypatch):
    def hangs(turn):
        while len(told.calls) < 2:
            told.answer.wait(60)
            told.answer.clear()
        return turn

    monkeypatch.setattr(turns, "TIMES", 2)
    gym.register("Hangs-v0", lambda: Odd(hangs, "step"), max_episode_steps=5, disable_env_checker=True)
    try:
        learning = Learning(recipe_of("gymnasium:Hangs-v0", RANDOM, steps=5), silent=0.05)
        learning.learn()
    finally:
        del gym.registry["Hangs-v0"]
    first, second, answered = told.calls
    assert first.place == second.place == (None, 0) and answered is None
    assert second.seconds - first.seconds >= 0.1 and "`step` for 0 s (episode 0)" in str(first)


def test_nothing_is_told_of_what_is_slow_and_answers_and_no_thread_is_left(told):
    before = threading.enumerate()  # those of others, which a search for cycles will end
    rollout = Rollout(lambda: Odd(lambda turn: turn, "step"), recorded(BOX, BOX), 1, 1, silent=0.05)
    rollout.play(lambda seen: torch.zeros(1, seen.shape[1], 1), [0])
    (thread,) = [each for each in threading.enumerate() if each.name == "turns" and each not in before]
    assert not told.answer.wait(0.2)
    del rollout
    thread.join(60)
    assert not thread.is_alive()


def test_nothing_else_in_the_package_plays_an_environment():
    """But those that are one themselves, of a game or around another."""
    calls = {}
    for path in (Path(dr3_ray.__file__).parent / "evaluation").glob("*.py"):
        found = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        calls[path.name] = [ast.unparse(each) for each in found if getattr(each, "attr", "") in ("step", "reset")]
    assert {name: those for name, those in calls.items() if those} == {
        "environments.py": ["self.game.reset"],
        "mazes.py": ["super().reset", "self._env.reset", "self._env.step"],
        "pixels.py": ["super().reset"],
        "turns.py": ["environment.reset", "environment.step"],
    }
