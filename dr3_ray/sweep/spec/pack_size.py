"""How many members train together in a trial: a number, or what is best by measured speed and free memory."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field

MAX_PACK = 1000  # members of a pack are called 000 to 999
USUAL_PACK = 16  # shares enough of what trials cost beside their updates
GROWTH = 4  # each size that is tried is so many times the one before
GAIN = 0.1  # of a member's time: beyond the usual size a larger pack has to save it, up to there it may cost it


def _as_size(given: Any) -> Any:
    """Return a size of packs: a number, also as text, or `auto`."""
    if given == "auto":
        return given
    number = int(given) if isinstance(given, str) and given.isdecimal() else given
    if type(number) is not int or not 1 <= number <= MAX_PACK:
        raise ValueError(f"a pack has 1 to {MAX_PACK} members, or auto")
    return number


PackSize = Annotated[
    int | Literal["auto"],
    BeforeValidator(_as_size, json_schema_input_type=Annotated[int, Field(ge=1, le=MAX_PACK)] | Literal["auto"]),
]


class PerMember(NamedTuple):
    """The cost of an update of a pack, for each of its members."""

    seconds: float
    memory: float
    """Bytes: networks, optimiser, targets, and what an update needs beside them."""
    in_turn: bool
    """Whether members are walked one by one, so that a larger pack is no faster."""


class BestPack(NamedTuple):
    """The best pack for members of one structure."""

    size: int
    why: str
    """Why it is no larger."""
    packed: PerMember
    """In a pack of this size or, where members are walked in turn, alone."""
    alone: PerMember
    room: float
    """Bytes of memory that a pack may take."""

    @property
    def most(self) -> int:
        """The number of members that memory is there for; one in any case."""
        return max(1, int(self.room / self.packed.memory))


def choose(enough: int, room: float, measure: Callable[[int], PerMember]) -> BestPack:
    """Return the best of the packs of 1, 4, 16 … `enough` members, as far as memory is there for them.

    A pack grows to 16 members unless they train slower in it, and beyond while that saves a tenth of a member's time.
    Members that are walked in turn train at one speed in all packs, so that this is not measured.
    """
    alone = measure(1)
    choice, fastest = BestPack(1, "no trial would have more", alone, alone, room), alone.seconds
    if alone.in_turn:
        return choice._replace(size=min(USUAL_PACK, choice.most), why="one by one, at the same speed in all packs")
    while choice.size < min(enough, choice.most):
        larger = min(GROWTH * choice.size, enough, choice.most)
        rate = measure(larger)
        if larger <= USUAL_PACK and rate.seconds > (1 + GAIN) * fastest:
            return choice._replace(why=f"{larger} are slower")
        if larger > USUAL_PACK and rate.seconds > (1 - GAIN) * fastest:
            return choice._replace(why=f"{larger} save less than {GAIN:.0%} of that")
        choice, fastest = choice._replace(size=larger, packed=rate), min(fastest, rate.seconds)
        if choice.most < larger:
            choice = choice._replace(size=choice.most)
    return choice if choice.size == enough else choice._replace(why="memory is there for no more")
