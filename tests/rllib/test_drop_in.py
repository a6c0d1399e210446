"""DR3 in RLlib's own learners: the loss and its gradients against what is worked out beside them, then end to end."""

import ast
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.sac_learner import QF_TARGET_NEXT
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor, nn

import dr3_ray
from dr3_ray.regularizers.dr3 import DR3
from dr3_ray.rllib import DQNWithFeatures, SACWithFeatures, with_dr3_learner
from dr3_ray.rllib.drop_in import OPTIONS, ExposesFeatures, penultimate
from dr3_ray.rllib.learner import PopulationLearner

EPISODES = {"type": "EpisodeReplayBuffer", "capacity": 100}
PAGE = Path(__file__).parents[2] / "docs" / "drop_in.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
RELU = {"fcnet_hiddens": [16, 8], "fcnet_activation": "relu", "fusionnet_activation": "relu"}
STOCK: dict[str, Any] = {
    "dqn": (DQNConfig, "CartPole-v1", DQNTorchLearner, DQNWithFeatures),
    "sac": (SACConfig, "Pendulum-v1", SACTorchLearner, SACWithFeatures),
    "discrete sac": (SACConfig, "CartPole-v1", SACTorchLearner, SACWithFeatures),
}


def learner_of(
    kind: str, options: dict[str, Any] | None, model: dict[str, Any] = RELU, module: Any = None, **training: Any
) -> Any:
    """A built learner of stock RLlib, with DR3 where there are options."""
    config_class, env, learner, module_with_features = STOCK[kind]
    config = config_class().environment(env).debugging(seed=0).training(**training)
    if kind != "dqn":
        config = config.training(lr=None)
    if options is not None:
        config = config.learners(learner_class=with_dr3_learner(learner), learner_config_dict=options)
        module = module or module_with_features
    config = config.rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=model))
    return config.build_learner(env=gym.make(env))


def batch_of(kind: str, rows: tuple[int, ...] = (6,), n_step: int = 1) -> dict[str, Any]:
    """Rows as RLlib's replay buffer and learner connector give them; some of them end an episode."""
    env = gym.make(STOCK[kind][1])
    rng = np.random.default_rng(1)
    size = env.observation_space.shape[0]  # type: ignore[index]
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    return {
        "obs": rng.normal(size=(*rows, size)).astype("f4"),
        "new_obs": rng.normal(size=(*rows, size)).astype("f4"),
        "actions": rng.integers(2, size=rows) if discrete else rng.uniform(-1, 1, (*rows, 1)).astype("f4"),
        "rewards": rng.normal(size=rows).astype("f4"),
        "terminateds": rng.random(rows) < 0.4,
        "truncateds": rng.random(rows) < 0.4,
        "weights": rng.uniform(0.5, 1.0, rows).astype("f4"),
        "n_step": np.full(rows, n_step),
    }


def tensors(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.as_tensor(values) for name, values in batch.items()}


def update(learner: Any, batch: dict[str, Any]) -> dict[str, float]:
    """One gradient step; what RLlib logs."""
    rows = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, len(batch["obs"]))
    results = learner.update(batch=rows, timesteps={"num_env_steps_sampled_lifetime": 0})[DEFAULT_MODULE_ID]
    return {name: value.peek() for name, value in results.items() if name != "td_error"}


def loss_and_gradients(learner: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor], dict[str, Any]]:
    """One step up to its gradients, with the policy's noise of seed 3."""
    torch.manual_seed(3)
    batches = {DEFAULT_MODULE_ID: tensors(batch)}
    out = learner.module.forward_train(batches)
    losses = learner.compute_losses(fwd_out=out, batch=batches)
    gradients = learner.compute_gradients(losses)
    named = learner.module[DEFAULT_MODULE_ID].named_parameters()
    kept = {name: gradients[ref].clone() for name, p in named if (ref := learner.get_param_ref(p)) in gradients}
    return losses[DEFAULT_MODULE_ID].detach(), kept, out[DEFAULT_MODULE_ID]


