"""MEMO: a step is exactly that of the equation, is undone, and its controls are what they are called."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from dr3_ray.data.spaces import SpaceSpec
from dr3_ray.errors import UserError
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.evaluation.rollout import Rollout
from dr3_ray.policies.adapting import Averaging, DotProducts, Plain, Stepping, consecutive_dots, play_adapted
from dr3_ray.policies.memo import Memo, MemoOptions, preferences
from dr3_ray.policies.playing import play
from dr3_ray.training.normalization import as_trained
from dr3_ray.training.population import act
from tests.policies.conftest import PLAYERS, untrained
from tests.policies.test_playing import command

BREAKOUT = SpaceSpec.box(0, 1, (10, 10, 4), "bool")
PIXELS = SpaceSpec.box(0, 255, (12, 12, 3), "uint8")
ACTIONS = SpaceSpec.discrete(3)
DISCRETE = [form for form in PLAYERS if form.action_kind == "discrete"]
NAMES = [form.name for form in DISCRETE]


def memo_of(form, observations=BREAKOUT, options=None, **settings):
    return Memo(untrained(form, observations, ACTIONS, **(options or {})), MemoOptions.from_dict(settings))


def some(space, count, seed=0):
    """Observations [K, 1, *observation] as a rollout gives them."""
    drawn = torch.randint(0, 256 if space is PIXELS else 2, (count, 1, *space.shape), generator=seeded(seed))
    return drawn.to(torch.uint8 if space is PIXELS else torch.float32)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def episodes(memo, method, count=3, dot_products=None):
    rollout = Rollout(lambda: make_environment("minatar:breakout"), memo.policy.recorded, 1, count)
    more = (DotProducts() if dot_products is None else dot_products,) if method is Stepping else ()
    return method(memo, rollout, range(7, 7 + count), *more)


def by_hand(memo, copies, lr, tau):
    """The weights after a step of one member, by plain autograd in float64."""
    networks = copy.deepcopy(memo.policy.networks).double().requires_grad_(True)
    seen = copies if copies.dtype == torch.uint8 else copies.double()
    probabilities = (preferences(networks, as_trained(networks, seen))[0] / tau).softmax(-1)
    mean = probabilities.mean(0)
    (-(mean * mean.log()).sum()).backward()
    child = networks.actor if hasattr(networks, "actor") else networks.critic
    return [w.detach() - lr * (0.0 if w.grad is None else w.grad) for w in child.parameters()]


@settings(max_examples=25, deadline=None)
@given(
    form=st.sampled_from(DISCRETE),
    count=st.integers(1, 3),
    n=st.integers(1, 12),
    lr=st.sampled_from([0.0, 1e-4, 0.005, 0.1]),
    tau=st.sampled_from([0.2, 1.0, 5.0]),
    space=st.sampled_from([BREAKOUT, PIXELS]),
    encoder=st.sampled_from(["flat", "cog"]),
    seed=st.integers(0, 999),
)
def test_a_step_is_that_of_autograd_and_members_do_not_mix(form, count, n, lr, tau, space, encoder, seed):
    tau = 1.0 if form.networks.__module__.endswith((".bc", ".iql", ".awac")) else tau
    memo = memo_of(form, space, {"encoder": encoder}, copies=n, lr=lr, tau=tau)
    trained = [weight.clone() for weight in memo.trained()]
    networks = memo.networks([weight.expand(count, *weight.shape[1:]) for weight in trained])
    copies = memo.copies(some(space, count, seed), [seeded(seed + row) for row in range(count)])
    assert copies.shape == (count, n, *space.shape)
    memo.step(networks, copies)
    for row in range(count):
        for mine, wanted in zip(memo.weights(networks), by_hand(memo, copies[[row]], lr, tau), strict=True):
            assert (mine[row].double() - wanted[0]).abs().max() < 1e-6
            assert lr > 0.0 or torch.equal(mine[row].double(), wanted[0])
    assert all(map(torch.equal, memo.trained(), trained))  # the policy itself is never touched
    again = memo.networks([weight.expand(count, *weight.shape[1:]) for weight in trained])
    assert all(torch.equal(mine[row], weight[0]) for mine, weight in zip(memo.weights(again), trained, strict=True)
               for row in range(count))  # fmt: skip


@pytest.mark.parametrize("form", DISCRETE, ids=NAMES)
@pytest.mark.parametrize("actions", [{}, {"critic_actions": "input"}], ids=["heads", "input"])
def test_the_greatest_preference_is_the_action_and_lr_0_is_the_plain_policy(form, actions):
    if actions and not form.has_critic:
        return
    memo = memo_of(form, options=actions, lr=0.0)
    seen, places = some(BREAKOUT, 16), torch.arange(16)
    policy = memo.policy
    plain = act(policy.spec, policy.networks, seen.transpose(0, 1))[0]
    with torch.no_grad():
        assert torch.equal(
            preferences(policy.networks, as_trained(policy.networks, seen.transpose(0, 1)))[0].argmax(-1), plain
        )
    chosen = [episodes(memo, method, 16).choose(seen, places) for method in (Plain, Stepping)]
    assert torch.equal(*chosen) and torch.equal(chosen[0], plain)
    assert chosen[0].tolist() == policy.act(seen[:, 0].bool().numpy()).tolist()


@pytest.mark.parametrize("form", DISCRETE[::3], ids=NAMES[::3])
def test_averaging_takes_the_mean_of_distributions(form):
    memo = memo_of(form, copies=5)
    seen, places = some(BREAKOUT, 4), torch.tensor([2, 0, 1, 3])
    chosen = episodes(memo, Averaging, 4).choose(seen, places)
    copies = episodes(memo, Averaging, 4).copies(seen, places)
    for row in range(4):
        probabilities = memo.logits(memo.policy.networks, copies[[row]])[0].softmax(-1).mean(0)
        assert int(chosen[row]) == int(probabilities.argmax())


def test_weights_are_restored_for_every_observation_or_for_every_episode():
    """Big steps on one observation again and again: its entropy falls within an episode, and then begins anew."""
    for restore in ("observation", "episode"):
        memo = memo_of(DISCRETE[NAMES.index("DR3-DQN")], lr=0.003, tau=0.1, restore=restore)
        seen, places, entropies = some(BREAKOUT, 3), torch.arange(3), []
        way = episodes(memo, Stepping)
        before = [weight.clone() for weight in memo.trained()]
        for _ in range(4):
            way.choose(seen, places)
            kept = [weight[places] for weight in way.weights]
            probabilities = memo.logits(memo.networks(kept), seen).softmax(-1).detach()
            entropies.append(float(torch.special.entr(probabilities).sum()))
        same = [torch.equal(weight, first.expand_as(weight)) for weight, first in zip(way.weights, before, strict=True)]
        assert all(map(torch.equal, memo.trained(), before))
        if restore == "observation":
            assert all(same) and len(set(entropies)) == 1
        else:
            assert not all(same) and entropies[0] > entropies[1] > entropies[3]
            fresh = episodes(memo, Stepping)
            assert all(
                torch.equal(mine, first.expand_as(mine)) for mine, first in zip(fresh.weights, before, strict=True)
            )


def test_dot_products_are_those_of_consecutive_observations_before_and_after_the_step():
    memo, measured = memo_of(DISCRETE[NAMES.index("DR3-CQL")], lr=0.1, tau=0.1), DotProducts()
    way, places = episodes(memo, Stepping, 2, measured), torch.arange(2)
    first, second = some(BREAKOUT, 2, 1), some(BREAKOUT, 2, 2)
    first_actions, actions = way.choose(first, places), way.choose(second[:1], places[:1])
    assert measured.pairs == 1  # the other episode has had one observation
    critic = memo.policy.networks.critic
    phi = [critic.features(part[:1], actions[:1, None])[0, 0, 0] for part in (first, second)]
    assert measured.before == pytest.approx(float(phi[0] @ phi[1]), rel=1e-5)
    assert measured.after != pytest.approx(measured.before, rel=1e-5)
    again = episodes(memo, Stepping, 2)
    again.copies(first, places)  # the draws of the first observation
    networks = memo.networks([weight[:1] for weight in memo.trained()])
    memo.step(networks, again.copies(second[:1], places[:1]))
    taken = torch.stack([first_actions[:1], actions], dim=1)
    assert measured.after == pytest.approx(
        float(consecutive_dots(networks, torch.cat([first[:1], second[:1]], 1), taken))
    )


@pytest.mark.parametrize("name", ["DR3-QRDQN", "DR3-IQL", "BC"])
def test_results_repeat_and_lr_0_gives_the_plain_returns(name):
    form = DISCRETE[NAMES.index(name)]
    memo = memo_of(form, lr=0.0, copies=3, augmentations="crop:2")
    one, two = (play_adapted(memo, "minatar:breakout", count, seed=5) for count in (4, 2))
    for way in ("plain", "averaging", "memo"):
        assert getattr(one, way).seeds.tolist() == [5, 6, 7, 8]
        for field in ("returns", "lengths"):  # whoever else plays
            assert getattr(getattr(one, way), field)[:2].tolist() == getattr(getattr(two, way), field).tolist()
    assert all(map(np.array_equal, one.plain, one.memo))
    assert all(map(np.array_equal, one.plain, play(memo.policy, "minatar:breakout", 4, seed=5)))
    dots = one.dot_products
    assert dots.before == dots.after and dots.pairs == (one.memo.lengths - 1).sum() * form.has_critic


CARTPOLE = SpaceSpec.box(-1, 1, (4,), "float32")
BOX = SpaceSpec.from_gymnasium(spaces.Box(-1, 1, (2,), np.float32))
CQL, CLONE = DISCRETE[NAMES.index("DR3-CQL")], DISCRETE[NAMES.index("BC")]
ANY = SpaceSpec.box(-np.inf, np.inf, (8, 8, 3), "float32")


@pytest.mark.parametrize(
    ("form", "observations", "actions", "settings", "said"),
    [
        (PLAYERS[-1], PIXELS, BOX, {}, "on Box actions has none: leave out --adapt"),
        (CQL, CARTPOLE, ACTIONS, {}, r"the data set data has .* shape \(4,\), which are no images: leave out --adapt"),
        (CLONE, PIXELS, ACTIONS, {"tau": 2}, r"tau divides Q\(s, ·\), and BC has probabilities of its own: leave it"),
        (CQL, BREAKOUT, ACTIONS, {"augmentations": "noise"}, "augmentation noise .* are 0 or 1: use crop or cutout"),
        (CQL, ANY, ACTIONS, {"augmentations": "crop,brightness"}, "have no common bounds: use crop or cutout"),
        (CQL, PIXELS, ACTIONS, {"augmentations": "flip"}, "unknown augmentation 'flip'"),
        (CQL, PIXELS, ACTIONS, {"restore": "never"}, "restore must be one of observation, episode"),
        (CQL, PIXELS, ACTIONS, {"lr": -1}, r"lr = -1 is outside \[0, inf\]"),
        (CQL, PIXELS, ACTIONS, {"n": 4}, "unknown option 'n'"),
    ],
)  # fmt: skip
def test_what_does_not_apply_is_refused_in_a_line(form, observations, actions, settings, said):
    assert form.action_kind == ("continuous" if actions is BOX else "discrete")
    with pytest.raises(UserError, match=said):
        Memo(untrained(form, observations, actions), MemoOptions.from_dict(settings))


def test_a_step_too_large_is_told():
    memo = memo_of(CQL, lr=1e30)
    with pytest.raises(UserError, match=r"after a step of lr 1e\+30, gives NaN or infinity: give a smaller one"):
        way, seen = episodes(memo, Stepping), some(BREAKOUT, 3)
        way.choose(seen, torch.arange(3))


def test_of_a_dict_the_images_alone_are_augmented():
    space = SpaceSpec.from_gymnasium(
        spaces.Dict({"eye": spaces.Box(0, 255, (12, 12, 3), np.uint8), "speed": spaces.Box(-1, 1, (3,), np.float32)})
    )
    memo = Memo(untrained(CQL, space, ACTIONS), MemoOptions(copies=6))
    seen = {"eye": some(PIXELS, 2), "speed": torch.rand(2, 1, 3)}
    copies = memo.copies(seen, [seeded(0), seeded(1)])
    assert copies["eye"].shape == (2, 6, 12, 12, 3) and copies["eye"].dtype == torch.uint8
    assert len(copies["eye"].flatten(0, 1).flatten(1).unique(dim=0)) == 12
    assert torch.equal(copies["speed"], seen["speed"].expand(-1, 6, -1))
    networks = memo.networks([weight.expand(2, *weight.shape[1:]) for weight in memo.trained()])
    memo.step(networks, copies)
    assert not any(torch.equal(stepped, memo.trained()[0][0]) for stepped in memo.weights(networks)[0])


def test_all_that_apply_is_the_default():
    assert [str(change) for change in memo_of(CQL).augmentations] == ["crop:1", "cutout:0.25"]
    assert [str(change) for change in memo_of(CQL, PIXELS).augmentations] == [
        "crop:1", "cutout:0.25", "brightness:0.1", "noise:0.02",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_command_prints_and_writes_all_three_ways(breakout, tmp_path, capsys):
    file = tmp_path / "returns.parquet"
    asked = [
        "evaluate",
        breakout,
        "--env",
        "minatar:breakout",
        "--episodes",
        3,
        "--adapt",
        "memo",
        "--shift",
        "shift:1",
    ]
    asked += ["--set", "lr=0.1", "--set", "copies=4"]
    assert command(*asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["plain", "averaging", "MEMO"]
    assert lines[5] == "MEMO: copies 4, lr 0.1, tau 1.0, restore observation, augmentations crop:1 cutout:0.25"
    assert lines[6].startswith("dot product φ(s, a)·φ(s', a') of consecutive observations: ")
    assert command(*asked, "--json", "--every-return", file) == 0
    told, kept = json.loads(capsys.readouterr().out), pd.read_parquet(file)
    assert told["shifts"] == ["shift:1"] and told["adapt"]["copies"] == 4
    assert told["dot_product"].keys() == {"before", "after", "pairs"}
    for name, way in told["played"].items():
        rows = kept[kept["played"] == name]
        assert rows["episode_return"].tolist() == way["returns"] and rows["seed"].tolist() == [0, 1, 2]
        assert way["minus_plain"]["value"] == pytest.approx(
            np.mean(way["returns"]) - told["played"]["plain"]["mean_return"]["value"]
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--adapt", "memo"], "the data set cartpole has observations of shape (4,), which are no images"),
        (["--adapt", "tent"], "unknown adaptation 'tent'"),
        (["--adapt", "memo", "--video", "x"], "--adapt plays every episode in three ways, and --video films one"),
        (["--adapt", "memo", "--set", "lr=fast"], "lr must be a finite number"),
        (["--shift", "shift:1"], "environment CartPole-v1 has observations of shape (4,), which are no images"),
        (["--shift", "rain:1"], "unknown shift 'rain'"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(run, words, said, capsys):
    assert command("evaluate", run, "--episodes", 1, *words) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {said}")
