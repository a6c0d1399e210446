"""unifloral's compiled updates: IQL, and TD3+BC, with two updates of the critics and one of the policy a step.

Its CQL samples one action where the others sample ten, so that it is not compared.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from turns import asked, load, take_turns

case = asked()
NAME = {"DR3-IQL": "iql", "DR3-TD3BC": "td3_bc"}[case["algorithm"]]
assert case["options"]["hidden_sizes"] == [256, 256], "the widths of unifloral's networks are fixed"
theirs = load(Path(case["checkout"]) / "algorithms" / f"{NAME}.py", absent=("d4rl", "gym", "tyro", "wandb"))

columns = {name: jnp.asarray(column, jnp.float32) for name, column in np.load(case["columns"]).items()}
names = ("observations", "actions", "rewards", "next_observations", "terminateds")
data = theirs.Transition(*(columns[name] for name in names))
args = theirs.Args(batch_size=case["options"]["batch_size"])
statistics = data.obs.mean(0), data.obs.std(0)
state, pair = [data.obs[0]], [data.obs[0], data.action[0]]
critic = theirs.DualQNetwork(*statistics)
key, actor_key, critic_key, value_key = jax.random.split(jax.random.PRNGKey(0), 4)
critics = [theirs.create_train_state(args, critic_key, critic, pair) for _ in range(2)]
if NAME == "iql":
    actor, value = theirs.TanhGaussianActor(data.action.shape[1], *statistics), theirs.StateValueFunction(*statistics)
    agent = theirs.AgentTrainState(
        theirs.create_train_state(args, actor_key, actor, state),
        *critics,
        theirs.create_train_state(args, value_key, value, state),
    )
    step, updates_in_step = theirs.make_train_step(args, actor.apply, critic.apply, value.apply, data), 1
else:
    actor = theirs.DeterministicTanhActor(data.action.shape[1], *statistics)
    actors = [theirs.create_train_state(args, actor_key, actor, state) for _ in range(2)]
    agent = theirs.AgentTrainState(*actors, *critics)
    step, updates_in_step = theirs.make_train_step(args, actor.apply, critic.apply, data), 2
carry = (key, agent)
run = jax.jit(lambda carry, n: jax.lax.scan(step, carry, None, n)[0], static_argnums=(1,))


def update(n: int) -> None:
    global carry
    carry = run(carry, max(1, n // updates_in_step))
    jax.block_until_ready(jax.tree.leaves(carry))


take_turns(update)
