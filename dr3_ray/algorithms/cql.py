"""CQL on discrete actions (Kumar et al., arXiv 2006.04779): DQN + α mean[log Σ_a exp Q(s, a) − Q(s, a_data)]."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dr3_ray.algorithms import dqn
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.losses import cql, td
from dr3_ray.options import Number, number
from dr3_ray.types import Backup, Objective, Terms, Transition


@dataclass(frozen=True)
class DiscreteCQLOptions(dqn.DQNOptions):
    """DQN's options and α; the default is the one of DR3's Atari runs."""

    cql_alpha: Number = number(0.1, "α, the weight of the conservative term (0.1: DR3's Atari runs)", low=0.0)


def discrete_objective(options: DiscreteCQLOptions) -> Objective:
    """Return DQN's loss + α · conservative gap."""

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
        """Add the gap between the soft maximum of Q and Q(s, a) to DQN's loss."""
        values = dqn.evaluate(networks, batch, None, options.double_q, every=True)
        coding = networks.critic.coding
        taken = values._replace(outputs=coding.taken(values.outputs, batch.actions))
        terms, backup = dqn.critic_terms(options, networks.critic, taken, batch)
        gap = td.mean_over_batch(cql.discrete_gap(coding.decode(values.outputs).squeeze(1), batch.actions))
        losses = terms.losses | {"cql": options.cql_alpha * gap}
        return Terms(losses, terms.metrics | {"cql_gap": gap.detach()}), backup

    return loss


DISCRETE = AlgorithmSpec(
    "DR3-CQL", "discrete", DiscreteCQLOptions, dqn.networks, discrete_objective, dqn.COLUMNS, dqn.act
)
