"""Environments by name: `minatar:breakout`, `maze:umaze`, `gymnasium:Pendulum-v1`, or what `gymnasium.make` takes."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from dr3_ray.errors import UserError, check_known, first_line
from dr3_ray.evaluation.mazes import PointMaze
from dr3_ray.evaluation.turns import being_made

MINATAR = "minatar:"
MUJOCO = "dr3-ray[mujoco]"  # what its tasks need
MAZE = "maze:"
OURS = (MINATAR, MAZE)  # made by this package, which imports nothing that the name names
GYMNASIUM = "gymnasium:"
MINATAR_GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
MINATAR_MAX_STEPS = 2500  # the games have no limit of their own; a perfect player would never stop


class MinAtar(gym.Env[np.ndarray, np.int64]):
    """A MinAtar game (Young & Tian 2019) with its own boolean state and its minimal action set.

    Sticky actions (0.1) and difficulty ramping are on, as by default in MinAtar. Ends by truncation after 2,500 steps.
    """

    def __init__(self, game: str):
        check_known("game of MinAtar", [game], MINATAR_GAMES)
        try:
            from minatar import Environment
        except ImportError:
            raise UserError(
                "MinAtar is not installed: pip install 'dr3-ray[minatar]' (GPL), or leave out the environment"
            ) from None
        self.game = Environment(game)
        self.actions = self.game.minimal_action_set()
        self.observation_space = gym.spaces.Box(0, 1, tuple(self.game.state_shape()), np.bool_)  # type: ignore[arg-type]
        self.action_space = gym.spaces.Discrete(len(self.actions))
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a new game; with a seed, the same game for the same actions."""
        self.game.seed(seed)
        self.game.reset()
        self.game.last_action = 0
        self.steps = 0
        return self.game.state(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Play one frame; `action` counts within the minimal action set."""
        reward, terminated = self.game.act(self.actions[int(action)])
        self.steps += 1
        truncated = not terminated and self.steps >= MINATAR_MAX_STEPS
        return self.game.state(), float(reward), bool(terminated), truncated, {}


def is_ours(name: object) -> bool:
    """Return whether the name is of this module's and not `gymnasium.make`'s."""
    return isinstance(name, str) and name.startswith((*OURS, GYMNASIUM))


def module_of(name: object) -> str | None:
    """Return the module that is imported, and so run, for an environment of this name; None: only installed ones.

    As in `gymnasium:MODULE:ID`, and in `MODULE.CLASS`, which RLlib imports. Such a name has to come from the user, not
    from a file that may be another's: whoever reads a name in a file asks here first.
    """
    if not isinstance(name, str) or name.startswith(OURS):
        return None
    module, colon, _ = name.removeprefix(GYMNASIUM).rpartition(":")
    return module if colon else module_of_class(name)


def module_of_class(name: str) -> str | None:
    """Return the module in a name such as `package.module.Class`; None for another one, such as `Namespace.Game-v0`."""
    *module, last = name.split(".")
    return ".".join(module) if module and all(map(str.isidentifier, (*module, last))) else None


def make_environment(name: str, spec: EnvSpec | None = None, **options: Any) -> gym.Env[Any, Any]:
    """Make the environment called `name`, with `options` of its own.

    `spec`: what Gymnasium knew of the name in another process, in place of what it knows in this one.

    Raises:
        UserError: there is none of that name, or it cannot be made so.
    """
    if name.startswith(OURS) and options:
        raise UserError(f"environment {name!r} takes no options, not {', '.join(options)}: leave them out")
    if name.startswith(MINATAR):
        return MinAtar(name.removeprefix(MINATAR))
    if name.startswith(MAZE):
        return PointMaze(name.removeprefix(MAZE))
    try:
        with being_made(f"environment {name!r}"):
            return gym.make(spec or name.removeprefix(GYMNASIUM), **options)
    except TypeError as error:
        if not options:
            raise
        raise UserError(f"environment {name!r} cannot be made with {options}: {first_line(error)}") from error
    except gym.error.DependencyNotInstalled as error:
        extra = f"pip install '{MUJOCO}'" if "mujoco" in (said := first_line(error)).lower() else said
        raise UserError(f"environment {name!r} needs a package that is not installed: {extra}") from error
    except gym.error.Error as error:
        raise UserError(f"environment {name!r} cannot be made: {first_line(error)}") from error
    except ImportError as error:
        raise UserError(f"environment {name!r} needs a package that is not installed: {error}") from error
    except Exception as error:  # of whoever wrote it
        raise UserError(f"environment {name!r} cannot be made: {first_line(error)}") from error
