"""JAX-CORL's compiled updates. Its IQL has a layer norm in V, and its TD3+BC one in Q."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from turns import asked, load, take_turns

case = asked()
NAME = {"DR3-CQL": "cql", "DR3-IQL": "iql", "DR3-TD3BC": "td3bc"}[case["algorithm"]]
theirs = load(Path(case["checkout"]) / "algos" / f"{NAME}.py", absent=("d4rl", "gym", "wandb"))

columns = dict(np.load(case["columns"]))
columns |= {"dones": columns["terminateds"], "dones_float": columns["terminateds"]}
data = theirs.Transition(**{name: jnp.asarray(columns[name], jnp.float32) for name in theirs.Transition._fields})
config = theirs.config
config.hidden_dims, config.batch_size = tuple(case["options"]["hidden_sizes"]), case["options"]["batch_size"]
if NAME == "cql":
    config.action_dim, config.target_entropy = data.actions.shape[1], -float(data.actions.shape[1])
algorithm = getattr(theirs, {"cql": "CQL", "iql": "IQL", "td3bc": "TD3BC"}[NAME])
key = jax.random.PRNGKey(0)
state = getattr(theirs, f"create_{NAME}_train_state")(key, data.observations[0], data.actions[0], config)
step = jax.jit(algorithm.update_n_times, static_argnums=(3,))


def update(n: int) -> None:
    global state, key
    for _ in range(0, n, config.n_jitted_updates):
        key, each = jax.random.split(key)
        state, _ = step(state, data, each, config)
    jax.block_until_ready(jax.tree.leaves(state))


take_turns(update)
