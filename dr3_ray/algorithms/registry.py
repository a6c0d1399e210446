"""Name and kind of action space -> algorithm."""

from dr3_ray.algorithms import (
    bc,
    brac,
    cql,
    cql_continuous,
    dqn,
    iql,
    monte_carlo,
    qrdqn,
    rebrac,
    rem,
    sarsa,
    td,
    td3_bc,
)
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.errors import UserError

ALGORITHMS: dict[str, dict[str, AlgorithmSpec]] = {}
for _spec in (
    *(dqn.DQN, cql.DISCRETE, cql_continuous.CONTINUOUS, sarsa.DISCRETE, sarsa.CONTINUOUS),
    *(iql.DISCRETE, iql.CONTINUOUS, rem.REM),
    *(td3_bc.TD3BC, rebrac.REBRAC, brac.BRAC),
    *(qrdqn.QRDQN, qrdqn.QRCQL),
    *(td.DISCRETE, td.CONTINUOUS, monte_carlo.DISCRETE, monte_carlo.CONTINUOUS),
    *(bc.DISCRETE, bc.CONTINUOUS),
):
    ALGORITHMS.setdefault(_spec.name, {})[_spec.action_kind] = _spec


def kinds_of(name: str) -> dict[str, AlgorithmSpec]:
    """The forms of an algorithm, by kind of action space."""
    if name not in ALGORITHMS:
        raise UserError(f"unknown algorithm {name!r}: choose one of {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name]


def find(name: str, action_kind: str) -> AlgorithmSpec:
    """The algorithm for `discrete` or `continuous` actions."""
    kinds = kinds_of(name)
    if action_kind not in kinds:
        able = ", ".join(other for other, forms in ALGORITHMS.items() if action_kind in forms)
        raise UserError(f"{name} needs {' or '.join(kinds)} actions, the data set has {action_kind} ones: use {able}")
    return kinds[action_kind]
