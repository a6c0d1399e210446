"""What holds for every algorithm, on every space, for one member and for three, walked in turn and stacked."""

import copy
import dataclasses
import io
from typing import Any

import pytest
import torch
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data.sampler import CountingSampler
from dr3_ray.training.member import first_steps
from dr3_ray.training.population import Population
from dr3_ray.types import Spaces

PROBED = {
    "dot_product", "dot_product_abs", "cosine", "phi_norm", "next_phi_norm", "dot_product_data", "cosine_data",
    "seem_eigenvalue", "seem_normalized", "effective_rank", "q_mean", "td_error",
}  # fmt: skip


@pytest.fixture(params=["in_turn", "stacked"])
def execution(request: Any) -> str:
    return str(request.param)


@pytest.fixture(params=[1, 3])
def k(request: Any) -> int:
    return int(request.param)


def different_members(spec: AlgorithmSpec, k: int) -> list[dict[str, Any]]:
    """Members that differ in their seed and in all numbers that an algorithm has."""
    known = set(spec.options.numbers())
    return [
        {"seed": j}
        | ({"dr3_coeff": 0.1 * j} if spec.has_critic else {})
        | ({"lagrange": "common"} if "lagrange_lr" in known else {})
        | {name: 1e-3 * (1 + j) for name in known if name.endswith("_lr")}
        | {
            name: value
            for name, value in {
                "gamma": 0.9 + 0.03 * j,
                "tau": (0.5, 1.0, 0.25)[j],
                "cql_alpha": 0.5 + j,
                "cql_temperature": 1.0 + j,
                "target_entropy_scale": 1.0 + 0.5 * j,
                "bc_steps": 10.0 * j,
                "adam_eps": 10.0 ** -(4 + j),
                "expectile": 0.5 + 0.2 * j,
                "advantage_temperature": 1.0 + j,
                "weight_clip": 1.0 + 0.5 * j,
                "policy_noise": 0.5 + 0.1 * j,
                "noise_clip": 0.5 + 0.1 * j,
                "td3bc_alpha": 1.0 + j,
                "actor_bc_coeff": 0.1 * j,
                "critic_bc_coeff": 0.1 * j,
                "warm_start_steps": 1.0 * j,
                "brac_alpha": 0.1 + 0.2 * j,
                "entropy_coeff": 0.1 * j,
                "cql_clip_above": 3.0 + j,
                "lagrange_threshold": 1.0 + j,
            }.items()
            if name in known
        }
        for j in range(k)
    ]


