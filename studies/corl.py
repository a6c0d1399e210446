"""CORL's own training code on our data: what `against_corl.py` compares ours with.

Nothing of CORL is in here: its single-file algorithms are imported from a checkout (made for commit eeeeef26). Its
environments, data sets and loggers are stood in for; its networks of 256 units are replaced by torch's of the size that
is compared, first weights included. ReBRAC (jax) keeps its own networks, which have a width to set.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dr3_ray.errors import UserError

Act = Callable[[Tensor], Tensor]  # observations [1, N, O] -> deterministic actions [1, N, A]
Columns = dict[str, npt.NDArray[Any]]
FILES = {"DR3-CQL": "cql", "DR3-IQL": "iql", "DR3-TD3BC": "td3_bc", "DR3-ReBRAC": "rebrac"}


def train(
    checkout: Path, algorithm: str, columns: Columns, options: Any, seed: int, updates: int, evaluations: int
) -> Iterator[Act]:
    """Yield CORL's policy after each of `evaluations` equal parts of the `updates`; `options` are those of ours."""
    theirs = load(checkout, FILES[algorithm])
    torch.manual_seed(seed)
    np.random.seed(seed)
    if algorithm == "DR3-ReBRAC":
        yield from rebrac(theirs, columns, options, seed, updates, evaluations)
        return
    trainer = {"DR3-CQL": cql, "DR3-IQL": iql, "DR3-TD3BC": td3_bc}[algorithm](theirs, columns, options)
    observations, mean, std = columns["observations"], 0.0, 1.0
    following = columns["next_observations"]
    if options.normalize_observations:
        mean, std = theirs.compute_mean_std(observations, eps=1e-3)
        observations, following = (theirs.normalize_states(each, mean, std) for each in (observations, following))
    buffer = theirs.ReplayBuffer(observations.shape[1], columns["actions"].shape[1], len(observations))
    buffer.load_d4rl_dataset(
        {
            "observations": observations,
            "actions": columns["actions"],
            "rewards": columns["rewards"],
            "next_observations": following,
            "terminals": columns["terminateds"],
        }
    )

    def act(observations: Tensor) -> Tensor:
        normal = ((observations[0].numpy() - mean) / std).astype(np.float32)
        with torch.no_grad():
            found = trainer.actor(
                torch.from_numpy(normal), **({"deterministic": True} if algorithm == "DR3-CQL" else {})
            )
        return policy_mode(found)[None]

    for _ in range(evaluations):
        for _ in range(updates // evaluations):
            trainer.train(buffer.sample(options.batch_size))
        yield act


def policy_mode(found: Any) -> Tensor:
    """Return the actions in an output of CORL's actor: a distribution, actions with log-probabilities, or actions."""
    if isinstance(found, torch.distributions.Distribution):
        return found.mean
    return found[0] if isinstance(found, tuple) else found


def load(checkout: Path, name: str) -> ModuleType:
    """Return one of CORL's files as a module."""
    file = checkout / "algorithms" / "offline" / f"{name}.py"
    if not file.exists():
        raise UserError(f"{checkout} is no checkout of CORL: it has no algorithms/offline/{name}.py")
    for absent in ("d4rl", "gym", "pyrallis", "wandb"):
        sys.modules[absent] = MagicMock()
    spec = importlib.util.spec_from_file_location(f"corl_{name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise UserError(f"CORL's {name} needs {error.name}: pip install {error.name}") from None
    return module


def network(n_in: int, hidden_sizes: tuple[int, ...], n_out: int, *behind: nn.Module) -> nn.Sequential:
    """Build linear layers with ReLU between them, first weights of `torch.nn.Linear`."""
    sizes = (n_in, *hidden_sizes)
    hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], n_out), *behind)


def sizes_of(columns: Columns) -> tuple[int, int]:
    """Return the components of an observation and of an action."""
    return columns["observations"].shape[1], columns["actions"].shape[1]


def adam(module: nn.Module, lr: float, options: Any) -> torch.optim.Adam:
    """Return the optimiser that CORL uses."""
    return torch.optim.Adam(module.parameters(), lr=lr, eps=options.adam_eps)


def td3_bc(theirs: ModuleType, columns: Columns, options: Any) -> Any:
    """Build CORL's TD3+BC."""
    n, a = sizes_of(columns)
    actor = theirs.Actor(n, a, 1.0)
    actor.net = network(n, options.hidden_sizes, a, nn.Tanh())
    critics = [theirs.Critic(n, a), theirs.Critic(n, a)]
    for critic in critics:
        critic.net = network(n + a, options.hidden_sizes, 1)
    with_optimizers = [each for critic in critics for each in (critic, adam(critic, options.critic_lr, options))]
    return theirs.TD3_BC(
        1.0,
        actor,
        adam(actor, options.actor_lr, options),
        *with_optimizers,
        discount=options.gamma,
        tau=options.tau,
        policy_noise=options.policy_noise,
        noise_clip=options.noise_clip,
        policy_freq=options.policy_delay,
        alpha=options.td3bc_alpha,
    )


