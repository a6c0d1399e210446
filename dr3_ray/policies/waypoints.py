"""A player of mazes that goes to one random cell after another, and learns nothing."""

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dr3_ray.errors import UserError
from dr3_ray.evaluation.online import Player

WAYPOINTS = "waypoints"
PULL, BRAKE = 4.0, 0.8  # of the push: 1/m from the waypoint, and s/m of velocity; near critical damping of the point
NOISE = 0.5  # standard deviation on each coordinate of the push
NEAR = 0.3  # m from a cell's centre, where the player turns to the next one

Cell = tuple[int, int]


def waypoints(seed: int) -> Player:
    """Return the player: it draws a cell, follows the shortest way there, and draws the next one.

    It plays where `environment.unwrapped.maze` is a maze of Gymnasium-Robotics in which a point is pushed. A push is
    clip(4 (w − x) − 0.8 dx + 0.5 ε, −1, 1), with the centre w of the next cell and ε ~ N(0, I), drawn anew each time.
    The goal and the rewards are not looked at. Draws depend on `seed` and the episode alone.
    """

    def begin(environment: gym.Env[Any, Any], episode: int) -> Callable[[Any], Any]:
        maze = getattr(environment.unwrapped, "maze", None)
        if maze is None or environment.action_space.shape != (2,):
            raise UserError(f"{WAYPOINTS} plays mazes with a point alone: take maze:umaze, or another --learner")
        return _Walk(maze, np.random.default_rng([seed, episode]))

    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return Player(WAYPOINTS, WAYPOINTS, begin, {"noise": f"{NOISE:g}"}, identity=f"{own} {seed}")


class _Walk:
    """The way of one episode."""

    def __init__(self, maze: Any, rng: np.random.Generator):
        self._maze, self._rng = maze, rng
        self._free = [
            (row, column)
            for row, line in enumerate(maze.maze_map)
            for column, mark in enumerate(line)
            if mark != 1  # a wall
        ]
        self._way: list[Cell] = []

    def __call__(self, observation: Any) -> np.ndarray:
        """Return the push at an observation: that of a point, [x, y, dx, dy], or a dictionary with it."""
        seen = np.asarray(observation["observation"] if isinstance(observation, Mapping) else observation)
        place, velocity = seen[:2], seen[2:]
        if self._way and np.linalg.norm(self._centre(self._way[0]) - place) < NEAR:
            self._way.pop(0)
        if not self._way:
            row, column = self._maze.cell_xy_to_rowcol(place)
            here = int(row), int(column)
            there = self._free[self._rng.integers(len(self._free))]
            self._way = shortest_way(self._free, here, there) or [here]
        push = PULL * (self._centre(self._way[0]) - place) - BRAKE * velocity + NOISE * self._rng.standard_normal(2)
        return np.asarray(np.clip(push, -1.0, 1.0), np.float32)

    def _centre(self, cell: Cell) -> np.ndarray:
        return np.asarray(self._maze.cell_rowcol_to_xy(np.asarray(cell)))


def shortest_way(free: list[Cell], start: Cell, end: Cell) -> list[Cell]:
    """Return the cells of a shortest way behind `start`, up to `end`, by breadth-first search; [] if there is none."""
    came: dict[Cell, Cell | None] = {start: None}
    waiting = deque([start])
    while waiting and end not in came:
        row, column = waiting.popleft()
        for cell in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if cell in free and cell not in came:
                came[cell] = row, column
                waiting.append(cell)
    way, last = list[Cell](), end if end in came else None
    while last is not None and last != start:
        way.append(last)
        last = came[last]
    return way[::-1]
