"""A selection for people and for programs: the answer first, then the places, and what choices like it are worth."""

import io
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from dr3_ray.quantities import RETURN, quantity
from dr3_ray.report.selection_judging import CRITERIA, Choice, Measured
from dr3_ray.report.tables import decimals_of, number
from dr3_ray.runs.workflow import REMEDIES
from dr3_ray.stats import Estimate, Quality
from dr3_ray.trust.text import json_value

if TYPE_CHECKING:
    from dr3_ray.report.selection import Selection

SHORT = {
    "fqe": "FQE", "dr": "DR", "wis": "WIS", "start_value": "own\nQ", "td_error_held_out": "held\nTD", "td_error": "TD",
    "q_held_out": "held\nQ", "q_mean": "Q", "dot_product": "φφ′", "effective_rank": "rank", "seem_normalized": "SEEM",
    "mean_rank": "all",
}  # fmt: skip
SHOWN = 12  # configurations of a table for the terminal,
NAMED = 3  # and of a sentence
FEW = 5.0  # episodes, to which weights amount, below which importance sampling says next to nothing
WIDTH = 100  # of the text without a terminal
WHY = {
    "fqe": "Why this rule: it values the policy itself, and ranked best of the estimates in arXiv 2107.11003, on one "
    "simulator; where a policy leaves the data it may be far off (arXiv 2312.02355: no rule is safe).",
}


def rendered(selection: "Selection") -> Group:
    """Return the selection for a terminal of 80 characters or more."""
    shown: list[Any] = []
    measured = {table.heading: table for table in selection.measured}
    for choice in selection.choices:
        first, *others = sentences(selection, choice)
        shown += [Text(choice.heading, style="bold"), Text(f"• {first}", style="bold")]
        shown += [Text(f"• {said}") for said in others] + [Text(), _places(choice, selection.criteria), Text()]
    for judged in measured.values():
        shown += [_quality(f"How each would have chosen: {judged.heading}", judged.quality, selection.top), Text()]
        shown += [] if judged.ucb is None else [_tuning(judged), Text()]
    if selection.pooled:
        title = f"Over {len(measured)} tables, regrets as shares of their range of returns"
        shown += [_quality(title, selection.pooled, selection.top), Text()]
    shown += [Text(f"• {note}", style="dim") for note in notes(selection)]
    return Group(*shown)


def as_text(selection: "Selection") -> str:
    """Return the selection as plain text."""
    file = io.StringIO()
    Console(file=file, width=WIDTH, color_system=None).print(rendered(selection))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def sentences(selection: "Selection", choice: Choice) -> list[str]:
    """Return the answer for one data set, and what there is to know of it."""
    return [*_answer(choice), *_by_returns(selection, choice), *_fits(selection, choice), _use(selection, choice)]


def _answer(choice: Choice) -> Iterator[str]:
    best, called = choice.rows.iloc[0], _called(choice.rule)
    value = _told(choice.value)
    yield f"Take {best['name']}: of {len(choice.rows)} configurations it has the best {called}, {value}."
    if best["seeds"] < 2:
        yield "It has one seed, so that there is no interval: how sure this choice is, is not known."
    elif choice.tied:
        more = len(choice.tied) - NAMED
        named = ", ".join(choice.tied[:NAMED]) + (f" and {more} more" if more > 0 else "")
        yield f"By equal seeds it is not above these for certain: {named}."
    elif len(choice.rows) > 1:
        yield "By equal seeds it is above all others for certain."
    if choice.rule in WHY:
        yield WHY[choice.rule]


def _by_returns(selection: "Selection", choice: Choice) -> Iterator[str]:
    returns = choice.rows[RETURN]
    if returns.isna().all():
        yield "No returns were measured: how well this rule chooses here is not known."
        return
    best, mine = choice.rows.loc[returns.idxmax()], float(choice.rows.iloc[0][RETURN])
    if np.isnan(mine):
        return
    if best["name"] == choice.rows.iloc[0]["name"]:
        yield f"It also returned most, {number(mine)}: the returns of this run are the better evidence."
    else:
        yield (
            f"This run has returns, which are better evidence: {best['name']} returned most, "
            f"{number(float(best[RETURN]))}, and the choice {number(mine)}."
        )


def _fits(selection: "Selection", choice: Choice) -> Iterator[str]:
    fits = [verdict for verdict in choice.rows.iloc[0]["fit"] if verdict]
    if not fits:
        return
    answer = max(sorted(set(fits)), key=fits.count)
    yield (
        f"Its curves are {answer} in {fits.count(answer)} of {len(fits)} runs by the rule of arXiv 2109.10813 "
        f"(docs/choose.md): {_next(selection, choice, answer)}."
    )


def _next(selection: "Selection", choice: Choice, answer: Any) -> str:
    said = REMEDIES[answer]
    if answer != "overfit":
        return said
    own = selection.candidates.loc[[choice.rows.iloc[0]["members"][0]]]
    peak, kept = int(own["fit_peak"].dropna().max()), own["step"].unique()
    near = int(kept[np.abs(kept - peak).argmin()])
    return f"{said}; the peak is at update {peak:,}, the nearest checkpoint at {near:,}"


def _use(selection: "Selection", choice: Choice) -> str:
    words = ["dr3-ray", "evaluate", str(selection.run), "--member", choice.member]
    return f"To play it, by its best seed: {shlex.join(words)}"


