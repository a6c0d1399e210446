"""One process for many trials of Ray Tune: `TuneConfig(reuse_actors=True)`, which RLlib 2.60 refuses (ray#38136)."""

import gc
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.tune.result import TRIAL_INFO

OUTPUT = ("_stdout_", "_stderr_")  # what Tune opened for the trial to come, before it asks for the reset


class Reusable(Algorithm):
    """A mixin: `class MyDQN(Reusable, DQN)` may stay in its process from one trial to the next.

    A trial in a used process equals the same trial in a new one to the bit: the algorithm is built anew in place, and
    what torch, numpy and Python keep for a whole process is set back. Learners and runners in processes of their own
    are started anew.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._found = process_settings()
        super().__init__(*args, **kwargs)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial; its config may differ in anything but the resources that it asks for."""
        before, trial, storage = self._found, self._trial_info, self._storage
        self._monitor.stop()  # a thread, which RLlib's configs start
        self.cleanup()
        output = {name: value for name, value in self.__dict__.items() if name.startswith(OUTPUT)}
        self.__dict__.clear()
        gc.collect()  # memory maps, environments and tensors that stand in cycles
        if not gc.get_freeze_count():
            gc.freeze()  # what the process has imported is not looked through again, which takes 0.2 s
        before.restore()
        if trial:
            new_config = new_config | {TRIAL_INFO: trial}  # as a new process gets it
        self.__init__(new_config, storage=storage)  # type: ignore[misc]
        self.__dict__.update(output, _trial_info=trial)
        return True


class ProcessSettings(NamedTuple):
    """The settings that an algorithm may change for its whole process, as functions that set them back."""

    setters: tuple[Callable[[], object], ...]

    def restore(self) -> None:
        """Set them back, and random numbers as in a new process: torch's from its first seed, others from anywhere."""
        for setter in self.setters:
            setter()
        torch.set_flush_denormal(False)
        random.seed()
        np.random.seed()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # which other trials may share the GPU for


def process_settings() -> ProcessSettings:
    """Return the settings of this process at this moment."""
    dtype, threads, seed = torch.get_default_dtype(), torch.get_num_threads(), torch.initial_seed()
    gradients, deterministic = torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn
    benchmark, cudnn_deterministic = cudnn.benchmark, cudnn.deterministic

    def set_cudnn() -> None:
        cudnn.benchmark, cudnn.deterministic = benchmark, cudnn_deterministic

    return ProcessSettings(
        (
            lambda: torch.set_default_dtype(dtype),
            lambda: torch.set_num_threads(threads),
            lambda: torch.manual_seed(seed),
            lambda: torch.set_grad_enabled(gradients),
            lambda: torch.use_deterministic_algorithms(deterministic),
            set_cudnn,
        )
    )
