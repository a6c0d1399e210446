"""CartPole whose first step of an episode asks Python for more memory than there is."""

from typing import Any

from gymnasium.envs.classic_control import CartPoleEnv


class Greedy(CartPoleEnv):
    def step(self, action: Any) -> Any:
        self.hoard = bytearray(1 << 62)
        return super().step(action)
