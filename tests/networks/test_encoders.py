"""Every algorithm behind every encoder of images, alone and in a pack: what `test_population` asks of flat ones."""

import copy
from typing import Any

import pytest
import torch
from torch import tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.observations import Shape
from dr3_ray.training import batches
from dr3_ray.training.population import Population
from tests.conftest import SPACES, every_algorithm
from tests.training.test_population import assert_equal, different_members, everything

SHAPES: dict[str, tuple[Shape, Any]] = {
    "nature_cnn": ((36, 36, 2), "nature_cnn"),
    "impala": ((6, 6, 3), "impala"),
    "cog": ((3, 6, 6), "cog"),
    "dict": ({"camera": (6, 6, 3), "state": (2, 2)}, {"camera": "cog"}),
}
ENCODERS = [name for name in SHAPES if name != "dict"]  # which know nothing of algorithms


def each_in_turn(with_critic: bool = False) -> list[Any]:
    """Every algorithm on named parts, which it may treat in its own way, and with one of the encoders."""
    return [
        pytest.param(each.values[0], shape, id=f"{each.id}-{shape}")
        for number, each in enumerate(every_algorithm())
        for shape in ("dict", ENCODERS[number % len(ENCODERS)])
        if each.values[0].has_critic or not with_critic
    ]


@pytest.fixture(params=SHAPES)
def make(request: Any, make_population: Any, monkeypatch: Any) -> Any:
    """Populations on observations of this shape, with this encoder and random crops."""
    shape, encoder = SHAPES[request.param]
    monkeypatch.setattr(batches, "PROBE_ROWS", 16)

    def build(
        spec: AlgorithmSpec, members: list[dict[str, Any]], execution: str = "stacked", **given: Any
    ) -> Population:
        spaces = SPACES[spec.action_kind]._replace(observation_shape=shape)
        # so wide that no member starts with dead ReLUs only
        options = {"encoder": encoder, "random_crop": 1, "hidden_sizes": (16,), "batch_size": 4}
        return make_population(spec, [options | member for member in members], execution, spaces=spaces, **given)  # type: ignore[no-any-return]

    return build


@pytest.mark.spread(5)
@pytest.mark.parametrize(("algorithm", "make"), each_in_turn(), indirect=["make"])
@pytest.mark.usefixtures("without_shape_checks")
def test_an_algorithm_on_images(algorithm: AlgorithmSpec, make: Any):
    """All parameters move, targets by their rule, the seed makes the run, a checkpoint continues it to the bit."""
    members = different_members(algorithm, 3)
    pack = make(algorithm, members)
    before = copy.deepcopy(pack.networks.state_dict())
    pack.update(2)
    if hasattr(pack.networks, "target_critic"):  # it follows at the third step
        target = pack.steps.parts["critic"].target_values.clone()
        for name, values in pack.networks.target_critic.state_dict().items():
            assert torch.equal(values, before[f"target_critic.{name}"])
    pack.update(1)
    if hasattr(pack.networks, "target_critic"):
        part, tau = pack.steps.parts["critic"], tensor([0.5, 1.0, 0.25])[:, None]
        torch.testing.assert_close(part.target_values, (1.0 - tau) * target + tau * part.values, rtol=1e-5, atol=1e-7)
    twin, restored = make(algorithm, members), make(algorithm, [member | {"seed": 9} for member in members])
    twin.update(3)
    assert_equal(everything(pack), everything(twin))
    pack.update(3)
    for name, values in pack.networks.state_dict().items():
        for member in range(3):
            assert not torch.equal(values[member], before[name][member]), name
    assert all(values.isfinite().all() for values in pack.metrics.values())

    restored.networks.load_state_dict(twin.networks.state_dict())
    restored.load_state_dict(twin.state_dict())
    restored.update(3)
    assert_equal(everything(pack), everything(restored))


@pytest.mark.spread(5)
@pytest.mark.parametrize(("algorithm", "make"), each_in_turn(with_critic=True), indirect=["make"])
@pytest.mark.usefixtures("without_shape_checks")
def test_without_a_weight_it_is_the_base(algorithm: AlgorithmSpec, make: Any):
    """Up to rounding: with DR3, s and s' pass the convolutions together."""
    double = {"dtype": torch.float64}
    base, zero = make(algorithm, [{}], regularized=False, **double), make(algorithm, [{"dr3_coeff": 0.0}], **double)
    for each in (base, zero):
        each.update(3)
    found = zero.networks.state_dict()
    for name, values in base.networks.state_dict().items():
        torch.testing.assert_close(values, found[name], rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.spread(5)
@pytest.mark.parametrize(("algorithm", "make"), each_in_turn(), indirect=["make"])
@pytest.mark.usefixtures("without_shape_checks")
def test_a_member_of_a_pack_on_images_is_the_same_member_alone(algorithm: AlgorithmSpec, make: Any):
    members = different_members(algorithm, 2)
    packs = [make(algorithm, members, execution, dtype=torch.float64) for execution in ("in_turn", "stacked")]
    alone = [make(algorithm, [member], dtype=torch.float64) for member in members]
    for each in (*packs, *alone):
        each.update(2)
    for pack in packs:
        found = pack.networks.state_dict()
        for k, single in enumerate(alone):
            for name, values in single.networks.state_dict().items():
                torch.testing.assert_close(found[name][k], values[0], rtol=1e-9, atol=1e-9)


def test_acting_on_images(spec: AlgorithmSpec, make: Any, make_data: Any):
    if spec.act is None:
        return
    pack = make(spec, [{}, {"seed": 1}])
    observations = pack.data.gather(torch.arange(10).view(2, 5), ("observations",))["observations"]
    actions = pack.act(observations)
    assert actions.shape == ((2, 5) if spec.action_kind == "discrete" else (2, 5, 2))


@pytest.mark.parametrize("name", ["cog", "dict"])
def test_a_crop_changes_only_what_is_trained_on(name: str, make_population: Any):
    shape, encoder = SHAPES[name]
    spaces = SPACES["discrete"]._replace(observation_shape=shape)
    given = {"encoder": encoder, "hidden_sizes": (16,)}
    plain, moved = (
        make_population(find("DR3-DQN", "discrete"), [given | {"random_crop": padding}], spaces=spaces)
        for padding in (0, 2)
    )
    assert_equal(plain.probe(), moved.probe())
    for each in (plain, moved):
        each.update(1)
    assert not torch.equal(plain.metrics["loss_critic"], moved.metrics["loss_critic"])
