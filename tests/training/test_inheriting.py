"""The beginning of members with what others have learned: weights and moments theirs, batches of their own."""

from typing import Any

import pytest
import torch

from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data.sampler import CountingSampler
from dr3_ray.training.inheriting import Beginning, begin_from
from dr3_ray.training.population import Population

CQL = find("DR3-CQL", "discrete")
pytestmark = pytest.mark.usefixtures("without_shape_checks")


def ends(population: Population) -> list[Beginning]:
    networks, state = population.networks.state_dict(), population.state_dict()
    return [Beginning.of(f"p{row}", networks, state, row) for row in range(len(population.members))]


def clone(beginning: Beginning) -> Beginning:
    """With tensors that no population changes."""
    networks = {name: values.clone() for name, values in beginning.networks.items()}
    return beginning._replace(networks=networks)


def test_every_algorithm_begins_where_another_ended(spec: AlgorithmSpec, make_population: Any) -> None:
    """Members trade places with their parents, and trained for no step they are these."""
    parents: Population = make_population(spec, [{"seed": 0}, {"seed": 1}])
    parents.update(3)
    first, second = map(clone, ends(parents))
    children: Population = make_population(spec, [{"seed": 0}, {"seed": 1}])
    begin_from(children, [second, first])
    for name, values in children.networks.state_dict().items():
        rows = values if "." in name else [values, values]
        assert torch.equal(rows[0], second.networks[name]) and torch.equal(rows[1], first.networks[name]), name
    for name, part in children.steps.parts.items():
        for each, values in part.adam.state_dict().items():
            assert torch.equal(values, parents.steps.parts[name].adam.state_dict()[each].flip(0))
    assert children.step == 0 and not children.diverged.any()


def test_a_child_does_not_depend_on_its_pack_and_draws_other_batches_than_its_parent(
    spec: AlgorithmSpec, make_population: Any
) -> None:
    parents: Population = make_population(spec, [{"seed": 0}, {"seed": 1}], execution="in_turn")
    before = parents.steps.batches.draws(slice(0, 1), 1)[0]
    parents.update(2)
    both = list(map(clone, ends(parents)))
    together: Population = make_population(spec, [{"seed": 0}, {"seed": 1}], execution="in_turn")
    alone: Population = make_population(spec, [{"seed": 1}], execution="in_turn")
    begin_from(together, both)
    begin_from(alone, both[1:])
    own = [population.steps.batches.sampler.generators[-1].get_state() for population in (together, alone)]
    assert torch.equal(*own)
    together.update(2), alone.update(2)
    for name, values in alone.networks.state_dict().items():
        assert torch.equal(values[0] if "." in name else values, together.networks.state_dict()[name][1]
                           if "." in name else together.networks.state_dict()[name])  # fmt: skip
    fresh: Population = make_population(spec, [{"seed": 0}], execution="in_turn")
    begin_from(fresh, both[:1])
    assert not torch.equal(fresh.steps.batches.draws(slice(0, 1), 1)[0], before)


def test_streams_of_a_gpu_are_told_apart_as_well(make_population: Any) -> None:
    population: Population = make_population(CQL, [{"seed": 0}, {"seed": 0}])
    (end, _) = ends(population)
    sampler = population.steps.batches.sampler
    counting = CountingSampler(sampler.rows, sampler.batch_size, sampler.noise, [0, 0])
    population.steps.batches.sampler = counting
    begin_from(population, [end, end._replace(name="another")])
    keys = counting.state_dict()["keys"]
    assert not torch.equal(keys[0], keys[1])
    indices = counting.draws(slice(0, 2), 1)[0]
    assert not torch.equal(indices[0, 0], indices[0, 1])


def test_networks_of_regularisers_begin_anew_where_that_is_asked_or_the_parent_has_none(make_population: Any) -> None:
    adaptive = {"dr3_adaptive": "dot_product", "dr3_coeff": 0.5, "seed": 0}
    plain: Population = make_population(CQL, [{"seed": 0, "dr3_coeff": 0.5}])
    parents: Population = make_population(CQL, [adaptive])
    for each in (plain, parents):
        each.update(2)
    begun = make_population(CQL, [adaptive]).networks.state_dict()
    multiplier = [name for name in begun if name.startswith("dr3_multiplier")]
    assert multiplier
    for parent, anew, is_anew in ((plain, False, True), (parents, True, True), (parents, False, False)):
        child: Population = make_population(CQL, [adaptive])
        begin_from(child, ends(parent), [anew])
        for name in multiplier:
            assert torch.equal(child.networks.state_dict()[name], begun[name]) == is_anew


def test_another_form_is_refused(make_population: Any) -> None:
    wide: Population = make_population(CQL, [{"hidden_sizes": [6]}])
    narrow: Population = make_population(CQL, [{"hidden_sizes": [5]}])
    with pytest.raises(ValueError, match=r"critic\.\S+ has shape .*, and .* is there"):
        begin_from(narrow, ends(wide))
