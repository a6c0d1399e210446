"""Mazes with a point that is pushed: `maze:umaze`, `maze:medium`, `maze:large` and, to begin anywhere, `-anywhere`.

The physics and the maps are those of PointMaze of Gymnasium-Robotics (`maze:NAME` needs `dr3-ray[robotics]`). As in
D4RL's maze2d (Fu et al., arXiv 2004.07219), a maze has one goal and the reward 1 is given where it is reached; unlike
there, the episode ends then.
"""

import os
from contextlib import redirect_stderr
from io import StringIO
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from dr3_ray.errors import UserError, check_known

Observation = np.ndarray
HELD = 5  # steps of the simulation, of 0.01 s each, that an action is held: a cell is crossed in about four actions
ANYWHERE = "-anywhere"
ANYWHERE_STEPS = 30  # of an episode that begins anywhere, in which about six cells are crossed


class Map(NamedTuple):
    """Where episodes lead from and to in a map of Gymnasium-Robotics, as row and column, and their most steps."""

    constant: str
    start: tuple[int, int]
    goal: tuple[int, int]
    steps: int


MAPS = {
    "umaze": Map("U_MAZE", (1, 1), (3, 1), 100),
    "medium": Map("MEDIUM_MAZE", (1, 1), (6, 6), 200),
    "large": Map("LARGE_MAZE", (1, 1), (7, 10), 300),
}
NAMES = (*MAPS, *(name + ANYWHERE for name in MAPS))


class PointMaze(gym.Env[Observation, np.ndarray]):
    """A maze whose goal is one cell; observations are the point's place and velocity [x, y, dx, dy], in m and m/s.

    Episodes begin in the cell farthest from the goal, or in any cell for `-anywhere`, up to 0.25 m from its centre. An
    action in [-1, 1]² pushes the point for 0.05 s. Within 0.45 m of the goal's centre the reward is 1, and the episode
    ends. It is truncated after the map's steps, or after 30 for `-anywhere`.

    Raises:
        UserError: there is no such maze, or Gymnasium-Robotics is not installed.
    """

    def __init__(self, name: str):
        check_known("maze", [name], NAMES)
        try:
            with redirect_stderr(StringIO()):  # a notice on hands, at each import
                from gymnasium_robotics.envs.maze import maps
                from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv
        except ImportError:
            raise UserError(
                "Gymnasium-Robotics is not installed: pip install 'dr3-ray[robotics]', or leave out the environment"
            ) from None
        chosen = MAPS[name.removesuffix(ANYWHERE)]
        self._anywhere = name.endswith(ANYWHERE)
        self._cells = {"goal_cell": chosen.goal} | ({} if self._anywhere else {"reset_cell": chosen.start})
        self._limit = ANYWHERE_STEPS if self._anywhere else chosen.steps
        self._env = PointMazeEnv(maze_map=getattr(maps, chosen.constant), continuing_task=False)
        os.unlink(self._env.tmp_xml_file_path)  # Gymnasium-Robotics leaves it
        self._env.point_env.frame_skip = HELD
        self.maze = self._env.maze
        self.observation_space = self._env.point_env.observation_space
        self.action_space = self._env.action_space
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; with a seed, from the same place. The goal is the centre of its cell."""
        super().reset(seed=seed)
        seen, info = self._env.reset(seed=seed, options=self._cells)
        self._env.goal = self.maze.cell_rowcol_to_xy(self._cells["goal_cell"])
        self.steps = 0
        return seen["observation"], info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Push for 0.05 s, and look whether the goal is reached."""
        seen, reward, terminated, _, info = self._env.step(action)
        self.steps += 1
        truncated = not terminated and self.steps >= self._limit
        return seen["observation"], float(reward), bool(terminated), truncated, info

    def close(self) -> None:
        """Free the simulation."""
        self._env.close()
