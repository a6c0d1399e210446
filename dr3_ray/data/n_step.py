"""Transitions over several steps: the rows that follow a row in its episode."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dr3_ray.data.number_types import Array

if TYPE_CHECKING:  # as below: opening a data set takes no torch
    from torch import Tensor

FOLLOWED = ("rewards", "terminateds", "truncateds", "episode_ids", "timesteps")  # from step to step
AT_THE_END = ("next_observations", "next_actions", "next_actions_valid", "terminateds")


class Rows(Protocol):
    """What training asks of a data set."""

    def __len__(self) -> int: ...

    def gather(self, indices: "Tensor", columns: Sequence[str]) -> dict[str, Any]:
        """Return columns at `indices`, each [*indices, ...]; observations may be a dict of such."""
        ...


class Apart(NamedTuple):
    """Rows that were drawn one by one: the data set in which several steps go on, and where the rows lie there."""

    whole: Rows
    rows: "Array | Tensor"  # a tensor where these are in the memory of a device


def gather_n_step(data: Rows, indices: "Tensor", columns: Sequence[str], n: int) -> dict[str, Any]:
    """Return columns of the transitions from rows `indices` [..., B] to the state n steps later.

    They are shorter where the episode ends or, in a subsample on disk, the next row is another one. Rows that are
    `Apart` go on in their whole data set, whether the steps that follow are among them or not. The columns of s' and
    `terminateds` are those of the last step taken; `n_step_rewards` [..., B, n] are the rewards of all of them, 0
    behind the last, and `n_steps` [..., B] is their number. A truncated episode bootstraps from its last state.
    """
    import torch

    apart: Apart | None = getattr(data, "apart", None)
    if apart:
        data, indices = apart.whole, torch.as_tensor(apart.rows)[indices]
    rows = indices.unsqueeze(-1) + torch.arange(n, device=indices.device)
    gathered = data.gather(rows.clamp(max=len(data) - 1), FOLLOWED)
    timesteps, episodes = gathered["timesteps"], gathered["episode_ids"]
    ended = (gathered["terminateds"] + gathered["truncateds"])[..., :-1] > 0
    goes_on = ~ended & (timesteps[..., 1:] == timesteps[..., :-1] + 1) & (episodes[..., 1:] == episodes[..., :-1])
    taken = torch.cat([torch.ones_like(rows[..., :1], dtype=torch.bool), goes_on.cumprod(-1).bool()], dim=-1)
    n_steps = taken.sum(-1)
    here = data.gather(indices, [name for name in columns if name not in AT_THE_END])
    there = data.gather(indices + n_steps - 1, [name for name in columns if name in AT_THE_END])
    rewards = gathered["rewards"] * taken
    return here | there | {"n_step_rewards": rewards, "n_steps": n_steps.to(rewards.dtype)}