def everything(population: Population) -> dict[str, Tensor]:
    """All that training changes, and what it reported."""
    adam = {
        f"{name}.{moment}": values
        for name, part in population.steps.parts.items()
        for moment, values in part.adam.state_dict().items()
    }
    return population.networks.state_dict() | adam | population.metrics | population.probe()


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor], rows: Any = slice(None)) -> None:
    """Equal to the bit in these members."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name][rows], theirs[name][rows]), name


@pytest.mark.spread(2)
def test_every_group_of_parameters_moves(spec: AlgorithmSpec, k: int, execution: str, make_population: Any):
    population = make_population(spec, different_members(spec, k), execution)
    assert set(population.steps.parts) == {
        option.removesuffix("_lr") for option in spec.options.numbers() if option.endswith("_lr")
    }
    before = copy.deepcopy(population.networks.state_dict())
    metrics = population.update(5)
    assert population.step == 5
    for name, values in population.networks.state_dict().items():
        for member in range(k):
            assert not torch.equal(values[member], before[name][member]), name
    for name, values in metrics.items():
        assert values.shape == (k,) and values.isfinite().all(), name
    assert not population.diverged.any()


@pytest.mark.spread(2)
@pytest.mark.usefixtures("without_shape_checks")
def test_targets_move_only_by_their_rule(critic_spec: AlgorithmSpec, k: int, execution: str, make_population: Any):
    population = make_population(critic_spec, different_members(critic_spec, k), execution)
    if "tau" not in critic_spec.options.numbers():
        assert critic_spec.name == "DR3-MC" and not hasattr(population.networks, "target_critic")
        return
    for step in range(1, 8):
        before = copy.deepcopy(population.networks.target_critic.state_dict())
        population.update(1)
        online, target = (population.networks[name].state_dict() for name in ("critic", "target_critic"))
        for name, values in target.items():
            for member, tau in zip(range(k), (0.5, 1.0, 0.25), strict=False):
                if step % 3:
                    assert torch.equal(values[member], before[name][member]), (step, name)
                elif tau == 1.0:
                    assert torch.equal(values[member], online[name][member]), (step, name)
                else:
                    expected = (1.0 - tau) * before[name][member] + tau * online[name][member]
                    torch.testing.assert_close(values[member], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.spread(2)
@pytest.mark.usefixtures("without_shape_checks")
def test_it_continues_from_a_checkpoint_to_the_bit(spec: AlgorithmSpec, k: int, execution: str, make_population: Any):
    first = make_population(spec, different_members(spec, k), execution)
    first.update(7)
    file = io.BytesIO()
    torch.save((first.networks.state_dict(), first.state_dict()), file)
    first.update(8)

    strangers = [member | {"seed": 77 + member["seed"]} for member in different_members(spec, k)]
    second = make_population(spec, strangers, execution)
    second.update(2)
    file.seek(0)
    networks, state = torch.load(file)
    second.networks.load_state_dict(networks)
    second.load_state_dict(state)
    second.update(8)
    assert second.step == first.step == 15
    assert_equal(everything(first), everything(second))


@pytest.mark.spread(2)
@pytest.mark.usefixtures("without_shape_checks")
def test_the_seed_makes_the_run(spec: AlgorithmSpec, execution: str, make_population: Any):
    runs = [make_population(spec, [{"seed": seed}, {"seed": seed}], execution) for seed in (5, 5, 6)]
    for run in runs:
        run.update(10)
    assert_equal(everything(runs[0]), everything(runs[1]))
    other = runs[2].networks.state_dict()
    for name, values in runs[0].networks.state_dict().items():
        assert not torch.equal(values, other[name]), name
        torch.testing.assert_close(values[0], values[1])  # two members of one seed and equal options are twins


@pytest.mark.spread(2)
@pytest.mark.usefixtures("without_shape_checks")
def test_the_number_of_updates_in_one_call_does_not_matter(spec: AlgorithmSpec, execution: str, make_population: Any):
    first, second = (make_population(spec, different_members(spec, 3), execution) for _ in range(2))
    first.update(11)
    second.update(4)
    second.probe()  # looking changes nothing either
    second.update(7)
    assert_equal(everything(first), everything(second))


@pytest.mark.spread(2)
@pytest.mark.usefixtures("without_shape_checks")
def test_a_diverged_member_is_marked_and_harms_nobody(spec: AlgorithmSpec, execution: str, make_population: Any):
    poisoned, healthy = (make_population(spec, different_members(spec, 3), execution) for _ in range(2))
    kept = {name: values.clone() for name, values in poisoned.update(6).items()}
    healthy.update(6)
    part = next(iter(poisoned.steps.parts.values()))
    part.values[1, 0] = torch.nan
    for _ in range(2):
        poisoned.update(6)
        healthy.update(6)
        assert poisoned.diverged.tolist() == [False, True, False]
        for name, values in poisoned.metrics.items():
            assert values[1] == kept[name][1], name
        assert_equal(everything(poisoned), everything(healthy), [0, 2])
    state = poisoned.state_dict()
    restored = make_population(spec, different_members(spec, 3), execution)
    restored.load_state_dict(state)
    assert restored.diverged.tolist() == [False, True, False]


@pytest.mark.usefixtures("without_shape_checks")
def test_infinite_rewards_diverge(critic_spec: AlgorithmSpec, make_population: Any, make_data: Any):
    data = make_data(critic_spec.action_kind)
    for name in ("rewards", "monte_carlo_returns"):
        data.columns[name][::2] = torch.inf
    population = make_population(critic_spec, [{}, {}], data=data)
    population.update(3)
    assert population.diverged.all()


def test_parameters_that_overflow_diverge_at_once(make_population: Any):
    population = make_population(find("DR3-DQN", "discrete"), [{"critic_lr": 1e39}, {}])
    metrics = population.update(1)  # the loss was still finite
    assert metrics["loss_critic"].isfinite().all() and population.diverged.tolist() == [True, False]


@pytest.mark.spread(2)
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
def test_a_member_of_a_pack_equals_the_same_member_alone(
    spec: AlgorithmSpec, dtype: torch.dtype, tolerance: float, make_population: Any
):
    members = different_members(spec, 3)
    packs = [make_population(spec, members, execution, dtype) for execution in ("in_turn", "stacked")]
    alone = [make_population(spec, [member], "in_turn", dtype) for member in members]
    for population in (*packs, *alone):
        population.update(30)
    for pack in packs:
        packed = pack.networks.state_dict() | pack.metrics
        for member, single in enumerate(alone):
            for name, values in (single.networks.state_dict() | single.metrics).items():
                torch.testing.assert_close(packed[name][member], values[0], rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("execution", ["in_turn", "stacked"])
def test_a_step_size_of_zero_holds_one_member_still(spec: AlgorithmSpec, execution: str, make_population: Any):
    rates = [name for name in spec.options.numbers() if name.endswith("_lr")]
    learned = {"lagrange": "common"} if "lagrange_lr" in rates else {}
    population = make_population(spec, [learned, learned | dict.fromkeys(rates, 0.0), learned], execution)
    before = {name: part.values.clone() for name, part in population.steps.parts.items()}
    population.update(3)
    for name, part in population.steps.parts.items():
        moved = (part.values != before[name]).any(1)
        assert moved.tolist() == [True, False, True], name


def test_children_can_be_trained_at_different_steps(execution: str, make_population: Any):
    # the critic every second step, everything else always; a target follows only when its critic moves
    others = frozenset({"actor", "temperature"})
    spec = dataclasses.replace(
        find("DR3-CQL", "continuous"), active=lambda options, step: others | ({"critic"} if step % 2 else set())
    )
    population = make_population(spec, [{"target_period": 1}, {"seed": 1, "target_period": 1}], execution)
    for step in range(4):
        before = {name: part.values.clone() for name, part in population.steps.parts.items()}
        target = population.steps.parts["critic"].target_values.clone()
        population.update(1)
        for name, part in population.steps.parts.items():
            assert (part.values != before[name]).any(1).all() == (name != "critic" or step % 2 == 1), (step, name)
        assert torch.equal(population.steps.parts["critic"].target_values, target) == (step % 2 == 0)


def test_the_discount_of_each_member_enters_its_target(make_population: Any):
    spec = find("DR3-DQN", "discrete")
    metrics = make_population(spec, [{"gamma": 0.0}, {"gamma": 1.0}], "stacked").update(1)
    population = make_population(spec, [{}])
    indices, _ = population.steps.batches.sampler.draw(slice(0, 1))
    rows = population.data.gather(indices, spec.columns)
    values = population.networks.target_critic(rows["next_observations"])[0].amax(-1)[:, 0]
    expected = [rows["rewards"].mean(), (rows["rewards"] + (1.0 - rows["terminateds"]) * values).mean()]
    torch.testing.assert_close(metrics["target"], torch.stack(expected).detach())


@pytest.mark.usefixtures("without_shape_checks")
def test_the_probe_measures_the_same_rows_for_everybody(critic_spec: AlgorithmSpec, make_population: Any):
    members = different_members(critic_spec, 3)
    probes = [make_population(critic_spec, members, execution).probe() for execution in ("in_turn", "stacked")]
    alone = [make_population(critic_spec, [member]).probe() for member in members]
    assert probes[0].keys() == PROBED
    for name in PROBED:
        torch.testing.assert_close(probes[0][name], probes[1][name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(probes[0][name], torch.cat([one[name] for one in alone]))
        assert probes[0][name].shape == (3,) and probes[0][name].isfinite().all()


@pytest.mark.parametrize("options", [{}, {"encoder": "impala", "batch_size": 60}], ids=["flat", "in uneven blocks"])
def test_the_probe_by_definition(options: dict[str, Any], make_population: Any):
    spaces = Spaces((8, 8, 3), "discrete", 3) if options else None
    population = make_population(find("DR3-DQN", "discrete"), [options | {"dr3_coeff": 0.7}], spaces=spaces)
    rows = population.steps.batches.probe()[0]._asdict()
    assert rows["rewards"].shape == (1, 2048)
    critic = population.networks.critic
    (q, phi), next_phi = critic(rows["observations"]), critic(rows["next_observations"])[1]
    taken = q[0, 0].gather(-1, rows["actions"][0, :, None])[:, 0]
    counted = rows["terminateds"][0] == 0.0
    found = population.probe()
    torch.testing.assert_close(found["q_mean"][0], taken.mean().detach())
    torch.testing.assert_close(found["dot_product"][0], (phi * next_phi).sum(-1)[0, 0][counted].mean().detach())
    best = population.networks.target_critic(rows["next_observations"])[0].amax(-1)[0, 0]
    y = rows["rewards"][0] + population.members[0].options.gamma * best * counted
    torch.testing.assert_close(found["td_error"][0], torch.nn.functional.huber_loss(taken, y).detach())


@pytest.mark.parametrize("name", ["DR3-DQN", "DR3-SARSA", "DR3-REM"])
@pytest.mark.parametrize("n_step", [1, 3])
def test_the_probe_has_the_datas_pairs_beside_the_backups(name: str, n_step: int, make_population: Any):
    spec = find(name, "discrete")
    asked = {"critic_actions": "input", "n_step": n_step, "gamma": 0.9, "n_heads": 2}
    population = make_population(spec, [{key: asked[key] for key in asked if key in spec.options.names()}])
    rows, [view] = population.steps.batches.probe()[0]._asdict(), population.steps.views
    critic, known = population.networks.critic, rows["next_actions_valid"] & (rows["terminateds"] == 0.0)
    phi = critic.features(rows["observations"], rows["actions"])[0, 0]
    recorded = critic.features(rows["next_observations"], rows["next_actions"])[0, 0]
    batch, noise = population.steps.batches.probe()
    _, backup = view.base_objective(view.networks, batch, noise, 0)
    next_phi = critic.features(rows["next_observations"], backup.next_actions)[0, 0]
    found = {key: values[0].detach() for key, values in population.probe().items()}
    dots, goes_on = (phi * recorded).sum(-1)[known[0]], backup.in_backup[0] > 0
    torch.testing.assert_close(found["dot_product_data"], dots.mean().detach())
    cosines = torch.nn.functional.cosine_similarity(phi, recorded)[known[0]]
    torch.testing.assert_close(found["cosine_data"], cosines.mean().detach())
    torch.testing.assert_close(found["next_phi_norm"], next_phi.norm(dim=-1)[goes_on].mean().detach())
    assert (found["dot_product_data"] == found["dot_product"]) == (name == "DR3-SARSA")
    steps = 1.0 if rows["n_steps"] is None else rows["n_steps"][0]
    trained = (backup.in_backup[0] + rows["terminateds"][0]).clamp(max=1.0)
    ahead = (0.9**steps * backup.in_backup[0])[:, None] * next_phi - phi
    matrix = (trained[:, None] * phi).T @ ahead / trained.sum()
    largest = torch.linalg.eigvals(matrix).real.max().detach()
    torch.testing.assert_close(found["seem_eigenvalue"], largest, rtol=1e-3, atol=1e-5)
    kernel = (trained[:, None] * ahead) @ (trained[:, None] * phi).T / trained.sum()
    torch.testing.assert_close(found["seem_normalized"], largest / kernel.norm().detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lost", ["columns", "every row"])
def test_where_no_next_action_is_known_there_is_none_to_measure(lost: str, make_population: Any, make_data: Any):
    spec = find("DR3-DQN", "discrete")
    population, data = make_population(spec, [{}, {"seed": 1}]), make_data("discrete")
    if lost == "columns":
        del data.columns["next_actions"], data.columns["next_actions_valid"]
    else:
        data.columns["next_actions_valid"][:] = False
    without = Population(spec, population.networks, population.members, data, population.spaces)
    assert population.probe().keys() == PROBED
    assert without.probe().keys() == PROBED - {"dot_product_data", "cosine_data"}


def test_behaviour_cloning_has_nothing_to_probe(make_population: Any):
    assert make_population(find("BC", "discrete")).probe() == {}


def test_actions_of_evaluation(spec: AlgorithmSpec, make_population: Any):
    population = make_population(spec, different_members(spec, 3))
    observations = torch.randn(3, 5, 2, 3)
    if spec.act is None:
        assert spec.name in ("DR3-SARSA", "DR3-TD", "DR3-MC") and spec.action_kind == "continuous"
        return
    actions = population.act(observations)
    if spec.action_kind == "discrete":
        assert actions.shape == (3, 5) and actions.min() >= 0 and actions.max() < 3
        scores = population.networks["actor" if "actor" in population.steps.parts else "critic"](observations)
        scores = scores[0] if isinstance(scores, tuple) else scores.unsqueeze(1)
        scores = scores.mean(-1) if scores.ndim == 4 and scores.shape[1] != 1 else scores.squeeze(1)
        assert torch.equal(actions, scores.argmax(-1))
    else:
        assert actions.shape == (3, 5, 2)
        torch.testing.assert_close(actions, population.networks.actor.mode(observations))
        assert actions.abs().max() < 1.0


@pytest.mark.spread(2)
@pytest.mark.usefixtures("without_shape_checks")
def test_one_pass_through_both_pairs_is_two_passes(
    critic_spec: AlgorithmSpec, k: int, execution: str, make_population: Any
):
    """φ(s', a') found along with φ(s, a), against a pass of its own."""
    along, apart = (
        make_population(critic_spec, different_members(critic_spec, k), execution, torch.float64) for _ in range(2)
    )
    for view in apart.steps.views:
        for module in view.networks.modules():
            if hasattr(module, "looks_ahead"):
                module.looks_ahead = False
    for each in (along, apart):
        each.update(6)
    ours, theirs = everything(along), everything(apart)
    for name, values in ours.items():
        torch.testing.assert_close(values, theirs[name], rtol=1e-8, atol=1e-10, msg=name)


def test_objectives_depend_on_no_step_after_their_first_ones(spec: AlgorithmSpec, make_population: Any):
    """But on what a step trains: graphs of a GPU and compiled steps rest on it."""
    known = {name for name, _ in spec.options()}
    members = [
        {name: 3 for name in known if name.endswith("_steps")} | ({"dr3_warmup_steps": 4} if spec.has_critic else {})
    ]
    population = make_population(spec, members, dtype=torch.float64)
    settled = first_steps(population.members)
    assert settled == 3 * len(members[0]) + (1 if spec.has_critic else 0)
    view, (batch, noise) = population.steps.views[0], next(population.steps.batches.stream(slice(0, 1), 1))
    later = {step: view.objective(view.networks, batch, noise, step)[0] for step in range(settled, settled + 13)}
    for step, terms in later.items():
        same = [
            other for other in later if population.steps.active(other).keys() == population.steps.active(step).keys()
        ]
        for name, loss in terms.losses.items():
            assert all(torch.equal(loss, later[other].losses[name]) for other in same), name


def test_losses_of_parts_that_do_not_train_reach_nothing_that_does(spec: AlgorithmSpec, make_population: Any):
    """They are not in the sum of which gradients are found."""
    population = make_population(spec, different_members(spec, 2), "stacked")
    [view] = population.steps.views
    for step in range(8):
        batch, noise = next(population.steps.batches.stream(view.rows, 1))
        active = population.steps.active(step)
        total, *gradients = population.steps.gradients(population.steps.terms, view, batch, noise, step, active)[1]
        every, _ = view.objective(view.networks, batch, noise, step)
        trained = [parameter for name in active for parameter in view.parameters[name]]
        losses = sum(every.losses.values())
        theirs = torch.autograd.grad(losses.sum(), trained, materialize_grads=True)
        assert all(map(torch.equal, gradients, theirs)) and len(gradients) == len(theirs)
        if active.keys() == population.steps.parts.keys():
            assert torch.equal(total, losses.detach())
        population.update(1)


def test_sums_and_targets_of_one_call_are_those_of_many(make_population: Any):
    """Adam for all members at once, on a CPU, and counted draws: what a GPU does, but for its kernels."""
    spec = find("DR3-IQL", "continuous")
    together, apart = (make_population(spec, different_members(spec, 3), "stacked", torch.float64) for _ in range(2))
    for part in together.steps.parts.values():
        part.adam.together = True
    for each in (together, apart):
        sampler = each.steps.batches.sampler
        each.steps.batches.sampler = CountingSampler(
            sampler.rows, sampler.batch_size, sampler.noise, [0, 1, 2], torch.float64
        )
        each.update(12)
    expected = everything(apart)
    for name, values in everything(together).items():
        torch.testing.assert_close(values, expected[name], rtol=1e-7, atol=1e-9, msg=name)
