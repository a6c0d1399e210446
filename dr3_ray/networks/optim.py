"""Adam over flat parameters, every member with its own step size."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam


class StackedAdam:
    """Adam (Kingma & Ba 2015) on parameters [K, P] and gradients [K, P]; β = (0.9, 0.999).

    Members of equal step size share one fused call.
    """

    def __init__(self, values: Tensor, gradients: Tensor, lrs: Sequence[float], epsilons: Sequence[float]):
        self.exp_avg = torch.zeros_like(values)
        self.exp_avg_sq = torch.zeros_like(values)
        self.steps = torch.zeros(len(values), dtype=torch.float32, device=values.device)
        self._columns = (values, gradients, self.exp_avg, self.exp_avg_sq, self.steps)
        self._settings = list(zip(lrs, epsilons, strict=True))
        self._groups: dict[tuple[int, int], dict[tuple[float, float], tuple[list[Tensor], ...]]] = {}

    @torch.no_grad()
    def step(self, members: range) -> None:
        """One update of these members."""
        for (lr, epsilon), (values, gradients, exp_avgs, exp_avg_sqs, steps) in self._grouped(members).items():
            adam(
                values, gradients, exp_avgs, exp_avg_sqs, [], steps,
                fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=lr, weight_decay=0.0, eps=epsilon, maximize=False,
            )  # fmt: skip

    def _grouped(self, members: range) -> dict[tuple[float, float], tuple[list[Tensor], ...]]:
        """Rows of values, gradients and moments, by (step size, ε); made once for each set of members."""
        key = (members.start, members.stop)
        if key not in self._groups:
            groups: dict[tuple[float, float], tuple[list[Tensor], ...]] = {}
            for member in members:
                rows = groups.setdefault(self._settings[member], ([], [], [], [], []))
                for row, column in zip(rows, self._columns, strict=True):
                    row.append(column[member])
            self._groups[key] = groups
        return self._groups[key]

    def state_dict(self) -> dict[str, Tensor]:
        """The moments [K, P] and step counts [K]."""
        return {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy the moments and step counts in place."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
