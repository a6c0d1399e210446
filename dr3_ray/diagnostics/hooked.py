"""A critic of plain torch, whose features a forward hook sees while it is called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dr3_ray.errors import UserError, check_known
from dr3_ray.losses.td import value_of
from dr3_ray.observations import each_part

PENULTIMATE = "penultimate"
ROWS_AT_ONCE = 1024
Evaluate = Callable[[Any, Any, Any], Any]
"""Of the critic, observations and actions: Q [B] or [B, 1], or of every action [B, n]."""
Observations = Any  # [B, *observation], or a dict of such


class Evaluated(NamedTuple):
    """What a critic gives at B rows."""

    q: Tensor  # [B]
    phi: Tensor  # [B, F]
    every: Tensor | None  # Q of every choice, [B, n], where the critic gives that


@contextmanager
def evaluated(critic: nn.Module) -> Iterator[None]:
    """Put a critic into evaluation, and each of its modules back to how it was."""
    modes = [(module, module.training) for module in critic.modules()]
    critic.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class HookedCritic:
    """A critic with the hook that sees its features."""

    def __init__(self, critic: nn.Module, features: str, evaluate: Evaluate | None) -> None:
        self.module, self.features, self.evaluate = critic, features, evaluate or called
        self.notes: set[str] = set()
        self.head: nn.Linear | None = None  # the last linear layer, where φ is its input
        self._seen: list[Any] = []

    def at(self, observations: Observations, actions: Tensor) -> Evaluated:
        """Evaluate (s, a) and its features, some rows at a time."""
        parts = []
        with self._hooked():
            for start in range(0, len(actions), ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                self._seen.clear()
                some = actions[rows]
                q, every = values_of(self.evaluate(self.module, _some(observations, rows), some), some)
                parts.append(Evaluated(q, self._phi(len(some)), every))
        values = [part.every for part in parts if part.every is not None]
        q, phi = (torch.cat([getattr(part, name) for part in parts]) for name in ("q", "phi"))
        return Evaluated(q, phi, torch.cat(values) if values else None)

    def value(self, observations: Observations, actions: Tensor) -> Tensor:
        """Return Q(s, a), [B]."""
        return self.at(observations, actions).q

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        """See the features of every call."""
        if self.features == PENULTIMATE:

            def entered(layer: nn.Linear, given: tuple[Any, ...]) -> None:
                self._seen.append((layer, given[0]))

            layers = [layer for layer in self.module.modules() if isinstance(layer, nn.Linear)]
            hooks = [layer.register_forward_pre_hook(entered) for layer in layers]
        else:
            modules = dict(self.module.named_modules())
            check_known("layer", [self.features], [name for name in modules if name])
            hooks = [
                modules[self.features].register_forward_hook(lambda layer, given, out: self._seen.append((layer, out)))
            ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _phi(self, rows: int) -> Tensor:
        """Return the features of the last call, [B, F].

        Raises:
            UserError: none were seen, or of another shape.
        """
        if not self._seen:
            raise UserError(
                f"no linear layer of {type(self.module).__name__} was called: name the module whose output φ is, "
                "features='NAME'"
                if self.features == PENULTIMATE
                else f"the layer {self.features!r} was not called: name another one"
            )
        layer, phi = self._seen[-1]
        shape = tuple(phi.shape) if isinstance(phi, Tensor) else type(phi).__name__
        if not isinstance(phi, Tensor) or phi.ndim != 2 or len(phi) != rows:
            raise UserError(f"the features have shape {shape}, not ({rows}, F): name another layer, features='NAME'")
        self.head = layer if self.features == PENULTIMATE else None
        return phi.detach().float()


def called(critic: nn.Module, observations: Observations, actions: Tensor) -> Any:
    """Call a critic on states and actions, or on states alone where actions are choices."""
    return critic(observations, actions) if actions.is_floating_point() else critic(observations)


def values_of(given: Any, actions: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return Q(s, a) [B], and of every action [B, n] where that was given.

    Raises:
        UserError: it is neither.
    """
    shape = tuple(given.shape) if isinstance(given, Tensor) else None
    n = len(actions)
    if shape in ((n,), (n, 1)):
        return given.reshape(n).float(), None
    if shape is not None and len(shape) == 2 and shape[0] == n and not actions.is_floating_point():
        if int(actions.max()) >= shape[1] or int(actions.min()) < 0:
            raise UserError(f"actions go from {int(actions.min())} to {int(actions.max())}, the critic has {shape[1]}")
        return value_of(given.float(), actions), given.float()
    what = f"shape {shape}" if shape is not None else type(given).__name__
    raise UserError(
        f"the critic gives {what}, not Q of {n} rows: give evaluate=, which returns ({n},) or ({n}, actions)"
    )


def _some(observations: Observations, rows: slice) -> Observations:
    return each_part(lambda part: part[rows], observations)
