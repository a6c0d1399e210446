"""A trained member under the lens: its critic on rows that it was trained on and on others, its curves, its table."""

import os
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dr3_ray.data.addresses import Address
from dr3_ray.data.loading import largest_reward, load_dataset
from dr3_ray.data.mixture import Mixture
from dr3_ray.data.mixture_names import MixtureName, is_mixture
from dr3_ray.data.reader import Dataset
from dr3_ray.data.selected import Selected
from dr3_ray.diagnostics.diagnosis import HELD_OUT, TRAIN, Diagnosis, Finding, Probe
from dr3_ray.diagnostics.verdict import (
    DIVERGED,
    RULES,
    as_finding,
    findings_of,
    level,
    nothing_wrong,
    one_moment,
)  # fmt: skip
from dr3_ray.errors import UserError
from dr3_ray.evaluation.contract import Recorded, check_same
from dr3_ray.policies.loading import BEST, Found, Which, find_member
from dr3_ray.policies.probing import Critic
from dr3_ray.report.coadaptation import by_diagnostics, read_curves
from dr3_ray.report.reader import read_tables
from dr3_ray.report.tables import outcomes
from dr3_ray.runs.brought import run_here
from dr3_ray.runs.health import largest_q
from dr3_ray.trust.secrets import masked
from dr3_ray.trust.text import printable

ANY_ACTION = "φ depends on the state alone here: every a' gives the same φ(s', a'), in other rows at most"
NO_POLICY = "the algorithm evaluates the data's policy and has none of its own: nothing is measured of its actions"


class Rows(NamedTuple):
    """Rows of a data set, and whether their Monte-Carlo returns are discounted as the critic's values are."""

    data: Dataset
    returns_hold: bool


def diagnose_member(
    source: str | os.PathLike[str],
    data: str | None = None,
    member: Which = BEST,
    objective: str | None = None,
    trust: bool = False,
) -> Diagnosis:
    """Measure the critic of a trained member on rows of its data and on held-out ones, and say what is wrong with it.

    Args:
        source: A run directory, the storage of a run at a URI, or the directory of a checkpoint.
        data: Of a run, a data set of episodes that it was not trained on; a run on `?split=train` has those of
            `?split=validation`. Of a checkpoint, what it was trained on, which it does not know itself.
        member: As in `load_policy`.
        objective: As in `load_policy`.
        trust: As in `load_policy`.

    Raises:
        UserError: as `load_policy`; no critic, no data, or data of other spaces or of the same episodes.
    """
    path = run_here(source, checkpoints=True)
    subject = find_member(path, member, objective, trust)
    critic = Critic(subject.trained, subject.row)
    train, held_out = _sources(subject, data)
    gamma = subject.config.get("gamma")
    here = _opened(subject, train, gamma)
    there = _opened(subject, held_out, gamma) if held_out else None
    if there:
        check_apart(here.data, there.data, str(held_out))
    probes: dict[str, Probe] = {}
    if critic.finite:
        given = {TRAIN: here} | ({HELD_OUT: there} if there else {})
        probes = {name: critic.probe(*rows) for name, rows in given.items()}
    fingerprint = here.data.fingerprint
    bound = largest_q(subject.config | {"data_fingerprint": fingerprint}, {fingerprint: largest_reward(train)})
    findings = verdict_on(path, subject, probes, bound)
    about = {
        "algorithm": critic.spec.name,
        "source": masked(os.fspath(source)),
        "member": subject.member,
        "chosen": subject.chosen,
    }
    about |= {name: subject.config[name] for name in ("dr3_coeff", "seed") if name in subject.config}
    about |= {"train": _shown(train), "held_out": held_out and _shown(held_out)}
    return Diagnosis(probes, nothing_wrong(findings), _notes(subject, critic, train, here, there, probes), about)


def _sources(subject: Found, data: str | None) -> tuple[str, str | None]:
    """Return what the member was trained on, and what it was not trained on; None: there is nothing."""
    if subject.member is not None:
        train = str(subject.config["dataset"])
        return train, held_out_of(train, data)
    if data is None:
        raise UserError("a checkpoint does not know its data: give --data, or the run that the checkpoint is of")
    return data, validation_of(data)


def held_out_of(train: str, data: str | None) -> str | None:
    """Return what was not trained on: `data`, or by default the rest of the data set; None: there is nothing.

    Raises:
        UserError: `data` is an empty name.
    """
    if data is not None and not data.strip():
        raise UserError("an empty name is no data set: give one after --data, or leave that out")
    return validation_of(train) if data is None else data


def validation_of(train: str) -> str | None:
    """Return the part of the data set that `split=train` left out."""
    if is_mixture(train):
        mixture = MixtureName.parse(train)
        parts = [validation_of(part.data) for part in mixture.parts]
        return str(mixture.renamed(list(filter(None, parts)))) if all(parts) else None
    address = Address.parse(train)
    if address.subset is None or address.subset.split != "train":
        return None
    return str(Address(address.place, replace(address.subset, split="validation", take=None, seed=0)))


