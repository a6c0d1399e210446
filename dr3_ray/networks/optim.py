"""Adam over flat parameters, every member with its own step size."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class _Group(NamedTuple):
    """Members of equal step size: their rows among those stepped, and one piece for each of their parameters."""

    rows: list[int]
    values: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]  # a member's own, once for each of its parameters


class StackedAdam:
    """Adam (Kingma & Ba 2015) on flat parameters [K, P] that hold parameters of `shapes`, each [K, ...].

    β = (0.9, 0.999), weight decay as in AdamW. Members of equal settings share one fused call.
    """

    def __init__(
        self,
        values: Tensor,
        shapes: Sequence[torch.Size],
        lrs: Sequence[float],
        epsilons: Sequence[float],
        weight_decays: Sequence[float] | None = None,
    ):
        self.exp_avg = torch.zeros_like(values)
        self.exp_avg_sq = torch.zeros_like(values)
        self.steps = torch.zeros(len(values), dtype=torch.float32, device=values.device)
        self._values, self._shapes = values, [shape[1:] for shape in shapes]
        self._settings = list(zip(lrs, epsilons, weight_decays or [0.0] * len(lrs), strict=True))
        self._groups: dict[range, dict[tuple[float, float, float], _Group]] = {}

    @torch.no_grad()
    def step(self, members: range, gradients: Sequence[Tensor]) -> None:
        """One update of these members from the gradients of each parameter, [len(members), ...]."""
        if members not in self._groups:
            self._groups[members] = self._grouped(members)
        self.steps[members.start : members.stop] += 1
        for (lr, epsilon, weight_decay), group in self._groups[members].items():
            # contiguous: the fused kernel walks memory, and a convolution's gradient may lie there in another order
            torch._fused_adamw_(
                group.values, [gradient[row].contiguous() for row in group.rows for gradient in gradients],
                group.exp_avgs, group.exp_avg_sqs, [], group.steps,
                lr=lr, beta1=0.9, beta2=0.999, weight_decay=weight_decay, eps=epsilon, amsgrad=False, maximize=False,
            )  # fmt: skip

    def _grouped(self, members: range) -> dict[tuple[float, float, float], _Group]:
        """The members by (step size, ε, weight decay)."""
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
        """The moments [K, P] and step counts [K]."""
        return {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy the moments and step counts in place."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
