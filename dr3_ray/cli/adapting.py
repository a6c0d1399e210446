"""`dr3-ray evaluate --adapt`: the options of an adaptation, and its table of three ways to play."""

from typing import TYPE_CHECKING, Any

from dr3_ray.errors import UserError, check_known

if TYPE_CHECKING:
    from dr3_ray.evaluation.pixels import Change
    from dr3_ray.policies.adapting import Adapted
    from dr3_ray.policies.memo import Memo, MemoOptions
    from dr3_ray.policies.playing import Episodes
    from dr3_ray.stats import Estimate

TITLES = {"plain": "plain (lr 0)", "averaging": "averaging", "memo": "MEMO"}


def read_options(adapt: str | None, settings: list[str], video: Any) -> "MemoOptions | None":
    """Return the options of the adaptation; None: none is asked for.

    Raises:
        UserError: there is no such adaptation or option, or an option that applies to none.
    """
    from dr3_ray.cli.spec_options import read_settings
    from dr3_ray.policies.adapting import METHODS
    from dr3_ray.policies.memo import MemoOptions

    if adapt is None:
        if settings:
            raise UserError("--set gives settings of --adapt, which is not there: leave it out")
        return None
    check_known("adaptation", [adapt], METHODS)
    if video:
        raise UserError("--adapt plays every episode in three ways, and --video films one: leave it out")
    return MemoOptions.from_dict(read_settings(settings))


def read_shifts(words: list[str]) -> "tuple[Change, ...]":
    """Return the changes of an environment's images that NAME:LEVEL words mean.

    Raises:
        UserError: a word means none.
    """
    from dr3_ray.evaluation.pixels import SHIFTS, read_changes

    return read_changes(words, SHIFTS, "shift")


def document(memo: "Memo", adapted: "Adapted") -> dict[str, Any]:
    """Return all returns of each way to play, what it gains over the plain policy, and the options, for programs."""
    return {
        "adapt": {"method": "memo", **memo.options.to_dict(), "augmentations": list(map(str, memo.augmentations))},
        "played": {
            name: {"mean_return": mean_of(episodes.returns), "minus_plain": _gain(adapted, episodes)}
            | episodes._asdict()
            for name, episodes in ways(adapted).items()
        },
        "dot_product": adapted.dot_products.means(),
    }


def ways(adapted: "Adapted") -> "dict[str, Episodes]":
    """Return the episodes of each way to play."""
    return {"plain": adapted.plain, "averaging": adapted.averaging, "memo": adapted.memo}


def told(memo: "Memo", adapted: "Adapted") -> list[str]:
    """Return the table as people read it."""
    rows = [("", "return", "95% interval", "minus plain", "95% interval", "steps")]
    for name, episodes in ways(adapted).items():
        mean, gain = mean_of(episodes.returns), _gain(adapted, episodes)
        gained = ("", "") if name == "plain" else (f"{gain.value:+.4g}", _interval(gain))
        rows.append((TITLES[name], f"{mean.value:.4g}", _interval(mean), *gained, f"{episodes.lengths.mean():.4g}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    seeds, dots = adapted.plain.seeds, adapted.dot_products
    lines.append(f"{len(seeds)} episodes of seeds {seeds[0]} to {seeds[-1]} in each way")
    options = [f"{name} {value}" for name, value in memo.options.to_dict().items() if name != "augmentations"]
    if memo.child == "actor":
        options = [text for text in options if not text.startswith("tau ")]
    lines.append(f"MEMO: {', '.join(options)}, augmentations {' '.join(map(str, memo.augmentations))}")
    if dots.pairs:
        means = dots.means()
        lines.append(
            f"dot product φ(s, a)·φ(s', a') of consecutive observations: {means['before']:.4g} before a step, "
            f"{means['after']:.4g} after it, mean of {dots.pairs}"
        )
    left_out = {TITLES[name]: mean_of(episodes.returns).left_out for name, episodes in ways(adapted).items()}
    lines += [
        f"{title}: {count} episodes do not count: the environment gave NaN or infinity"
        for title, count in left_out.items()
        if count
    ]
    return lines


def columns(adapted: "Adapted") -> dict[str, Any]:
    """Return the columns of all episodes in all ways to play."""
    import numpy as np

    every = ways(adapted)
    joined = {
        name: np.concatenate([getattr(episodes, name) for episodes in every.values()]) for name in adapted.plain._fields
    }
    return {"played": np.repeat(list(every), len(adapted.plain.seeds)), **joined}


def mean_of(values: Any) -> "Estimate":
    """Estimate a mean with its interval."""
    from dr3_ray.stats import bootstrap_estimate, mean

    return bootstrap_estimate(values, estimator=mean)


def _gain(adapted: "Adapted", episodes: "Episodes") -> "Estimate":
    """Estimate the mean of the differences to the plain policy, episode by episode of one seed."""
    return mean_of(episodes.returns - adapted.plain.returns)


def _interval(estimate: "Estimate") -> str:
    return f"{estimate.low:.4g} to {estimate.high:.4g}" if estimate.has_interval else "none of one episode"
