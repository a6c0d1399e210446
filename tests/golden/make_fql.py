"""Make fql*.npz again: what the authors' FQL says of given weights, batch and noise.

    git clone https://github.com/seohongpark/fql && python tests/golden/make_fql.py fql

The files in the repository were made at commit 719d044, with jax, flax, optax and ml_collections beside dr3-ray. Hidden
layers have ReLU in the place of its GELU, as all of ours.
"""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from continuous_inputs import ACTION, BATCH, HIDDEN, batch, save
from make_corl import flax

NAMES = {"critic": "critic", "target_critic": "target_critic", "actor_bc_flow": "flow", "actor_onestep_flow": "actor"}


def fql(name: str, rng: torch.Generator, **options: Any) -> None:
    """FQL with α 3 and four steps of its flow; some actions and ends leave [−1, 1]."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from agents import fql as theirs
    from utils import networks

    class WithReLU(networks.MLP):  # type: ignore[name-defined, misc]
        activations: Any = jax.nn.relu

    networks.MLP = WithReLU
    columns = batch(rng)
    config = theirs.get_config()
    config.update(
        actor_hidden_dims=(HIDDEN, HIDDEN), value_hidden_dims=(HIDDEN, HIDDEN), discount=0.97, alpha=3.0, flow_steps=4,
        **options,
    )  # fmt: skip
    given = {each: columns[each].numpy() for each in ("observations", "actions", "rewards", "next_observations")}
    given["masks"] = 1.0 - columns["terminateds"].numpy()
    agent = theirs.FQLAgent.create(0, given["observations"], given["actions"], config)
    drawn = np.random.default_rng(7)
    weights = jax.tree_util.tree_map(
        lambda value: np.asarray(value, np.float64) + 0.3 * drawn.standard_normal(value.shape), agent.network.params
    )
    noise = {each: torch.randn(BATCH, ACTION, generator=rng) for each in ("next_action", "start", "action")}
    noise["time"] = torch.rand(BATCH, generator=rng) * 2.0 - 1.0
    time = (noise["time"].numpy()[:, None] + 1.0) / 2.0

    agent = agent.replace(network=agent.network.replace(params=weights))
    order = iter([noise[each].numpy() for each in ("next_action", "start", "action", "action")])
    with (
        jax.disable_jit(),
        patch("jax.random.normal", lambda key, shape: next(order)),
        patch("jax.random.uniform", lambda key, shape: time),
    ):
        gradients, info = jax.grad(lambda each: agent.total_loss(given, each, jax.random.PRNGKey(0)), has_aux=True)(
            weights
        )
    losses = {
        "critic": info["critic/critic_loss"],
        "flow": info["actor/bc_flow_loss"],
        "actor": info["actor/actor_loss"] - info["actor/bc_flow_loss"],
    }
    save(
        name, columns, noise, {each: float(value) for each, value in losses.items()},
        *(flax("weights", ours, layers(weights, its)) for its, ours in NAMES.items()),
        *(flax("gradients", ours, layers(gradients, its)) for its, ours in NAMES.items() if its != "target_critic"),
    )  # fmt: skip


def layers(tree: Any, network: str) -> dict[str, Any]:
    """Return the layers of a network as `flax` takes them."""
    (inside,) = tree[f"modules_{network}"].values()
    return {"params": inside}


def main() -> None:
    """Everything, from the checkout that the command line names."""
    torch.set_default_dtype(torch.float64)
    rng, checkout = torch.Generator().manual_seed(8), Path(sys.argv[1])
    sys.path.insert(0, str(checkout))
    fql("fql", rng)
    fql("fql_normalized", rng, q_agg="min", normalize_q_loss=True)


if __name__ == "__main__":
    main()
