"""`help(Config.training)` and a notebook's tooltip list every option with default, range and source."""

import dataclasses
import inspect
import pydoc

import pytest

import dr3_ray
from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS
from dr3_ray.rllib.config import CLASSES


def shown(method: object) -> str:
    """What `help` prints."""
    return pydoc.plain(pydoc.render_doc(method))


@pytest.mark.parametrize("name", list(CLASSES))
def test_every_option_has_its_line_and_its_name_in_the_signature(name: str) -> None:
    config = CLASSES[name].config_class
    for kind, spec in kinds_of(name).items():
        pairs = [(config.training, spec.options)]
        pairs += [(config.regularization, each) for each in REGULARIZER_OPTIONS if spec.has_critic]
        for method, options in pairs:
            text, parameters = shown(method), inspect.signature(method).parameters
            for option in dataclasses.fields(options):
                assert repr(option.default) in repr(parameters[option.name].default).split(" | ")
                (line,) = (
                    line.strip()
                    for line in text.splitlines()
                    if line.strip().removeprefix(f"{kind}: ").startswith(f"{option.name} = {option.default!r}")
                )
                assert option.metadata["doc"] in line and line in config.describe_options().splitlines()


def test_help_tells_kinds_of_actions_apart_and_names_ranges() -> None:
    text = shown(dr3_ray.DR3CQLConfig.training)
    assert "training(self, *, batch_size=32 | 256, hidden_sizes=(256, 256) | (256, 256, 256), " in text
    assert "Set the algorithm's options; one that is never set" in text
    assert "\n        discrete: cql_alpha = 0.1 (at least 0): α, the weight of the conservative term (0.1: DR3" in text
    assert "\n        continuous: cql_alpha = 5.0 (at least 0): α, the weight of the conservative term (5 or 10" in text
    assert "\n        gamma = 0.99 (0 to 1): discount" in text
    assert "\n        continuous: lagrange = 'off' (one of off, authors, common): α' is learned" in text
    assert "lagrange_threshold = 5.0 (at least 0; with lagrange = 'authors' or 'common'): τ" in text


def test_an_algorithm_without_a_critic_has_nothing_to_regularise() -> None:
    assert str(inspect.signature(dr3_ray.BCConfig.regularization)) == "(self)"
    assert "none: there is no critic" in shown(dr3_ray.BCConfig.regularization)


def test_a_class_of_a_user_keeps_its_own_method() -> None:
    class Mine(dr3_ray.DR3DQNConfig):
        """With a setting of its own."""

        def training(self, *, speed: float = 1.0, **options: object) -> "Mine":
            """Of the user."""
            return super().training(critic_lr=1e-4 * speed, **options)

    assert Mine().training(speed=2.0, gamma=0.9).critic_lr == 2e-4 and Mine.training.__doc__ == "Of the user."
    assert "gamma=0.99" in str(inspect.signature(Mine.__mro__[1].training))
