"""Turns of an environment: what its code raises, returns amiss or never returns is told as the environment's."""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from dr3_ray.errors import UserError, first_line

NOT_ITS_OWN = (UserError, MemoryError, gym.error.DependencyNotInstalled)
"""Errors that an environment passes on: of this package, of this machine's memory, of a package that is missing."""


SILENT = 60.0  # seconds without an answer until that is said
TIMES = 10  # as many of these until it is said again

log = logging.getLogger("dr3_ray")


class Place(NamedTuple):
    """Which episode is played, by whom: numbers from 0. Where one policy plays, it has no number."""

    member: int | None = None
    episode: int | None = None


class Unanswered(NamedTuple):
    """A call of an environment that has not returned for so many seconds."""

    where: str
    method: str
    place: Place
    seconds: float

    def of(self, member: int | None) -> "Unanswered":
        """Return the same of another member, or without its number."""
        return self._replace(place=self.place._replace(member=member))

    def __str__(self) -> str:
        parts = [f"{name} {number}" for name, number in self.place._asdict().items() if number is not None]
        told = f" ({', '.join(parts)})" if parts else ""
        return f"{self.where} has not answered `{self.method}` for {self.seconds:.0f} s{told}"


Tell = Callable[[Unanswered | None], None]
"""Is told of a call that does not return, from another thread, and with None that it has returned after all."""


def _warn(call: Unanswered | None) -> None:
    if call:
        log.warning(f"{call}: it is waited for; stop this, and correct the environment or give it a limit of its own")


class _Listener:
    """Who is told in this process; an environment is played deep inside RLlib."""

    tell: Tell = staticmethod(_warn)
    making = False  # an environment


def tell_by(tell: Tell) -> None:
    """Have `tell` be told in this process, in place of a warning."""
    _Listener.tell = staticmethod(tell)


def tell(call: Unanswered | None) -> None:
    """Tell whoever listens in this process."""
    _Listener.tell(call)


class Turn(NamedTuple):
    """What an environment returns for an action, with a reward and ends that are plain values."""

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class Turns:
    """Calls of the environments that lie `where`, one at a time. One that takes `silent` seconds is told of."""

    def __init__(self, where: str, silent: float | None = None) -> None:
        self.where, self._silent = where, SILENT if silent is None else silent
        self._asked: tuple[str, Place, float] | None = None  # since when
        self._due = self._silent  # after how many of that to tell
        self._over: threading.Event | None = None

    def begin(self, environment: gym.Env[Any, Any], seed: int, place: Place = Place()) -> tuple[Any, dict[str, Any]]:  # noqa: B008
        """Return the first observation of an episode, and what is told beside it.

        Raises:
            UserError: the environment raises something, or returns something else.
        """
        self._watch()
        described = "an observation and a dict"
        observation, info = self._answer("reset", place, 2, described, lambda: environment.reset(seed=seed))
        return observation, info

    def play(self, environment: gym.Env[Any, Any], action: Any, place: Place = Place()) -> Turn:  # noqa: B008
        """Play an action, and return the turn. A reward or an end may be an array of one element.

        Raises:
            UserError: as `begin`; or the reward is no number, or an end is no truth value.
        """
        answer = self._answer("step", place, 5, "five values", lambda: environment.step(action))
        observation, reward, terminated, truncated, info = answer
        return Turn(
            observation,
            float(_one(self.where, "reward", reward)),
            bool(_one(self.where, "terminated", terminated)),
            bool(_one(self.where, "truncated", truncated)),
            info,
        )

    def _answer(self, method: str, place: Place, count: int, described: str, ask: Callable[[], Any]) -> tuple[Any, ...]:
        """Return what a method of an environment returns, which has to be so many values."""
        self._asked = method, place, time.monotonic()
        try:
            answer = ask()
        except NOT_ITS_OWN:
            raise
        except Exception as error:  # of whoever wrote it
            raise UserError(f"{self.where} raises in `{method}`: {first_line(error)}") from error
        finally:
            self._answered()
        if not (isinstance(answer, tuple) and len(answer) == count):
            raise UserError(f"{self.where} does not return {described} from `{method}`, as Gymnasium's do: wrap it")
        return answer

    def _answered(self) -> None:
        self._asked = None
        if self._due > self._silent:
            self._due = self._silent
            tell(None)

    @contextmanager
    def waited_for(self, method: str) -> Iterator[None]:
        """Wait for what is done meanwhile, as if it were a method's answer."""
        self._watch()
        self._asked = method, Place(), time.monotonic()
        try:
            yield
        finally:
            self._answered()

    def _watch(self) -> None:
        """Have a thread look at what was asked, until this object is gone."""
        if self._over is None:
            self._over = threading.Event()
            weakref.finalize(self, self._over.set)
            known = weakref.ref(self)
            threading.Thread(
                target=_look, args=(known, self._over, self._silent / 4), name="turns", daemon=True
            ).start()

    def look(self) -> None:
        """Tell of a call that has no answer."""
        asked, now = self._asked, time.monotonic()
        if asked and now - asked[2] >= self._due:
            method, place, since = asked
            self._due = now - since + TIMES * self._silent
            tell(Unanswered(self.where, method, place, now - since))


@contextmanager
def being_made(where: str, silent: float | None = None) -> Iterator[None]:
    """Tell of an environment that is being made meanwhile, if that takes `silent` seconds; once, if one makes another.

    `where` names it.
    """
    if _Listener.making:
        yield
        return
    _Listener.making = True
    try:
        with Turns(where, silent).waited_for("make"):
            yield
    finally:
        _Listener.making = False


def _look(known: "weakref.ref[Turns]", over: threading.Event, pause: float) -> None:
    """Look now and then, as long as these turns are there."""
    while not over.wait(pause):
        if turns := known():
            turns.look()
        del turns


def _one(where: str, what: str, value: Any) -> Any:
    """Return the one number or truth value that this is."""
    if isinstance(value, bool | int | float):
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise UserError(f"{where} gives {str(value)[:60]!r} for {what}: correct it to one number")
    return array.item()
