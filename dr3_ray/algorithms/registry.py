"""Name and kind of action space -> algorithm."""

from dr3_ray.algorithms import (
    awac,
    bc,
    brac,
    cal_ql,
    cql,
    cql_continuous,
    dqn,
    edac,
    fql,
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
from dr3_ray.errors import UserError, check_known

ALGORITHMS: dict[str, dict[str, AlgorithmSpec]] = {}
TITLES: dict[str, str] = {}
for _title, *_forms in (  # an algorithm is a file and a line here: all else, RLlib's classes included, follows from it
    ("DQN with DR3", dqn.DQN),
    ("CQL with DR3", cql.DISCRETE, cql_continuous.CONTINUOUS),
    ("Cal-QL with DR3", cal_ql.CAL_QL),
    ("Offline SARSA with DR3", sarsa.DISCRETE, sarsa.CONTINUOUS),
    ("IQL with DR3", iql.DISCRETE, iql.CONTINUOUS),
    ("AWAC with DR3", awac.DISCRETE, awac.CONTINUOUS),
    ("REM with DR3", rem.REM),
    ("TD3+BC with DR3", td3_bc.TD3BC),
    ("ReBRAC with DR3", rebrac.REBRAC),
    ("EDAC with DR3", edac.EDAC),
    ("FQL with DR3", fql.FQL),
    ("BRAC with DR3", brac.BRAC),
    ("QR-DQN with DR3", qrdqn.QRDQN),
    ("QR-DQN with CQL's conservative term (the original discrete CQL) and DR3", qrdqn.QRCQL),
    ("Expected TD under a behaviour model with DR3", td.DISCRETE, td.CONTINUOUS),
    ("Regression to Monte-Carlo returns with DR3", monte_carlo.DISCRETE, monte_carlo.CONTINUOUS),
    ("Behaviour cloning", bc.DISCRETE, bc.CONTINUOUS),
):
    ALGORITHMS[_forms[0].name] = {form.action_kind: form for form in _forms}
    TITLES[_forms[0].name] = _title


def kinds_of(name: str) -> dict[str, AlgorithmSpec]:
    """Return the forms of an algorithm, by kind of action space.

    Raises:
        UserError: there is no such algorithm.
    """
    check_known("algorithm", [name], ALGORITHMS)
    return ALGORITHMS[name]


def find(name: str, action_kind: str) -> AlgorithmSpec:
    """Return the algorithm for `discrete` or `continuous` actions.

    Raises:
        UserError: no such algorithm, or none for these actions.
    """
    kinds = kinds_of(name)
    if action_kind not in kinds:
        able = ", ".join(other for other, forms in ALGORITHMS.items() if action_kind in forms)
        raise UserError(f"{name} needs {' or '.join(kinds)} actions, the data set has {action_kind} ones: use {able}")
    return kinds[action_kind]
