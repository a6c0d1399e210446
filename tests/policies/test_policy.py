"""`load_policy`: which member is meant, and that it acts as the trained networks do, in the environment's units."""

import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from dr3_ray import load_policy
from dr3_ray.data.spaces import SpaceSpec
from dr3_ray.errors import UserError
from dr3_ray.report.selection import select
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.identity import configuration
from dr3_ray.runs.index import read_index
from dr3_ray.stats import iqm
from dr3_ray.sweep.trained import trained_networks
from dr3_ray.training.population import act
from dr3_ray.training.saved import PLACE
from tests.policies.conftest import PLAYERS, untrained

PLAIN = SpaceSpec.from_gymnasium(spaces.Box(-1, 1, (3,)))
ACTIONS = {
    "continuous": SpaceSpec.from_gymnasium(spaces.Box(np.array([-2.0, 0.0], "f4"), np.array([3.0, 10.0], "f4"))),
    "discrete": SpaceSpec.from_gymnasium(spaces.Discrete(4, start=2)),
}


def last_returns(run: Path) -> dict[str, float]:
    rows = read_histories(run).to_pandas().sort_values("step").groupby("member").last()
    return rows["episode_return_mean"].to_dict()


def test_the_best_is_the_best_seed_of_the_best_configuration(run):
    returns = last_returns(run)
    configurations = {}
    for record in read_index(run):
        configurations.setdefault(configuration(record["config"]), []).append(record["member"])
    best = max(configurations.values(), key=lambda members: iqm([returns[each] for each in members]))
    policy = load_policy(run)
    records = {record["member"]: record["config"] for record in read_index(run)}
    wanted = records[max(best, key=returns.__getitem__)]
    assert {name: policy.config[name] for name in ("dr3_coeff", "seed")} == {
        name: wanted[name] for name in ("dr3_coeff", "seed")
    }
    assert f"{max(returns[each] for each in best):.4g}" in policy.chosen
    assert load_policy(run, objective="td_error").chosen.startswith(
        "of 2 configurations the one with the best td_error"
    )


def test_members_are_named_by_hash_by_values_and_by_place(run):
    for record in read_index(run):
        config = record["config"]
        values = {"dr3_coeff": config["dr3_coeff"], "seed": config["seed"]}
        for policy in (load_policy(run, record["member"][:9]), load_policy(run, values)):
            assert {name: policy.config[name] for name in values} == values
    checkpoint = max(path for path in (run / "checkpoints").glob("*/*") if (path / PLACE).is_dir())
    assert [load_policy(checkpoint, place).config["seed"] for place in range(4)] == [0, 1, 0, 1]
    assert load_policy(checkpoint, {"dr3_coeff": 0.1, "seed": 1}).config["dr3_coeff"] == 0.1


def test_a_member_is_also_what_it_was_after_so_many_updates(run):
    member = read_index(run)[0]["member"]
    now, then = load_policy(run, member), load_policy(run, f"{member[:9]}@20")
    assert then.config == now.config and then.chosen == f"named by its hash {member}, after 20 updates"
    both = [torch.cat([each.flatten() for each in policy.networks.parameters()]) for policy in (then, now)]
    assert not torch.equal(*both)
    again = load_policy(run, f"{member}@40")
    assert torch.equal(torch.cat([each.flatten() for each in again.networks.parameters()]), both[1])
    with pytest.raises(UserError, match=f"{member} of .* has no checkpoint after 30 updates: there are 20, 40; "):
        load_policy(run, f"{member}@30")
    with pytest.raises(UserError, match="'best@x' is not of the form HASH@UPDATES"):
        load_policy(run, "best@x")


def test_it_acts_as_the_networks_that_were_trained(run):
    ((trained, members),) = trained_networks(run)
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    every = act(trained.spec, trained.networks, torch.from_numpy(observations).expand(4, 50, 4))
    q, phi = trained.networks.critic(torch.from_numpy(observations).expand(4, 50, 4))
    for row, member in enumerate(members):
        policy = load_policy(run, member)
        actions = policy.act(observations)
        assert actions.tolist() == every[row].tolist()
        assert [policy.act(each) for each in observations] == every[row].tolist()
        np.testing.assert_allclose(policy.q(observations, actions), q[row, 0].amax(-1).detach(), rtol=1e-5)
        np.testing.assert_allclose(policy.features(observations, actions)[:, 0], phi[row, 0].detach(), atol=1e-6)
        assert policy.q(observations[0], actions[0]) == pytest.approx(q[row, 0, 0].max().item())
        assert policy.features(observations[0], actions[0]).shape == (1, 8)