def iql(theirs: ModuleType, columns: Columns, options: Any) -> Any:
    """Build CORL's IQL. Its actor's step size falls along a cosine of 1,000,000 steps: hardly, in a short run."""
    n, a = sizes_of(columns)
    width, depth = options.hidden_sizes[0], len(options.hidden_sizes)
    actor = theirs.GaussianPolicy(n, a, 1.0, width, depth)
    critic, value = theirs.TwinQ(n, a, width, depth), theirs.ValueFunction(n, width, depth)
    return theirs.ImplicitQLearning(
        1.0,
        actor,
        adam(actor, options.actor_lr, options),
        critic,
        adam(critic, options.critic_lr, options),
        value,
        adam(value, options.value_lr, options),
        iql_tau=options.expectile,
        beta=options.advantage_temperature,
        discount=options.gamma,
        tau=options.tau,
    )


def cql(theirs: ModuleType, columns: Columns, options: Any) -> Any:
    """Build CORL's CQL. Its policy's log std has a learned scale and offset, from 1 and, here, 0."""
    n, a = sizes_of(columns)
    actor = theirs.TanhGaussianPolicy(n, a, 1.0, log_std_offset=0.0)
    actor.base_network = network(n, options.hidden_sizes, 2 * a)
    critics = [theirs.FullyConnectedQFunction(n, a), theirs.FullyConnectedQFunction(n, a)]
    for critic in critics:
        critic.network = network(n + a, options.hidden_sizes, 1)
    with_optimizers = [each for critic in critics for each in (critic, adam(critic, options.critic_lr, options))]
    return theirs.ContinuousCQL(
        *with_optimizers,
        actor,
        adam(actor, options.actor_lr, options),
        -options.target_entropy_scale * a,
        discount=options.gamma,
        backup_entropy=options.entropy_backup,
        policy_lr=options.temperature_lr,  # it is used for the temperature alone
        soft_target_update_rate=options.tau,
        bc_steps=int(options.bc_steps),
        cql_n_actions=options.n_sampled_actions,
        cql_importance_sample=options.cql_form == "H",
        cql_temp=options.cql_temperature,
        cql_alpha=options.cql_alpha,
    )


def rebrac(
    theirs: ModuleType, columns: Columns, options: Any, seed: int, updates: int, evaluations: int
) -> Iterator[Act]:
    """Build CORL's ReBRAC: its update functions in the order of its training loop, with its own first weights."""
    import jax
    import jax.numpy as jnp
    import optax

    jax.tree_map = jax.tree.map  # CORL was written when it had this name
    assert options.policy_delay == 2 and not options.normalize_observations
    names = {"states": "observations", "next_states": "next_observations", "dones": "terminateds"}
    # it leaves out rows whose next action is unknown
    known = columns["next_actions_valid"] | (columns["terminateds"] > 0)
    keys = ("states", "actions", "rewards", "next_states", "next_actions", "dones")
    buffer = theirs.ReplayBuffer(
        data={key: jnp.asarray(columns[names.get(key, key)][known], jnp.float32) for key in keys}
    )
    width, depth = options.hidden_sizes[0], len(options.hidden_sizes)
    states, actions = buffer.data["states"][:1], buffer.data["actions"][:1]
    policy = theirs.DetActor(actions.shape[-1], width, options.actor_layer_norm, depth)
    values = theirs.EnsembleCritic(width, options.n_critics, options.critic_layer_norm, depth)
    key, actor_key, critic_key = jax.random.split(jax.random.PRNGKey(seed), 3)
    first, first_values = policy.init(actor_key, states), values.init(critic_key, states, actions)
    actor = theirs.ActorTrainState.create(
        apply_fn=policy.apply,
        params=first,
        target_params=first,
        tx=optax.adam(options.actor_lr, eps=options.adam_eps),
    )
    critic = theirs.CriticTrainState.create(
        apply_fn=values.apply,
        params=first_values,
        target_params=first_values,
        tx=optax.adam(options.critic_lr, eps=options.adam_eps),
    )
    settings = {
        "gamma": options.gamma,
        "actor_bc_coef": options.actor_bc_coeff,
        "critic_bc_coef": options.critic_bc_coeff,
        "tau": options.tau,
        "policy_noise": options.policy_noise,
        "noise_clip": options.noise_clip,
    }
    both = partial(theirs.update_td3, **settings, normalize_q=options.normalize_q)
    critic_alone = partial(theirs.update_td3_no_targets, **settings)
    metrics = theirs.Metrics.create(
        ["critic_loss", "q_min", "actor_loss", "bc_mse_policy", "bc_mse_random", "action_mse"]
    )

    def pair(_: Any, carry: Any) -> Any:
        key, actor, critic, metrics = carry
        for update in (both, critic_alone):
            key, batch_key = jax.random.split(key)
            batch = buffer.sample_batch(batch_key, options.batch_size)
            key, actor, critic, metrics = update(key=key, actor=actor, critic=critic, batch=batch, metrics=metrics)
        return key, actor, critic, metrics

    part = jax.jit(lambda carry: jax.lax.fori_loop(0, updates // evaluations // 2, pair, carry))
    carry = (key, actor, critic, metrics)
    forward = jax.jit(policy.apply)

    def act(observations: Tensor) -> Tensor:
        return torch.from_numpy(np.array(forward(carry[1].params, jnp.asarray(observations[0].numpy(), jnp.float32))))[
            None
        ]

    for _ in range(evaluations):
        carry = part(carry)
        yield act
