"""Mazes: where episodes begin and end, and what an action does."""

import numpy as np
import pytest

from dr3_ray.errors import UserError
from dr3_ray.evaluation.environments import make_environment, module_of
from dr3_ray.evaluation.mazes import ANYWHERE_STEPS, MAPS, NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_repeats_from_its_seed_and_lasts_as_long_as_its_limit(name: str) -> None:
    environment = make_environment(f"maze:{name}")
    chosen = MAPS[name.partition("-")[0]]
    maze = environment.unwrapped.maze  # type: ignore[attr-defined]
    cells, ends = set(), []
    for seed in (0, 1, 2, 0):
        observation, _ = environment.reset(seed=seed)
        assert environment.observation_space.contains(observation) and not observation[2:].any()
        cells.add(tuple(int(place) for place in maze.cell_xy_to_rowcol(observation[:2])))
        places = [observation]
        while True:  # it pushes at a wall
            observation, reward, terminated, truncated, _ = environment.step(np.array([-1.0, 1.0], np.float32))
            places.append(observation)
            if terminated or truncated:
                break
        assert reward == terminated
        ends.append(np.array(places))
    assert np.array_equal(ends[0], ends[3])
    if name in MAPS:
        assert cells == {chosen.start} and {len(end) - 1 for end in ends} == {chosen.steps}
    else:
        assert len(cells) > 1 and max(len(end) - 1 for end in ends) == ANYWHERE_STEPS
    environment.close()


def test_a_push_is_held_for_five_hundredths_of_a_second_and_the_goal_gives_one() -> None:
    environment = make_environment("maze:umaze")
    begun, _ = environment.reset(seed=3)
    after, reward, terminated, _, _ = environment.step(np.array([1.0, 0.0], np.float32))
    assert after[0] - begun[0] == pytest.approx(0.05 * after[2] * 0.6, rel=0.01)  # a t² (1 + 1/5) / 2, of Euler's steps
    assert not terminated and reward == 0
    point = environment.unwrapped._env.point_env  # type: ignore[attr-defined]
    for distance, reached in ((0.5, False), (0.4, True)):
        point.set_state(np.array([-1.0 + distance, -1.0]), np.zeros(2))
        _, reward, terminated, truncated, info = environment.step(np.zeros(2, np.float32))
        assert (reward, terminated, truncated, info["success"]) == (float(reached), reached, False, reached)
    environment.close()


def test_a_maze_is_known_or_one_line_and_imports_nothing_of_its_name() -> None:
    with pytest.raises(UserError, match="unknown maze 'umazes': did you mean 'umaze'") as caught:
        make_environment("maze:umazes")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="takes no options, not render_mode"):
        make_environment("maze:umaze", render_mode="rgb_array")
    assert module_of("maze:os.path:umaze") is None