def test_damaged_checkpoints_are_told_from_none(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    for path in copy.glob("checkpoints/*/*/**/*.safetensors"):
        path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match="has only damaged checkpoints: choose another one, or train it again in"):
        load_policy(copy)
    index, written = copy / "index.jsonl", (copy / "index.jsonl").read_text()
    index.write_text(written.replace('"finished"', '"failed"'))
    with pytest.raises(UserError, match="has only damaged checkpoints: `dr3-ray sweep --resume"):
        load_policy(copy, read_index(copy)[0]["member"])
    index.write_text(written)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint here: sweep with checkpoints"):
        load_policy(copy)


@pytest.mark.parametrize("damage", ["cut short", "gone"])
def test_an_earlier_checkpoint_than_the_last_is_told(run, tmp_path, damage):
    """Its policy is not what the score was measured of."""
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    last = max(int(path.name) for path in copy.glob("checkpoints/*/*"))
    assert "updates" not in load_policy(copy).chosen
    for path in copy.glob(f"checkpoints/*/{last:010d}"):
        if damage == "gone":
            shutil.rmtree(path)
        else:
            (state := next(path.rglob("*.safetensors"))).write_bytes(state.read_bytes()[:600])
    policy = load_policy(copy)
    assert (
        policy.chosen == load_policy(run).chosen + "; after 20 of 40 updates, for no later checkpoint is here and whole"
    )
    found = select(copy, ["td_error", "start_value"])
    assert any(note.startswith("of 4 members the last checkpoint is not here or damaged") for note in found.notes)


def test_tensors_and_lists_are_observations_too(run):
    policy, observation = load_policy(run), [0.1, -0.2, 0.3, 0.0]
    wanted = policy.act(np.array(observation, "f4"))
    assert policy.act(observation) == policy.act(torch.tensor(observation, requires_grad=True)) == wanted


def test_an_episode_is_played_by_it(run):
    policy, environment = load_policy(run), gym.make("CartPole-v1")
    assert policy.observation_space == environment.observation_space
    assert policy.action_space == environment.action_space
    observation, over = environment.reset(seed=0)[0], False
    while not over:
        action = policy.act(observation)
        assert environment.action_space.contains(action)
        observation, _, *ends, _ = environment.step(action)
        over = any(ends)