def mean_dot(phi: Tensor, next_phi: Tensor, counts: Any) -> Tensor:
    """The definition, row by row."""
    rows = [row @ next_row for row, next_row, count in zip(phi, next_phi, counts, strict=True) if count]
    return torch.stack(rows).sum() / len(rows)


@pytest.mark.parametrize("hidden", [[], [5]])
@pytest.mark.parametrize("atoms", [1, 3])
def test_dqn_is_linear_in_phi(hidden: list[int], atoms: int) -> None:
    """φ is what the last layer multiplies: Q, or its logits, come back from φ and that layer's parameters."""
    batch = batch_of("dqn")
    model = RELU | {"head_fcnet_hiddens": hidden}
    plain = learner_of("dqn", {}, model, dueling=False, num_atoms=atoms).module[DEFAULT_MODULE_ID]
    ((phi, next_phi),) = plain.dr3_features(tensors(batch), {}).values()
    for features, observations in ((phi, "obs"), (next_phi, "new_obs")):
        q = plain.compute_q_values({"obs": torch.as_tensor(batch[observations])})
        expected = q["qf_preds"] if atoms == 1 else q["qf_logits"].flatten(1)
        torch.testing.assert_close(plain.af.net.mlp[-1](features), expected)


@pytest.mark.parametrize(("hidden", "width"), [([], 8), ([5], 10)])
def test_dueling_dqn_is_linear_in_phi(hidden: list[int], width: int) -> None:
    batch = batch_of("dqn")
    module = learner_of("dqn", {}, RELU | {"head_fcnet_hiddens": hidden}).module[DEFAULT_MODULE_ID]
    phi, _ = module.dr3_features(tensors(batch), {})["qf"]
    assert phi.shape == (6, width)
    advantages, values = (phi, phi) if not hidden else phi.split(5, dim=1)
    a, v = module.af.net.mlp[-1](advantages), module.vf.net.mlp[-1](values)
    q = module.compute_q_values({"obs": torch.as_tensor(batch["obs"])})["qf_preds"]
    torch.testing.assert_close(a - a.mean(1, keepdim=True) + v, q)


@pytest.mark.parametrize("kind", ["sac", "discrete sac"])
def test_sac_is_linear_in_phi_and_a_prime_is_the_backups(kind: str) -> None:
    batch = tensors(batch_of(kind))
    module = learner_of(kind, {}).module[DEFAULT_MODULE_ID]
    out = module.forward_train(batch)
    features = module.dr3_features(batch, out)
    assert set(features) == {"qf", "qf_twin"}
    q = {name: getattr(module, name).net.mlp[-1](phi).squeeze(-1) for name, (phi, _) in features.items()}
    torch.testing.assert_close(q["qf"], out["qf_preds"])
    torch.testing.assert_close(q["qf_twin"], out["qf_twin_preds"])
    next_q = [getattr(module, name).net.mlp[-1](next_phi).squeeze(-1) for name, (_, next_phi) in features.items()]
    # targets are still copies of the critics: the same a' gives the same values
    target = out["q_target_next" if kind == "sac" else QF_TARGET_NEXT]
    torch.testing.assert_close(torch.minimum(*next_q), target)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("dqn", {}),
        ("sac", {}),
        ("discrete sac", {}),
        ("dqn", {"dr3_mask_terminals": False}),
        ("sac", {"dr3_stop_gradient": True}),
    ],
)
def test_loss_and_gradients_are_the_bases_plus_c0_times_the_penaltys(kind: str, options: dict[str, Any]) -> None:
    """c0 = 7; every critic has its share, actor and temperature have none."""
    batch = batch_of(kind, n_step=3)
    loss, gradients, _ = loss_and_gradients(learner_of(kind, None), batch)
    learner = learner_of(kind, {"dr3_coeff": 7.0, **options})
    with_loss, with_gradients, out = loss_and_gradients(learner, batch)
    module = learner.module[DEFAULT_MODULE_ID]
    counts = [True] * 6 if "dr3_mask_terminals" in options else ~batch["terminateds"]
    penalty = torch.zeros(())
    for phi, next_phi in (features := module.dr3_features(tensors(batch), out)).values():
        if "dr3_stop_gradient" in options:
            next_phi = next_phi.detach()
        penalty = penalty + mean_dot(phi, next_phi, counts) / len(features)
    torch.testing.assert_close(with_loss, loss + 7.0 * penalty.detach())
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    own = torch.autograd.grad(penalty, list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, own, strict=True):
        if gradient is None:
            assert name not in gradients or torch.equal(with_gradients[name], gradients[name]), name
        else:
            torch.testing.assert_close(with_gradients[name], gradients[name] + 7.0 * gradient)
    moved = {name.split(".")[0] for name, gradient in zip(parameters, own, strict=True) if gradient is not None}
    assert moved == ({"encoder"} if kind == "dqn" else {"qf_encoder", "qf_twin_encoder"})


