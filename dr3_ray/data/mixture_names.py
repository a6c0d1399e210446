"""The name of a mixture of data sets: `mix:A=0.9,B=0.1`, and what each of its parts is named."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple, Self

from dr3_ray.errors import UserError
from dr3_ray.trust.secrets import MASK, masked
from dr3_ray.uris import MIXTURE, absolute

FORM = f"{MIXTURE}A=0.9,B=0.1"
PAD = ",pad=true"
_WEIGHT = r"\d{1,12}(?:\.\d{1,12})?|\.\d{1,12}"
TASK = re.compile(r"[A-Za-z_][\w-]{0,99}")
_PART = re.compile(rf"(.+?)=({_WEIGHT})(?::({_WEIGHT}))?(?:/({TASK.pattern}))?(?:,(?=.)|\Z)", re.DOTALL)


class Part(NamedTuple):
    """One data set of a mixture."""

    data: str
    """As a data set is named, with the words for some of its rows."""
    weight: Decimal
    """Its share of a batch, beside the weights of the other parts."""
    then: Decimal | None = None
    """The weight from the mixture's update `since` on."""
    task: str | None = None
    """What its rows show; parts of one task may have one name."""

    def __str__(self) -> str:
        then = "" if self.then is None else f":{_digits(self.then)}"
        return f"{self.data}={_digits(self.weight)}{then}" + (f"/{self.task}" if self.task else "")


