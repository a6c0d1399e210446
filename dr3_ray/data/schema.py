"""What a data set is made of: the files, and the manifest that says what is in them.

A data set is a directory: `manifest.json`, `shard-00000.arrow …` (Arrow IPC files, uncompressed, one record batch
each, no nulls) and `episodes.arrow` (one row per episode). Rows are transitions, in the order of their episodes. Beside
a shard lie the frames of its observations (see `dr3_ray.data.frames`), `shard-00000-frames-0.arrow` for one part of
them, where that is smaller than two columns.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from dr3_ray.data import identity
from dr3_ray.data.identity import Identities
from dr3_ray.data.spaces import Frozen, SpaceSpec, first_wrong
from dr3_ray.errors import UserError, first_line
from dr3_ray.stores import safe_name

FORMAT: Literal[4] = 4  # of the manifests that are written: with the digest of the rows
TWO_COLUMNS: Literal[2] = 2  # without it, for older versions, where observations have two columns
FRAMES: Literal[3] = 3  # and where a shard has frames
FORMATS = (1, 2, 3, 4)  # of those that are read
MANIFEST = "manifest.json"
MANIFEST_BYTES = 8 * 2**20  # the largest manifest that is written or read
SHARDS = 10_000  # the most shards of a data set
EPISODES = "episodes.arrow"
PARTIAL = ".partial"  # ending of a directory that is still being written


TEXT = 100_000  # characters of the longest text in a provenance; what is longer is cut


def _cut(text: Any) -> Any:
    return f"{text[: TEXT - 1]}…" if isinstance(text, str) and len(text) > TEXT else text


Text = Annotated[str, BeforeValidator(_cut)]
Line = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Amount = Annotated[int, Field(ge=0, le=2**53)]  # what any reader of JSON keeps exactly
Some = Annotated[int, Field(ge=1, le=2**53)]


class FileEntry(Frozen):
    """One Arrow file of the data set."""

    file: Annotated[str, AfterValidator(safe_name), Field(pattern=r"^[\w-]+\.arrow$", max_length=100)]
    rows: Some
    bytes: Some
    sha256: Sha256


class FramesEntry(FileEntry):
    """The frames of a part of a shard's observations; `rows` are frames.

    An observation is `stack` of them in a row, along `axis` of its shape.
    """

    part: str = ""
    stack: Some = 1
    axis: Amount = 0


class ShardEntry(FileEntry):
    """The rows of a shard, and the frames of those parts of its observations that are stored once."""

    frames: Annotated[tuple[FramesEntry, ...], Field(min_length=1)] | None = None

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the shard."""
        return (self, *(self.frames or ()))

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what older versions do not know where it says nothing."""
        said: dict[str, Any] = handler(self)
        return {name: value for name, value in said.items() if name != "frames" or value is not None}


class Counts(Frozen):
    """Numbers of rows and episodes."""

    rows: Some
    episodes: Some
    terminateds: Amount
    truncateds: Amount


class Statistic(Frozen):
    """Statistics over all stored values of a column; `episode_returns` over all episodes the rows were drawn from."""

    min: FiniteFloat
    max: FiniteFloat
    mean: FiniteFloat
    std: FiniteFloat


class Digests(Frozen):
    """SHA-256 of the identity (`Manifest.fingerprint`) and of the whole manifest but this field."""

    identity: Sha256
    manifest: Sha256


class Provenance(Frozen):
    """Where the data come from. `notes` are warnings that stay with the data, `details` whatever the source tells."""

    source: Text
    version: Text = ""
    licence: Text = "unknown"
    command: Text = ""
    created: Text = ""
    details: dict[Line, Text] = Field(default_factory=dict)
    notes: tuple[Text, ...] = ()


class Manifest(Frozen):
    """`manifest.json`: everything about a data set but its rows.

    `gamma` is the discount of the stored Monte-Carlo returns. `complete_episodes` is false for a subsample of rows,
    whose returns cannot be computed again. `environment` names what to roll out in: "minatar:NAME", "gymnasium:ID".
    `content` is the digest of rows and episodes, in whatever files they lie (`dr3_ray.data.content`).
    """

    format: Literal[1, 2, 3, 4] = FORMAT
    name: Line
    gamma: float = Field(ge=0, le=1)
    complete_episodes: bool
    observation_space: SpaceSpec
    action_space: SpaceSpec
    environment: Line | None = None
    counts: Counts
    shards: tuple[ShardEntry, ...] = Field(min_length=1, max_length=SHARDS)
    episodes: FileEntry
    statistics: dict[str, Statistic]
    provenance: Provenance
    content: Sha256 | None = None  # formats 1 to 3 have none
    digests: Digests | None = None  # format 1 has none

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [entry.file for entry in self.files]
        if len(set(names)) < len(names):
            raise ValueError("a file is named twice")
        if self.format == 1 and self.digests is not None:
            raise ValueError("format 1 has no digests")
        if (self.format == FORMAT) != (self.content is not None):
            raise ValueError(f"format {self.format} has {'a' if self.format == FORMAT else 'no'} content")
        if self.format < FRAMES and any(shard.frames for shard in self.shards):
            raise ValueError(f"format {self.format} has no frames")
        return self

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the data set but this one."""
        return (*(file for shard in self.shards for file in shard.files), self.episodes)

    @property
    def fingerprint(self) -> str:
        """The identity: SHA-256 over everything that changes what is learned (see `dr3_ray.data.identity`)."""
        return self.identities.now

    @property
    def identities(self) -> Identities:
        """The identity, and those by the rules of older versions."""
        return identity.identities(self.model_dump())

    @property
    def digest(self) -> str:
        """SHA-256 over all that the manifest says, however it is written down, but its own `digests` and format.

        What it does not say counts as little as in a version that could not say it.
        """
        return identity.digest(json.loads(self.model_dump_json(exclude={"format", "digests"}, exclude_none=True)))

    @property
    def note(self) -> str | None:
        """What a reader should know about the manifest itself."""
        if self.digests is None:
            return (
                f"its manifest is of format {self.format}: its fingerprint, which covers spaces and gamma since then, "
                f"is {self.fingerprint[:16]} (was {self.identities.of_format_1[:16]}); "
                f"`dr3-ray data verify DIR --seal` writes format {FORMAT}, with the fingerprint of its rows"
            )
        if self.digests.manifest != self.digest:
            return "its name, environment, statistics or provenance were edited since it was written"
        return None

    def sealed(self) -> Self:
        """Return this manifest in the format that its files need, with the digests of its content."""
        digests = Digests(identity=self.fingerprint, manifest=self.digest)
        return self.model_copy(update={"format": format_of(self.shards, self.content), "digests": digests})

    def text(self) -> str:
        """Return the content of `manifest.json`."""
        return self.model_dump_json(indent=1, exclude={"content"} if self.content is None else None) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest in a folder of this machine.

        Raises:
            UserError: as `parse`.
            OSError: there is none that can be read.
        """
        with open(folder / MANIFEST, "rb") as file:
            return cls.parse(file.read(MANIFEST_BYTES + 1), folder)

    @classmethod
    def parse(cls, content: bytes, where: str | os.PathLike[str]) -> Self:
        """Return the manifest of the data set at `where`.

        Raises:
            UserError: this version cannot read it.
        """
        if len(content) > MANIFEST_BYTES:
            raise damaged(where, f"{MANIFEST} has more than {MANIFEST_BYTES >> 20} MiB")
        try:
            document = strict_json(content)
        except (ValueError, RecursionError) as error:
            raise damaged(where, f"{MANIFEST} cannot be read ({first_line(error)})") from None
        version = document.get("format") if isinstance(document, dict) else None
        if type(version) is not int or version not in FORMATS:
            raise UserError(
                f"{where} has manifest format {repr(version)[:40]}, this version of dr3-ray reads {_either(FORMATS)}: "
                "import the data again, or install the version that wrote them"
            )
        if version != 1 and "digests" not in document:
            raise damaged(where, f"{MANIFEST} is wrong at digests (missing)")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            name, what = first_wrong(error)
            raise damaged(where, f"{MANIFEST} is wrong at {name or 'the top'} ({what})") from None


def strict_json(content: bytes) -> Any:
    """Return the JSON document in `content`.

    Raises:
        ValueError: it is none, a key stands twice, or a number is NaN or infinite.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)[:80]!r} stands there twice")
        return document

    def refuse(number: str) -> None:
        raise ValueError(f"{number} is no number")

    return json.loads(content, object_pairs_hook=unique, parse_constant=refuse)


def format_of(shards: Iterable[ShardEntry], content: str | None) -> Literal[2, 3, 4]:
    """Return the format of a manifest of these shards, and this digest of rows: the oldest that can say all of it."""
    if content is not None:
        return FORMAT
    return FRAMES if any(shard.frames for shard in shards) else TWO_COLUMNS


def _either(numbers: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} or {numbers[-1]}"


def damaged(where: str | os.PathLike[str], what: str) -> UserError:
    """Return the error that a data set is not as it was written."""
    return UserError(f"{os.fspath(where)} is damaged: {what}; copy or import it again")