def test_the_penalty_of_signed_features_in_absolute_value() -> None:
    batch = batch_of("dqn")
    learner = learner_of("dqn", {"dr3_coeff": 1.0, "dr3_form": "abs"}, RELU | {"fcnet_activation": "tanh"})
    phi, next_phi = learner.module[DEFAULT_MODULE_ID].dr3_features(tensors(batch), {})["qf"]
    dots = (phi * next_phi).sum(1)[~torch.as_tensor(batch["terminateds"])]
    assert dots.min() < 0.0
    logged = update(learner, batch)
    assert logged["dr3_penalty"] == pytest.approx(dots.abs().mean().item())
    assert logged["dot_product"] == pytest.approx(dots.mean().item())


@pytest.mark.parametrize("kind", list(STOCK))
def test_c0_of_zero_is_bitwise_the_stock_learner_and_still_measures(kind: str) -> None:
    states, losses = [], []
    for options in (None, {"dr3_coeff": 0}):
        learner = learner_of(kind, options)
        torch.manual_seed(3)
        logged = [update(learner, batch_of(kind)) for _ in range(3)]
        losses.append([step["total_loss"] for step in logged])
        states.append(learner.module[DEFAULT_MODULE_ID].state_dict())
    assert logged[-1]["dot_product"] > 0.0 and -1.0 <= logged[-1]["cosine"] <= 1.0 and logged[-1]["dr3_weight"] == 0.0
    assert losses[0] == losses[1]
    assert all(torch.equal(stock, ours) for stock, ours in zip(*(s.values() for s in states), strict=True))


def test_padding_and_burn_in_of_a_recurrent_module_count_for_nothing() -> None:
    batch = batch_of("dqn", (2, 6)) | {"loss_mask": np.arange(6) < np.array([[6], [4]])}
    state = {name: torch.zeros(2, 1, 8) for name in ("h", "c")}
    inputs = tensors(batch) | {"state_in": state, "next_state_in": state}
    model = RELU | {"use_lstm": True, "max_seq_len": 6, "lstm_cell_size": 8}
    learner = learner_of("dqn", {"dr3_form": "abs"}, model, burn_in_len=1, replay_buffer_config=EPISODES)
    module = learner.module[DEFAULT_MODULE_ID]
    out = module.forward_train(inputs)
    phi, next_phi = module.dr3_features(inputs, out)["qf"]
    valid = torch.as_tensor(batch["loss_mask"]).clone()
    valid[:, 0] = False
    rows = (phi * next_phi).sum(-1)[valid & ~torch.as_tensor(batch["terminateds"])]
    learner.compute_losses(fwd_out={DEFAULT_MODULE_ID: out}, batch={DEFAULT_MODULE_ID: inputs})
    assert learner.metrics.peek((DEFAULT_MODULE_ID, "dr3_penalty")) == pytest.approx(rows.abs().mean().item())


