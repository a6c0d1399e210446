"""A mixture of data sets as a specification has it: its parts by name, each with its weight."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, ValidationError

from dr3_ray.data.mixture_names import MixtureName, Part, absolute_name
from dr3_ray.sweep.spec.mistakes import first_mistake
from dr3_ray.sweep.spec.space import NonEmpty


class MixturePart(BaseModel):
    """One data set of a mixture."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: str
    """As a data set is named, with the words for some of its rows."""
    weight: NonNegativeFloat
    """Its share of a batch, beside the other weights."""
    then: NonNegativeFloat | None = None
    """Its weight from update `since` on."""
    task: str | None = None
    """What its rows show; vector observations end in the one-hot of it. All parts have one, or none."""

    def part(self) -> Part:
        """Return the part as `MixtureName` has it."""
        then = None if self.then is None else Decimal(str(self.then)).normalize()
        return Part(self.data.strip(), Decimal(str(self.weight)).normalize(), then, self.task)


class MixtureFields(BaseModel):
    """Data sets that every batch has a fixed number of rows of; the last one is the target."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    mixture: NonEmpty[MixturePart]
    """The data sets."""
    since: PositiveInt | None = None
    """The update from which on the weights of `then` hold."""
    pad: bool = False
    """Whether vector observations and actions of different lengths are padded with zeros to the longest."""


def dataset_name(given: Any) -> Any:
    """Return the name of a data set in full, of a mixture that is given by its fields the one text.

    Raises:
        UserError: it is no mixture, or no name.
    """
    if isinstance(given, Mapping):
        try:
            fields = MixtureFields.model_validate(dict(given))
        except ValidationError as error:
            raise first_mistake(error, MixtureFields, {"mixture": MixturePart}) from None
        given = str(MixtureName.of([part.part() for part in fields.mixture], fields.since, fields.pad))
    return absolute_name(given) if isinstance(given, str) and given else given