@pytest.mark.parametrize("form", PLAYERS, ids=[f"{form.name}-{form.action_kind}" for form in PLAYERS])
def test_actions_of_every_algorithm_are_the_environments(form):
    actions = ACTIONS[form.action_kind]
    policy = untrained(form, PLAIN, actions)
    observations = np.random.default_rng(0).uniform(-1, 1, (64, 3)).astype(np.float32)
    space = actions.to_gymnasium()
    assert all(space.contains(each) for each in policy.act(observations))
    assert space.contains(policy.act(observations[0]))
    try:
        drawn = [
            policy.act(observations, sample=True, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
        ]
    except UserError as error:
        assert str(error) == f"{form.name} has a deterministic policy: leave out `sample`"
    else:
        assert all(space.contains(each) for each in drawn[0])
        np.testing.assert_array_equal(drawn[0], drawn[1])
        assert (drawn[0] != drawn[2]).any()
    if form.has_critic:
        assert np.isfinite(policy.q(observations, policy.act(observations))).all()
        assert policy.features(observations, policy.act(observations)).shape[::2] == (64, 8)
    else:
        with pytest.raises(UserError, match="BC has no critic"):
            policy.q(observations, policy.act(observations))


def test_samples_follow_the_distribution():
    """The share of each choice is the probability that the logits give it, within five standard deviations."""
    form = next(form for form in PLAYERS if (form.name, form.action_kind) == ("BC", "discrete"))
    policy = untrained(form, PLAIN, ACTIONS["discrete"])
    observations = np.full((20_000, 3), 0.3, dtype=np.float32)
    drawn = policy.act(observations, sample=True, generator=torch.Generator().manual_seed(0)) - 2
    seen = (torch.from_numpy(observations[:1]) - 0.5) / 2.001
    wanted = policy.networks.actor(seen[None])[0, 0].softmax(-1).numpy()
    if not policy.config["normalize_observations"]:
        wanted = policy.networks.actor(torch.from_numpy(observations[:1])[None])[0, 0].softmax(-1).numpy()
    found = np.bincount(drawn, minlength=4) / len(drawn)
    assert (np.abs(found - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / len(drawn))).all()


def test_parts_of_a_dict_observation():
    both = spaces.Dict({"camera": spaces.Box(0, 255, (8, 8, 3), np.uint8), "joints": spaces.Box(-1, 1, (2,))})
    form = next(form for form in PLAYERS if form.name == "DR3-DQN")
    policy = untrained(form, SpaceSpec.from_gymnasium(both), ACTIONS["discrete"])
    both.seed(0)
    samples = [both.sample() for _ in range(5)]
    batch = {name: np.stack([each[name] for each in samples]) for name in both.spaces}
    assert policy.act(batch).tolist() == [policy.act(each) for each in samples]


BAD = [
    (lambda policy: policy.act(np.zeros(5, "f4")), r"observation has shape \(5,\): give shape \(4,\), or \('N', 4\)"),
    (lambda policy: policy.act(np.full(4, np.nan, "f4")), "observation is not of finite numbers: correct it"),
    (lambda policy: policy.act(["a", "b", "c", "d"]), "observation is not of finite numbers"),
    (lambda policy: policy.q(np.zeros(4, "f4"), 7), "action 7 is outside the space Discrete"),
    (lambda policy: policy.q(np.zeros((2, 4), "f4"), [0]), r"action has shape \(1,\): give \(2,\), one for each"),
    (lambda policy: policy.q(np.zeros((2, 4), "f4"), 1), r"action has shape \(\): give \(2,\)"),
    (lambda policy: policy.q(np.zeros(4, "f4"), [1]), r"action has shape \(1,\): give \(\)"),
    (lambda policy: policy.act(np.zeros((0, 4), "f4")), "observation is an empty batch: give at least one"),
    (lambda policy: policy.act([[0.0] * 4, [0.0] * 3]), "observation is no array"),
    (lambda policy: policy.act(np.zeros(4, "f4"), sample=True), "DR3-CQL has a deterministic policy"),
]


@pytest.mark.parametrize(("use", "said"), BAD, ids=range(len(BAD)))
def test_what_is_no_observation_or_action_is_one_line(run, use, said):
    with pytest.raises(UserError, match=said):
        use(load_policy(run))


def test_what_no_member_is_meant_by_is_one_line(run, tmp_path):
    for member, said in (
        ("zzz", "0 members of .* have a hash that begins with 'zzz'"),
        ("", "4 members of"),
        (3, "members have no places"),
        ({"dr3_coeff": 7.0}, "no member of .* has dr3_coeff=7.0"),
        ({"nothing": 1}, "a configuration has no 'nothing': it has "),
        (None, "member None is no hash, place or mapping"),
        (1.0, "member 1.0 is no hash, place or mapping"),
    ):
        with pytest.raises(UserError, match=said):
            load_policy(run, member)
    with pytest.raises(UserError, match="unknown metric 'td_eror': did you mean 'td_error'"):
        load_policy(run, objective="td_eror")
    with pytest.raises(UserError, match="unknown metric 'td_eror': did you mean 'td_error'"):
        load_policy(run, {"dr3_coeff": 0.1, "seed": 1}, "td_eror")  # which leave no choice
    with pytest.raises(UserError, match="objective 'td_error' says which of several members is best, and one is named"):
        load_policy(run, read_index(run)[0]["member"], "td_error")
    with pytest.raises(UserError, match="neither a run directory nor a checkpoint"):
        load_policy(tmp_path)
    with pytest.raises(UserError, match="nowhere:// is no store: give"):
        load_policy("nowhere://bucket/run")
    with pytest.raises(UserError, match="s3://bucket/run is a URI: give a path"):
        load_policy(Path("s3://bucket/run"))  # which has lost a slash


ALONE = """
import sys
sys.modules["ray"] = None  # an import of it fails
import numpy as np
from dr3_ray import load_policy
print(load_policy(sys.argv[1]).act(np.zeros(4, "f4")))
"""


def test_it_needs_no_ray(run):
    done = subprocess.run([sys.executable, "-c", ALONE, str(run)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip() in ("0", "1")) == (0, True), done.stderr
