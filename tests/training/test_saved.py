"""Members of several checkpoints in one stack of networks: each acts as it does among its own."""

import pytest
import torch

from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.networks.members import member_view
from dr3_ray.training.member import Member, build_networks
from dr3_ray.training.saved import Trained, join
from tests.conftest import SPACES

FORMS = [
    find("DR3-CQL", "discrete"),
    find("DR3-REM", "discrete"),
    find("DR3-IQL", "continuous"),
    find("BC", "discrete"),
]


def trained(form: AlgorithmSpec, seeds: range, mean: float | None = 0.5, **options: object) -> Trained:
    """Members as they begin; with a mean, their observations are normalised."""
    given = {"hidden_sizes": [8], "normalize_observations": mean is not None} | options
    members = [Member.from_dict(form, given | {"seed": seed}) for seed in seeds]
    spaces = SPACES[form.action_kind]
    shape = spaces.observation_shape
    assert isinstance(shape, tuple)
    statistics = (torch.full(shape, mean or 0.0), torch.full(shape, 2.0))
    networks = build_networks(form, spaces, members, statistics)
    return Trained(form, spaces, [each.to_dict() for each in members], networks, {})


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("form", FORMS, ids=[f"{form.name}-{form.action_kind}" for form in FORMS])
def test_members_that_were_joined_act_as_before(form: AlgorithmSpec) -> None:
    parts = [trained(form, range(2)), trained(form, range(5, 6)), trained(form, range(7, 10))]
    ((together, places),) = join(parts, most=6)
    assert places == [0, 1, 2] and [each["seed"] for each in together.members] == [0, 1, 5, 7, 8, 9]
    seen = torch.randn(1, 20, *SPACES[form.action_kind].observation_shape)
    assert form.act is not None
    alone = [form.act(part.networks, seen.expand(len(part.members), *seen.shape[1:])) for part in parts]
    assert torch.allclose(form.act(together.networks, seen.expand(6, *seen.shape[1:])), torch.cat(alone))
    again = member_view(together.networks, [2])
    assert torch.allclose(form.act(again, seen), alone[1])


def test_what_cannot_be_one_pack_stays_apart() -> None:
    form = FORMS[0]
    parts = [
        trained(form, range(2)), trained(form, range(1), hidden_sizes=[9]), trained(FORMS[1], range(2)),
        trained(form, range(2), mean=0.7), trained(form, range(2, 4)), trained(form, range(4, 6)),
    ]  # fmt: skip
    assert [places for _, places in join(parts, most=4)] == [[0, 4], [1], [2], [3], [5]]
    assert [len(one.members) for one, _ in join(parts, most=1)] == [2, 1, 2, 2, 2, 2]