class MixtureName(NamedTuple):
    """A mixture as it is named, `mix:A=0.9,B=0.1`; `str` gives what `parse` reads.

    With `since`, `mix:A=1:0.9,B=0:0.1,since=1000`, the second weights hold from that update on; with tasks,
    `mix:A=0.9/open,B=0.1/close`, vector observations say which. With `pad`, `mix:A=0.9,B=0.1,pad=true`, spaces may
    differ in length. The last part is the target.
    """

    parts: tuple[Part, ...]
    since: int | None = None
    pad: bool = False

    @classmethod
    def parse(cls, source: str) -> Self:
        """Read a name that begins with `mix:`.

        Raises:
            UserError: it has another form, or says what has no effect.
        """
        text = source.strip().removeprefix(MIXTURE)
        pad, text = text.endswith(PAD), text.removesuffix(PAD)
        matches = list(_matches(text))
        if not matches or matches[-1].end() < len(text):
            raise UserError(f"{masked(source)}: a mixture is written {FORM}, each data set with its weight")
        parts = [
            Part(
                match[1].strip(),
                Decimal(match[2]).normalize(),
                Decimal(match[3]).normalize() if match[3] else None,
                match[4],
            )
            for match in matches
        ]
        since = None
        if parts[-1].data == "since" and parts[-1][2:] == (None, None) and len(parts) > 1:
            since = int(parts[-1].weight)
            if not since or since != parts.pop().weight:
                raise UserError(
                    f"{masked(source)}: since is the first update with the second weights: a number from 1 on"
                )
        return cls(tuple(parts), since, pad)._checked(masked(source))

    @classmethod
    def of(cls, parts: Sequence[Part], since: int | None = None, pad: bool = False) -> Self:
        """Return the mixture of these parts.

        Raises:
            UserError: it says what has no effect, or a name in it cannot be told from the rest.
        """
        return cls(tuple(parts), since, pad)._checked("mixture")

    def __str__(self) -> str:
        since = [f"since={self.since}"] if self.since else []
        return MIXTURE + ",".join([*map(str, self.parts), *since]) + PAD * self.pad

    @property
    def phases(self) -> tuple[tuple[Fraction, ...], ...]:
        """The shares of the parts, which sum to 1, at first and from `since` on."""
        return tuple(tuple(weight / sum(column) for weight in column) for column in self._weights)

    @property
    def _weights(self) -> list[list[Fraction]]:
        first = [Fraction(part.weight) for part in self.parts]
        then = [Fraction(part.then or 0) for part in self.parts]
        return [first, then] if self.since else [first]

    @property
    def tasks(self) -> tuple[int, ...] | None:
        """The number of each part's task, in the order in which they are named; None: there are none."""
        names = list(dict.fromkeys(part.task for part in self.parts))
        return tuple(names.index(part.task) for part in self.parts) if len(names) > 1 else None

    def renamed(self, names: Sequence[str]) -> Self:
        """Return the same mixture of data sets with these names."""
        parts = tuple(part._replace(data=name) for part, name in zip(self.parts, names, strict=True))
        return self._replace(parts=parts)._checked("mixture")

    def _checked(self, said: str) -> Self:
        parts = self.parts
        for part in parts:
            if not all(re.fullmatch(_WEIGHT, _digits(number)) for number in part[1:3] if number is not None):
                raise UserError(
                    f"{said}: weights have at most 12 digits before and after the point: round {part.data}'s"
                )
            if part.task is not None and not TASK.fullmatch(part.task):
                raise UserError(f"{said}: task {part.task!r} is no word: give letters, digits, _ and -")
            if part.data.startswith(MIXTURE):
                raise UserError(f"{said}: a mixture has no other one in it: name the data sets of that one")
            if MASK in part.data or masked(part.data) != part.data:
                raise UserError(f"{said}: a mixture takes no URI with keys in it: set them in the environment")
            if (part.then is None) != (self.since is None):
                raise UserError(
                    f"{said}: second weights hold from an update on: give each part two, and `since`, or neither"
                )
            if not part.weight and not part.then:
                raise UserError(f"{said}: {part.data} has no weight: leave it out")
        if not all(map(sum, self._weights)):
            raise UserError(f"{said}: no data set has a weight: give one at least some, at every time")
        if twice := [name for name, count in Counter((part.data, part.task) for part in parts).items() if count > 1]:
            raise UserError(f"{said}: {twice[0][0]} is named twice: name it once, with the sum of its weights")
        tasks = {part.task for part in parts}
        if tasks != {None} and (None in tasks or len(tasks) == 1):
            raise UserError(f"{said}: tasks tell parts apart: name each part's, two at least, or none")
        if self.since and len(parts) == 1:
            raise UserError(f"{said}: weights of one data set change nothing: leave out `since`")
        if self.pad and len(parts) == 1:
            raise UserError(f"{said}: one data set has one space: leave out `pad`")
        if self.since and self.phases[0] == self.phases[1]:
            raise UserError(f"{said}: the second weights are the first ones: leave out `since`")
        self._check_text(said)
        return self

    def _check_text(self, said: str) -> None:
        """Check that the name, read again, means the same."""
        names = [match[1] for match in _matches(str(self).removeprefix(MIXTURE).removesuffix(PAD))]
        if names != [part.data for part in self.parts] + ["since"] * bool(self.since):
            raise UserError(
                f"{said}: a comma or = in a name is not read as part of it: give it as file:// URI with %2C"
            )


def _matches(text: str) -> Iterator[re.Match[str]]:
    """Yield the parts at the beginning of a text, up to where none is."""
    end = 0
    while match := _PART.match(text, end):
        yield match
        end = match.end()


def is_mixture(source: str) -> bool:
    """Return whether a name is that of a mixture."""
    return source.strip().startswith(MIXTURE)


def names_in(source: str) -> tuple[str, ...]:
    """Return the names of the data sets that a name stands for: of a mixture those of its parts.

    Raises:
        UserError: it is no name of a mixture, and begins like one.
    """
    return tuple(part.data for part in MixtureName.parse(source).parts) if is_mixture(source) else (source,)


def absolute_name(source: str) -> str:
    """Return the name of a data set, or of a mixture, that means the same in every folder.

    Raises:
        UserError: as `absolute`, or it is no mixture that begins like one.
    """
    if not is_mixture(source):
        return absolute(source)
    mixture = MixtureName.parse(source)
    return str(mixture.renamed([absolute(part.data) for part in mixture.parts]))


def _digits(number: Decimal) -> str:
    return format(number, "f")
