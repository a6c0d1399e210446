"""Episodes of one policy: every return is kept, every seed is stated, and some episodes become videos."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from dr3_ray.cluster.environments import make_known
from dr3_ray.errors import UserError, first_line
from dr3_ray.evaluation.environments import GYMNASIUM, OURS, make_environment, module_of
from dr3_ray.evaluation.pixels import Change, shifted
from dr3_ray.evaluation.rollout import Act, Make, Rollout
from dr3_ray.policies.policy import Policy
from dr3_ray.stores import make_folder
from dr3_ray.training.population import act

AT_A_TIME = 32  # environments that are played side by side, one forward pass for all
VIDEOS = 3  # episodes that are recorded


class Episodes(NamedTuple):
    """The results of E episodes."""

    seeds: npt.NDArray[np.int64]
    returns: npt.NDArray[np.float64]
    """Undiscounted; NaN of an episode in which the environment gave NaN or infinity."""
    lengths: npt.NDArray[np.int64]


Way = Callable[[Rollout, Sequence[int]], Act]
"""Returns who acts in the episodes of a rollout, which start from these seeds."""


def play(
    policy: Policy,
    environment: str | None,
    episodes: int,
    seed: int = 0,
    video: Path | None = None,
    shifts: Sequence[Change] = (),
    way: Way | None = None,
) -> Episodes:
    """Play episodes from the seeds `seed`, `seed` + 1, …, deterministically, many environments side by side.

    Args:
        policy: Who plays.
        environment: A name; None: the one that the member was rolled out in.
        episodes: How many.
        seed: Of the first episode.
        video: A folder for videos of the first episodes; None: none are made.
        shifts: Changes of the environment's images.
        way: How the policy acts; None: as it was trained to.

    Raises:
        UserError: no such environment, one that does not fit the policy or the shifts, or no pictures where a video is
            wanted.
    """
    name = _own(policy) if environment is None else environment
    if not name.strip():
        raise UserError("an empty name is no environment: give one, as in CartPole-v1, or leave it out")
    way = way or (lambda rollout, seeds: lambda seen: act(policy.spec, policy.networks, seen))

    def changed(make: Make) -> Make:
        return lambda: shifted(make(), shifts)

    played = []
    recorded = min(VIDEOS, episodes) if video else 0
    rest = range(recorded, episodes, AT_A_TIME)
    parts = [(recorded, _recorded(name, video, seed))] if video else []
    parts += [(min(AT_A_TIME, episodes - start), lambda: make_known(name)) for start in rest]
    for count, make in parts:
        seeds = range(seed, seed + count)
        with closing(Rollout(changed(make), policy.recorded, 1, count)) as rollout, _pictures(video):
            played.append(rollout.play(way(rollout, seeds), seeds))
        seed += count
    if any(part.no_action.any() for part in played):
        raise UserError("the policy gives NaN or infinity for an action: it has diverged, choose another one")
    return Episodes(
        np.arange(seed - episodes, seed),
        *(np.concatenate([getattr(part, name)[0] for part in played]) for name in ("returns", "lengths")),
    )


def _make_room(folder: Path) -> None:
    try:
        make_folder(folder)
    except OSError as error:
        raise UserError(f"{folder} is no folder for videos ({error.strerror}): give another --video") from None


def _own(policy: Policy) -> str:
    """Return the environment that the member was rolled out in."""
    name = policy.config.get("environment")
    if not name:
        raise UserError("this member was rolled out nowhere: name an environment (--env)")
    if module_of(name):  # a name out of a file, for which a module would be run
        raise UserError(f"this member was rolled out in {name}: give it as --env, for its module is run")
    return str(name)


def _recorded(name: str, folder: Path, seed: int) -> Callable[[], gym.Env[Any, Any]]:
    """Return a maker of environments that record each episode in a file named by its seed."""
    if name.startswith(OURS):
        raise UserError(f"{name} draws no pictures: leave out the video")
    seeds = itertools.count(seed)

    def make() -> gym.Env[Any, Any]:
        """Make an environment that writes a video of each episode."""
        pictured = make_environment(name if name.startswith(GYMNASIUM) else GYMNASIUM + name, render_mode="rgb_array")
        _make_room(folder)
        with _pictures(folder):
            return gym.wrappers.RecordVideo(
                pictured, str(folder), episode_trigger=lambda episode: True, name_prefix=f"seed-{next(seeds)}",
                disable_logger=True,
            )  # fmt: skip

    return make


@contextmanager
def _pictures(video: Path | None) -> Iterator[None]:
    """Refuse a video if the packages that draw or write it are missing.

    Raises:
        UserError: a package is missing.
    """
    try:
        yield
    except (ImportError, gym.error.Error) as error:
        if video is None:
            raise
        raise UserError(
            f"videos cannot be made ({first_line(error)}): pip install 'dr3-ray[video]', and what this environment "
            "draws with"
        ) from None
