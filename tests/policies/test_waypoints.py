"""The player of mazes: its ways are the shortest, and it repeats itself."""

from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

from dr3_ray import load_dataset
from dr3_ray.cli.app import main
from dr3_ray.errors import UserError
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.evaluation.mazes import ANYWHERE_STEPS, MAPS
from dr3_ray.policies.players import player_named
from dr3_ray.policies.waypoints import shortest_way

CELLS = [(row, column) for row in range(5) for column in range(6)]


def beside(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return abs(one[0] - other[0]) + abs(one[1] - other[1]) == 1


@given(st.lists(st.sampled_from(CELLS), min_size=2, unique=True))
def test_a_way_is_one_of_neighbours_and_as_long_as_scipys(free: list[tuple[int, int]]) -> None:
    start, end = free[0], free[-1]
    edges = [(a, b) for a, one in enumerate(free) for b, other in enumerate(free) if beside(one, other)]
    graph = coo_array((np.ones(len(edges)), tuple(np.array(edges, int).reshape(-1, 2).T)), (len(free),) * 2)
    distance = shortest_path(graph.tocsr(), indices=0)[-1]
    way = shortest_way(free, start, end)
    if np.isinf(distance):
        assert way == []
    else:
        assert len(way) == distance and way[-1] == end
        assert all(cell in free for cell in way) and all(beside(*pair) for pair in pairwise([start, *way]))
    assert shortest_way(free, start, start) == []


def test_it_crosses_a_maze() -> None:
    environment = make_environment("maze:medium")
    cells = set()
    for episode in range(3):
        choose = player_named("waypoints", {}, 0).begin(environment, episode)
        observation, _ = environment.reset(seed=episode)
        ended = False
        while not ended:
            observation, _, terminated, truncated, _ = environment.step(choose(observation))
            cells.add(tuple(environment.unwrapped.maze.cell_xy_to_rowcol(observation[:2])))  # type: ignore[attr-defined]
            ended = terminated or truncated
    assert len(cells) >= 20 and cells >= {MAPS["medium"].start}  # of 26
    environment.close()


def test_the_command_collects_episodes_that_begin_anywhere(tmp_path: Path) -> None:
    for place, seed in (("one", 1), ("two", 1), ("three", 2)):
        words = ["maze:umaze-anywhere", "--learner", "waypoints", "--steps", "400", "--seed", str(seed)]
        with pytest.raises(SystemExit) as end:
            main(["data", "collect", *words, "--out", str(tmp_path / place)])
        assert not end.value.code
    one, two, three = (load_dataset(str(tmp_path / place)) for place in ("one", "two", "three"))
    assert one.fingerprint == two.fingerprint != three.fingerprint
    assert len(one) == 400 and one.manifest.environment == "maze:umaze-anywhere"
    assert one.manifest.counts.episodes >= 400 / ANYWHERE_STEPS
    assert one.manifest.provenance.source == "400 steps of waypoints on maze:umaze-anywhere"


def test_who_cannot_play_says_so_in_a_line() -> None:
    with pytest.raises(UserError, match="plays mazes with a point alone"):
        player_named("waypoints", {}, 0).begin(gym.make("CartPole-v1"), 0)
    with pytest.raises(UserError, match="waypoints has no options here: leave out --set noise"):
        player_named("waypoints", {"noise": 1}, 0)
