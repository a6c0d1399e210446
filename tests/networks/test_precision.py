"""Products of rounded factors: faster, near the exact ones, and switched off again."""

import pytest
import torch

from dr3_ray.errors import UserError
from dr3_ray.networks.pixels import PixelEncoder
from dr3_ray.networks.precision import check_precision, matmul_precision
from dr3_ray.networks.products import relu_layers

rounds = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU cannot multiply bf16: there is nothing to test"
)


@rounds
def test_factors_may_be_rounded_within_and_never_outside():
    """A processor that multiplies float32 as fast does not round in torch's own products; in ours all do."""
    factors = torch.rand(256, 512), torch.rand(512, 256)
    exact = factors[0] @ factors[1]
    with matmul_precision("bf16"):
        torch.testing.assert_close(factors[0] @ factors[1], exact, rtol=2**-8, atol=0.0)
        ours = relu_layers(factors[0].unsqueeze(0), [(factors[1].unsqueeze(0), torch.zeros(1, 1, 256))])[0]
    products = factors[0].bfloat16().float() @ factors[1].bfloat16().float()
    torch.testing.assert_close(ours, products.bfloat16().float(), rtol=2**-7, atol=0.0)
    assert not torch.allclose(ours, exact, rtol=1e-4)
    assert torch.equal(factors[0] @ factors[1], exact)


@rounds
def test_an_error_switches_it_off_too():
    factors = torch.rand(64, 64), torch.rand(64, 64)
    exact = factors[0] @ factors[1]
    with pytest.raises(ZeroDivisionError), matmul_precision("bf16"):
        raise ZeroDivisionError
    assert torch.equal(factors[0] @ factors[1], exact)


@pytest.mark.spread(3)
@rounds
@pytest.mark.usefixtures("without_shape_checks")
def test_training_is_near_the_exact_one_and_probes_are_exact(make_population, spec):
    exact, rounded = (
        make_population(spec, [{"precision": each, "hidden_sizes": [256, 256], "batch_size": 64}])
        for each in ("fp32", "bf16")
    )
    found = rounded.probe()
    assert all(torch.equal(value, found[key]) for key, value in exact.probe().items())
    for population in (exact, rounded):
        population.update(2)
    for name, part in exact.steps.parts.items():
        moved = (part.values - rounded.steps.parts[name].values).abs().max()
        assert moved < 2 * 2.1 * exact.members[0].step_size(name)  # Adam's longest steps, in opposite directions
    assert any(
        not torch.equal(part.values, rounded.steps.parts[name].values) for name, part in exact.steps.parts.items()
    )


def test_devices_that_have_no_such_products_say_so():
    with pytest.raises(UserError, match=r"precision='bf16' is for CPUs and GPUs of NVIDIA: leave it out on mps"):
        check_precision("bf16", torch.device("mps"))
    with pytest.raises(UserError, match=r"precision='tf32' is for GPUs of NVIDIA: leave it out on a CPU"):
        check_precision("tf32", torch.device("cpu"))


@rounds
@pytest.mark.parametrize("name", ["nature_cnn", "impala", "cog"])
def test_convolutions_round_as_well_and_hand_float32_on(name):
    encoder = PixelEncoder(name, [torch.Generator().manual_seed(0)], (48, 48, 3))
    images = torch.randint(256, (1, 8, 48, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

    def measured() -> list[torch.Tensor]:
        vectors = encoder(images, torch.float32)
        return [vectors.detach(), *torch.autograd.grad(vectors.square().sum(), list(encoder.parameters()))]

    exact = measured()
    with matmul_precision("bf16"):
        near = measured()
    for one, other in zip(near, exact, strict=True):
        assert one.dtype == torch.float32 and not torch.equal(one, other)
        assert (one - other).norm() < 0.03 * other.norm()
