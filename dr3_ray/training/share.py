"""Several learners train one population together, each on its share of the rows of every minibatch.

All of them hold the same networks and draw the same indices and noise; gradients, losses and metrics are averaged over
the learners at every step, so that networks, optimisers and generators stay equal to the bit. A loss that is a mean
over rows is that of one learner, up to rounding; of one that is not (a mean over some rows only, a statistic of the
batch such as TD3+BC's λ or an effective rank) it is the mean over the shares. Noise inside of networks, that of dropout
and of a bottleneck, is drawn for the rows of a share and is the same in every share.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """Learner `rank` of `size`; `average` replaces a flat tensor by its mean over learners, equal in all of them."""

    rank: int = 0
    size: int = 1
    average: Callable[[Tensor], object] | None = None

    def rows(self, batch_size: int) -> slice:
        """Return this learner's rows of a batch; `size` divides `batch_size`."""
        n = batch_size // self.size
        return slice(self.rank * n, (self.rank + 1) * n)

    def mean(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the mean of each tensor over all learners, in one exchange."""
        if self.average is None:
            return tensors
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        self.average(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


ALONE = Share()
