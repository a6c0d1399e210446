"""The catalogue of measured quantities: the meaning and the type of each column of a sweep's histories.

Histories, objectives, tables and figures read it. The names of losses and metrics are those of `Terms`; a test compares
them, and who measures them, with what every algorithm measures with every regulariser.
"""

from typing import Final, Literal, NamedTuple

RETURN: Final = "episode_return_mean"


class Quantity(NamedTuple):
    """Something that is measured of a member at each evaluation."""

    name: str
    label: str
    """As people read it, in titles."""
    unit: str = ""
    """Empty: a pure number, or that of a loss."""
    better: Literal["more", "less"] | None = None
    """None: neither."""
    form: Literal["real", "count"] = "real"
    """A float64, NaN where there is nothing to measure; or an int64."""
    source: Literal["run", "rollouts", "probe", "minibatch", "diagnosis", "selection"] = "minibatch"
    """What it is measured on: rollouts in an environment, the probe batch, the last minibatch of training; by
    `dr3-ray diagnose` alone, the probe batch and rows that were held out; by `dr3-ray select` alone, trained policies
    and data."""
    short: str = ""
    """As people read it in tables. Empty: the report does not show it."""
    by: tuple[str, ...] = ()
    """The algorithms or regularisers that measure it. Empty: all, on the probe batch those with a critic."""


_ONE_VALUE = (  # algorithms whose critics can be categorical
    *("DR3-DQN", "DR3-CQL", "DR3-SARSA", "DR3-IQL", "DR3-AWAC", "DR3-TD3BC", "DR3-ReBRAC", "DR3-EDAC", "DR3-FQL"),
    *("DR3-CalQL", "DR3-BRAC", "DR3-TD", "DR3-MC"),
)

