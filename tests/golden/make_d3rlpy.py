"""Make d3rlpy_*.npz again: what d3rlpy says of given weights, batch and noise.

    pip install d3rlpy  # an environment of its own: it wants another gymnasium than Ray
    python tests/golden/make_d3rlpy.py

Discrete CQL and DQN with mean and quantile critics; CQL, IQL and TD3+BC on Box actions. The files in the repository
were made with d3rlpy 2.8.1.
"""

import dataclasses
from typing import Any
from unittest.mock import patch

import continuous_inputs as continuous
import discrete_inputs as discrete
import numpy as np
import torch
from continuous_inputs import ACTION, BATCH, SAMPLES, Recorder, parameters, scale
from d3rlpy.algos import CQLConfig, DiscreteCQLConfig, DQNConfig, IQLConfig, TD3PlusBCConfig
from d3rlpy.models import MeanQFunctionFactory, QRQFunctionFactory, VectorEncoderFactory
from d3rlpy.torch_utility import TorchMiniBatch
from torch import Tensor, nn

QUANTILES = 6
ENCODER = VectorEncoderFactory([discrete.HIDDEN, discrete.HIDDEN])


def linears(network: nn.Module) -> list[nn.Linear]:
    """The linear layers, input first."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def fill(network: nn.Module, values: discrete.Layers) -> None:
    """Set the weights."""
    for layer, (weight, bias) in zip(linears(network.double()), values, strict=True):
        layer.weight.data.copy_(torch.as_tensor(weight))
        layer.bias.data.copy_(torch.as_tensor(bias))


def rows(columns: dict[str, Tensor]) -> TorchMiniBatch:
    """As d3rlpy's buffers give them; what no algorithm here reads is filled with the rewards."""
    rewards = columns["rewards"].unsqueeze(-1)
    actions = columns["actions"].reshape(len(rewards), -1)
    return TorchMiniBatch(
        observations=columns["observations"],
        actions=actions,
        rewards=rewards,
        next_observations=columns["next_observations"],
        next_actions=actions,
        returns_to_go=rewards,
        terminals=columns["terminateds"].unsqueeze(-1),
        intervals=torch.ones_like(rewards),
        device="cpu",
    )


def make_discrete(name: str, config: Any, heads: int, rng: np.random.Generator) -> None:
    """One gradient of an algorithm."""
    algorithm = config.create(device=False)
    algorithm.create_impl((discrete.OBSERVATION,), discrete.ACTIONS)
    modules = algorithm.impl.modules
    online, target, columns = discrete.layers(rng, heads), discrete.layers(rng, heads), discrete.batch(rng)
    fill(modules.q_funcs, online)
    fill(modules.targ_q_funcs, target)
    found = algorithm.impl.compute_grad(rows({key: torch.as_tensor(values) for key, values in columns.items()}))
    losses = {"critic": found.loss.item()}
    if hasattr(found, "conservative_loss"):
        losses = {"critic": found.td_loss.item(), "cql": config.alpha * found.conservative_loss.item()}
    gradients = [(layer.weight.grad.numpy(), layer.bias.grad.numpy()) for layer in linears(modules.q_funcs)]
    discrete.save(f"d3rlpy_{name}", online, target, columns, losses, gradients)


def created(config: Any, policy_scale: float = 3.0) -> tuple[Any, dict[str, nn.Module]]:
    """An algorithm on Box actions and its networks, all of them with first weights of their own, scaled."""
    options = {"gamma": 0.97, "actor_encoder_factory": ENCODER, "critic_encoder_factory": ENCODER}
    algorithm = dataclasses.replace(config, **options).create(device=False)
    algorithm.create_impl((continuous.OBSERVATION,), ACTION)
    impl, modules = algorithm.impl, algorithm.impl.modules
    names = {"actor": "policy", "critic": "q_funcs", "target_actor": "targ_policy", "target_critic": "targ_q_funcs",
             "value": "value_func"}  # fmt: skip
    networks = {ours: getattr(modules, theirs) for ours, theirs in names.items() if hasattr(modules, theirs)}
    for name, network in networks.items():
        for layer in linears(network.double()):
            layer.reset_parameters()
            scale(layer, policy_scale if name.endswith("actor") else 3.0)
    return impl, networks


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """By the names of the parameters."""
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def iql() -> None:
    """IQL, τ 0.8 and β 3. Its policy squeezes log std into (−5, 2); the file has log std itself and its gradient."""
    rng = torch.Generator().manual_seed(5)
    impl, networks = created(IQLConfig(expectile=0.8, weight_temp=3.0, value_encoder_factory=ENCODER))
    policy = networks["actor"]
    policy._logstd.data = torch.tensor([[0.6, 0.9, 1.2]])
    columns = continuous.batch(rng)
    critic = impl.compute_critic_grad(rows(columns))
    losses = {"critic": critic.q_loss, "value": critic.v_loss}
    found = {name: gradients(networks[name]) for name in ("critic", "value")}
    losses["actor"] = impl.compute_actor_grad(rows(columns)).actor_loss
    found["actor"] = gradients(policy)
    share = policy._logstd.detach()[0].sigmoid()
    log_std, slope = -5.0 + 7.0 * share, 7.0 * share * (1.0 - share)
    found["actor"]["log_std"] = found["actor"].pop("_logstd")[0] / slope
    weights = {name: network.state_dict() for name, network in networks.items()}
    del weights["actor"]["_logstd"]
    weights["actor"]["log_std"] = log_std
    continuous.save(
        "d3rlpy_iql", columns, {}, {name: loss.item() for name, loss in losses.items()},
        *(parameters("weights", name, values) for name, values in weights.items()),
        *(parameters("gradients", name, values) for name, values in found.items()),
    )  # fmt: skip


