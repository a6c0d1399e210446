"""Training on a GPU: `pytest -m gpu` on a machine that has one."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data import load_dataset
from dr3_ray.data.n_step import FOLLOWED, gather_n_step
from dr3_ray.data.resident import Resident
from dr3_ray.data.resident import resident as data_on
from dr3_ray.data.sampler import CountingSampler
from dr3_ray.networks.convolutions import UNFOLDED, StackedConv2d
from dr3_ray.networks.precision import matmul_precision
from dr3_ray.networks.products import relu_layers
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from tests.training.test_population import everything

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda")
STEPS = (40, 23, 33)  # of three calls: chunks of graphs that are whole, cut, and repeated


@pytest.fixture
def make(make_population: Callable[..., Population]) -> Callable[..., Population]:
    """A tiny population on the GPU, without first steps that differ, in which nothing is recorded."""

    def on_the_gpu(
        spec: AlgorithmSpec, members: Any = ({"seed": 1}, {"seed": 2}), dtype: torch.dtype = torch.float32, **how: Any
    ) -> Population:
        known = {name for name, _ in spec.options()}
        settled: dict[str, Any] = dict.fromkeys((name for name in known if name.endswith("_steps")), 0)
        settled |= dict.fromkeys(known & {"policy_delay", "target_period"}, 2)
        return make_population(spec, [settled | member for member in members], "stacked", dtype, device="cuda", **how)

    return on_the_gpu


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name].cpu(), theirs[name].cpu()), name


def assert_near(ours: Tensor, theirs: Tensor, name: str) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=lambda why: f"{name}: {why}")


def trained(population: Population, steps: Any = STEPS) -> dict[str, Tensor]:
    for n in steps:
        population.update(n)
    return everything(population)


def test_graphs_do_what_they_were_recorded_from(spec: AlgorithmSpec, make: Any):
    recorded, plain = make(spec), make(spec)
    plain.compose(without=["graphs"])
    assert_equal(trained(recorded), trained(plain))
    assert recorded.execution_report()["graphs"] and not recorded.diverged.any()


def test_a_penalty_without_weight_is_measured_and_trains_nothing(critic_spec: AlgorithmSpec, make: Any):
    members = [{"seed": seed, "dr3_coeff": 0.0} for seed in (1, 2)]
    ours, base = trained(make(critic_spec, members)), trained(make(critic_spec, members, regularized=False))
    assert ours.pop("dr3_penalty").all() and not ours.pop("loss_dr3").any()
    assert_equal(ours, base)


def test_a_gpu_trains_as_a_cpu_does(spec: AlgorithmSpec, make: Any, make_population: Any):
    """From the same draws, in float64, up to rounding: that of noise to float32 is each device's own."""
    on_gpu = make(spec, dtype=torch.float64)
    on_cpu = make_population(spec, [member.to_dict() for member in on_gpu.members], "in_turn", torch.float64)
    sampler = on_gpu.steps.batches.sampler
    on_cpu.steps.batches.sampler = CountingSampler(
        sampler.rows, sampler.batch_size, sampler.noise, [1, 2], torch.float64, torch.device("cpu")
    )
    ours, theirs = trained(on_gpu, (33, 32)), trained(on_cpu, (33, 32))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert_near(ours[name].cpu(), theirs[name], name)


def test_nothing_waits_for_the_gpu(spec: AlgorithmSpec, make: Any):
    population = make(spec)
    population.compose(without=["graphs"])
    population.update(2)
    view = population.steps.views[0]
    view.networks.train()
    torch.cuda.set_sync_debug_mode("error")
    try:
        summed, _ = population.run(view, population.step, 3)
        with pytest.raises(RuntimeError):
            summed.tolist()  # which waits
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert summed.isfinite().all()


