"""Cal-QL (Nakamoto et al., arXiv 2303.05479): CQL that lowers Q of the policy's actions no further than to the returns.

The gap is T log Σ_n exp((max(Q(s, a_n), G) − log μ(a_n)) / T) − Q(s, a_data), with the maximum for a_n from π(·|s) and
π(·|s'), and Q alone for uniform ones, as in the authors' code. G, the row's discounted return, stands for the value of
the behaviour policy at s. So calibrated, Q keeps the scale of returns, and training online can go on from it.
"""

from dataclasses import dataclass
from functools import partial

from dr3_ray.algorithms import bc, cql_continuous, dqn
from dr3_ray.algorithms.spec import AlgorithmSpec


@dataclass(frozen=True)
class CalQLOptions(cql_continuous.ContinuousCQLOptions):
    """CQL's options on Box actions and their defaults; it refuses `hindsight` and `reward_clip`: both change G."""


CAL_QL = AlgorithmSpec(
    "DR3-CalQL",
    "continuous",
    CalQLOptions,
    cql_continuous.networks,
    partial(cql_continuous.objective, calibrated=True),
    (*dqn.COLUMNS, "monte_carlo_returns"),
    bc.act,
    cql_continuous.noise,
)
