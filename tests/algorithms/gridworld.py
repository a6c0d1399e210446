"""A gridworld with its exact values, and data in which every transition stands as often as it is likely.

4 × 4 fields, one-hot observations. An action succeeds half of the time and slips to either side in a quarter each;
walls hold. Entering the last field ends the episode with reward 1, entering field 5 with −1.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.types import Spaces

SIDE, ACTIONS, GAMMA = 4, 4, 0.9
ENDS = {SIDE * SIDE - 1: 1.0, 5: -1.0}
STATES = [state for state in range(SIDE * SIDE) if state not in ENDS]
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left: neighbours are a quarter turn apart
SPACES = Spaces((SIDE * SIDE,), "discrete", ACTIONS)
SLIPS = ((0, 2), (1, 1), (-1, 1))  # quarter turns, and how often in four
# behaviours, as how often each action is taken in each field
UNIFORM = torch.ones(SIDE * SIDE, ACTIONS, dtype=torch.int64)
SURE = torch.tensor([1, 0, 0, 0]).expand(SIDE * SIDE, -1)
SKEWED = torch.stack([torch.tensor([3, 1, 1, 1]).roll(state % 3) for state in range(SIDE * SIDE)])
EXACT = {
    **{"hidden_sizes": (), "loss": "squared", "gamma": GAMMA, "dr3_coeff": 0.0},  # with one-hot observations, a table
    **{"critic_lr": 0.01, "tau": 0.5, "target_period": 1, "adam_eps": 1e-8},
}
TABLE = torch.eye(SIDE * SIDE, dtype=torch.float64)


def step(state: int, action: int) -> int:
    """The field that an action which succeeds leads to."""
    row, column = divmod(state, SIDE)
    down, right = MOVES[action]
    return min(max(row + down, 0), SIDE - 1) * SIDE + min(max(column + right, 0), SIDE - 1)


def dynamics(slips: Sequence[tuple[int, int]] = SLIPS) -> tuple[Tensor, Tensor]:
    """P(s'|s, a) [S, A, S] without what ends the episode, and the expected reward [S, A]; nothing leaves an end."""
    n = SIDE * SIDE
    transition, reward = torch.zeros(n, ACTIONS, n).double(), torch.zeros(n, ACTIONS).double()
    for state in STATES:
        for action in range(ACTIONS):
            for turn, times in slips:
                share, after = times / sum(each for _, each in slips), step(state, (action + turn) % ACTIONS)
                reward[state, action] += share * ENDS.get(after, 0.0)
                transition[state, action, after] += share * (after not in ENDS)
    return transition, reward


TRANSITION, REWARD = dynamics()


def probabilities(behaviour: Tensor) -> Tensor:
    """π(a|s) [S, A] from counts."""
    return behaviour / behaviour.sum(-1, keepdim=True).double()


def q_of(policy: Tensor) -> Tensor:
    """Q of a policy [S, A], by the linear equations V = Σ π (r + γ P V)."""
    mean = (policy.unsqueeze(-1) * TRANSITION).sum(1)
    values = torch.linalg.solve(torch.eye(SIDE * SIDE).double() - GAMMA * mean, (policy * REWARD).sum(-1))
    return REWARD + GAMMA * TRANSITION @ values


def optimal_q(transition: Tensor = TRANSITION, reward: Tensor = REWARD) -> Tensor:
    """Q*, by value iteration."""
    q = torch.zeros_like(reward)
    for _ in range(500):
        q = reward + GAMMA * transition @ q.amax(-1)
    return q


def rows(
    behaviour: Tensor, slips: Sequence[tuple[int, int]] = SLIPS, next_behaviour: Tensor | None = None
) -> dict[str, Tensor]:
    """Every (s, a, s', a') as often as the behaviour [S, A] and the world make it; all fields alike.

    `next_behaviour` in the place of the behaviour at s' is for those to whom a' is nothing: one action makes few rows.
    """
    next_behaviour = behaviour if next_behaviour is None else next_behaviour
    found = [
        (state, action, after, next_action)
        for state in STATES
        for action in range(ACTIONS)
        for _ in range(int(behaviour[state, action]))
        for turn, times in slips
        for after in [step(state, (action + turn) % ACTIONS)] * times
        for next_action in range(ACTIONS)
        for _ in range(int(next_behaviour[after, next_action]))
    ]
    states, actions, after, next_actions = torch.tensor(found).T
    rewards = torch.tensor([ENDS.get(int(each), 0.0) for each in after]).double()
    terminated = torch.tensor([int(each) in ENDS for each in after])
    goes_on = (~terminated).double()
    behaviour_q = q_of(probabilities(behaviour))
    return {
        "observations": TABLE[states],
        "actions": actions,
        "rewards": rewards,
        "next_observations": TABLE[after],
        "terminateds": 1.0 - goes_on,
        "next_actions": next_actions,
        "next_actions_valid": ~terminated,
        # the expected return of an episode that goes on with (s', a'): its mean at (s, a) is Q of the behaviour
        "monte_carlo_returns": rewards + GAMMA * goes_on * behaviour_q[after, next_actions],
    }


class EveryRow:
    """A data set of which every minibatch is the whole: training without the noise of sampling."""

    def __init__(self, columns: dict[str, Tensor]):
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["observations"])

    def gather(self, indices: Tensor, columns: Sequence[str]) -> dict[str, Tensor]:
        return {name: self.columns[name].expand(*indices.shape[:-1], *self.columns[name].shape) for name in columns}


def learned(
    make_population: Any, columns: dict[str, Tensor], name: str, steps: int, *members: dict[str, Any]
) -> Tensor:
    """What the critics say of every field after so many steps on all rows: [K, ...]."""
    data, spec = EveryRow(columns), find(name, "discrete")
    known = {option for option, _ in spec.options()}
    exact = {option: value for option, value in EXACT.items() if option in known or option.startswith("dr3_")}
    options = [exact | {"batch_size": len(data)} | each for each in members]
    population = make_population(spec, options, "stacked", dtype=torch.float64, data=data, spaces=SPACES)
    population.update(steps)
    q: Tensor = population.networks.critic(TABLE.expand(len(members), -1, -1))[0].detach()
    return q