def _opened(subject: Found, source: str, gamma: Any) -> Rows:
    """Open data with the member's spaces, and discount their returns as the member does, if episodes are complete.

    Raises:
        UserError: there are no such data, or they changed under the run.
    """
    data = load_dataset(source)
    check_same(Recorded.from_dict(subject.trained.recorded), Recorded.of(data), "the trained member")
    if data.spaces != subject.trained.spaces:
        raise UserError(f"{source} has not the tasks that the member was trained with: give a mixture with as many")
    known = subject.config.get("data_fingerprint")
    if known and source == subject.config["dataset"] and known not in data.manifest.identities:
        raise UserError(f"{source} is another data set than the run was trained on: bring that one back")
    if gamma is None or data.gamma == gamma:
        return Rows(data, True)
    whole = data.whole if isinstance(data, Selected) else data
    if not whole.manifest.complete_episodes:
        return Rows(data, False)
    return Rows(load_dataset(source, gamma), True)


def check_apart(train: Dataset, held_out: Dataset, source: str) -> None:
    """Check that no episode is on both sides.

    Raises:
        UserError: one is.
    """
    for seen, unseen in product(*(data.sources if isinstance(data, Mixture) else [data] for data in (train, held_out))):
        one, other = (data.whole if isinstance(data, Selected) else data for data in (seen, unseen))
        if one.manifest.fingerprint != other.manifest.fingerprint:
            continue
        if both := len(set(_places_of(seen, one)) & set(_places_of(unseen, other))):
            raise UserError(
                f"{source} has {both} episodes that it was trained on: give episodes that are held out, --data"
            )


def _places_of(data: Dataset, whole: Dataset) -> list[int]:
    """Return the places of the episodes in the whole data set; the same rows may have other numbers elsewhere."""
    places: list[int] = np.searchsorted(whole.episodes["episode_ids"], data.episodes["episode_ids"]).tolist()
    return places


def verdict_on(path: Path, subject: Found, probes: dict[str, Probe], bound: float | None) -> list[Finding]:
    """Return what the numbers of this moment say, and of a member of a run what its curves and its table say.

    Raises:
        UserError: a file of the run is damaged.
    """
    now = findings_of(probes, bound) if probes else [DIVERGED]
    if subject.member is None:
        return [*now, *([one_moment(probes[TRAIN])] if probes else [])]
    run = read_tables(path)
    told = [as_finding(flag) for flag in run.flags.get(subject.member, [])]
    members = outcomes(run)
    member = members.loc[subject.member]
    table = members[(members[run.facets] == member[run.facets]).all(axis=1)]
    advice = by_diagnostics(table)
    if advice.advised is not None:
        told = [
            finding._replace(sentence=f"{finding.sentence}; try dr3_coeff {advice.advised:g}")
            if finding.name == "co-adapting"
            else finding
            for finding in told
        ]
    names = {finding.name for finding in told}
    told += [finding for finding in now if finding.name not in names]
    if probes and "co-adapting" not in names:
        told.append(_not_coadapting(member, probes[TRAIN]))
    sentences = [*read_curves(table).sentences, *advice.sentences]
    return told + [Finding("table", f"of all seeds and coefficients: {said}", wrong=False) for said in sentences]


def _not_coadapting(member: Any, probe: Probe) -> Finding:
    """Say that the critic does not co-adapt, or why that cannot be told, from the row of the member."""
    if member["coadapting"] != "no":
        said = f"whether it co-adapts cannot be told: {member['coadapting']}; {level(probe)}"
        return Finding("co-adaptation", said, False, RULES["co-adapting"])
    said = (
        f"it does not co-adapt: since update {int(member['settled_at']):,}, when mean Q had settled, the dot product "
        f"changed by \N{MULTIPLICATION SIGN}{member['growth']:.2g} and mean Q by {member['q_change']:+.0%}; "
        f"{level(probe)}"
    )
    return Finding("co-adaptation", said, False, RULES["co-adapting"])


def _notes(
    subject: Found, critic: Critic, train: str, here: Rows, there: Rows | None, probes: dict[str, Probe]
) -> list[str]:
    """Say what could not be measured, and why."""
    notes = []
    if there is None:
        more = "--data OTHER" if subject.member else "--data DATA?split=train, if that is what it was trained on"
        notes.append(
            f"no held-out data: {_shown(train)} has no validation part; train on DATA?split=train, or give {more}"
        )
    if critic.other_rewards:
        notes.append("over-estimation is not measured: the rewards were shifted or cut, and the data's returns are not")
    elif not all(rows.returns_hold for rows in (here, there) if rows):
        notes.append("over-estimation is not measured: the data are a subsample whose returns have another discount")
    elif any("overestimation" not in probe.numbers for probe in probes.values()):
        notes.append("over-estimation is not measured: every episode is cut before what followed is discounted away")
    if critic.spec.act is None:
        notes.append(NO_POLICY)
    return notes + ([ANY_ACTION] if critic.spec.action_kind == "discrete" else [])


def _shown(source: str) -> str:
    """Return a data set's name without keys and without signs that a terminal would follow."""
    return str(printable(masked(source)))