def td3_bc() -> None:
    """TD3+BC; some of the noise is clipped."""
    rng = torch.Generator().manual_seed(6)
    impl, networks = created(TD3PlusBCConfig(target_smoothing_sigma=0.3, target_smoothing_clip=0.4, alpha=2.0))
    columns, noise = continuous.batch(rng), torch.randn(BATCH, ACTION, generator=rng)
    with patch("torch.randn", lambda *_, **__: noise):
        losses = {"critic": impl.compute_critic_grad(rows(columns)).critic_loss.item()}
    found = {"critic": gradients(networks["critic"])}
    losses["actor"] = impl.compute_actor_grad(rows(columns)).actor_loss.item()
    found["actor"] = gradients(networks["actor"])
    continuous.save(
        "d3rlpy_td3_bc", columns, {"next_action": noise}, losses,
        *(parameters("weights", name, network.state_dict()) for name, network in networks.items()),
        *(parameters("gradients", name, values) for name, values in found.items()),
    )  # fmt: skip


def joined(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """A policy's two last layers, of its mean and of its log standard deviation, as one."""
    hidden = {name: value for name, value in values.items() if name.startswith("_encoder")}
    heads = {kind: torch.cat([values[f"_mu.{kind}"], values[f"_logstd.{kind}"]]) for kind in ("weight", "bias")}
    return hidden | {f"head.{kind}": value for kind, value in heads.items()}


def cql(name: str, policy_noise: tuple[str, ...], **options: Any) -> None:
    """CQL; the policy's samples are drawn in the order of `policy_noise`."""
    rng = torch.Generator().manual_seed(7)
    torch.manual_seed(5)  # critics whose minimum is now the one and now the other: the order of max-backup counts
    impl, networks = created(CQLConfig(n_action_samples=SAMPLES, initial_temperature=0.5, **options), policy_scale=1.5)
    scalars = {"temperature": impl.modules.log_temp.double(), "lagrange": impl.modules.log_alpha.double()}
    recorders = {each: Recorder(scalar) for each, scalar in scalars.items()}
    learned = {"alpha_optim": recorders["lagrange"]} if impl.modules.alpha_optim else {}
    impl._modules = dataclasses.replace(impl.modules, temp_optim=recorders["temperature"], **learned)
    columns, drawn = continuous.batch(rng), list[Tensor]()

    def normal(shape: Any, dtype: Any, device: Any) -> Tensor:
        drawn.append(torch.randn(shape, generator=rng))
        return drawn[-1]

    uniform = torch.rand(BATCH * SAMPLES, ACTION, generator=rng) * 2.0 - 1.0
    with (
        patch("torch.distributions.normal._standard_normal", normal),
        patch.object(torch.Tensor, "uniform_", lambda *_: uniform),
    ):
        critic = impl.compute_critic_grad(rows(columns))
        found = {"critic": gradients(networks["critic"])}
        actor = impl.compute_actor_grad(rows(columns))
    found["actor"] = joined(gradients(networks["actor"]))
    # several samples come with the samples first
    noise = {
        each: draw.transpose(0, -2) if draw.ndim == 3 else draw for each, draw in zip(policy_noise, drawn, strict=True)
    }
    noise["sampled_uniform"] = uniform.view(BATCH, SAMPLES, ACTION)
    noise.setdefault("next_action", torch.zeros(BATCH, ACTION))  # the mode
    kept = {each: scalar for each, scalar in scalars.items() if recorders[each].gradients}
    continuous.save(
        f"d3rlpy_{name}", columns, noise,
        {
            "critic": (critic.critic_loss - critic.conservative_loss).item(),
            "cql": critic.conservative_loss.item(),
            "actor": actor.actor_loss.item(),
            "temperature": actor.temp_loss.item(),
        },
        parameters("weights", "actor", joined(networks["actor"].state_dict())),
        *(parameters("weights", each, networks[each].state_dict()) for each in ("critic", "target_critic")),
        *(parameters("gradients", each, values) for each, values in found.items()),
        *(parameters("weights", each, {"log_alpha": scalar._parameter[0, 0]}) for each, scalar in kept.items()),
        *(
            parameters("gradients", each, {"log_alpha": recorders[each].gradients["_parameter"][0, 0]})
            for each in kept
        ),
    )  # fmt: skip


def main() -> None:
    """Everything."""
    rng = np.random.default_rng(0)
    common = {"encoder_factory": ENCODER, "gamma": 0.97}
    quantiles = {"q_func_factory": QRQFunctionFactory(n_quantiles=QUANTILES)}
    make_discrete("cql", DiscreteCQLConfig(alpha=2.0, q_func_factory=MeanQFunctionFactory(), **common), 1, rng)
    make_discrete("qrcql", DiscreteCQLConfig(alpha=4.0, **quantiles, **common), QUANTILES, rng)
    make_discrete("qrdqn", DQNConfig(**quantiles, **common), QUANTILES, rng)

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    iql()
    td3_bc()
    samples = ("sampled_at_s", "sampled_at_next_s")
    fixed = {"alpha_learning_rate": 0.0, "alpha_threshold": 0.0}
    cql("cql_box", (*samples, "action"), **fixed)
    cql("cql_box_max", ("next_action", *samples, "action"), max_q_backup=True, **fixed)
    lagrange = {"alpha_threshold": 2.0, "initial_alpha": 1.5}
    cql("cql_box_soft", ("next_action", *samples, "action"), soft_q_backup=True, **lagrange)


if __name__ == "__main__":
    main()
