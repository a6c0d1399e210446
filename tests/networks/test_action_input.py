"""Critics that take discrete actions as input: one pass for all actions is one for each, and encodes states once."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.discrete_critics import ActionInputCritic, DiscreteCritic, MultiHeadCritic
from dr3_ray.types import Transition

K, B, N = 2, 5, 3
SHAPES: dict[str, tuple[Any, Any]] = {
    "vectors": ((4,), "flat"),
    "images": ((8, 8, 3), "impala"),
    "parts": ({"camera": (8, 8, 3), "speed": (2,)}, {"camera": "impala"}),
}


def observations(shape: Any, rows: int = B) -> Any:
    if isinstance(shape, dict):
        return {name: observations(part, rows) for name, part in shape.items()}
    return torch.randint(256, (K, rows, *shape), dtype=torch.uint8) if len(shape) == 3 else torch.randn(K, rows, *shape)


def made(kind: str, heads: int, critics: int = 1) -> tuple[Any, Any]:
    torch.manual_seed(0)
    shape, encoder = SHAPES[kind]
    sources = [torch.Generator().manual_seed(k) for k in range(K)]
    architecture = Architecture(shape, (7, 6), encoder)
    if heads:
        return MultiHeadCritic(sources, architecture, N, heads, "input"), shape
    return ActionInputCritic(sources, architecture, N, critics), shape


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("heads", "critics"), [(0, 1), (0, 2), (1, 1), (4, 1)])
def test_all_actions_in_one_pass_are_each_by_itself(kind: str, heads: int, critics: int):
    critic, shape = made(kind, heads, critics)
    seen = observations(shape)
    q, phi = critic(seen)
    assert phi.shape == (K, critics, B, N, 6) and critic.reads_actions
    q = q.mean(-1).unsqueeze(1) if heads else q
    for action in range(N):
        actions = torch.full((K, B), action)
        torch.testing.assert_close(critic.values(seen, actions), q[..., action])
        torch.testing.assert_close(critic.features(seen, actions), phi[:, :, :, action])
    assert not torch.allclose(phi[:, :, :, 0], phi[:, :, :, 1])  # which heads cannot tell apart


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("heads", [0, 4])
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("looks", [False, True])
def test_along_is_a_pass_for_each_pair(kind: str, heads: int, every: bool, looks: bool):
    critic, shape = made(kind, heads)
    (inner := critic.critic if heads else critic).looks_ahead = looks
    actions, next_actions = torch.randint(N, (2, K, B))
    batch = Transition(observations(shape), actions, next_observations=observations(shape))
    counted: list[int] = []
    inner.observe.register_forward_hook(lambda module, given, found: counted.append(found.shape[2]))
    q, phi, next_phi = critic.along(batch, next_actions, every)
    assert counted == [2 * B if looks else B]  # states are encoded once, whatever the number of actions
    torch.testing.assert_close(phi, critic.features(batch.observations, actions))
    if looks:
        torch.testing.assert_close(next_phi, critic.features(batch.next_observations, next_actions))
    else:
        assert next_phi is None
    everything = critic(batch.observations)[0]
    if every:
        torch.testing.assert_close(q, everything)
    elif heads:
        torch.testing.assert_close(q, everything.gather(2, actions[:, :, None, None].expand(-1, -1, 1, heads))[:, :, 0])
    else:
        torch.testing.assert_close(q, critic.values(batch.observations, actions))


@pytest.mark.parametrize("n_outputs", [1, 4])
def test_heads_give_the_outputs_of_the_action_taken(n_outputs: int):
    critic = DiscreteCritic([torch.Generator().manual_seed(0)], Architecture((4,), (6,)), N, n_outputs=n_outputs)
    seen, actions = torch.randn(1, B, 4), torch.randint(N, (1, B))
    whole = critic(seen)[0].view(1, 1, B, N, n_outputs)
    wanted = torch.stack([whole[:, :, row, actions[0, row]] for row in range(B)], dim=2)
    found: Tensor = critic.values(seen, actions)
    assert torch.equal(found.view(wanted.shape), wanted)


def test_no_action_is_no_error():
    """−1 stands for none where a policy has diverged."""
    critic, shape = made("vectors", 0)
    assert critic.features(observations(shape), torch.full((K, B), -1)).isfinite().all()
