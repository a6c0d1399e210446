"""What an importer hands over: episodes one by one, their spaces, and where they come from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dr3_ray.data.checks import Findings
from dr3_ray.data.frames import Stack
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import Provenance

if TYPE_CHECKING:
    import gymnasium as gym


Read = Callable[[Findings], Iterator["Episode"]]


class Episode(NamedTuple):
    """One episode of T steps, with the observations and actions of its environment."""

    number: int
    observations: Any  # [T+1, *shape]; of a Dict or Tuple space nested as the space is
    actions: Array  # [T, *shape]
    rewards: Array  # [T]
    terminateds: Array  # [T] bool
    truncateds: Array  # [T] bool


@dataclass(frozen=True)
class Options:
    """Options of readers; each importer names those that it reads."""

    columns: str | None = None  # "observation=obs_*,action=a": which columns of a table are what
    action_space: "str | gym.Space[Any] | None" = None  # "box:LOW,HIGH", "discrete:N", or one of Gymnasium
    trust: bool = False  # whether pickled objects, which can run code, may be loaded
    max_steps: int | None = None  # after which an episode without a flag is truncated
    goal: str | None = None  # "X,Y,TOLERANCE": where a maze has its goal


@dataclass(frozen=True)
class Source:
    """Episodes of another library or of the user, which can be read more than once.

    `read` yields them in order, their numbers growing, and counts what it had to mend. `columns` says what of the
    source each of our columns is, `rows` how many there are by the source's own account (0: it does not say). `usual`
    names checks whose finding is no trap in this format.

    `parts` says in which pieces of about so many rows each, one reader for each, the same episodes can be read in any
    order, also by another process that opened the same source; what is found on the way is counted. Each piece counts
    its episodes from 0, unless they are `numbered` by the source. Without `parts` there is one order.
    `files` are those of this machine that the source lies in. `stack` says how observations are stacked of frames, if
    the source knows; else the first rows of each shard tell.
    """

    name: str
    observation_space: "gym.Space[Any]"
    action_space: "gym.Space[Any]"
    read: Read
    provenance: Provenance
    rows: int = 0
    environment: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    usual: frozenset[str] = frozenset()
    parts: Callable[[int, Findings], Sequence[Read]] | None = None
    numbered: bool = False
    files: tuple[Path, ...] = ()
    stack: Stack | None = None
