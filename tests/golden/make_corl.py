"""Make corl_*.npz again: what CORL's classes say of given weights, batch and noise.

    git clone https://github.com/corl-team/CORL && python tests/golden/make_corl.py CORL

The files in the repository were made at commit eeeeef22. Nothing is installed for it: environments, data sets and
loggers that CORL imports are stood in for. ReBRAC needs jax, flax, optax and chex.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

import numpy as np
import torch
from continuous_inputs import ACTION, BATCH, HIDDEN, OBSERVATION, SAMPLES, Recorder, batch, parameters, save, scale
from torch import Tensor, nn

BOTH = ("weight", "bias")


def corl(checkout: Path, name: str, folder: str = "offline") -> ModuleType:
    """CORL's single-file algorithm as a module."""
    for absent in ("d4rl", "gym", "pyrallis", "wandb"):
        sys.modules[absent] = MagicMock()
    spec = importlib.util.spec_from_file_location(name, checkout / "algorithms" / folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def rows(columns: dict[str, Tensor]) -> list[Tensor]:
    """As CORL's buffers give them."""
    rewards, terminals = columns["rewards"].unsqueeze(-1), columns["terminateds"].unsqueeze(-1)
    return [columns["observations"], columns["actions"], rewards, columns["next_observations"], terminals]


def iql(checkout: Path) -> None:
    """CORL's IQL with its Gaussian policy, τ 0.8 and β 3; one weight reaches the clip."""
    theirs, rng = corl(checkout, "iql"), torch.Generator().manual_seed(1)
    actor = scale(theirs.GaussianPolicy(OBSERVATION, ACTION, 1.0, HIDDEN))
    actor.log_std.data = torch.tensor([-0.5, 0.1, 0.4])
    critic, value = scale(theirs.TwinQ(OBSERVATION, ACTION, HIDDEN)), scale(theirs.ValueFunction(OBSERVATION, HIDDEN))
    recorders = {"actor": Recorder(actor), "critic": Recorder(critic), "value": Recorder(value)}
    trainer = theirs.ImplicitQLearning(
        1.0, actor, recorders["actor"], critic, recorders["critic"], value, recorders["value"],
        iql_tau=0.8, beta=3.0, discount=0.97, tau=0.0,
    )  # fmt: skip
    trainer.q_target = scale(theirs.TwinQ(OBSERVATION, ACTION, HIDDEN)).requires_grad_(False)
    columns = batch(rng)
    found = trainer.train(rows(columns))
    networks = {"actor": actor, "critic": critic, "target_critic": trainer.q_target, "value": value}
    save(
        "corl_iql", columns, {},
        {"critic": found["q_loss"], "value": found["value_loss"], "actor": found["actor_loss"]},
        *(parameters("weights", name, network.state_dict()) for name, network in networks.items()),
        *(parameters("gradients", name, recorder.gradients) for name, recorder in recorders.items()),
    )  # fmt: skip


def small(n_in: int, n_out: int, *behind: nn.Module) -> nn.Sequential:
    """What stands in for CORL's networks of 256 units where their width is fixed; of the same build."""
    layers = [nn.Linear(n_in, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_out)]
    return nn.Sequential(*layers, *behind)


def pair(make: Any) -> nn.ModuleList:
    """Two critics as one network."""
    return nn.ModuleList([make(), make()])


def both(recorders: list[Recorder]) -> dict[str, Tensor]:
    """The gradients of two critics as those of one network."""
    return {f"{i}.{name}": value for i, recorder in enumerate(recorders) for name, value in recorder.gradients.items()}


def td3_bc(checkout: Path) -> None:
    """CORL's TD3+BC at a step that updates the actor too; some of the noise is clipped."""
    theirs, rng = corl(checkout, "td3_bc"), torch.Generator().manual_seed(2)

    def actor() -> nn.Module:
        made = theirs.Actor(OBSERVATION, ACTION, 1.0)
        made.net = small(OBSERVATION, ACTION, nn.Tanh())
        return scale(made)

    def critic() -> nn.Module:
        made = theirs.Critic(OBSERVATION, ACTION)
        made.net = small(OBSERVATION + ACTION, 1)
        return scale(made)

    networks = {"actor": actor(), "critic": pair(critic), "target_actor": actor(), "target_critic": pair(critic)}
    policy, critics = Recorder(networks["actor"]), [Recorder(each) for each in networks["critic"]]
    trainer = theirs.TD3_BC(
        1.0, networks["actor"], policy, networks["critic"][0], critics[0], networks["critic"][1], critics[1],
        discount=0.97, tau=0.0, policy_noise=0.3, noise_clip=0.4, policy_freq=2, alpha=2.0,
    )  # fmt: skip
    trainer.actor_target = networks["target_actor"]
    trainer.critic_1_target, trainer.critic_2_target = networks["target_critic"]
    trainer.total_it = 1
    columns, noise = batch(rng), torch.randn(BATCH, ACTION, generator=rng)
    with patch("torch.randn_like", lambda _: noise):
        found = trainer.train(rows(columns))
    save(
        "corl_td3_bc", columns, {"next_action": noise}, {"critic": found["critic_loss"], "actor": found["actor_loss"]},
        *(parameters("weights", name, network.state_dict()) for name, network in networks.items()),
        parameters("gradients", "actor", policy.gradients), parameters("gradients", "critic", both(critics)),
    )  # fmt: skip


def awac(checkout: Path) -> None:
    """CORL's AWAC with IQL's bounded mean, λ 0.5; some draws leave [−1, 1], and a weight reaches the clip."""
    theirs, rng = corl(checkout, "awac"), torch.Generator().manual_seed(5)

    def critic() -> nn.Module:
        made = theirs.Critic(OBSERVATION, ACTION, HIDDEN)
        made._mlp = small(OBSERVATION + ACTION, 1)
        return scale(made)

    actor = theirs.Actor(OBSERVATION, ACTION, HIDDEN)
    actor._mlp = scale(small(OBSERVATION, ACTION, nn.Tanh()))
    actor._log_std.data = torch.tensor([-0.5, 0.1, 0.4])
    critics, targets = pair(critic), pair(critic)
    policy, two = Recorder(actor), [Recorder(each) for each in critics]
    trainer = theirs.AdvantageWeightedActorCritic(
        actor, policy, critics[0], two[0], critics[1], two[1], gamma=0.97, tau=0.0, awac_lambda=0.5, exp_adv_max=5.0
    )
    trainer._target_critic_1, trainer._target_critic_2 = targets
    columns, drawn = batch(rng), list[Tensor]()

    def normal(shape: Any, dtype: Any, device: Any) -> Tensor:
        drawn.append(torch.randn(shape, generator=rng))
        return drawn[-1]

    with patch("torch.distributions.normal._standard_normal", normal):
        found = trainer.update(rows(columns))

    def named(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("_log_std", "log_std"): value for name, value in values.items()}

    save(
        "corl_awac", columns, dict(zip(("next_action", "action"), drawn, strict=True)),
        {"critic": found["critic_loss"], "actor": found["actor_loss"]},
        parameters("weights", "actor", named(actor.state_dict())),
        parameters("weights", "critic", critics.state_dict()),
        parameters("weights", "target_critic", targets.state_dict()),
        parameters("gradients", "actor", named(policy.gradients)), parameters("gradients", "critic", both(two)),
    )  # fmt: skip


def stacked(kind: str, network: str, values: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """As `parameters`, of CORL's vectorized layers: weights [critic, in, out], biases [critic, 1, out]."""
    paths = list(dict.fromkeys(name.rpartition(".")[0] for name in values))
    found = {}
    for name, value in values.items():
        path, _, last = name.rpartition(".")
        for copy, own in enumerate(value.detach().numpy()):
            array = own.T if last == "weight" else own.squeeze(0)
            found[f"{kind}/{network}/{copy * len(paths) + paths.index(path)}.{last}"] = array.copy()
    return found


def edac(checkout: Path) -> None:
    """CORL's EDAC with four critics and η 2, without the 10⁻⁶ in its log(1 − tanh² + 10⁻⁶); log σ stays above −5."""
    theirs, rng = corl(checkout, "edac"), torch.Generator().manual_seed(6)

    def critic() -> nn.Module:
        made = theirs.VectorizedCritic(OBSERVATION, ACTION, HIDDEN, 4)
        sizes = [(OBSERVATION + ACTION, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 1)]
        first, second, last = (theirs.VectorizedLinear(*each, 4) for each in sizes)
        made.critic = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
        return scale(made)

    actor = theirs.Actor(OBSERVATION, ACTION, HIDDEN)
    actor.trunk = small(OBSERVATION, HIDDEN)[:4]
    actor.mu, actor.log_sigma = nn.Linear(HIDDEN, ACTION), nn.Linear(HIDDEN, ACTION)
    networks = {"critic": critic(), "target_critic": critic()}
    policy, critics = Recorder(actor), Recorder(networks["critic"])
    trainer = theirs.EDAC(actor, policy, networks["critic"], critics, gamma=0.97, tau=0.0, eta=2.0)
    trainer.target_critic = networks["target_critic"]
    temperature = nn.ParameterDict({"log_alpha": nn.Parameter(torch.tensor(-0.7))})
    trainer.log_alpha, trainer.alpha_optimizer = temperature["log_alpha"], Recorder(temperature)
    columns, noise = batch(rng), [torch.randn(BATCH, ACTION, generator=rng) * 0.5 for _ in range(2)]
    draws, log = iter([noise[0], noise[0], noise[1]]), torch.log  # temperature and actor see one action, as ours
    with (
        patch("torch.distributions.normal._standard_normal", lambda *_, **__: next(draws)),
        patch("torch.log", lambda values: log(values - 1e-6)),
    ):
        found = trainer.update(rows(columns))
    likeness = 2.0 * trainer._critic_diversity_loss(columns["observations"], columns["actions"].clone()).item()

    def joined(values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the policy's two heads as one layer of twice the width."""
        heads = {each: torch.cat([values.pop(f"{head}.{each}") for head in ("mu", "log_sigma")]) for each in BOTH}
        return values | {f"head.{each}": value for each, value in heads.items()}

    save(
        "corl_edac", columns, dict(zip(("action", "next_action"), noise, strict=True)),
        {
            "critic": found["critic_loss"] - likeness, "edac": likeness,
            "actor": found["actor_loss"], "temperature": found["alpha_loss"],
        },
        parameters("weights", "actor", joined(actor.state_dict())),
        *(stacked("weights", name, network.state_dict()) for name, network in networks.items()),
        parameters("weights", "temperature", {"log_alpha": trainer.log_alpha}),
        parameters("gradients", "actor", joined(policy.gradients)),
        stacked("gradients", "critic", critics.gradients),
        parameters("gradients", "temperature", trainer.alpha_optimizer.gradients),
    )  # fmt: skip


def rebrac(checkout: Path) -> None:
    """CORL's ReBRAC (jax) with LayerNorm in the critic, both penalties, and weights away from their first values."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    theirs, rng = corl(checkout, "rebrac"), torch.Generator().manual_seed(3)
    columns, noise = batch(rng), torch.randn(BATCH, ACTION, generator=rng).numpy()
    keys = {"states": "observations", "next_states": "next_observations", "dones": "terminateds"}
    given = {key: columns[keys.get(key, key)].numpy() for key in (*keys, "actions", "next_actions", "rewards")}
    modules = {
        "actor": theirs.DetActor(ACTION, HIDDEN, layernorm=False, n_hiddens=2),
        "critic": theirs.EnsembleCritic(HIDDEN, num_critics=2, layernorm=True, n_hiddens=2),
    }
    inputs = {"actor": (given["states"],), "critic": (given["states"], given["actions"])}

    drawn = np.random.default_rng(0)

    def weights(kind: str) -> Any:
        first = modules[kind].init(jax.random.PRNGKey(0), *inputs[kind])
        return jax.tree_util.tree_map(lambda value: value + 0.3 * drawn.standard_normal(value.shape), first)

    states = {
        # a step of size 1 along the gradient tells what it is
        kind: made.create(
            apply_fn=modules[kind].apply, params=weights(kind), target_params=weights(kind), tx=optax.sgd(1.0)
        )
        for kind, made in (("actor", theirs.ActorTrainState), ("critic", theirs.CriticTrainState))
    }
    metrics = theirs.Metrics.create(
        ["critic_loss", "q_min", "actor_loss", "bc_mse_policy", "bc_mse_random", "action_mse"]
    )
    with patch("jax.random.normal", lambda key, shape: noise):
        key, critic, metrics = theirs.update_critic(
            jax.random.PRNGKey(0), states["actor"], states["critic"], given, 0.97, 0.2, 0.0, 0.3, 0.4, metrics
        )
    _, actor, _, metrics = theirs.update_actor(key, states["actor"], states["critic"], given, 0.5, 0.0, True, metrics)
    after = {"actor": actor.params, "critic": critic.params}
    found = metrics.compute()
    save(
        "corl_rebrac", columns, {"next_action": torch.from_numpy(noise)},
        {"critic": found["critic_loss"].item(), "actor": found["actor_loss"].item()},
        *(flax("weights", name, states[name].params) for name in after),
        *(flax("weights", f"target_{name}", states[name].target_params) for name in after),
        *(
            flax("gradients", name, jax.tree_util.tree_map(np.subtract, states[name].params, params))
            for name, params in after.items()
        ),
    )  # fmt: skip


def flax(kind: str, network: str, tree: Any) -> dict[str, np.ndarray]:
    """As `parameters`, of a flax module; a layer norm has the number of the linear layer before it."""
    layers = tree["params"]
    layers = layers.get("VmapCritic_0", layers)
    depth = sum(name.startswith("Dense") for name in layers)
    found = {}
    for layer, values in layers.items():
        name, _, place = layer.partition("_")
        for each, stacked in values.items():
            last = {"kernel": "weight", "scale": "norm_weight", "bias": "norm_bias" if name == "LayerNorm" else "bias"}[
                each
            ]
            array = np.asarray(stacked, np.float64)
            for copy, value in enumerate(array if network.endswith("critic") else array[None]):
                found[f"{kind}/{network}/{copy * depth + int(place)}.{last}"] = value.T
    return found


def cql(checkout: Path) -> None:
    """CORL's CQL: as it comes; unweighted; with Lagrange, max-backup, entropy backup, clips and T = 2."""
    rng = torch.Generator().manual_seed(4)
    lagrange = {
        "cql_lagrange": True, "cql_target_action_gap": 2.0, "cql_max_target_backup": True, "backup_entropy": True,
        "cql_clip_diff_min": -1.0, "cql_clip_diff_max": 7.0, "cql_temp": 2.0,
    }  # fmt: skip
    variants = {"cql": {}, "cql_unweighted": {"cql_importance_sample": False}, "cql_lagrange": lagrange}
    conservative(corl(checkout, "cql"), "ContinuousCQL", batch(rng), rng, variants)


def cal_ql(checkout: Path) -> None:
    """CORL's Cal-QL: as it comes; unweighted; with Lagrange and the rest. Returns lie above some Q and below others."""
    rng = torch.Generator().manual_seed(7)
    lagrange = {
        "cql_lagrange": True, "cql_target_action_gap": 2.0, "cql_max_target_backup": True, "backup_entropy": True,
        "cql_temp": 2.0,
    }  # fmt: skip
    variants = {"cal_ql": {}, "cal_ql_unweighted": {"cql_importance_sample": False}, "cal_ql_lagrange": lagrange}
    columns = batch(rng)
    columns["monte_carlo_returns"] = 4.0 * torch.randn(BATCH, generator=rng)
    conservative(corl(checkout, "cal_ql", "finetune"), "CalQL", columns, rng, variants)


def conservative(
    theirs: Any, trainer_name: str, columns: dict[str, Tensor], rng: torch.Generator, variants: dict[str, Any]
) -> None:
    """Write a file for every variant of CORL's CQL or Cal-QL."""

    def critic() -> nn.Module:
        made = theirs.FullyConnectedQFunction(OBSERVATION, ACTION)
        made.network = small(OBSERVATION + ACTION, 1)
        return scale(made)

    actor = theirs.TanhGaussianPolicy(OBSERVATION, ACTION, 1.0, log_std_offset=0.0)
    actor.base_network = scale(small(OBSERVATION, 2 * ACTION), 1.5)
    critics, targets = pair(critic), pair(critic)
    for name, options in variants.items():
        policy, two = Recorder(actor.base_network), [Recorder(each) for each in critics]
        trainer = getattr(theirs, trainer_name)(
            critics[0], two[0], critics[1], two[1], actor, policy, -float(ACTION), discount=0.97,
            soft_target_update_rate=0.0, bc_steps=0, cql_n_actions=SAMPLES, **options,
        )  # fmt: skip
        trainer.target_critic_1, trainer.target_critic_2 = targets
        trainer.log_alpha.double().constant.data.fill_(-0.7)
        trainer.log_alpha_prime.double().constant.data.fill_(0.4)
        trainer.alpha_optimizer, trainer.alpha_prime_optimizer = (
            Recorder(each) for each in (trainer.log_alpha, trainer.log_alpha_prime)
        )
        drawn: list[Tensor] = []

        def normal(shape: Any, dtype: Any, device: Any, drawn: list[Tensor] = drawn) -> Tensor:
            drawn.append(torch.randn(shape, generator=rng))
            return drawn[-1]

        uniform = torch.rand(BATCH, SAMPLES, ACTION, generator=rng) * 2.0 - 1.0
        with (
            patch("torch.distributions.normal._standard_normal", normal),
            patch.object(torch.Tensor, "uniform_", lambda *_: uniform),  # noqa: B023
        ):
            found = trainer.train(rows(columns) + [columns[name] for name in columns if name == "monte_carlo_returns"])
        assert all(0.1 < value < 0.9 for key, value in found.items() if key.startswith("bound_rate"))  # Cal-QL's
        order = ("action", "next_action", "sampled_at_s", "sampled_at_next_s")
        losses = {
            "critic": found["qf1_loss"] + found["qf2_loss"],
            "cql": found["cql_min_qf1_loss"] + found["cql_min_qf2_loss"],
            "actor": found["policy_loss"],
            "temperature": found["alpha_loss"],
        }
        scalars = {"temperature": (trainer.log_alpha, trainer.alpha_optimizer)}
        if options.get("cql_lagrange"):
            losses["lagrange"] = found["alpha_prime_loss"]
            scalars["lagrange"] = (trainer.log_alpha_prime, trainer.alpha_prime_optimizer)
        save(
            f"corl_{name}", columns, dict(zip(order, drawn, strict=True)) | {"sampled_uniform": uniform}, losses,
            parameters("weights", "actor", actor.base_network.state_dict()),
            parameters("weights", "critic", critics.state_dict()),
            parameters("weights", "target_critic", targets.state_dict()),
            parameters("gradients", "actor", policy.gradients), parameters("gradients", "critic", both(two)),
            *(parameters("weights", each, {"log_alpha": scalar.constant}) for each, (scalar, _) in scalars.items()),
            *(
                parameters("gradients", each, {"log_alpha": recorder.gradients["constant"]})
                for each, (_, recorder) in scalars.items()
            ),
        )  # fmt: skip


def main() -> None:
    """Everything, from the checkout that the command line names."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    checkout = Path(sys.argv[1])
    iql(checkout)
    td3_bc(checkout)
    awac(checkout)
    edac(checkout)
    rebrac(checkout)
    cql(checkout)
    cal_ql(checkout)


if __name__ == "__main__":
    main()
