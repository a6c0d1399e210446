"""Environments that go wrong, under names that workers can import: gymnasium:tests.sweep.odd_worlds:Far-v0."""

import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from tests.evaluation.worlds import World

ANYWHERE, PUSH = Box(-np.inf, np.inf, (2,)), Box(-1.0, 1.0, (1,))


class Far(World):
    """An observation that is finite, and too large for products of two layers."""

    def __init__(self) -> None:
        super().__init__(ANYWHERE, PUSH, lambda step: np.full(2, 3e38 if step == 2 else step / 20, np.float32))


class Unpaid(World):
    """A reward of NaN."""

    def __init__(self) -> None:
        super().__init__(ANYWHERE, PUSH, self.look, lambda action, step: np.nan if step == 7 else 1.0)

    @staticmethod
    def look(step: int) -> Any:
        """Where one is."""
        return np.full(2, step / 20, np.float32)


class Deaf(World):
    """It is not made until a file is there, and does not answer in its fourth step until another is."""

    made, until = Path("/"), Path("answer")

    def __init__(self) -> None:
        while not self.made.exists():
            time.sleep(0.01)
        super().__init__(ANYWHERE, PUSH, self.look)

    def look(self, step: int) -> Any:
        """Where one is."""
        while step == 4 and not self.until.exists():
            time.sleep(0.01)
        return np.full(2, step / 20, np.float32)


gym.register("Deaf-v0", entry_point=Deaf, disable_env_checker=True)
gym.register("Far-v0", entry_point=Far, disable_env_checker=True)
gym.register("Unpaid-v0", entry_point=Unpaid, disable_env_checker=True)
