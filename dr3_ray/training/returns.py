"""Discounted returns of the data's rows, of the rewards that members learn from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dr3_ray.algorithms.spec import AlgorithmSpec, RewardOptions
from dr3_ray.data.episodes import monte_carlo_returns
from dr3_ray.data.n_step import Rows
from dr3_ray.data.number_types import Array
from dr3_ray.data.resident import on_host
from dr3_ray.errors import UserError

COLUMN = "monte_carlo_returns"
ROWS_AT_ONCE = 2**20


def column_of(data: Rows, name: str) -> Tensor:
    """Return a column of all rows, [N, …]."""
    parts = torch.split(torch.arange(len(data)), ROWS_AT_ONCE)
    return torch.cat([data.gather(rows, (name,))[name] for rows in parts])


def discounted(rewards: Array, data: Rows, gamma: float) -> Array:
    """Return the discounted returns of rewards [N] of all rows, to the end of each row's episode, [N]."""
    episodes = np.split(rewards, np.asarray(data.episodes["offsets"])[1:])  # type: ignore[attr-defined]
    return np.concatenate([monte_carlo_returns(episode, gamma) for episode in episodes])


def as_stored(options: Any, data: Rows) -> bool:
    """Return whether the data's own returns are, up to a factor, those of the rewards that are learned from."""
    if not isinstance(options, RewardOptions):
        return True
    return options.gamma == getattr(data, "gamma", None) and not (options.reward_shift or options.reward_clip)  # type: ignore[attr-defined]


def are_known(options: Any, data: Rows) -> bool:
    """Return whether these returns are stored, or can be computed: no row of an episode is missing."""
    manifest = getattr(data, "manifest", None)
    return as_stored(options, data) or manifest is None or manifest.complete_episodes


def known_at(data: Rows) -> str:
    """Say for which options the returns of data that lack rows are known."""
    return (
        "these data lack rows, so that they are known only at "
        f"gamma = {getattr(data, 'gamma', 0.0):g} without reward_shift and reward_clip"
    )


def check_recorded(spec: AlgorithmSpec, options: Sequence[Any]) -> None:
    """Check that members of these options learn the rewards that were recorded, if they learn their returns as well.

    Raises:
        UserError: an option makes other rewards of them, whose returns nobody knows.
    """
    if not _asked(spec.columns):
        return
    for option in options:
        for name, usual in (("hindsight", "none"), ("reward_clip", 0.0)):
            if (value := getattr(option, name)) != usual:
                raise UserError(
                    f"{spec.name} compares Q with the returns of recorded rewards, which {name} = {value} replaces: "
                    "leave it out"
                )


def check_returns(columns: Sequence[str], members: Sequence[Any], data: Rows) -> None:
    """Check that the returns are known that an objective of these columns takes beside rewards.

    Raises:
        UserError: they are not.
    """
    data = on_host(data)
    for member in members:
        if _asked(columns) and not are_known(member.options, data):
            raise UserError(f"the algorithm needs the data's returns, and {known_at(data)}: take whole episodes")


class Returns:
    """The column `monte_carlo_returns` of K members, where it is not that of the data: of r + shift, discounted by γ.

    Members of equal γ and shift share one column, 4 bytes a row. Where returns are not known, the stored ones stand:
    training has refused that, and no probe reads them.
    """

    def __init__(self, members: Sequence[Any], data: Rows) -> None:
        kinds: dict[tuple[float, float] | None, Tensor] = {}
        places = []
        for options in (member.options for member in members):
            stored = as_stored(options, data) or not are_known(options, data)
            kind = None if stored else (options.gamma, options.reward_shift)
            if kind not in kinds:
                kinds[kind] = column_of(data, COLUMN) if kind is None else _shifted(data, *kind)
            places.append(list(kinds).index(kind))
        self._places, self._table = torch.tensor(places).unsqueeze(-1), torch.stack(list(kinds.values()))

    @classmethod
    def of(cls, columns: Sequence[str], members: Sequence[Any], data: Rows) -> "Returns | None":
        """Return these, or None: an objective of these columns takes none, or those of the data."""
        data = on_host(data)
        stored = all(as_stored(member.options, data) for member in members)
        return None if stored or not _asked(columns) else cls(members, data)

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self._places, self._table = self._places.to(device), self._table.to(device)

    def __call__(self, indices: Tensor, members: slice) -> Tensor:
        """Return those of rows [*lead, K or 1, B] for these members, [*lead, K, B]."""
        return self._table[self._places[members], indices]


def _asked(columns: Sequence[str]) -> bool:
    return COLUMN in columns and "rewards" in columns  # without rewards, stored returns are what is learned


def _shifted(data: Rows, gamma: float, shift: float) -> Tensor:
    return torch.from_numpy(discounted(column_of(data, "rewards").numpy() + shift, data, gamma))
