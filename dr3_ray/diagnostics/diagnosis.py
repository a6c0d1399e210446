"""A diagnosis: what was measured of one critic, and what the rules make of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dr3_ray.quantities import quantity
from dr3_ray.runs.health import THRESHOLDS
from dr3_ray.trust.text import json_value

TRAIN, HELD_OUT = "train", "held-out"
SHOWN = 8  # singular values
DASH = "\N{EN DASH}"


class Probe(NamedTuple):
    """What was measured of one critic on one set of rows."""

    rows: int
    numbers: dict[str, float]
    """By name of the catalogue (`dr3_ray.quantities`)."""
    pairs: dict[str, dict[str, float]]
    """The same for features at (s, a) and (s', a'), by how a' is chosen; the first is that of the backup."""
    spectrum: list[float]
    """The singular values of φ(s, a) over √rows, the largest first, averaged over the critics."""


class Finding(NamedTuple):
    """A sentence of the verdict, and the rule that gave it."""

    name: str
    sentence: str
    wrong: bool = True
    """Whether it says that something is wrong."""
    thresholds: tuple[str, ...] = ()
    """Names of `dr3_ray.runs.health.THRESHOLDS`, which the numbers of the sentence were compared with."""

    @property
    def rule(self) -> str:
        """The thresholds in words; empty where none was compared with."""
        return "; ".join(
            f"{name} = {THRESHOLDS[name].value:.3g}: {THRESHOLDS[name].meaning}" for name in self.thresholds
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the sentence with its rule, as JSON can have it."""
        compared = {name: THRESHOLDS[name]._asdict() for name in self.thresholds}
        return {"name": self.name, "wrong": self.wrong, "sentence": self.sentence, "thresholds": compared}


@dataclass(frozen=True)
class Diagnosis:
    """Numbers of a critic by probe, the verdict, and what could not be measured. `str` shows all of them."""

    probes: Mapping[str, Probe]
    """`train` or `batch` first, then `held-out` if there is one; empty where parameters are not finite."""
    findings: list[Finding]
    notes: list[str] = field(default_factory=list)
    about: Mapping[str, Any] = field(default_factory=dict)
    """What was diagnosed."""

    @property
    def wrong(self) -> list[str]:
        """The names of what is wrong."""
        return [finding.name for finding in self.findings if finding.wrong]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can have it: NaN and infinities are null."""
        return {
            "about": dict(self.about),
            "verdict": [finding.to_dict() for finding in self.findings],
            "probes": json_value(dict(self.probes)),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = ["verdict, by the rules and thresholds of docs/report.md"]
        for finding in self.findings:
            compared = ", ".join(f"{name} {THRESHOLDS[name].value:.3g}" for name in finding.thresholds)
            lines.append(f"  {finding.sentence}" + (f" (by {compared})" if compared else ""))
        if self.probes:
            lines += ["", *_table("", self._numbers())]
            lines += ["", *_table("largest singular values of the features over √rows", self._spectra())]
            for name, probe in self.probes.items():
                lines += ["", *_table(f"{name}: features at (s, a) and (s', a'), by a'", _pairs(probe))]
        return "\n".join([*lines, *(["", *self.notes] if self.notes else [])])

    def _numbers(self) -> list[tuple[str, list[str]]]:
        probes = self.probes.values()
        names = dict.fromkeys(name for probe in probes for name in probe.numbers)
        rows = [("", list(self.probes)), ("rows", [f"{probe.rows:,}" for probe in probes])]
        return rows + [
            (quantity(name).label, [_shown(probe.numbers.get(name, math.nan)) for probe in probes]) for name in names
        ]

    def _spectra(self) -> list[tuple[str, list[str]]]:
        shown = [[_shown(value) for value in probe.spectrum[:SHOWN]] for probe in self.probes.values()]
        return [(name, values) for name, values in zip(self.probes, shown, strict=True)]


def _pairs(probe: Probe) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for pairs in probe.pairs.values() for name in pairs)
    rows = [("", list(probe.pairs))]
    return rows + [
        (quantity(name).label, [_shown(pairs.get(name, math.nan)) for pairs in probe.pairs.values()]) for name in names
    ]


def _table(title: str, rows: list[tuple[str, list[str]]]) -> list[str]:
    """Return rows as text: labels to the left, values to the right of columns of one width."""
    label = max(len(name) for name, _ in rows)
    width = max((len(value) for _, values in rows for value in values), default=0)
    lines = [
        f"  {name:<{label}}  {'  '.join(f'{value:>{width}}' for value in values)}".rstrip() for name, values in rows
    ]
    return [title, *lines] if title else lines


def _shown(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else DASH if math.isnan(value) else str(value)
