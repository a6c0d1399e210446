"""Traps that data fall into, each a check with a name: what importers mended, and what rows show."""

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dr3_ray.data.columns import Columns
from dr3_ray.data.number_types import Array
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    from dr3_ray.data.reader import Dataset

CHECKS = {
    # mended by an importer
    "no-end": "{count} episodes end without terminal or timeout: marked truncated",
    "no-final-observation": (
        "{count} truncated episodes have no observation after their last step: that step is left out"
    ),
    "terminal-observation": (
        "{count} terminated episodes have no observation after their last step: the step's own stands in its place"
    ),
    "next-episode": (
        "{count} episodes have the first observation of the next one after their last step (first {where}): taken as "
        "missing"
    ),
    "padding": "{count} rows of zeros before the first frame of an episode are padding of the replay memory: left out",
    "one-step": "{count} truncated episodes of one step have no observation after it: left out",
    "last-reward": (
        "{count} episodes have a reward at their last step, where RLDS gives it no meaning (first {where}): left out"
    ),
    "broken-chain": (
        "{count} steps lead elsewhere than the next row begins (first {where}): an episode ends there, marked truncated"
    ),
    "early-flag": "{count} terminal flags stand before the end of their episode (first after {where}): cut there",
    "done": (
        "the column {where} became `terminated`: if it marks timeouts too, correct the source, or name another one "
        "with --columns"
    ),
    "frame-times": ("{count} rows have no frame of their own at their time (first {where}): the nearest stands there"),
    "first-action": (
        "no action is below {where}, and they are counted from 0: if {where} is the first one, give --action-space "
        "discrete:N,{where}"
    ),
    "action-bounds": "the bounds of the actions are the range of the recorded ones ({where}): give those that you know",
    # seen in rows
    "both-ends": "{count} episodes are terminated and truncated in one step (first {where}): no value follows them",
    "jumps": (
        "{count} steps move the observation more than {times} times as far as their episode's median step (first "
        "{where}): an unmarked end may lie there"
    ),
    "zero-rows": "{count} rows in a row have zeros for observation and action (first {where}): they may be padding",
    "constant-reward": "every reward is {where}: nothing tells good actions from bad but how long an episode lasts",
    "duplicate-episodes": "{count} episodes repeat an earlier one (first {where})",
}
TIMES = 20  # the median step of an episode, beyond which a step is a jump: smooth motion stays below, a reset does not
STEPS = 20  # of an episode that has a median worth the name
LEAST = 100  # rows below which nothing is said of chance: jumps, zeros, constant rewards
REPEATED = "duplicate-episodes"
OF_CHANCE = ("jumps", "zero-rows", "constant-reward")


