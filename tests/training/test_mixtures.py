"""Populations on mixtures: packs and lone runs, both sets of weights, resuming, tasks, and probes of every part."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dr3_ray.data import from_arrays, load_dataset
from dr3_ray.data.sampler import best_first
from dr3_ray.errors import UserError
from dr3_ray.quantities import quantity
from dr3_ray.training.batches import Batches
from dr3_ray.training.normalization import EPSILON
from dr3_ray.training.share import Share
from dr3_ray.types import Noise
from tests.training.test_population import assert_equal, everything
from tests.training.twins import check_twins, population

PENDULUM = "embedded:pendulum-replay"
PHASES = f"mix:{PENDULUM}?split=train=1:0.75,{PENDULUM}?take=uniform:0.2=0:0.25,since=5"
TASKS = f"mix:{PENDULUM}?split=train=0.75/swing,{PENDULUM}?split=validation=0.25/hold"

pytestmark = pytest.mark.usefixtures("without_shape_checks")


@pytest.mark.parametrize(
    ("algorithm", "source", "options"),
    [("DR3-IQL", PENDULUM, {}), ("DR3-DQN", "embedded:breakout-replay", {"n_step": 3})],
)
@pytest.mark.parametrize("execution", ["in_turn", "stacked"])
def test_a_pack_is_its_lone_runs_and_goes_on_where_it_was(
    execution: str, algorithm: str, source: str, options: dict[str, Any]
) -> None:
    source = PHASES.replace(PENDULUM, source)
    members = [{"seed": 1, **options}, {"seed": 2, "target_share": 0.5, **options}]
    check_twins(source, members, algorithm, execution, resumed=(3, 7))  # the change of weights is in between


def test_weights_change_at_their_update_however_updates_are_cut() -> None:
    data = load_dataset(PHASES)
    first = data.mixing.rows[0]
    for cuts in ((9,), (2, 1, 6), (5, 4), (1,) * 9):
        made, step = population(PHASES, [{}, {"seed": 3, "target_share": 0.5}]).steps.batches, 0
        shares, drawn = [], made.draws
        made.draws = lambda *where, drawn=drawn, shares=shares: shares.append(drawn(*where)) or shares[-1]
        for n in cuts:
            list(made.stream(slice(None), n, step))
            step += n
        counts = (torch.cat([indices for indices, _ in shares]) >= first).sum(2)
        assert counts.tolist() == [[0, 0]] * 5 + [[4, 8]] * 4


def test_a_share_of_a_target_needs_one() -> None:
    with pytest.raises(
        UserError, match=r"target_share = 0\.3 has no effect on one data set: name a mixture, mix:A=0.9"
    ):
        population(PENDULUM, [{"target_share": 0.3}])
    with pytest.raises(UserError, match="a batch of 16 has no row of pendulum-replay by its weight"):
        population(f"mix:{PENDULUM}?take=first:0.5=0.99,{PENDULUM}=0.01", [{}])


def test_one_data_set_is_itself_to_the_bit() -> None:
    found = [population(source, [{"seed": 4}]) for source in (PENDULUM, f"mix:{PENDULUM}=0.2")]
    for each in found:
        each.update(4)
    assert_equal(*map(everything, found))


def test_learners_have_some_of_each_part() -> None:
    made = population(f"mix:{PENDULUM}?split=train=0.75,{PENDULUM}=0.25", [{}])
    data, options = made.data, made.steps.spec.options.stack([made.members[0].options])
    halves = [
        Batches(data, ("rewards",), options, Noise({}, {}), [0], made.networks, Share(rank, 2), counts=[[[12, 4]]])
        for rank in (0, 1)
    ]
    found = [half.draws(slice(None), 3)[0] for half in halves]
    assert [(each >= data.mixing.rows[0]).sum(2).tolist() for each in found] == [[[2]] * 3] * 2
    assert torch.equal(torch.cat(found, 2), made.steps.batches.draws(slice(None), 3)[0])


def test_the_best_episodes_are_those_of_each_part() -> None:
    source = f"mix:{PENDULUM}?split=train=0.5,{PENDULUM}?split=validation=0.5"
    made = population(source, [{"best_share": 0.1}, {"best_share": 1.0, "seed": 1}], "BC")
    indices = made.steps.batches.draws(slice(None), 200)[0]
    start, wanted = 0, []
    for part in made.data.sources:
        order, (rows,) = best_first(part.episodes, [0.1])
        wanted += (order[:rows] + start).tolist()
        start += len(part)
    assert set(indices[:, 0].flatten().tolist()) <= set(wanted)
    assert ((indices >= made.data.mixing.rows[0]).sum(2) == 8).all()
    assert len(set(indices[:, 1].flatten().tolist()) - set(wanted)) > 500


def test_a_policy_acts_in_the_task_of_the_target() -> None:
    made = population(TASKS, [{"normalize_observations": True}, {"normalize_observations": True, "seed": 1}])
    made.update(3)
    seen = torch.randn(2, 5, 3)
    hold = torch.cat([seen, torch.tensor([0.0, 1.0]).expand(2, 5, 2)], dim=2)
    mean, scale = made.networks.observation_mean, made.networks.observation_scale
    assert mean[3:].tolist() == [0.0, 0.0] and scale[3:].tolist() == [1.0, 1.0]
    rows = made.data.gather(torch.arange(len(made.data)), ["observations"])["observations"].double()
    torch.testing.assert_close(mean[:3].double(), rows[:, :3].mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scale[:3].double(), rows[:, :3].std(0, correction=0) + EPSILON, rtol=1e-5, atol=1e-6)
    acted = made.spec.act(made.networks, (hold - mean) / scale)
    assert torch.equal(made.act(seen), acted)
    swing = torch.cat([seen, torch.tensor([1.0, 0.0]).expand(2, 5, 2)], dim=2)
    assert not torch.equal(made.spec.act(made.networks, (swing - mean) / scale), acted)


def test_a_policy_of_images_acts_in_the_task_of_the_target() -> None:
    breakout = "embedded:breakout-replay"
    tasks = f"mix:{breakout}?split=train=0.75/left,{breakout}?split=validation=0.25/right"
    made = population(tasks, [{}, {"seed": 1}], "DR3-DQN")
    made.update(3)
    seen = load_dataset(breakout).gather(torch.arange(10).view(2, 5), ["observations"])["observations"]
    right = {"observation": seen, "task": torch.tensor([0.0, 1.0]).expand(2, 5, 2)}
    assert torch.equal(made.act(seen), made.spec.act(made.networks, right))
    critic = made.networks.critic
    assert not torch.equal(*(critic({**right, "task": torch.eye(2)[n].expand(2, 5, 2)})[0] for n in range(2)))


@pytest.mark.parametrize("execution", ["in_turn", "stacked"])
def test_packs_of_images_with_tasks_are_their_lone_runs(execution: str) -> None:
    breakout = "embedded:breakout-replay"
    source = f"mix:{breakout}?split=train=0.75/left,{breakout}?split=validation=0.25/right"
    members = [{"seed": 1, "n_step": 3}, {"seed": 2, "target_share": 0.5, "n_step": 3}]
    check_twins(source, members, "DR3-DQN", execution, resumed=(3, 7))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_policy_of_parts_acts_in_the_task_of_the_target(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        seen = {"image": rng.integers(0, 256, (40, 9, 9, 3), np.uint8), "arm": rng.normal(size=(40, 3))}
        acts, gains, ends = rng.uniform(-1, 1, (40, 2)), rng.normal(size=40), np.arange(40) % 8 == 7
        from_arrays(observations=seen, actions=acts, rewards=gains, terminateds=ends, out=tmp_path / name)
    source = f"mix:{tmp_path / 'one'}=1/open,{tmp_path / 'two'}=1/close"
    made = population(source, [{"normalize_observations": True, "hidden_sizes": [16]}])
    made.update(3)
    rows = made.data.gather(torch.arange(len(made.data)), ["observations"])["observations"]
    shown = {name: rows[name][None, :7] for name in ("image", "arm")}
    mean, scale = (getattr(made.networks, f"observation_{each}/arm") for each in ("mean", "scale"))
    torch.testing.assert_close(mean.double(), rows["arm"].double().mean(0), rtol=1e-5, atol=1e-6)
    whole = {"image": shown["image"], "arm": (shown["arm"] - mean) / scale, "task": torch.tensor([[[0.0, 1.0]] * 7])}
    assert torch.equal(made.act(shown), made.spec.act(made.networks, whole))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_policy_of_padded_data_acts_on_the_targets_observations(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, width in (("long", 5), ("short", 3)):
        seen = rng.normal(size=(40, width)).astype(np.float32)
        acts = rng.uniform(-1, 1, (40, width - 2 if name == "short" else 1))
        ends = np.arange(40) % 8 == 7
        gains = rng.normal(size=40)
        out = tmp_path / name
        from_arrays(observations=seen, actions=acts, rewards=gains, terminateds=ends, out=out, action_space="box:-1,1")
    made = population(f"mix:{tmp_path / 'long'}=1,{tmp_path / 'short'}=1,pad=true", [{"normalize_observations": True}])
    made.update(3)
    seen = torch.randn(1, 6, 3)
    padded = torch.cat([seen, torch.zeros(1, 6, 2)], dim=2)
    mean, scale = made.networks.observation_mean, made.networks.observation_scale
    rows = made.data.gather(torch.arange(len(made.data)), ["observations"])["observations"].double()
    torch.testing.assert_close(mean.double(), rows.mean(0), rtol=1e-5, atol=1e-6)
    assert torch.equal(made.act(seen), made.spec.act(made.networks, (padded - mean) / scale))


def test_the_probe_is_equally_of_all_parts_and_each_is_measured() -> None:
    made = population(f"mix:{PENDULUM}?split=train=0.75,{PENDULUM}?take=worst:0.1=0.25", [{}, {"seed": 1}])
    found = made.probe()
    plain = {name for name in found if not name.endswith(("_1", "_2"))}
    assert {"q_mean", "td_error", "dot_product", "effective_rank"} <= plain
    assert found.keys() == plain | {f"{name}_{part}" for name in plain for part in (1, 2)}
    for name in ("q_mean", "td_error"):  # means over equally many rows
        torch.testing.assert_close(found[name], (found[f"{name}_1"] + found[f"{name}_2"]) / 2)
        assert not torch.equal(found[f"{name}_1"], found[f"{name}_2"])
    assert (
        quantity("q_mean_2").label == "Mean Q on the probe batch, part 2 of the mixture"
        and quantity("x_2").label == "x_2"
    )
    batch, _ = made.steps.batches.probe()
    worst = made.data.sources[1].gather(torch.arange(len(made.data.sources[1])), ["rewards"])["rewards"]
    assert np.isin(batch.rewards[0, 1024:].numpy(), worst.numpy()).all()
