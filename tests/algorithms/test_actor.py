"""LayerNorm, dropout and weight decay of actors: noise in their own updates alone, and alike in packs and alone."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dr3_ray.algorithms.actor import ActorOptions
from dr3_ray.algorithms.registry import ALGORITHMS, find
from dr3_ray.errors import UserError
from dr3_ray.training.member import Member, check_members

FORMS = [form for forms in ALGORITHMS.values() for form in forms.values()]
ACTING = [form for form in FORMS if issubclass(form.options, ActorOptions)]
ALL = {"actor_layer_norm": True, "actor_dropout": 0.5, "actor_weight_decay": 0.1, "actor_lr": 0.01}
pytestmark = pytest.mark.usefixtures("without_shape_checks")


def name(form: Any) -> str:
    return f"{form.name}-{form.action_kind}"


def actor_of(make_population: Any, form: Any, members: list[dict[str, Any]], updates: int = 3) -> dict[str, Tensor]:
    population = make_population(form, members, "stacked")
    population.update(updates)
    return dict(population.networks.actor.state_dict())


def test_who_has_an_actor(make_population: Any):
    for form in FORMS:
        assert hasattr(make_population(form).networks, "actor") == (form in ACTING), name(form)


@pytest.mark.parametrize("form", ACTING, ids=name)
def test_acting_has_no_noise_and_a_member_of_a_pack_is_the_member_alone(make_population: Any, form: Any):
    """The layers lie behind the actor and its target alone, and acting has the weights without noise."""
    members = [{"seed": 1, **ALL}, {"seed": 2, **ALL, "actor_dropout": 0.0, "actor_weight_decay": 0.0}]
    population = make_population(form, members, "stacked")
    population.update(3)
    networks = population.networks
    others = [child for label, child in networks.named_children() if label not in ("actor", "target_actor")]
    streams = {getattr(layer, "stream", None) for child in others for layer in child.modules()}
    assert "actor_dropout" not in streams and networks.actor.encoder.dropout is not None
    observations = torch.randn(2, 7, 2, 3)
    acted = population.act(observations)
    assert torch.equal(acted, population.act(observations))
    networks.train(), networks.actor.encoder.register_module("dropout", None)
    assert torch.equal(acted, population.act(observations))
    alone = [actor_of(make_population, form, [member]) for member in members]
    for key, values in networks.actor.state_dict().items():
        torch.testing.assert_close(values, torch.cat([one[key] for one in alone]), rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize("form", [find("DR3-TD3BC", "continuous"), find("DR3-IQL", "discrete")], ids=name)
def test_layers_by_hand(make_population: Any, form: Any):
    """Behind each matrix a ReLU, LayerNorm with flax's ε, and dropout that leaves the mean as it is."""
    actor = make_population(form, [ALL | {"hidden_sizes": (32, 16), "seed": 3}]).steps.views[0].networks.actor
    x = torch.randn(1, 1, 5, 6)
    hidden = x
    for layer in actor.encoder.layers:
        hidden = torch.relu(hidden @ layer.weight + layer.bias)
        hidden = functional.layer_norm(hidden, hidden.shape[-1:], eps=1e-6)
    actor.eval()
    torch.testing.assert_close(actor.encoder(x), hidden)
    actor.train()
    drawn = torch.stack([actor.encoder(x) for _ in range(300)])
    assert (drawn == 0.0).double().mean().item() == pytest.approx(0.5, abs=0.02)
    with torch.no_grad():  # as for a′ of a backup
        torch.testing.assert_close(actor.encoder(x), hidden)


def test_a_target_has_the_layers_of_its_actor(make_population: Any):
    networks = make_population(find("DR3-ReBRAC", "continuous"), [ALL]).networks
    ours, theirs = networks.actor.state_dict(), networks.target_actor.state_dict()
    assert ours.keys() == theirs.keys() and any("norms" in key for key in ours)
    assert not any(parameter.requires_grad for parameter in networks.target_actor.parameters())


def test_weight_decay_is_adamws(make_population: Any):
    """θ ← θ − lr (Adam's step + λ θ): the difference of two members after one step is −lr λ θ₀."""
    form = find("DR3-AWAC", "continuous")
    first = make_population(form, [{}]).networks.actor.state_dict()
    first = {key: values.clone() for key, values in first.items()}
    decayed, plain = (
        actor_of(make_population, form, [{"actor_weight_decay": decay, "actor_lr": 0.1}], 1) for decay in (0.5, 0.0)
    )
    for key, values in first.items():
        torch.testing.assert_close(decayed[key] - plain[key], -0.05 * values, rtol=1e-4, atol=1e-6)


def test_what_has_no_such_thing_is_refused_in_a_line(make_population: Any):
    for form in [form for form in FORMS if form not in ACTING]:
        with pytest.raises(UserError, match=f"{form.name} has no actor to regularise: leave out actor_dropout$"):
            Member.from_dict(form, {"actor_dropout": 0.1})
    for option in ("actor_layer_norm", "actor_dropout"):
        form = find("BC", "continuous")
        bare = Member.from_dict(form, {option: ALL[option], "hidden_sizes": ()})
        with pytest.raises(UserError, match=f"{option} needs a hidden layer: give hidden_sizes, or leave it out"):
            check_members(form, make_population(form).spaces, [bare])  # before a sweep begins
