"""Make dopamine_*.npz again: what Dopamine's DR3 and QR-DQN say of given weights and batch.

    git clone https://github.com/google/dopamine && pip install jax
    python tests/golden/make_dopamine.py dopamine

The files in the repository were made at commit 5873f54 with jax 0.10. Only the functions that are compared are taken
from the checkout, so that neither flax nor TensorFlow is needed.
"""

import ast
import functools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from discrete_inputs import ACTIONS, HIDDEN, Layers, batch, layers, save

QUANTILES = 6


class Outputs(NamedTuple):
    """What Dopamine asks of a network."""

    q_values: Any
    logits: Any
    representation: Any


class Network:
    """The network of the other golden files as Dopamine sees it, one observation at a time."""

    def apply(self, params: Layers, state: Any) -> Outputs:
        """φ is the input of the last layer; outputs are quantiles, of which Q is the mean."""
        for weight, bias in params[:-1]:
            state = jax.nn.relu(weight @ state + bias)
        logits = (params[-1][0] @ state + params[-1][1]).reshape(ACTIONS, -1)
        return Outputs(logits.mean(-1), logits, state)


class Gradient:
    """An optimiser whose update is the gradient."""

    def update(self, gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """The gradient."""
        return gradient, state


def functions(path: Path, *names: str, **known: Any) -> list[Any]:
    """The named functions of a file, without what the file imports."""
    namespace: dict[str, Any] = {"jax": jax, "jnp": jnp, "functools": functools} | known
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            exec(compile(ast.Module([node], []), str(path), "exec"), namespace)
    return [namespace[name] for name in names]


def main() -> None:
    """One training step each of DR3 with CQL and of QR-DQN, and DR3's penalty on features of either sign."""
    jax.config.update("jax_enable_x64", True)
    source = Path(sys.argv[1]) / "dopamine"
    (huber,) = functions(source / "jax" / "losses.py", "huber_loss")
    (target_q,) = functions(source / "jax" / "agents" / "dqn" / "dqn_agent.py", "target_q")
    optax = SimpleNamespace(apply_updates=lambda params, updates: updates)
    rng = np.random.default_rng(0)

    penalty, train = functions(
        source / "labs" / "offline_rl" / "jax" / "offline_dr3_agent.py", "compute_dr3_loss", "train",
        losses=SimpleNamespace(huber_loss=huber), base_dqn_agent=SimpleNamespace(target_q=target_q), optax=optax,
    )  # fmt: skip
    online, target, columns = layers(rng), layers(rng), batch(rng)
    rows = [columns[name] for name in ("observations", "actions", "next_observations", "rewards", "terminateds")]
    _, gradient, _, bellman, dr3, gap, *_ = train(
        Network(), online, target, Gradient(), None, *rows, 0.97, 0.3, 0.1
    )  # fmt: skip
    signed = rng.normal(size=(2, 16, HIDDEN))
    save(
        "dopamine_dr3", online, target, columns, {"critic": bellman, "dr3": 0.3 * dr3, "cql": 0.1 * gap}, gradient,
        features=signed, penalty=np.asarray(penalty(*signed)), penalty_gradient=np.asarray(
            jax.grad(lambda each: penalty(*each))(signed)),
    )  # fmt: skip

    _, train = functions(
        source / "jax" / "agents" / "quantile" / "quantile_agent.py", "target_distribution", "train", optax=optax
    )
    online, target, columns = layers(rng, QUANTILES), layers(rng, QUANTILES), batch(rng)
    rows = [columns[name] for name in ("observations", "actions", "next_observations", "rewards", "terminateds")]
    _, gradient, _, loss = train(Network(), online, target, Gradient(), None, *rows, 0.7, QUANTILES, 0.97)
    save("dopamine_qrdqn", online, target, columns, {"critic": loss}, gradient)


if __name__ == "__main__":
    main()
