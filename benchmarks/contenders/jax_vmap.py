"""K members of DQN + CQL + DR3 in JAX: one update written for a member, `jax.vmap` over members, compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from turns import asked, take_turns

GAMMA, CQL_ALPHA, PERIOD = 0.99, 0.1, 2000  # the defaults of DR3-CQL

case = asked()
names = ("observations", "actions", "rewards", "next_observations", "terminateds")
data = {name: jnp.asarray(np.load(case["columns"])[name]) for name in names}
data = {name: each.reshape(len(each), -1) if each.ndim > 2 else each for name, each in data.items()}
optimizer = optax.adam(5e-5, eps=3.125e-4)


def first(key):
    """Draw weights and biases of every layer."""
    sizes = [data["observations"].shape[1], *case["options"]["hidden_sizes"], int(data["actions"].max()) + 1]
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.uniform(each, (n_in, n_out), minval=-1.0, maxval=1.0) / n_in**0.5, jnp.zeros(n_out))
        for each, n_in, n_out in zip(keys, sizes, sizes[1:], strict=False)
    ]


def forward(network, phi):
    """Return Q(s, ·) and the features before it."""
    for weight, bias in network[:-1]:
        phi = jax.nn.relu(phi @ weight + bias)
    weight, bias = network[-1]
    return phi @ weight + bias, phi


def loss(network, target, batch):
    s, a, r, next_s, terminated = (batch[name] for name in names)
    q, phi = forward(network, s)
    _, next_phi = forward(network, next_s)
    y = r + GAMMA * (1.0 - terminated) * forward(target, next_s)[0].max(-1)
    q_a = jnp.take_along_axis(q, a[:, None], 1)[:, 0]
    alive = 1.0 - terminated
    dr3 = ((phi * next_phi).sum(-1) * alive).sum() / alive.sum()
    return (
        optax.huber_loss(q_a, jax.lax.stop_gradient(y)).mean()
        + CQL_ALPHA * (jax.scipy.special.logsumexp(q, axis=-1) - q_a).mean()
        + case["dr3_coeff"] * dr3
    )


def step(carry, _):
    """Make one update of one member."""
    network, target, adam, key, count = carry
    key, drawn = jax.random.split(key)
    rows = jax.random.randint(drawn, (case["options"]["batch_size"],), 0, len(data["rewards"]))
    gradients = jax.grad(loss)(network, target, {name: each[rows] for name, each in data.items()})
    changes, adam = optimizer.update(gradients, adam)
    network = optax.apply_updates(network, changes)
    target = optax.periodic_update(network, target, count + 1, PERIOD)
    return (network, target, adam, key, count + 1), None


def start(key):
    network = first(key)
    return network, network, optimizer.init(network), key, 0


carry = jax.vmap(start)(jax.random.split(jax.random.PRNGKey(0), case["members"]))
run = jax.jit(lambda carry, n: jax.lax.scan(jax.vmap(step, (0, None)), carry, None, n)[0], static_argnums=(1,))


def update(n: int) -> None:
    global carry
    carry = jax.block_until_ready(run(carry, n))


take_turns(update)
