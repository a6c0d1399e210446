"""NaN and infinity, of policies and of environments: whose they are, and that they are never sent."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.evaluation.rollout import Rollout
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from dr3_ray.types import Spaces
from tests.conftest import TableData
from tests.evaluation.worlds import World, recorded

PLACE, NOWHERE = Box(-1.0, 1.0, (2,)), Discrete(2)
BAD = st.sampled_from([np.nan, np.inf, -np.inf])
MEMBERS, EPISODES = 3, 2


@given(
    acts=st.dictionaries(st.tuples(st.integers(0, MEMBERS - 1), st.integers(0, 5)), BAD, max_size=2),
    sights=st.dictionaries(st.tuples(st.integers(0, MEMBERS * EPISODES - 1), st.integers(0, 5)), BAD, max_size=2),
    rewards=st.dictionaries(st.tuples(st.integers(0, MEMBERS * EPISODES - 1), st.integers(0, 4)), BAD, max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_what_is_not_finite_ends_its_own_episode_or_member_and_is_never_sent(
    acts: Any, sights: Any, rewards: Any
) -> None:
    """Five steps: by member and step a policy's action, by environment and step an observation or a reward is bad."""
    made: list[World] = []

    def make() -> World:
        number = len(made)
        made.append(
            World(
                Box(-9, 9, (1,)),
                Box(-1.0, 1.0, (1,)),
                lambda step: np.float32([sights.get((number, step), step)]),
                lambda action, step: rewards.get((number, step), 1.0),
                length=5,
            )
        )
        return made[-1]

    def act(observations: Tensor) -> Tensor:
        chosen = torch.full((*observations.shape[:2], 1), 0.5)
        for (member, step), bad in acts.items():
            chosen[member][observations[member] == step] = float(bad)
        return chosen

    played = Rollout(make, recorded(Box(-9, 9, (1,)), Box(-1.0, 1.0, (1,))), MEMBERS, EPISODES).play(act, [0, 1])
    assert all(np.isfinite(action).all() for world in made for action in world.received)
    for member in range(MEMBERS):
        worlds = range(member * EPISODES, (member + 1) * EPISODES)
        # the last observation, of step 5, is acted on by nobody
        ends = [
            min([5, *(s for (w, s) in sights if w == n and s < 5), *(s + 1 for (w, s) in rewards if w == n)])
            for n in worlds
        ]
        broken = [any(w == n and s < 5 for (w, s) in sights) or any(w == n for (w, _) in rewards) for n in worlds]
        asked = [step for (m, step) in acts if m == member]
        # a policy that is asked at a step at which it has no action
        lost = any(step < end for step in asked for end in ends if step < 5)
        assert played.no_action[member] == lost
        if lost:
            assert np.isnan(played.returns[member]).all() and not played.broken[member].any()
            continue
        for episode in range(EPISODES):
            assert played.broken[member, episode] == broken[episode]
            expected = np.nan if broken[episode] else 5.0
            assert played.returns[member, episode] == pytest.approx(expected, nan_ok=True)


def test_a_critic_of_nan_chooses_nothing() -> None:
    """Where argmax would take the first NaN for the largest value."""

    def still() -> World:
        return World(PLACE, NOWHERE, lambda step: np.zeros(2, np.float32), lambda action, step: 1.0)

    for name in ("DR3-DQN", "DR3-REM", "DR3-QRDQN", "DR3-CQL", "DR3-IQL", "BC"):
        spec = find(name, "discrete")
        columns = {"observations": torch.zeros(8, 2), "actions": torch.zeros(8, dtype=torch.int64)}
        members = [Member.from_dict(spec, {"hidden_sizes": (4,), "seed": seed}) for seed in range(2)]
        population = Population.of(spec, members, TableData(columns), Spaces((2,), "discrete", 2))
        with torch.no_grad():
            for parameter in population.networks.parameters():
                parameter[1] = torch.nan
        found = Rollout(still, recorded(PLACE, NOWHERE), 2, 1).play(population.act, [0])
        assert found.no_action.tolist() == [False, True] and np.isnan(found.returns[1]).all(), name