QUANTITIES = (
    Quantity("step", "Gradient updates", "updates", form="count", source="run"),
    Quantity("time_s", "Time since the pack began", "s", source="run"),
    Quantity("updates_per_second", "Updates a second of the pack", "1/s", "more", source="run"),
    Quantity(RETURN, "Return of evaluation episodes", "reward", "more", source="rollouts", short="return"),
    Quantity("episodes", "Evaluation episodes", "episodes", form="count", source="rollouts"),
    Quantity(
        "dot_product",
        "Dot product φ(s, a)·φ(s\N{PRIME}, a\N{PRIME})",
        better="less",
        source="probe",
        short="dot product",
    ),
    Quantity("effective_rank", "Effective rank of the features", better="more", source="probe", short="effective rank"),
    Quantity("q_mean", "Mean Q on the probe batch", "reward", "more", source="probe", short="mean Q"),
    Quantity(
        "cosine", "Cosine of φ(s, a) and φ(s\N{PRIME}, a\N{PRIME})", better="less", source="probe", short="cosine"
    ),
    Quantity(
        "dot_product_abs",
        "Magnitude of the dot product |φ(s, a)·φ(s\N{PRIME}, a\N{PRIME})|",
        better="less",
        source="probe",
    ),
    Quantity("phi_norm", "Norm of the features ‖φ(s, a)‖", better="less", source="probe"),
    Quantity("next_phi_norm", "Norm of the features ‖φ(s\N{PRIME}, a\N{PRIME})‖", better="less", source="probe"),
    Quantity("dot_product_data", "Dot product of the features at the data's a\N{PRIME}, where known", source="probe"),
    Quantity("cosine_data", "Cosine of the features at the data's a\N{PRIME}, where known", source="probe"),
    Quantity("seem_eigenvalue", "SEEM's eigenvalue of the last layer", better="less", source="probe"),
    Quantity("seem_normalized", "SEEM's eigenvalue by the norm of its kernel", better="less", source="probe"),
    Quantity("td_error", "Temporal-difference loss on the probe batch", better="less", source="probe"),
    Quantity("clipped_targets", "Share of targets beyond v_min and v_max", source="probe", by=_ONE_VALUE),
    # losses
    Quantity("loss_critic", "Loss of the critic"),
    Quantity("loss_value", "Loss of the state value", by=("DR3-IQL",)),
    Quantity(
        "loss_actor",
        "Loss of the actor",
        by=(
            *("DR3-CQL", "DR3-CalQL", "DR3-IQL", "DR3-AWAC", "DR3-TD3BC", "DR3-ReBRAC", "DR3-BRAC", "DR3-EDAC"),
            *("DR3-FQL", "BC"),
        ),
    ),
    Quantity("loss_behaviour", "Loss of the model of the behaviour policy", by=("DR3-BRAC", "DR3-TD")),
    Quantity("loss_flow", "Loss of the flow that models the data's actions", by=("DR3-FQL",)),
    Quantity("loss_temperature", "Loss of the temperature of the entropy", by=("DR3-CQL", "DR3-CalQL", "DR3-EDAC")),
    Quantity("loss_cql", "CQL's penalty times its weight", by=("DR3-CQL", "DR3-CalQL", "DR3-QRCQL")),
    Quantity("loss_lagrange", "Loss of CQL's multiplier", by=("DR3-CQL", "DR3-CalQL")),
    Quantity("loss_edac", "EDAC's likeness times its weight", by=("DR3-EDAC",)),
    Quantity("loss_dr3", "DR3's penalty times its weight", by=("dr3",)),
    Quantity("loss_dr3_multiplier", "Loss of DR3's multiplier", by=("dr3",)),
    Quantity("loss_srank", "The srank penalty times its weight", by=("srank",)),
    Quantity("loss_feature_l2", "L2 of the features times its weight", by=("feature_l2",)),
    Quantity("loss_bottleneck", "KL of the bottleneck times its weight", by=("bottleneck",)),
    # metrics of objectives
    Quantity("q_data", "Mean Q of the data's actions", "reward"),
    Quantity("target", "Mean target of the backup", "reward"),
    Quantity("value_error", "Error of a categorical critic's Q, as a scalar one would have it", by=_ONE_VALUE),
    Quantity("advantage", "Mean advantage of the data's actions", "reward", by=("DR3-IQL", "DR3-AWAC")),
    Quantity("weight", "Mean weight of the data's actions", by=("DR3-IQL", "DR3-AWAC")),
    Quantity("cql_gap", "CQL's gap, without its weight", "reward", by=("DR3-CQL", "DR3-CalQL", "DR3-QRCQL")),
    Quantity("bound_rate", "Share of the policy's actions with less Q than the data's return", by=("DR3-CalQL",)),
    Quantity("entropy", "Entropy of the policy", "nats", by=("DR3-CQL", "DR3-CalQL", "DR3-BRAC", "DR3-EDAC")),
    Quantity("temperature", "Temperature of the entropy", by=("DR3-CQL", "DR3-CalQL", "DR3-EDAC")),
    Quantity("edac_likeness", "Likeness of the critics' slopes in the action", by=("DR3-EDAC",)),
    Quantity("policy_divergence", "Divergence of the policy from the behaviour", by=("DR3-BRAC",)),
    Quantity(
        "action_distance", "Squared distance of the policy's actions from the data's", by=("DR3-TD3BC", "DR3-ReBRAC")
    ),
    Quantity("flow_distance", "Squared distance of the policy's actions from the flow's, a component", by=("DR3-FQL",)),
    Quantity("dr3_penalty", "DR3's penalty, without its weight", by=("dr3",)),
    Quantity("dr3_weight", "Weight of DR3's penalty, adaptive", by=("dr3",)),
    # of a diagnosis
    Quantity("stable_rank", "Stable rank of the features", better="more", source="diagnosis"),
    Quantity("dead_units", "Share of units that are 0 at every row", better="less", source="diagnosis"),
    Quantity("dormant_units", "Share of units that are dormant", better="less", source="diagnosis"),
    Quantity("first_term", "First term of R_TD, ‖∇Q‖²", source="diagnosis"),
    Quantity("second_term", "Second term of R_TD, γ ∇Q·∇Q\N{PRIME}", source="diagnosis"),
    Quantity("r_td", "R_TD, the first term minus the second", source="diagnosis"),
    Quantity("q_std", "Standard deviation of Q over rows", "reward", source="diagnosis"),
    Quantity("q_policy", "Mean Q of the policy's actions", "reward", source="diagnosis"),
    Quantity("q_random", "Mean Q of random actions", "reward", source="diagnosis"),
    Quantity("random_above", "Share of random actions with more Q than the data's", better="less", source="diagnosis"),
    Quantity("overestimation", "Mean Q minus the Monte-Carlo return", "reward", source="diagnosis"),
    Quantity("return_std", "Standard deviation of Monte-Carlo returns", "reward", source="diagnosis"),
    Quantity("return_rows", "Rows whose Monte-Carlo return counts", "rows", source="diagnosis"),
    Quantity("policy_distance", "Distance of the policy from the data's actions", source="diagnosis"),
    # of a selection
    Quantity("fqe", "Value of the policy by fitted Q evaluation", "reward", "more", source="selection"),
    Quantity("dr", "Value of the policy by the weighted doubly robust estimate", "reward", "more", source="selection"),
    Quantity("wis", "Value of the policy by weighted importance sampling", "reward", "more", source="selection"),
    Quantity("start_value", "Value that the policy's own critic promises", "reward", "more", source="selection"),
    Quantity("td_error_held_out", "Temporal-difference loss on held-out rows", better="less", source="selection"),
    Quantity("q_held_out", "Mean Q of the data's actions on held-out rows", "reward", "more", source="selection"),
    Quantity("mean_rank", "Mean place by all other criteria", better="less", source="selection"),
)
CATALOGUE = {quantity.name: quantity for quantity in QUANTITIES}
REPORTED = tuple(quantity for quantity in QUANTITIES if quantity.short)
"""What the report shows."""
JUDGED = tuple(quantity.name for quantity in QUANTITIES if quantity.better and quantity.source in ("rollouts", "probe"))
"""What an objective can be: every algorithm with a critic measures it, and more or less of it is better."""


def quantity(name: str) -> Quantity:
    """Return the entry of a column in the catalogue; an undeclared one is a real number of that name.

    `q_mean_2` is `q_mean` on the probe's rows of the second part of a mixture.
    """
    base, _, part = name.rpartition("_")
    whole = CATALOGUE.get(base)
    if name not in CATALOGUE and whole and whole.source == "probe" and part.isdecimal():
        return whole._replace(name=name, label=f"{whole.label}, part {part} of the mixture", short="")
    return CATALOGUE.get(name) or Quantity(name, name)
