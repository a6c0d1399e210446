"""Make batch_rl_rem.npz again: what batch_rl's REM says of given weights and batch, with a mixture that it drew.

    git clone https://github.com/google-research/batch_rl && pip install tensorflow-cpu
    python tests/golden/make_batch_rl.py batch_rl

The file in the repository was made at commit 6f7f4d5 with TensorFlow 2.21, which runs batch_rl's functions eagerly.
They compute in float32.
"""

import ast
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from discrete_inputs import ACTIONS, batch, layers, save

HEADS = 4


def functions(path: Path, *names: str) -> list[Any]:
    """The named functions or methods of a file, without what the file imports."""
    namespace: dict[str, Any] = {"tf": tf}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            exec(compile(ast.Module([node], []), str(path), "exec"), namespace)
    return [namespace[name] for name in names]


def main() -> None:
    """The loss of one training step, its gradient, and the value that acts."""
    folder = Path(sys.argv[1]) / "batch_rl" / "multi_head"
    mixture_of, combine = functions(folder / "atari_helpers.py", "random_stochastic_matrix", "combine_q_functions")
    target_of, train = functions(folder / "multi_head_dqn_agent.py", "_build_target_q_op", "_build_train_op")
    rng = np.random.default_rng(0)
    tf.random.set_random_seed(0)
    online, target, columns = layers(rng, HEADS), layers(rng, HEADS), batch(rng)
    mixture = mixture_of(HEADS, num_cols=1)

    def outputs(network: Any, observations: Any) -> Any:
        hidden = tf.constant(observations, tf.float32)
        for n, (weight, bias) in enumerate(network):
            hidden = tf.matmul(hidden, weight, transpose_b=True) + bias
            hidden = tf.nn.relu(hidden) if n < len(network) - 1 else hidden
        heads = tf.reshape(hidden, [-1, ACTIONS, HEADS])
        return SimpleNamespace(
            **dict(zip(("q_heads", "q_values"), combine(heads, "STOCHASTIC", transform_matrix=mixture), strict=True))
        )

    losses: list[Any] = []
    weights = [[tf.Variable(value, dtype=tf.float32) for value in layer] for layer in online]
    with tf.GradientTape() as tape:
        agent = SimpleNamespace(
            _replay=SimpleNamespace(
                actions=tf.constant(columns["actions"], tf.int32),
                rewards=tf.constant(columns["rewards"], tf.float32),
                terminals=tf.constant(columns["terminateds"], tf.uint8),
            ),
            _replay_net_outputs=outputs(weights, columns["observations"]),
            _replay_next_target_net_outputs=outputs(
                [[tf.constant(value, tf.float32) for value in layer] for layer in target],
                columns["next_observations"],
            ),
            cumulative_gamma=0.97,
            summary_writer=None,
            optimizer=SimpleNamespace(minimize=losses.append),
            _build_target_q_op=lambda: target_of(agent),
        )
        train(agent)
    gradients = tape.gradient(losses[0], weights)
    save(
        "batch_rl_rem", online, target, columns, {"critic": losses[0].numpy()},
        [(weight.numpy(), bias.numpy()) for weight, bias in gradients],
        mixture=mixture.numpy()[:, 0], q_values=agent._replay_net_outputs.q_values.numpy(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