def test_it_continues_from_a_checkpoint_to_the_bit_and_on_a_cpu(spec: AlgorithmSpec, make: Any, make_population: Any):
    first, second = make(spec), make(spec, [{"seed": 8}, {"seed": 9}])
    trained(first, (40,))
    networks, state = copy.deepcopy(first.networks.state_dict()), first.state_dict()
    second.update(5)
    on_cpu = make_population(spec, [member.to_dict() for member in first.members], "stacked")
    for population in (second, on_cpu):
        population.networks.load_state_dict(networks)
        population.load_state_dict(state)
    assert_equal(trained(first, (40,)), trained(second, (40,)))
    on_cpu.update(5)
    assert on_cpu.step == 45 and not on_cpu.diverged.any()


def test_members_are_cut_out(make: Any):
    population = make(find("DR3-IQL", "continuous"), [{"seed": k, "critic_lr": 1e-3 * (1 + k)} for k in range(4)])
    population.update(40)
    kept = population.keep([0, 2])
    assert kept.steps.batches.data is population.steps.batches.data
    population.update(40), kept.update(40)
    for name, values in kept.networks.state_dict().items():
        torch.testing.assert_close(values, population.networks.state_dict()[name][[0, 2]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changed"),
    [("DR3-DQN", {"critic_dropout": 0.3}), ("DR3-DQN", {"critic_bottleneck": True}), ("BC", {"actor_dropout": 0.3})],
)
def test_layers_draw_noise_within_graphs(name: str, changed: dict[str, Any], make: Any):
    spec = find(name, "discrete")
    recorded, plain = (make(spec, [changed | {"seed": seed} for seed in (1, 2)]) for _ in range(2))
    plain.compose(without=["graphs"])
    assert_equal(trained(recorded), trained(plain))


def test_eigenvalues_are_found_without_graphs(make: Any):
    population = make(find("DR3-DQN", "discrete"), [{"srank_coeff": 0.0}, {"srank_coeff": 0.1, "seed": 1}])
    assert population.graphs is None
    population.update(20)
    assert not population.diverged.any()


@pytest.mark.parametrize("subset", ["", "?take=best:0.5", "?take=uniform:0.5"])
@pytest.mark.parametrize("source", ["embedded:breakout-replay", "embedded:pendulum-replay"])
def test_columns_on_the_gpu_are_those_of_the_data_set(source: str, subset: str):
    data = load_dataset(source + subset)
    columns = sorted({*FOLLOWED, "observations", "actions", "next_observations", "next_actions_valid"})
    on_gpu, indices = data_on(data, columns, GPU, 3), torch.randint(len(data), (3, 50))
    assert isinstance(on_gpu, Resident) and len(on_gpu) == len(data)
    for ours, theirs in (
        (on_gpu.gather(indices.to(GPU), columns), data.gather(indices, columns)),
        (gather_n_step(on_gpu, indices.to(GPU), columns, 3), gather_n_step(data, indices, columns, 3)),
    ):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert ours[name].dtype == theirs[name].dtype and torch.equal(ours[name].cpu(), theirs[name]), name


def test_data_without_room_stay_on_the_host(make: Any, monkeypatch: pytest.MonkeyPatch):
    spec = find("DR3-CQL", "continuous")
    resident = trained(make(spec))
    monkeypatch.setattr("dr3_ray.data.resident.USABLE", 1e-9)
    with pytest.warns(UserWarning, match="batches come from the host"):
        population = make(spec)
    assert population.graphs is None
    assert_equal(trained(population), resident)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_factors_are_rounded_within(precision: Any):
    source = torch.Generator(GPU).manual_seed(0)
    x, weight = (torch.rand(shape, generator=source, device=GPU) for shape in ((2, 256, 256), (2, 256, 256)))
    layers = [(weight, torch.zeros(2, 1, 256, device=GPU))] * 2
    with matmul_precision("fp32", GPU):
        exact = relu_layers(x, layers)
    with matmul_precision(precision, GPU):
        near = relu_layers(x, layers)
    double = relu_layers(x.double(), [(each.double(), bias.double()) for each, bias in layers])
    errors = [((found - double).norm() / double.norm()).item() for found in (exact, near)]
    assert near.dtype == torch.float32
    assert errors[0] < 1e-6 and 1e-5 < errors[1] < (1e-3 if precision == "tf32" else 1e-2), errors


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_rounded_training_is_near_the_exact_one(precision: str, spec: AlgorithmSpec, make: Any):
    exact, near = (
        make(spec, [{"precision": each, "hidden_sizes": [256, 256], "batch_size": 64}]) for each in ("fp32", precision)
    )
    for population in (exact, near):
        population.update(2)
    for name, part in exact.steps.parts.items():
        moved = (part.values - near.steps.parts[name].values).abs().max()
        assert moved < 2 * 2.1 * exact.members[0].step_size(name)
    assert any(not torch.equal(part.values, near.steps.parts[name].values) for name, part in exact.steps.parts.items())


@pytest.mark.parametrize("form", ["fp32", "bf16"])
def test_windows_multiply_to_the_convolution(form: Any):
    source = [torch.Generator().manual_seed(k) for k in range(3)]
    layer = StackedConv2d(source, 3, 4, 3, stride=2, padding=1, copies=2).to(GPU)
    x = torch.randn(5, 6, 3, 9, 9, device=GPU, requires_grad=True)
    assert layer.overlap(x) < UNFOLDED
    with matmul_precision(form, GPU):
        y = layer(x)
        ours = torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])
    exact = layer.double().cpu()(x.double().cpu())
    theirs = torch.autograd.grad(exact.square().sum(), [x, *layer.parameters()])
    for one, other in zip((y, *ours), (exact, *theirs), strict=True):
        assert (one.double().cpu() - other.cpu()).norm() < (1e-6 if form == "fp32" else 2e-2) * other.norm()


