"""The quality of collected data, named after D4RL by what the learner's policy had reached.

D4RL (Fu et al., arXiv 2004.07219) has replay, medium, medium-replay and expert; its documentation calls medium a policy
of "approximately 1/3 the performance of the expert". Here performance is counted from a random policy's return, as
D4RL's normalized scores are, since returns may be negative. The expert is the policy after all steps.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dr3_ray.errors import UserError

REPLAY, MEDIUM, MEDIUM_REPLAY, EXPERT = "replay", "medium", "medium-replay", "expert"
QUALITIES = (REPLAY, MEDIUM, MEDIUM_REPLAY, EXPERT)
SHARE = 1 / 3  # of the way from a random policy's return to the expert's


class Check(NamedTuple):
    """What a policy was worth after so many steps."""

    step: int
    gained: float
    """The mean return of a few episodes, played without noise; of a random policy at step 0."""


class Reached(NamedTuple):
    """The check that gives a data set its quality, and what the data set's provenance tells of it."""

    place: int
    details: dict[str, str]


def reached(quality: str, checks: Sequence[Check], wanted: float | None, warm_up: int) -> Reached:
    """Return which check a quality is of; the first is of a random policy, the last of the expert.

    `wanted` is the return of medium if it was given by hand; then the last check need not be an expert's.

    Raises:
        UserError: no check reached it.
    """
    (_, chance), last = checks[0], checks[-1]
    details = {"quality": quality, "checks": ", ".join(f"{step}: {gained:.6g}" for step, gained in checks)}
    if wanted is None and not last.gained > chance:
        raise UserError(
            f"after {last.step} steps the policy's return is {last.gained:.6g}, a random one's {chance:.6g}: "
            f"nothing is {quality} here, so give more --steps, or other options (--set)"
        )
    if quality == EXPERT:
        told = f"return {last.gained:.6g} of the policy after all {last.step} steps; a random one has {chance:.6g}"
        return Reached(len(checks) - 1, details | {"reached": told})
    least = chance + SHARE * (last.gained - chance) if wanted is None else wanted
    learned = [place for place, check in enumerate(checks) if check.step > warm_up and check.gained >= least]
    if not learned:
        best = max(checks[1:], key=lambda check: check.gained, default=checks[0])
        raise UserError(
            f"no policy reached the return {least:.6g}, the best was {best.gained:.6g} after {best.step} steps: "
            "give more --steps, or a lower --medium-return"
        )
    first = checks[learned[0]]
    if wanted is None and first.gained >= last.gained:
        raise UserError(
            f"the first policy past a third of the way has the return {first.gained:.6g}, and the last one has "
            f"{last.gained:.6g}: none between them is medium, so give more checks (--set checks=100) or --medium-return"
        )
    asked = "given by hand" if wanted is not None else f"a third of the way from {chance:.6g} to {last.gained:.6g}"
    told = f"return {first.gained:.6g} of the policy after {first.step} steps; asked for {least:.6g}, {asked}"
    return Reached(learned[0], details | {"reached": told})
