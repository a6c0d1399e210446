"""Optuna proposes configurations; its study is the record of what was asked and answered, one trial each."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from ray.tune.search import Searcher
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from dr3_ray.compat.optuna import id_of, note
from dr3_ray.errors import UserError, first_line
from dr3_ray.runs.directory import STUDIES
from dr3_ray.runs.index import Record
from dr3_ray.runs.mirror import SNAPSHOT
from dr3_ray.stores import inside
from dr3_ray.sweep.search.dimensions import Dimension
from dr3_ray.sweep.search.methods import METHODS
from dr3_ray.sweep.search.proposals import Proposals
from dr3_ray.sweep.search.scores import MemberScores
from dr3_ray.sweep.search.study_files import copied
from dr3_ray.sweep.spec.condition import meets
from dr3_ray.sweep.spec.measured import check_measured
from dr3_ray.sweep.spec.problems import Problem
from dr3_ray.sweep.spec.search import Search
from dr3_ray.sweep.spec.space import Assignment, joined
from dr3_ray.sweep.spec.spec import Config, SweepSpec
from dr3_ray.trust.secrets import real

ASKED = "asked"  # attribute of a study: what its scores depend on
POINT, OPTIONS, SCORES = "point", "options", "scores"  # of a trial: what it was to try, what it tried, what came of it
SCORED_BY = {
    "steps", "evaluations", "environment", "evaluation_episodes", "seeds", "options", "coefficients", "axes", "exclude",
    "objective",
}  # fmt: skip
PLACED = ("dataset", "dr3_coeff")  # of what members have in common: where it lies, and what is a default


class StudySearcher(Searcher):
    """A searcher that asks a study for configurations of one problem, and tells it their scores.

    A trial keeps the options that it stands for. One without them was interrupted while it was asked, and is asked for
    the rest.
    """

    def __init__(self, problem: Problem, search: Search, study: optuna.Study, url: str = "in memory") -> None:
        super().__init__()
        self._url = url
        self.problem, self._search, self._study = problem, search, study
        self._dimensions = [Dimension(name, space, problem.spec.sample_seed) for name, space in problem.spaces]
        self._trials: dict[str, int] = {}  # numbers in the study
        tried = [trial.user_attrs.get(POINT) for trial in study.get_trials(deepcopy=False)]
        for point in search.points:
            if point not in tried:
                wanted = {
                    name: value for dimension in self._dimensions for name, value in dimension.parameters(point).items()
                }
                study.enqueue_trial(wanted, user_attrs={POINT: point})

    def suggest(self, trial_id: str) -> Assignment:
        """Return the options of a further configuration."""
        with _reached(self._url):
            self._study.sampler = sampler_of(self._search, self.problem.spec.sample_seed)
            trial = self._study.ask()
            self._trials[trial_id] = trial.number
            return self._ask(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study the scores by metric; without them the trial has failed, or is pruned."""
        number = self._trials.pop(trial_id)
        with _reached(self._url):
            if result is None:
                self._study.tell(number, state=TrialState.FAIL if error else TrialState.PRUNED)
            elif METHODS[self._search.method].needs_all and self._is_outside(self._study.trials[number]):
                note(self._study, number, SCORES, result)
                self._study.tell(number, state=TrialState.PRUNED)
            else:
                self._study.tell(number, [result[objective.metric] for objective in self.problem.spec.objective])

    def resume(self) -> list[tuple[str | None, Assignment]]:
        """Return the options asked before, with a trial's id where the answer is still to be told.

        A configuration that failed waits for another answer, in a further trial.
        """
        trials = self._study.get_trials(deepcopy=False)
        self._check(trials)
        others = [trial.user_attrs.get(OPTIONS) for trial in trials if trial.state != TrialState.FAIL]
        for trial in trials:
            options = trial.user_attrs.get(OPTIONS)
            if trial.state == TrialState.FAIL and options is not None and options not in others:
                self._study.add_trial(_again(trial))
                others.append(options)
        return [self._resume(trial) for trial in self._study.get_trials() if trial.state != TrialState.WAITING]

    def _check(self, trials: Sequence[FrozenTrial]) -> None:
        """Check that trials have what they were asked and told, since Optuna goes on without rows that are lost.

        Raises:
            ValueError: something is lost.
        """
        for trial in trials:
            options = trial.user_attrs.get(OPTIONS, {})
            names = [
                dimension.name
                for dimension in self._dimensions
                if dimension.is_drawn(options, trial.user_attrs.get(POINT, {}))
            ]
            if lost := sorted({*names} - trial.params.keys()):
                raise ValueError(f"trial {trial.number} has lost what it had for {lost[0]}")
            if trial.state == TrialState.COMPLETE and len(trial.values or ()) != len(self._study.directions):
                raise ValueError(f"trial {trial.number} has lost its score")

    def _resume(self, trial: FrozenTrial) -> tuple[str | None, Assignment]:
        trial_id = None if trial.state.is_finished() else f"resumed-{trial.number}"
        if trial_id is not None:
            self._trials[trial_id] = trial.number
        options = trial.user_attrs.get(OPTIONS)
        return trial_id, self._ask(Trial(self._study, id_of(trial))) if options is None else options

    def _ask(self, trial: Trial) -> Assignment:
        # by its number, so that it does not matter how often the study was taken up before
        self._study.sampler = sampler_of(self._search, self.problem.spec.sample_seed, trial.number)
        point = trial.user_attrs.get(POINT, {})
        options: Assignment = {}
        for dimension in self._dimensions:
            if meets(dimension.space.when, self.problem.known | options):
                options = joined(dimension.name, options, dimension.suggest(trial, point))
        trial.set_user_attr(OPTIONS, options)
        return options

    def _is_outside(self, trial: FrozenTrial) -> bool:
        return any(dimension.outside(trial.user_attrs.get(POINT, {})) for dimension in self._dimensions)