def test_the_warm_up_goes_on_from_a_learners_state() -> None:
    options = {"dr3_coeff": 0.4, "dr3_warmup_steps": 4}
    first, second = learner_of("dqn", options), learner_of("dqn", options)
    weights = [update(first, batch_of("dqn"))["dr3_weight"] for _ in range(2)]
    second.set_state(first.get_state())
    weights += [update(second, batch_of("dqn"))["dr3_weight"] for _ in range(3)]
    assert weights == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_negative_features_are_warned_of_once() -> None:
    learner = learner_of("dqn", {}, RELU | {"fcnet_activation": "tanh"})
    with pytest.warns(UserWarning, match="'qf' has negative features.*dr3_form='abs'") as caught:
        update(learner, batch_of("dqn"))
        update(learner, batch_of("dqn"))
    assert len([each for each in caught if "features" in str(each.message)]) == 1


class WrongName(SACWithFeatures):
    def dr3_features(self, batch: Any, fwd_out: Any) -> Any:
        return {"critic": super().dr3_features(batch, fwd_out)["qf"]}


class WrongRows(SACWithFeatures):
    def dr3_features(self, batch: Any, fwd_out: Any) -> Any:
        return {"qf": (torch.ones(6, 2), torch.ones(5, 2))}


class NoCritic(SACWithFeatures):
    def dr3_features(self, batch: Any, fwd_out: Any) -> Any:
        return {}


@pytest.mark.parametrize(
    ("options", "module", "message"),
    [
        ({}, STOCK["sac"][3].__base__, r"DefaultSACTorchRLModule exposes no features: give it dr3_features\(batch, f"),
        ({"dr3_coef": 0.1}, None, "learner_config_dict has 'dr3_coef', which nothing reads: DR3 has dr3_coeff, "),
        ({"dr3_adaptive": "cosine"}, None, "learner_config_dict has 'dr3_adaptive', which nothing reads"),
        ({"dr3_coeff": -0.1}, None, r"dr3_coeff = -0.1 is outside \[0, inf\]"),
        ({}, WrongName, "has a critic 'critic', but the learner's optimizers are 'policy', 'qf', 'alpha', 'qf_twin'"),
        ({}, WrongRows, r"critic 'qf' are \[6, 2\] at \(s, a\) and \[5, 2\] at \(s', a'\)"),
        ({}, NoCritic, "dr3_features returned no critic"),
    ],
)
def test_a_mistake_is_one_line(options: dict[str, Any], module: Any, message: str) -> None:
    with pytest.raises(dr3_ray.UserError, match=message) as error:
        update(learner_of("sac", options, module=module), batch_of("sac"))
    assert "\n" not in str(error.value)


def test_with_a_module_without_features_c0_of_zero_is_allowed() -> None:
    """So that one policy of several can go without; options of others are left alone."""
    learner = learner_of("sac", {"dr3_coeff": 0.0, "mine": 1}, module=STOCK["sac"][3].__base__)
    assert "dr3_penalty" not in update(learner, batch_of("sac"))


def test_what_is_no_base_is_refused_and_the_same_base_gives_the_same_class() -> None:
    ours = with_dr3_learner(DQNTorchLearner)
    assert ours.__name__ == "DR3DQNTorchLearner" and issubclass(ours, DQNTorchLearner)
    assert with_dr3_learner(DQNTorchLearner) is ours and with_dr3_learner(ours) is ours
    with pytest.raises(dr3_ray.UserError, match="takes a subclass of RLlib's TorchLearner, not <class 'int'>"):
        with_dr3_learner(int)  # type: ignore[arg-type]
    with pytest.raises(dr3_ray.UserError, match=r"PopulationLearner has DR3 already: .regularization\(dr3_coeff"):
        with_dr3_learner(PopulationLearner)
    with pytest.raises(dr3_ray.UserError, match=r"ReLU has no nn.Linear: return φ"):
        penultimate(nn.ReLU(), torch.ones(1))


