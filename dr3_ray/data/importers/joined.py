"""Several sources with the same spaces as one, one after the other."""

from collections.abc import Iterator, Sequence
from functools import partial, reduce

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.source import Episode, Read, Source
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError


def joined(sources: Sequence[Source]) -> Source:
    """Return the episodes of all sources, numbered anew; the only one stays as it is.

    Raises:
        UserError: there is none, one is named twice, or their spaces differ.
    """
    if not sources:
        raise UserError("there is no source: name one")
    first = sources[0]
    if len(sources) == 1:
        return first
    names = [source.provenance.source for source in sources]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise UserError(f"{twice[0]} is named twice: name each source once")
    for source in sources[1:]:
        for kind in ("observation", "action"):
            one, other = (getattr(one, f"{kind}_space") for one in (first, source))
            if one != other:
                raise UserError(
                    f"{source.name} has the {kind} space {other}, and {first.name} has {one}: import them one by one, "
                    "or give both the same bounds"
                )

    def read(findings: Findings) -> Iterator[Episode]:
        return _numbered([source.read for source in sources], findings)

    def parts(rows: int, findings: Findings) -> Sequence[Read]:
        pieces = [piece for source in sources if source.parts for piece in source.parts(rows, findings)]
        return [partial(_numbered, [piece]) for piece in pieces]

    environments = {source.environment for source in sources}
    return Source(
        name="+".join(source.name for source in sources),
        observation_space=first.observation_space,
        action_space=first.action_space,
        read=read,
        provenance=_provenance(sources),
        rows=sum(source.rows for source in sources) if all(source.rows for source in sources) else 0,
        environment=environments.pop() if len(environments) == 1 else None,
        columns=first.columns,
        usual=reduce(frozenset.intersection, (source.usual for source in sources)),
        parts=parts if all(source.parts for source in sources) else None,
        files=tuple(file for source in sources for file in source.files),
        stack=first.stack if all(source.stack == first.stack for source in sources) else None,
    )


def _numbered(readers: Sequence[Read], findings: Findings) -> Iterator[Episode]:
    """Yield the episodes of readers, numbered from 0."""
    for number, episode in enumerate(episode for read in readers for episode in read(findings)):
        yield episode._replace(number=number)


def _provenance(sources: Sequence[Source]) -> Provenance:
    """Return where all of them come from: details by the name of each source, other words side by side."""
    given = [source.provenance for source in sources]

    def together(name: str) -> str:
        return "; ".join(dict.fromkeys(str(getattr(origin, name)) for origin in given))

    return Provenance(
        source=" ".join(origin.source for origin in given),
        version=together("version"),
        licence=together("licence"),
        details={
            f"{source.name}, {key}"[:500]: text for source in sources for key, text in source.provenance.details.items()
        },
        notes=tuple(dict.fromkeys(note for origin in given for note in origin.notes)),
    )