def sampler_of(search: Search, seed: int, number: int = 0) -> BaseSampler:
    """Return the sampler of a method for the trial of this number."""
    seed = int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return METHODS[search.method].sampler(search.trials, seed)


def check_studies(spec: SweepSpec, problems: Sequence[Problem], run: str) -> None:
    """Check that a sweep could go on with its studies, by doing so in a copy of them; a server is asked when it begins.

    Raises:
        UserError: as `taken_up`.
    """
    with _undamaged(spec), copied(study_of(spec)) as copy:
        if copy:
            taken_up(spec, problems, run, MemberScores(spec.objective), lambda _: None, copy)


def study_of(spec: SweepSpec) -> str:
    """Return the URL, or the journal, of a search's studies."""
    assert spec.search is not None
    return spec.search.study or sqlite_url(inside(spec.out.resolve(), STUDIES))


def taken_up(
    spec: SweepSpec,
    problems: Sequence[Problem],
    run: str,
    scores: MemberScores,
    say: Callable[[str], None],
    place: str | None = None,
) -> list[Proposals]:
    """Return the proposals of the sweep with this id, where its studies were left; all of these is read here.

    Raises:
        UserError: as `open_studies`.
    """
    assert spec.search is not None
    studies = []
    for study in open_studies(spec, problems, run, place):
        studies.append(Proposals(study.problem, study, spec.search.trials, scores, say))
        with _undamaged(spec):
            for trial, options in study.resume():
                studies[-1].know(options, trial)
    return studies


def open_studies(
    spec: SweepSpec, problems: Sequence[Problem], run: str, place: str | None = None
) -> list[StudySearcher]:
    """Return a study for each problem of the sweep with this id, in the storage that the search names, or a copy.

    Raises:
        UserError: the storage cannot be used, or is damaged, or a study was begun for something else.
    """
    assert spec.search is not None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = study_of(spec)
    names = [f"{problem.name} ({run[:8]})" for problem in problems]
    twice = {name for name, count in Counter(names).items() if count > 1}
    full = [
        f"{name} {problem.data.fingerprint[:8]}" if name in twice else name
        for name, problem in zip(names, problems, strict=True)
    ]
    with _undamaged(spec), _reached(url):
        storage = _storage(place or url)
        return [
            StudySearcher(problem, spec.search, _study(storage, problem, name), url)
            for problem, name in zip(problems, full, strict=True)
        ]