class Findings:
    """Counts of what the checks found while episodes pass by."""

    def __init__(self, usual: frozenset[str] = frozenset()) -> None:
        """Begin to count; `usual` names checks whose finding is no trap in this source."""
        self._usual, self._rows = usual, 0
        self._counts: dict[str, int] = {}
        self._first: dict[str, tuple[int | None, str]] = {}
        self._episodes: list[tuple[str, int]] = []  # a digest and the number of each
        self._seen: set[str] = set()
        self._low, self._high = np.inf, -np.inf
        self._looks: dict[str, Callable[[Columns], Array]] = {
            "both-ends": _both_ends,
            "jumps": _jumps,
            "zero-rows": _zero_rows,
        }

    def add(self, name: str, count: int = 1, where: str = "", episode: int | None = None) -> None:
        """Count what an importer found, by the name of a check; `episode` and `where` are those of the first."""
        if count:
            self._counts[name] = self._counts.get(name, 0) + count
            self._first.setdefault(name, (episode, where))

    def look(self, columns: Columns) -> None:
        """Look at one episode, by the columns of `episode_columns`."""
        self._rows += len(columns["rewards"])
        self._low = min(self._low, float(columns["rewards"].min()))
        self._high = max(self._high, float(columns["rewards"].max()))
        episode = int(columns["episode_ids"][0])
        for name, look in self._looks.items():
            steps = look(columns)
            if len(steps):
                self.add(name, len(steps), f"step {steps[0]}", episode)
        self._remember(_digest(columns), episode)

    def state(self) -> dict[str, Any]:
        """Return what was found, as `merge` takes it."""
        return {
            "rows": self._rows,
            "rewards": (self._low, self._high),
            "counts": {name: (self._counts[name], *first) for name, first in self._first.items() if name != REPEATED},
            "episodes": self._episodes,
        }

    def merge(self, state: Mapping[str, Any], shift: int = 0) -> None:
        """Count in the episodes that follow; `shift` is added to their numbers."""
        self._rows += state["rows"]
        low, high = state["rewards"]
        self._low, self._high = min(self._low, low), max(self._high, high)
        for name, (count, episode, where) in state["counts"].items():
            self.add(name, count, where, None if episode is None else episode + shift)
        for digest, episode in state["episodes"]:
            self._remember(digest, episode + shift)

    def _remember(self, digest: str, episode: int) -> None:
        if digest in self._seen:
            self.add(REPEATED, 1, "step 0", episode)
        self._seen.add(digest)
        self._episodes.append((digest, episode))

    def notes(self) -> list[str]:
        """Return each finding as `name: what was found and done`, in the order of the table."""
        counts = self._counts | ({"constant-reward": 1} if self._low == self._high else {})
        first = {
            name: where if episode is None else f"episode {episode}, {where}"
            for name, (episode, where) in self._first.items()
        } | {"constant-reward": f"{self._low:g}"}
        hidden = self._usual.union(OF_CHANCE if self._rows < LEAST else ())
        return [
            f"{name}: {text.format(count=counts[name], where=first[name], times=TIMES)}"
            for name, text in CHECKS.items()
            if name in counts and name not in hidden
        ]


def check_dataset(dataset: "Dataset") -> list[str]:
    """Return the notes of all checks on a data set, episode by episode.

    Raises:
        UserError: it is a subsample of rows, or a mixture.
    """
    dataset.check_one("check")
    if not dataset.manifest.complete_episodes:
        raise UserError(f"{dataset.path} is a subsample of its episodes: checks need whole ones")
    findings, table = Findings(), dataset.episodes
    for offset, length in zip(table["offsets"].tolist(), table["lengths"].tolist(), strict=True):
        findings.look(dataset.stored(offset, offset + length))
    return findings.notes()


def _observed(columns: Columns, name: str = "observations") -> list[Array]:
    """Return the parts of an observation column, each [T, elements]."""
    return [
        values.reshape(len(values), -1) for key, values in columns.items() if key == name or key.startswith(f"{name}/")
    ]


def _both_ends(columns: Columns) -> Array:
    return np.flatnonzero(columns["terminateds"] & columns["truncateds"])


def _jumps(columns: Columns) -> Array:
    """Return which steps are far longer than the median one, by the Euclidean distance of the real-valued parts."""
    squares = np.zeros(len(columns["rewards"]))
    for now, later in zip(_observed(columns), _observed(columns, "next_observations"), strict=True):
        if now.dtype.kind == "f":
            squares += ((later.astype(np.float64) - now) ** 2).sum(1)
    lengths = np.sqrt(squares)
    moving = lengths[lengths > 0]
    if len(moving) < STEPS:
        return moving[:0]
    return np.flatnonzero(lengths > TIMES * np.median(moving))


def _zero_rows(columns: Columns) -> Array:
    zero = np.asarray(~np.reshape(columns["actions"], (len(columns["rewards"]), -1)).any(1))
    for part in _observed(columns):
        zero &= ~part.any(1)
    beside: Array = np.append(False, zero[:-1]) | np.append(zero[1:], False)  # one such row may well be a state of rest
    return np.flatnonzero(zero & beside)


def _digest(columns: Columns) -> str:
    """Return a digest of an episode: of its actions, rewards, first and last observation."""
    digest = hashlib.blake2b(digest_size=8)
    ends = [part[[0, -1]] for part in _observed(columns)]
    for values in (columns["actions"], columns["rewards"], *ends):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
