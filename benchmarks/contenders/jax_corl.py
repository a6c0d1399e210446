"""JAX-CORL's compiled updates. Its IQL has a layer norm in V, and its TD3+BC one in Q."""

import importlib.util
import sys
from pathlib import Path
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
from turns import asked, take_turns

case = asked()
NAME = {"DR3-CQL": "cql", "DR3-IQL": "iql", "DR3-TD3BC": "td3bc"}[case["algorithm"]]
for absent in ("d4rl", "gym", "wandb"):
    sys.modules[absent] = MagicMock()
spec = importlib.util.spec_from_file_location("theirs", Path(case["checkout"]) / "algos" / f"{NAME}.py")
assert spec and spec.loader
theirs = importlib.util.module_from_spec(spec)
sys.modules["theirs"] = theirs
spec.loader.exec_module(theirs)

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
