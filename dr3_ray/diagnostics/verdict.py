"""What one moment of a critic says: rules over the numbers of a diagnosis. The thresholds are those of health flags."""

import math
from collections.abc import Mapping

import numpy as np

from dr3_ray.diagnostics.diagnosis import HELD_OUT, Finding, Probe
from dr3_ray.runs.health import READ, Flag, FlagName, flags_of, threshold

RULES: dict[FlagName, tuple[str, ...]] = {
    "diverged": (),
    "dead features": ("rank", "norm"),
    "Q out of bounds": (),
    "targets clipped": ("cut",),
    "co-adapting": ("growth", "cosine", "settled", "part", "evaluations"),
    "overfit": ("fall", "after", "evaluations"),
}
"""The thresholds of each health flag."""
DIVERGED = Finding("diverged", "diverged: parameters or values are not finite, so that nothing else can be measured")
Numbers = Mapping[str, float]


def findings_of(probes: Mapping[str, Probe], bound: float | None = None) -> list[Finding]:
    """Return what is wrong by the numbers of the first probe, and against the one that was held out.

    `bound` is the largest magnitude that Q can have; None if it is not known.
    """
    first = next(iter(probes.values()))
    numbers, backup = first.numbers, next(iter(first.pairs.values()))
    if not math.isfinite(numbers["q_data"]):
        return [DIVERGED]
    findings = [*_flagged(numbers, backup, bound), _dormant(numbers), _excited(backup), _promising(numbers)]
    held_out = probes.get(HELD_OUT)
    findings += [_unseen(numbers, held_out.numbers) if held_out else None, _random(numbers)]
    return [finding for finding in findings if finding]


def as_finding(flag: Flag, since: bool = True) -> Finding:
    """Return a health flag as a sentence of the verdict; `since` says from which update on it holds."""
    said = str(flag) if since else flag.name + (f" ({flag.detail})" if flag.detail else "")
    return Finding(flag.name, said, True, RULES[flag.name])


def level(probe: Probe) -> str:
    """Return the dot product of the backup's pairs in words."""
    choice, backup = next(iter(probe.pairs.items()))
    return f"it is {backup['dot_product']:.3g} at the {choice}'s a', with a cosine of {backup['cosine']:.2f}"


def one_moment(probe: Probe) -> Finding:
    """Return the sentence on co-adaptation where there is no history."""
    return Finding(
        "co-adaptation",
        "whether it co-adapts cannot be told from one moment: the dot product would grow while Q does not; "
        + level(probe),
        wrong=False,
    )


def nothing_wrong(findings: list[Finding]) -> list[Finding]:
    """Return the findings, with a first sentence that says so where none of them is wrong."""
    if any(finding.wrong for finding in findings):
        return sorted(findings, key=lambda finding: not finding.wrong)
    return [Finding("healthy", "nothing is wrong by these rules", wrong=False), *findings]


def _flagged(numbers: Numbers, backup: Numbers, bound: float | None) -> list[Finding]:
    """Return the health flags of a history of this one moment."""
    values = {**numbers, **backup, "q_mean": numbers["q_data"]}
    curves = {name: np.array([values.get(name, math.nan)]) for name in ("step", *READ)} | {"step": np.zeros(1)}
    return [as_finding(flag, since=False) for flag in flags_of(curves, bound)]


def _dormant(numbers: Numbers) -> Finding | None:
    share = numbers["dormant_units"]
    if not share >= threshold("idle"):
        return None
    said = f"dormant units: {share:.0%} of the features are dormant, {numbers['dead_units']:.0%} are 0 at every row"
    return Finding("dormant units", said, True, ("idle", "dormant"))


def _excited(backup: Numbers) -> Finding | None:
    share = backup["seem_normalized"]
    if not share >= threshold("seem"):
        return None
    said = (
        f"self-exciting: SEEM's eigenvalue of the last layer is {backup['seem_eigenvalue']:+.3g}, {share:.2%} of the "
        "norm of its kernel, so that steps of TD drive Q away from its targets; its authors' remedy is LayerNorm "
        "(critic_norm layer)"
    )
    return Finding("self-exciting", said, True, ("seem",))


def _promising(numbers: Numbers) -> Finding | None:
    above, spread = numbers.get("overestimation", math.nan), numbers.get("return_std", math.nan)
    if not above > threshold("promise") * spread:
        return None
    said = (
        f"over-estimating: Q of the data's actions is {above:.3g} above their Monte-Carlo returns, which have a "
        f"standard deviation of {spread:.3g}; a policy that is better than the data's is above them as well"
    )
    return Finding("over-estimating", said, True, ("promise", "tail"))


def _unseen(numbers: Numbers, held_out: Numbers) -> Finding | None:
    here, there = (probe.get("td_error", math.nan) for probe in (numbers, held_out))
    if not (here > 0 and there >= threshold("unseen") * here):
        return None
    said = (
        f"overfit to its rows: the TD error is {there:.3g} on held-out rows and {here:.3g} on rows that were trained "
        f"on, \N{MULTIPLICATION SIGN}{there / here:.2g}"
    )
    return Finding("overfit to its rows", said, True, ("unseen",))


def _random(numbers: Numbers) -> Finding | None:
    share = numbers.get("random_above", math.nan)
    if not share >= threshold("random"):
        return None
    said = (
        f"prefers random actions: their Q is above that of the data's in {share:.0%} of rows (means "
        f"{numbers['q_random']:.3g} and {numbers['q_data']:.3g})"
    )
    return Finding("prefers random actions", said, True, ("random",))
