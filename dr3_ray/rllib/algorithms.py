"""One config and one Algorithm a name: what they train stands in `dr3_ray.algorithms`."""

from ray.tune.registry import register_trainable

from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.rllib.algorithm import OfflineAlgorithm
from dr3_ray.rllib.config import OfflineConfig


class DR3DQNConfig(OfflineConfig):
    """DQN with DR3, discrete actions."""

    algorithm_name = "DR3-DQN"


class DR3DQN(OfflineAlgorithm):
    """DQN with DR3, discrete actions."""

    config_class = DR3DQNConfig


class DR3REMConfig(OfflineConfig):
    """REM with DR3, discrete actions."""

    algorithm_name = "DR3-REM"


class DR3REM(OfflineAlgorithm):
    """REM with DR3, discrete actions."""

    config_class = DR3REMConfig


class DR3QRCQLConfig(OfflineConfig):
    """QR-DQN with CQL's conservative term (the original discrete CQL) and DR3, discrete actions."""

    algorithm_name = "DR3-QRCQL"


class DR3QRCQL(OfflineAlgorithm):
    """QR-DQN with CQL's conservative term (the original discrete CQL) and DR3, discrete actions."""

    config_class = DR3QRCQLConfig


class DR3QRDQNConfig(OfflineConfig):
    """QR-DQN with DR3, discrete actions."""

    algorithm_name = "DR3-QRDQN"


class DR3QRDQN(OfflineAlgorithm):
    """QR-DQN with DR3, discrete actions."""

    config_class = DR3QRDQNConfig


class DR3CQLConfig(OfflineConfig):
    """CQL with DR3, discrete and continuous actions."""

    algorithm_name = "DR3-CQL"


class DR3CQL(OfflineAlgorithm):
    """CQL with DR3, discrete and continuous actions."""

    config_class = DR3CQLConfig


class DR3SARSAConfig(OfflineConfig):
    """Offline SARSA with DR3, discrete and continuous actions."""

    algorithm_name = "DR3-SARSA"


class DR3SARSA(OfflineAlgorithm):
    """Offline SARSA with DR3, discrete and continuous actions."""

    config_class = DR3SARSAConfig


class DR3IQLConfig(OfflineConfig):
    """IQL with DR3, discrete and continuous actions."""

    algorithm_name = "DR3-IQL"


class DR3IQL(OfflineAlgorithm):
    """IQL with DR3, discrete and continuous actions."""

    config_class = DR3IQLConfig


class DR3TD3BCConfig(OfflineConfig):
    """TD3+BC with DR3, continuous actions."""

    algorithm_name = "DR3-TD3BC"


class DR3TD3BC(OfflineAlgorithm):
    """TD3+BC with DR3, continuous actions."""

    config_class = DR3TD3BCConfig


class DR3ReBRACConfig(OfflineConfig):
    """ReBRAC with DR3, continuous actions."""

    algorithm_name = "DR3-ReBRAC"


class DR3ReBRAC(OfflineAlgorithm):
    """ReBRAC with DR3, continuous actions."""

    config_class = DR3ReBRACConfig


class DR3BRACConfig(OfflineConfig):
    """BRAC with DR3, continuous actions."""

    algorithm_name = "DR3-BRAC"


class DR3BRAC(OfflineAlgorithm):
    """BRAC with DR3, continuous actions."""

    config_class = DR3BRACConfig


class DR3TDConfig(OfflineConfig):
    """Expected TD under a behaviour model with DR3, discrete and continuous actions."""

    algorithm_name = "DR3-TD"


class DR3TD(OfflineAlgorithm):
    """Expected TD under a behaviour model with DR3, discrete and continuous actions."""

    config_class = DR3TDConfig


class DR3MCConfig(OfflineConfig):
    """Regression to Monte-Carlo returns with DR3, discrete and continuous actions."""

    algorithm_name = "DR3-MC"


class DR3MC(OfflineAlgorithm):
    """Regression to Monte-Carlo returns with DR3, discrete and continuous actions."""

    config_class = DR3MCConfig


class BCConfig(OfflineConfig):
    """Behaviour cloning, discrete and continuous actions."""

    algorithm_name = "BC"


class BC(OfflineAlgorithm):
    """Behaviour cloning, discrete and continuous actions."""

    config_class = BCConfig


CLASSES: dict[str, type[OfflineAlgorithm]] = {
    each.config_class.algorithm_name: each
    for each in (
        DR3DQN,
        DR3REM,
        DR3QRDQN,
        DR3QRCQL,
        DR3CQL,
        DR3SARSA,
        DR3TD,
        DR3MC,
        DR3IQL,
        DR3TD3BC,
        DR3ReBRAC,
        DR3BRAC,
        BC,
    )
}


def config_for(name: str) -> OfflineConfig:
    """A fresh config of the algorithm called `name`."""
    kinds_of(name)  # fails with the list of names where there is none
    return CLASSES[name].get_default_config()


def register_algorithms() -> None:
    """Make the names known to Ray Tune: `tune.Tuner("DR3-CQL", param_space=…)`, in worker processes too."""
    for name, algorithm in CLASSES.items():
        register_trainable(name, algorithm)