@pytest.mark.slow
def test_the_page_runs_and_shows_what_it_says(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks in order: DQN with and without DR3, a sweep of Tune, and the method for a module of one's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    page: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, page)
    assert page["dot_products"][0.1] < 0.5 * page["dot_products"][0.0]
    assert sorted(page["sweep"]) == [0.0, 0.1] and page["sweep"][0.1] < 0.5 * page["sweep"][0.0]
    own_learner_and_module(page["dr3_features"])


def test_the_page_has_every_option_with_its_default() -> None:
    defaults = dict(DR3())
    table = dict(re.findall(r"^\| `(dr3_\w+)` \| (\S+) \|", PAGE.read_text(), re.MULTILINE))
    assert {name: ast.literal_eval(text.strip("`")) for name, text in table.items()} == {
        name: defaults[name] for name in OPTIONS
    }


def own_learner_and_module(method: Any) -> None:
    """The page's method in a user's own module with a user's own learner: offline SARSA on a Q(s, a) network."""

    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))

        def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
            return self.layers(torch.cat([observations, actions.float().unsqueeze(-1)], -1)).squeeze(-1)

    class Module(TorchRLModule):
        dr3_features = method

        def setup(self) -> None:
            self.qf = Critic()

        def _forward_train(self, batch: Any, **kwargs: Any) -> Any:
            return {"q": self.qf(batch["obs"], batch["actions"]), "next_actions": 1 - batch["actions"]}

    class Learner(TorchLearner):
        def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Tensor:
            return (fwd_out["q"] - batch["rewards"]).square().mean()

    config = (
        DQNConfig()
        .environment("CartPole-v1")
        .rl_module(rl_module_spec=RLModuleSpec(module_class=Module, model_config={}))
        .learners(learner_class=with_dr3_learner(Learner), learner_config_dict={"dr3_coeff": 2.0})
    )
    learner = config.build_learner(env=gym.make("CartPole-v1"))
    module, batch = learner.module[DEFAULT_MODULE_ID], batch_of("dqn")
    assert isinstance(module, ExposesFeatures)
    rows = tensors(batch)
    phi, next_phi = (
        module.qf.layers[:2](torch.cat([observations, actions.float().unsqueeze(-1)], -1))
        for observations, actions in ((rows["obs"], rows["actions"]), (rows["new_obs"], 1 - rows["actions"]))
    )
    base = (module.qf(rows["obs"], rows["actions"]) - rows["rewards"]).square().mean()
    expected = base + 2.0 * mean_dot(phi, next_phi, ~batch["terminateds"])
    assert update(learner, batch)["total_loss"] == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.slow
def test_two_remote_learners_stay_equal(local_ray: None) -> None:
    """The class reaches their processes, they average gradients with the penalty in them, and n-step rows fit."""
    config = (
        DQNConfig()
        .environment("CartPole-v1")
        .env_runners(rollout_fragment_length=8)
        .training(n_step=3, num_steps_sampled_before_learning_starts=50, train_batch_size_per_learner=16)
        .reporting(min_sample_timesteps_per_iteration=200, min_time_s_per_iteration=0)
        .learners(
            num_learners=2,
            learner_class=with_dr3_learner(DQNTorchLearner),
            learner_config_dict={"dr3_coeff": 0.1},
        )
        .rl_module(rl_module_spec=RLModuleSpec(module_class=DQNWithFeatures, model_config=RELU))
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    try:
        results = algorithm.train()["learners"][DEFAULT_MODULE_ID]
        each = algorithm.learner_group.foreach_learner(
            lambda learner: (
                [base.__name__ for base in type(learner).__mro__],
                {k: v.numpy() for k, v in learner.module[DEFAULT_MODULE_ID].unwrapped().state_dict().items()},
            )
        )
        (bases, first), (_, second) = (result.get() for result in each)
    finally:
        algorithm.stop()
    assert "DR3DQNTorchLearner" in bases and results["dr3_penalty"] > 0.0
    assert all(np.array_equal(first[key], second[key]) for key in first)
