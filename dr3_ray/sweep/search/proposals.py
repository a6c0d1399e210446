"""What a searcher proposes for one algorithm on one data set, as members to train; and what it is told of them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ray.tune.search import Searcher

from dr3_ray.errors import UserError
from dr3_ray.runs.identity import configuration
from dr3_ray.runs.records import Status
from dr3_ray.sweep.search.scores import MemberScores
from dr3_ray.sweep.spec.problems import Problem
from dr3_ray.sweep.spec.space import Assignment
from dr3_ray.sweep.spec.spec import Config

PATIENCE = 50  # proposals in a row that give nothing to train, until a search is over


class Proposals:
    """A number of configurations (`trials`) from any Tune `Searcher`, each of them once.

    The searcher suggests values of options. When all members of a configuration have ended, it is told the scores, an
    error if a member failed, and neither (Optuna calls it pruned) if one was lost. Neither is also the answer to a
    configuration that is excluded or not possible. One that is known already is not trained again.
    """

    def __init__(
        self,
        problem: Problem,
        searcher: Searcher,
        trials: int,
        scores: MemberScores,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.problem = problem
        self._searcher, self._trials, self._scores, self._say = searcher, trials, scores, say
        self._configurations: dict[str, dict[str, Config]] = {}  # members by configuration
        self._configuration_of: dict[str, str] = {}  # member
        self._asked: dict[str, list[str]] = {}  # by configuration: the searcher's trials that wait for its result
        self._number, self._over = 0, False
        self._reason = "they are known or excluded"

    @property
    def members(self) -> dict[str, Config]:
        """All members of all configurations so far."""
        return {member: config for members in self._configurations.values() for member, config in members.items()}

    @property
    def left(self) -> int:
        """How many configurations are still to be proposed."""
        return 0 if self._over else max(0, self._trials - len(self._configurations))

    def know(self, options: Assignment, trial: str | None = None) -> None:
        """Take a configuration of an earlier sweep; `trial` of the searcher waits for its result."""
        self._add(options, trial)

    def next(self) -> dict[str, Config] | None:
        """Return the members of the next configuration; None if there is none, for now or for good."""
        for _ in range(PATIENCE):
            if not self.left:
                return None
            trial = f"proposal-{self._number}"
            self._number += 1
            options = self._searcher.suggest(trial)
            if options is None or options == Searcher.FINISHED:
                self._over = options is not None
                return None
            before = len(self._configurations)
            members = self._add(_plain(options), trial)
            if len(self._configurations) > before and not self._scores.ended(members):
                return members
        self._over = True
        self._say(
            f"the search for {self.problem.name} ends with {len(self._configurations)} configurations: "
            f"{PATIENCE} proposals in a row gave nothing to train ({self._reason})"
        )
        return None

    def tell(self, members: Iterable[str]) -> None:
        """Tell the searcher of the configurations of these members, if they have ended."""
        self._answer(
            dict.fromkeys(self._configuration_of[member] for member in members if member in self._configuration_of)
        )

    def _add(self, options: Assignment, trial: str | None) -> dict[str, Config]:
        """Return the members of a searcher's trial; none if it is excluded or not possible."""
        try:
            members = self.problem.members(options)
        except UserError as error:
            members, self._reason = {}, str(error)
        if not members:
            if trial is not None:
                self._searcher.on_trial_complete(trial)
            return members
        name = configuration(next(iter(members.values())))
        self._configurations.setdefault(name, members)
        self._configuration_of |= dict.fromkeys(members, name)
        if trial is not None:
            self._asked.setdefault(name, []).append(trial)
            self._answer([name])
        return members

    def _answer(self, configurations: Iterable[str]) -> None:
        for name in configurations:
            members = list(self._configurations[name])
            if name in self._asked and self._scores.ended(members):
                scores, failed = self._scores.answer(members)
                for trial in self._asked.pop(name):
                    self._searcher.on_trial_complete(trial, result=scores, error=failed)


class Searches:
    """All proposals of a sweep, and the scores that they are answered by."""

    def __init__(self, proposals: Sequence[Proposals], scores: MemberScores) -> None:
        self.proposals, self.scores = proposals, scores

    @property
    def members(self) -> dict[str, Config]:
        """All members of all configurations so far."""
        return {member: config for proposals in self.proposals for member, config in proposals.members.items()}

    @property
    def left(self) -> int:
        """How many configurations are still to be proposed."""
        return sum(proposals.left for proposals in self.proposals)

    def ended(self, members: Sequence[str], status: Status) -> None:
        """Note that these members have this status from now on."""
        self.scores.close(members, status)
        for proposals in self.proposals:
            proposals.tell(members)


def _plain(options: Assignment) -> dict[str, Any]:
    """Return options as plain Python, whatever library drew them."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in options.items()}
