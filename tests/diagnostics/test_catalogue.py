"""What every algorithm measures, with every regulariser and choice, is in the catalogue; nothing else is."""

import dataclasses
from typing import Any

import pytest

from dr3_ray.algorithms.registry import ALGORITHMS, find
from dr3_ray.errors import UserError
from dr3_ray.quantities import CATALOGUE, QUANTITIES, Quantity, quantity
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS, REGULARIZERS

REGULARIZED: list[dict[str, Any]] = [
    {},
    {"dr3_coeff": 0.0},
    {"dr3_coeff": 0.03, "dr3_form": "abs", "dr3_adaptive": "cosine"},
    {"srank_coeff": 0.1, "feature_l2_coeff": 0.1},
    {"critic_bottleneck": True, "bottleneck_coeff": 0.1},
    {"critic_dropout": 0.1, "critic_norm": "layer"},
    {"critic_head": "hl_gauss"},
]
NEITHER = {"compile", "precision", "encoder"}  # change how and not what is measured
OF_SWEEPS = {each.name for each in QUANTITIES if each.source in ("run", "rollouts", "diagnosis", "selection")}


def choices(spec) -> list[dict[str, Any]]:
    """Every choice of every option, one at a time."""
    found: list[dict[str, Any]] = []
    for option in dataclasses.fields(spec.options):
        if option.name in NEITHER or option.metadata["number"]:
            continue
        values = option.metadata["among"] or ((True, False) if isinstance(option.default, bool) else ())
        found += [{option.name: value} for value in values if value != option.default]
    return found


def measured(spec, make_population) -> set[str]:
    """All names that a form of an algorithm measures, in training and on the probe batch."""
    found: set[str] = set()
    regularized = REGULARIZED if spec.has_critic else [{}]
    for options in [*regularized, *choices(spec)]:
        try:
            population = make_population(spec, [options], regularized=spec.has_critic)
        except UserError:  # a choice that needs another one
            continue
        values = population.update(2) | population.probe()
        assert all(each.dtype.is_floating_point and each.shape == (1,) for each in values.values())
        found |= set(values)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore:the features of this critic can be negative")
def test_all_that_is_measured_is_declared_and_the_rest_is_that_of_sweeps(make_population):
    found: dict[str, set[str]] = {name: set() for name in ALGORITHMS}
    for name, kinds in ALGORITHMS.items():
        for kind, spec in kinds.items():
            here = measured(spec, make_population)
            undeclared = sorted(here - CATALOGUE.keys())
            assert not undeclared, f"{name} on {kind} actions measures {undeclared}: declare them in {CATALOGUE_FILE}"
            assert all(CATALOGUE[each].form == "real" for each in here)
            found[name] |= here
    assert set().union(*found.values()) == CATALOGUE.keys() - OF_SWEEPS
    have_critics = {name for name, kinds in ALGORITHMS.items() if any(spec.has_critic for spec in kinds.values())}
    for each in QUANTITIES:
        if each.name not in OF_SWEEPS:
            general = not each.by or set(each.by) <= REGULARIZERS.keys()
            expected = have_critics if general else set(each.by)
            assert {name for name in ALGORITHMS if each.name in found[name]} == expected, each.name


CATALOGUE_FILE = "dr3_ray/quantities.py"


def test_names_and_labels_are_there_once():
    assert len(CATALOGUE) == len(QUANTITIES) == len({each.label for each in QUANTITIES})
    options = {
        option.name
        for each in (*(form.options for kinds in ALGORITHMS.values() for form in kinds.values()), *REGULARIZER_OPTIONS)
        for option in dataclasses.fields(each)
    }
    assert not options & CATALOGUE.keys()  # both are columns of one table


def test_what_nobody_declared_is_a_real_number():
    assert quantity("loss_of_a_friend") == Quantity("loss_of_a_friend", "loss_of_a_friend", form="real")


def test_each_regulariser_measures_what_is_declared_for_it(make_population):
    options = {key: value for each in REGULARIZED[1:5] for key, value in each.items()}  # all of them at once
    with_all = make_population(find("DR3-DQN", "discrete"), [options]).update(1).keys()
    declared = {each.name for each in QUANTITIES if set(each.by) & REGULARIZERS.keys()}
    assert declared == with_all - make_population(find("DR3-DQN", "discrete"), regularized=False).update(1).keys()
    assert all(name.removeprefix("loss_").startswith(CATALOGUE[name].by) for name in declared)
