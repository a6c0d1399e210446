"""The probe of a diagnosis: every algorithm's critic, against what training measures and against numbers by hand."""

import numpy as np
import pytest
import torch

from dr3_ray import Population, load_dataset
from dr3_ray.algorithms.registry import ALGORITHMS
from dr3_ray.errors import UserError
from dr3_ray.policies.probing import Critic
from dr3_ray.training.member import Member, build_networks
from dr3_ray.training.normalization import observation_statistics
from dr3_ray.training.saved import Trained

FORMS = [form for forms in ALGORITHMS.values() for form in forms.values()]
CRITICS = [form for form in FORMS if form.has_critic]
CASES = [(form, {}) for form in CRITICS] + [
    (form, {"critic_actions": "input"}) for form in CRITICS if "critic_actions" in form.options.names()
]
HEAD = {"critic_head": "hl_gauss", "bins": 7, "v_min": -3.0, "v_max": 9.0}
CASES += [(form, HEAD) for form in CRITICS if form.name in ("DR3-CQL", "DR3-IQL")]
DATA = {"discrete": "embedded:breakout-replay?take=first:0.05", "continuous": "embedded:pendulum-replay"}
FEW = {"hidden_sizes": [8], "n_heads": 3, "n_quantiles": 4, "n_sampled_actions": 3, "n_divergence_samples": 3}


def trained(form, **options) -> Trained:
    """Two members as they begin."""
    small = {name: value for name, value in FEW.items() if name in form.options.names()}
    data = load_dataset(DATA[form.action_kind])
    members = [Member.from_dict(form, small | {"seed": seed} | options) for seed in range(2)]
    networks = build_networks(form, data.spaces, members, observation_statistics(data))
    return Trained(form, data.spaces, [each.to_dict() for each in members], networks, {})


@pytest.mark.spread(3)
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(("form", "options"), CASES, ids=[f"{form.name}-{form.action_kind}-{o}" for form, o in CASES])
def test_every_critic_as_training_measures_it(form, options):
    data, both = load_dataset(DATA[form.action_kind]), trained(form, **options)
    found = Critic(both, 1).probe(data)
    members = [Member.from_dict(form, values) for values in both.members]
    population = Population(form, both.networks, members, data, data.spaces)
    population.step = 10**9  # after the first steps, in which a behaviour model is trained alone
    wanted = {name: values[1].item() for name, values in population.probe().items()}
    backup, recorded = found.pairs["backup"], found.pairs["data"]
    same = {name: backup[name] for name in wanted.keys() & backup.keys()}
    same |= {f"{name}_data": recorded[name] for name in ("dot_product", "cosine")}
    errors = ("td_error", "clipped_targets") if options == HEAD else ("td_error",)
    same |= {name: found.numbers[name] for name in ("effective_rank", *errors)}
    del wanted["q_mean"]
    assert same == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    if hasattr(members[0].options, "gamma"):
        terms = {name: values[1].item() for name, values in population.implicit_regularizer().items()}
        assert {name: backup[name] for name in terms} == pytest.approx(terms, rel=1e-3, abs=1e-6)
    choices = [
        "backup",
        "data",
        *(["policy"] if form.act else []),
        *(["argmax"] if form.action_kind == "discrete" else []),
    ]
    assert list(found.pairs) == choices + (["behaviour"] if form.name in ("DR3-TD", "DR3-BRAC") else [])
    assert all(np.isfinite([*numbers.values()]).all() for numbers in (found.numbers, *found.pairs.values()))
    assert len(found.spectrum) == 8 and found.spectrum == sorted(found.spectrum, reverse=True)
    assert ("q_policy" in found.numbers) == ("policy_distance" in found.numbers) == (form.act is not None)


def test_values_by_hand():
    """A head of zeros but its biases gives every action a value of its own: all means are shares of actions."""
    form, data = ALGORITHMS["DR3-DQN"]["discrete"], load_dataset(DATA["discrete"])
    both = trained(form)
    head = both.networks.critic.head
    with torch.no_grad():
        head.weight.zero_()
        head.bias[1, 0, 0] = torch.arange(data.spaces.n_actions, dtype=torch.float32)
    last = data.spaces.n_actions - 1
    found = Critic(both, 1).probe(data).numbers
    assert found["q_policy"] == last and found["q_random"] == pytest.approx(last / 2, abs=0.05)
    assert 0.0 < found["q_data"] < last and found["policy_distance"] > 0.5
    assert found["return_rows"] > 1000 and found["overestimation"] == pytest.approx(
        found["q_data"], abs=3 * found["return_std"]
    )


def test_returns_of_cut_episodes_count_where_the_rest_is_discounted_away():
    form, data = ALGORITHMS["DR3-SARSA"]["continuous"], load_dataset(DATA["continuous"])
    assert not data.manifest.counts.terminateds  # every episode of Pendulum is cut at 200 steps
    assert "overestimation" not in Critic(trained(form), 0).probe(data).numbers  # 0.99²⁰⁰ is 0.13
    short = Critic(trained(form, gamma=0.9), 0).probe(load_dataset(DATA["continuous"], 0.9)).numbers
    assert short["return_rows"] == pytest.approx(2048 * (200 - 28) / 200, rel=0.05)  # 0.9²⁹ is below 0.05
    assert "overestimation" not in Critic(trained(form, gamma=0.9), 0).probe(data, returns_hold=False).numbers


def test_without_a_critic_there_is_nothing_to_diagnose():
    with pytest.raises(UserError, match="BC has no critic: there is nothing to diagnose"):
        Critic(trained(ALGORITHMS["BC"]["discrete"]), 0)