@contextmanager
def _undamaged(spec: SweepSpec) -> Iterator[None]:
    """Take an error for a damaged study, since Optuna looks for nothing that may be wrong in a file.

    Raises:
        UserError: it is damaged; says what can be done.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # it stumbles anywhere
        copy, remedy = inside(spec.out.resolve(), SNAPSHOT), "use another one"
        if spec.search and spec.search.study is None and copy.is_file():
            remedy = f"put its copy {copy.name} in its place"
        raise UserError(f"the study in {study_of(spec)} is damaged ({first_line(error)}): {remedy}") from error


def sqlite_url(file: Path) -> str:
    """Return the URL of an SQLite file, with quotes for characters of its path that mean something in a URL."""
    return URL.create("sqlite", database=str(file.resolve())).render_as_string()


def foreseen(spec: SweepSpec, problems: Sequence[Problem], records: Iterable[Record]) -> dict[str, Config]:
    """Return the members that a search would train: those of an index, and random ones for open proposals.

    Raises:
        UserError: the objective is not measured, a point is not possible, or nothing that can be proposed is.
    """
    assert spec.search is not None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    check_measured(spec.objective, [problem.about for problem in problems])
    by_chance = spec.search.model_copy(update={"method": "random"})
    configs: dict[str, Config] = {}
    for problem in problems:
        options = problem.known.keys() - {"algorithm", "dataset"}
        for point in spec.search.points:
            problem.configs({name: value for name, value in point.items() if name in options})
        study = optuna.create_study(storage=InMemoryStorage(), directions=_directions(problem))
        said: list[str] = []
        proposals = Proposals(
            problem,
            StudySearcher(problem, by_chance, study),
            spec.search.trials,
            MemberScores(spec.objective),
            said.append,
        )
        for config in (record["config"] for record in records):
            if all(config[name] == value for name, value in problem.about.items() if name not in PLACED):
                proposals.know({name: config[name] for name in options})
        while proposals.next():
            pass
        if not proposals.members:
            raise UserError(said[0])
        configs |= proposals.members
    return configs


@contextmanager
def _reached(url: str) -> Iterator[None]:
    """Name the storage of a study in errors about it.

    Raises:
        UserError: the storage cannot be used, or no longer.
    """
    try:
        yield
    except (SQLAlchemyError, ImportError, OSError, optuna.exceptions.StorageInternalError) as error:
        reason = first_line(error.__cause__ or error)
        raise UserError(
            f"the study in {url} cannot be used ({reason}): see to its database, then the same command goes on"
        ) from error


def _storage(url: str) -> BaseStorage:
    if "://" in url:
        return RDBStorage(real(url))
    Path(url).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(url))


def _study(storage: BaseStorage, problem: Problem, name: str) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name=name, directions=_directions(problem), load_if_exists=True)
    asked = problem.spec.model_dump(mode="json", include=SCORED_BY) | {"data": problem.data.fingerprint}
    before = study.user_attrs.get(ASKED, asked)
    if changed := [name for name in asked if before[name] != asked[name]]:
        raise UserError(
            f"the search was begun with other {', '.join(changed)}, whose results do not compare: use another --out"
        )
    if study.directions != _directions(problem):
        raise ValueError("it has lost whether more or less is better")
    if ASKED not in study.user_attrs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([objective.metric for objective in problem.spec.objective])
        study.set_user_attr(ASKED, asked)
    return study


def _directions(problem: Problem) -> list[StudyDirection]:
    return [StudyDirection[f"{objective.mode}imize".upper()] for objective in problem.spec.objective]


def _again(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as a new one, to be told once more."""
    return create_trial(
        state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions, user_attrs=trial.user_attrs
    )