def notes(selection: "Selection") -> list[str]:
    """Return what one has to know to read the numbers, in a sentence or two each."""
    several = selection.candidates["step"].nunique() > 1
    said = [
        "Numbers are interquartile means over seeds; intervals: 95% bootstrap over seeds (three or fewer: their range)."
    ]
    across = [_called(name) for name in selection.criteria if name not in ("fqe", "dr", "wis")]
    if selection.candidates["algorithm"].nunique() > 1 and across:
        said.append("Other criteria than FQE, DR and WIS compare configurations of one algorithm only.")
    if "cql_alpha" in selection.candidates and {"q_mean", "start_value"} & set(selection.criteria):
        said.append("Q falls with cql_alpha, which differs here: data Q and own Q compare within one value only.")
    if several:
        said.append("Every checkpoint that stayed is a candidate (@ its updates).")
    if "effective_episodes" in selection.candidates:
        middle = float(selection.candidates["effective_episodes"].median())
        weak = ", so that DR and WIS say next to nothing" if middle < FEW else ""
        said.append(f"The weights of importance sampling amount to {middle:.1f} episodes in the median{weak}.")
    for table in selection.measured:
        if table.ucb is None:
            said.append(f"{table.heading}: one seed each, so that what tuning online costs cannot be told.")
    return [*said, *selection.notes]


def _places(choice: Choice, criteria: Any) -> Table:
    """Return the configurations with the rule's number, their places by each criterion, and their returns."""
    rows = choice.rows
    known = [name for name in criteria if rows[name].notna().any() and name != choice.rule]
    places = {name: _signed_places(name, rows[name]) for name in known}
    played = rows[RETURN].notna().any()
    table = _table(f"The best of {len(rows)} by {_called(choice.rule)}, and their places by the other criteria")
    table.add_column("", overflow="fold", min_width=8)
    for heading in (
        SHORT[choice.rule],
        *(SHORT[name] for name in known),
        "fit",
        *(["return"] if played else []),
    ):
        table.add_column(heading, justify="right")
    for at, row in rows.iloc[:SHOWN].iterrows():
        fits = [verdict for verdict in row["fit"] if verdict]
        answer = max(sorted(set(fits)), key=fits.count) if fits else ""
        table.add_row(
            Text(str(row["name"])),
            number(float(row[choice.rule])),
            *(_place(places[name][at]) for name in known),
            {"overfit": "over", "underfit": "under"}.get(answer, ""),
            *([number(float(row[RETURN]))] if played else []),
        )
    if len(rows) > SHOWN:
        table.caption, table.caption_justify = f"{len(rows) - SHOWN} more in selection.csv", "left"
    return table


def _signed_places(name: str, values: pd.Series) -> pd.Series:
    return values.rank(ascending=quantity(name).better == "less", method="min")


def _place(place: float) -> str:
    return "\N{EN DASH}" if np.isnan(place) else f"{place:.0f}"


def _quality(title: str, quality: dict[str, Quality], top: int) -> Table:
    table = _table(title)
    table.add_column("criterion", no_wrap=True)
    for heading in ("Spearman's ρ", "regret@1", *([f"regret@{top}"] if top > 1 else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    regret = decimals_of(
        max((np.nan_to_num(criterion.regret.high) or criterion.regret.value) for criterion in quality.values())
    )
    for name, score in quality.items():
        cells = [score.correlation, score.regret, *([score.regret_at_k] if top > 1 else [])]
        table.add_row(_called(name), *(_told(cell, at) for cell, at in zip(cells, (2, regret, regret), strict=False)))
    return table


def _tuning(measured: Measured) -> Table:
    assert measured.ucb is not None and measured.random is not None
    pulls = len(measured.ucb.value)
    shown = [at for at in (2**power for power in range(20)) if at < pulls] + [pulls]
    episodes = f", each {measured.episodes} episodes of a seed," if measured.episodes else ""
    table = _table(f"Tuning by playing: what is chosen after so many evaluations{episodes} returns")
    table.add_column("evaluations")
    for at in shown:
        table.add_column(str(at), justify="right")
    for called, band in (("UCB", measured.ucb), ("at random", measured.random)):
        table.add_row(called, *(number(float(band.value[at - 1])) for at in shown))
    return table


def _table(title: str) -> Table:
    return Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )


def _called(name: str) -> str:
    return CRITERIA[name]


def _told(estimate: Estimate, decimals: int | None = None) -> str:
    """Format an estimate with its interval in a line, to three digits of the largest of them, or so many decimals."""
    if estimate.n == 0 or np.isnan(estimate.value):
        return "\N{EN DASH}"
    if decimals is None:
        decimals = decimals_of(float(np.nanmax(np.abs([estimate.value, estimate.low, estimate.high]))))
    value = number(estimate.value, decimals)
    if not estimate.has_interval:
        return value
    return f"{value} [{number(estimate.low, decimals)}, {number(estimate.high, decimals)}]"


def document(selection: "Selection") -> dict[str, Any]:
    """Return the selection as JSON can have it: NaN and infinities are null."""
    hidden = ["by_seed", "order", "values"]
    return {
        "run": str(selection.run),
        "criteria": list(selection.criteria),
        "choices": [
            {
                "heading": choice.heading,
                "rule": choice.rule,
                "take": choice.rows.iloc[0]["name"],
                "member": choice.member,
                "value": json_value(choice.value),
                "not_certainly_below": choice.tied,
                "sentences": sentences(selection, choice),
                "configurations": json_value(choice.rows.drop(columns=hidden).to_dict("records")),
            }
            for choice in selection.choices
        ],
        "measured": [
            {
                "heading": table.heading,
                "quality": json_value(table.quality),
                "tuning": table.ucb
                and {
                    "episodes": table.episodes,
                    "ucb": json_value(table.ucb.value),
                    "random": json_value(table.random.value),  # type: ignore[union-attr]
                },
            }
            for table in selection.measured
        ],
        "pooled": json_value(selection.pooled),
        "candidates": json_value(selection.candidates.reset_index().to_dict("records")),
        "notes": notes(selection),
    }