@pytest.mark.parametrize("name", ["DR3-CQL", "DR3-TD3BC", "DR3-IQL"])
def test_compiled_steps_do_the_same(name: str, make: Any):
    spec = find(name, "continuous")
    plain, compiled = (
        make(spec, [{"compile": each, "seed": k} for k in (1, 2)], torch.float64) for each in (False, True)
    )
    compiled.compiler.choice = True
    ours, theirs = trained(compiled, (48, 16)), trained(plain, (48, 16))
    for key in theirs:
        assert_near(ours[key], theirs[key], key)


def test_ranges_are_named(make: Any, monkeypatch: pytest.MonkeyPatch):
    named: list[str] = []
    push = torch.cuda.nvtx.range_push
    monkeypatch.setattr("torch.cuda.nvtx.range_push", lambda name: (named.append(name), push(name))[1])
    population = make(find("DR3-DQN", "discrete"))
    population.update(2)
    assert not named
    monkeypatch.setenv("DR3_RAY_NVTX", "1")
    population.update(2)
    assert named == ["2 steps", "objective", "gradients", "parameters", "objective", "gradients", "parameters"]


def test_images_and_every_member_its_own_settings(make: Any):
    """A pack equals its members trained alone, up to rounding."""
    spec = find("DR3-CQL", "discrete")
    data = load_dataset("embedded:breakout-replay")
    members = [
        {"seed": k, "critic_lr": 1e-4 * (1 + k), "adam_eps": 10.0 ** -(4 + k), "dr3_coeff": 0.1 * k} for k in range(3)
    ]

    def run(some: list[dict[str, Any]]) -> Tensor:
        made = [Member.from_dict(spec, {"hidden_sizes": [32], "batch_size": 16, **each}) for each in some]
        population = Population.of(spec, made, data, data.spaces, to="cuda")
        population.update(48)
        return population.steps.parts["critic"].values

    together = run(members)
    for k, member in enumerate(members):
        torch.testing.assert_close(together[k : k + 1], run([member]), rtol=1e-3, atol=1e-5)
