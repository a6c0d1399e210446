"""What a process that trains changes for itself: entry points do that, a `Population` in another process does not."""

import torch

from dr3_ray.process.folders import cache_home, settle_caches
from dr3_ray.process.memory import seldom_search_for_cycles
from dr3_ray.training.execution.allocator import keep_freed_memory


def prepare_training() -> None:
    """Make this process, and its calling thread, ready to train: to the bit the same, and faster.

    Freed memory is kept for the next tensors. Denormal numbers become zero: the moments of dead units decay into them,
    and a CPU's Adam takes twice as long on them. What is compiled is kept in the cache of this package. Python looks
    for cycles of garbage less often.

    Raises:
        UserError: the variable of that cache names no folder of this machine.
    """
    cache_home()
    keep_freed_memory()
    torch.set_flush_denormal(True)
    settle_caches()
    seldom_search_for_cycles()
