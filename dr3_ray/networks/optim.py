"""Adam over flat parameters, every member with its own step size."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dr3_ray.compat import torch as compat

BETAS = (0.9, 0.999)
LONG = 2**22  # parameters of a pack, beyond which torch's fused kernel is faster on a GPU


class _Group(NamedTuple):
    """Members of equal step size: their rows among those stepped, and one piece for each of their parameters."""

    rows: list[int]
    values: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]  # a member's own, once for each of its parameters


def adam(
    values: Tensor,
    gradients: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    steps: Tensor,
    lr: Tensor,
    epsilon: Tensor,
    weight_decay: Tensor,
) -> None:
    """Update parameters [K, P] in place, the update of number `steps` [K], with settings [K, 1].

    m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², θ ← (1 − lr λ) θ − lr · m̂ / (√v̂ + ε).
    """
    exp_avg.lerp_(gradients, 1.0 - BETAS[0])
    exp_avg_sq.mul_(BETAS[1]).addcmul_(gradients, gradients, value=1.0 - BETAS[1])
    # in float64: 1 − β₂ is a difference of numbers near 1
    first, second = ((1.0 - beta ** steps.double().unsqueeze(1)).to(values.dtype) for beta in BETAS)
    # √v̂ is √v / √(1 − β₂ᵗ), which multiplied through spares a pass over the parameters
    root = second.sqrt()
    values.mul_(1.0 - lr * weight_decay)
    values.addcdiv_(exp_avg * (lr * root / first), exp_avg_sq.sqrt().add_(epsilon * root), value=-1.0)


def fused_adam(
    values: list[Tensor],
    gradients: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    *,
    settings: tuple[float, float, float],
) -> None:
    """Update pieces of equal settings by torch's kernel, in the fewest passes over memory."""
    if compat.fused_adamw is None:
        columns = [torch.tensor([[setting]], dtype=values[0].dtype, device=values[0].device) for setting in settings]
        for *pieces, step in zip(values, gradients, exp_avgs, exp_avg_sqs, steps, strict=True):
            value, gradient, exp_avg, exp_avg_sq = (piece.view(1, -1) for piece in pieces)
            adam(value, gradient, exp_avg, exp_avg_sq, step.view(1), *columns)
        return
    lr, epsilon, weight_decay = settings
    compat.fused_adamw(
        values, gradients, exp_avgs, exp_avg_sqs, [], steps,
        lr=lr, beta1=BETAS[0], beta2=BETAS[1], weight_decay=weight_decay, eps=epsilon, amsgrad=False, maximize=False,
    )  # fmt: skip


class StackedAdam:
    """Adam (Kingma & Ba 2015) on flat parameters [K, P] that hold parameters of `shapes`, each [K, ...].

    β = (0.9, 0.999), weight decay as in AdamW. On a CPU members of equal settings share one fused call, which walks
    their parameters one by one; on a GPU a call is for all members and parameters, by the equations of `adam`.
    """

    def __init__(
        self,
        values: Tensor,
        shapes: Sequence[torch.Size],
        lrs: Sequence[float],
        epsilons: Sequence[float],
        weight_decays: Sequence[float] | None = None,
        update: Callable[..., None] = adam,
    ):
        self.together, self._update = values.device.type != "cpu", update
        self._in_step = True  # all members have made equally many steps
        self.exp_avg = torch.zeros_like(values)
        self.exp_avg_sq = torch.zeros_like(values)
        self.steps = torch.zeros(len(values), dtype=torch.float32, device=values.device)
        self._values, self._shapes = values, [shape[1:] for shape in shapes]
        self._settings = list(zip(lrs, epsilons, weight_decays or [0.0] * len(lrs), strict=True))
        self._stacked = torch.tensor(self._settings, dtype=values.dtype, device=values.device)  # [K, 3]
        self._groups: dict[range, dict[tuple[float, float, float], _Group]] = {}

    @torch.no_grad()
    def step(self, members: range, gradients: Sequence[Tensor]) -> None:
        """Update these members once from the gradients of each parameter, [len(members), ...]."""
        rows = slice(members.start, members.stop)
        self.steps[rows] += 1
        if self.together:
            settings = self._stacked[rows].unsqueeze(-1).unbind(1)
            flat = torch.cat([gradient.reshape(len(members), -1) for gradient in gradients], dim=1)
            state = self._values[rows], flat, self.exp_avg[rows], self.exp_avg_sq[rows]
            if flat.numel() >= LONG and self._alike(members):
                whole = [[tensor] for tensor in (*state, self.steps[members.start])]
                fused_adam(*whole, settings=self._settings[members.start])
            else:
                self._update(*state, self.steps[rows], *settings)
            return
        if members not in self._groups:
            self._groups[members] = self._grouped(members)
        for slot, group in self._groups[members].items():
            # contiguous: the fused kernel walks memory, and a convolution's gradient may lie there in another order
            pieces = [gradient[row].contiguous() for row in group.rows for gradient in gradients]
            moments = group.exp_avgs, group.exp_avg_sqs
            fused_adam(group.values, pieces, *moments, group.steps, settings=slot)

    def _alike(self, members: range) -> bool:
        """Return whether one kernel with one step size and one step count may serve them all."""
        return self._in_step and len({self._settings[member] for member in members}) == 1

    def _grouped(self, members: range) -> dict[tuple[float, float, float], _Group]:
        """Return the members by (step size, ε, weight decay)."""
        groups: dict[tuple[float, float, float], _Group] = {}
        for row, member in enumerate(members):
            group = groups.setdefault(self._settings[member], _Group([], [], [], [], []))
            group.rows.append(row)
            group.steps.extend([self.steps[member]] * len(self._shapes))
            for pieces, flat in (
                (group.values, self._values),
                (group.exp_avgs, self.exp_avg),
                (group.exp_avg_sqs, self.exp_avg_sq),
            ):
                parts = torch.split(flat[member], [shape.numel() for shape in self._shapes])
                pieces.extend(part.view(shape) for part, shape in zip(parts, self._shapes, strict=True))
        return groups

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments [K, P] and step counts [K]."""
        return {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy the moments and step counts in place."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
        self._in_step = bool((self.steps == self.steps[0]).all())
