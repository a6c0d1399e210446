"""What the data alone say of the trained policies of a run: numbers for every member, at every checkpoint kept."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dr3_ray.data.reader import Dataset
from dr3_ray.errors import UserError
from dr3_ray.evaluation.behaviour import Episodes, clone_behaviour, valued_by_episodes, whole_episodes
from dr3_ray.evaluation.fqe import FQEOptions, Policies, fit_critics, n_members, own_start_value
from dr3_ray.policies.probing import Critic
from dr3_ray.stats import paired_difference
from dr3_ray.sweep.trained import kept_networks
from dr3_ray.training.saved import Trained, join

MOST = 256  # fitted critics that train together
FITTED = ("fqe", "dr")  # criteria that need fitted critics,
WEIGHTED = ("wis", "dr")  # the weights of episodes,
HELD_OUT = ("td_error_held_out", "q_held_out")  # or rows that were held out
OF_NETWORKS = (*dict.fromkeys((*FITTED, *WEIGHTED)), "start_value", *HELD_OUT, "seem_normalized")
"""Criteria that are measured of networks; the others come with the run."""
Candidate = tuple[str, int]
"""A member by its hash, and its updates."""
Numbers = dict[str, float]
Say = Callable[[str, int, int], None]
"""What is told of progress: what is being done, and how many steps of how many are made; 0: it has none."""


class Fitting(NamedTuple):
    """How critics are fitted to policies."""

    steps: int
    seeds: int


class Sources(NamedTuple):
    """The data that policies are judged by."""

    train: Dataset
    held_out: Dataset | None
    gamma: float


class Stack(NamedTuple):
    """Policies of one structure, and whose they are: None for one that is not a member of the run."""

    trained: Trained
    candidates: list[Candidate | None]


def read_stacks(run: Path, trust: bool, packs: Collection[str] | None, seeds: int) -> list[Stack]:
    """Return the networks of every checkpoint that stayed, in as few stacks as they fit in.

    Raises:
        UserError: as `kept_networks`.
    """
    kept = list(kept_networks(run, trust, packs))
    stacks = []
    for trained, places in join([stack.trained for stack in kept], max(1, MOST // seeds)):
        owners = [(member, kept[place].updates) for place in places for member in kept[place].members]
        stacks.append(Stack(trained, [None if member is None else (member, at) for member, at in owners]))
    return stacks


class Scorer:
    """Measures stacks of policies of the same data; `notes` say what could not be measured, and why."""

    def __init__(
        self, sources: Sources, criteria: Collection[str], fitting: Fitting, first: Mapping[str, Any], say: Say
    ) -> None:
        """Take the options of networks from the `first` member's configuration."""
        self.sources, self.fitting, self._say = sources, fitting, say
        self.notes: list[str] = []
        self._same = {name: first[name] for name in ("hidden_sizes", "encoder") if name in first}
        self.criteria = self._measurable(criteria)
        self._episodes = self._weigh() if self.criteria & set(WEIGHTED) else None

    def score(self, stack: Stack) -> dict[Candidate, Numbers]:
        """Return the numbers of each candidate: by criterion, and `fqe_low`, `fqe_high` and `effective_episodes`."""
        columns = self._of_policies(stack.trained)
        columns |= self._of_critics(stack)
        return {
            candidate: {name: float(values[row]) for name, values in columns.items()}
            for row, candidate in enumerate(stack.candidates)
            if candidate is not None
        }

    def _of_policies(self, trained: Trained) -> dict[str, Any]:
        policies, data = Policies(trained.spec, trained.networks), self.sources.train
        if trained.spec.act is None:
            return {}
        scores: dict[str, Any] = {}
        if "start_value" in self.criteria:
            scores["start_value"] = own_start_value(policies, data)
        fitted = None
        if self.criteria & set(FITTED):
            normal = bool(trained.members[0].get("normalize_observations", False))
            options = FQEOptions.from_dict(self._same | {"gamma": self.sources.gamma, "normalize_observations": normal})
            fitted = fit_critics(
                policies, data, options, self.fitting.steps, self.fitting.seeds, say=self._fitting(n_members(policies))
            )
            scores |= _over_seeds(fitted.values)
        if self._episodes is not None:
            weighted, episodes = self._episodes
            valued = valued_by_episodes(policies, fitted, weighted, episodes, self.sources.gamma)
            scores |= {name: value.value for name, value in valued.items() if name in self.criteria}
            scores |= {f"{name}_error": value.error for name, value in valued.items() if name in self.criteria}
            scores["effective_episodes"] = valued["wis"].effective
        return scores

    def _fitting(self, policies: int) -> Callable[[int], None]:
        """Return what is told of the steps of fitting."""
        what, of, made = f"fitting {policies * self.fitting.seeds} critics", self.fitting.steps, [0]

        def say(steps: int) -> None:
            made[0] += steps
            self._say(what, made[0], of)

        say(0)
        return say

    def _of_critics(self, stack: Stack) -> dict[str, Any]:
        """Measure the own critics on rows that were held out, and SEEM's eigenvalue on those of training."""
        wanted = self.criteria & {*HELD_OUT, "seem_normalized"}
        if not wanted or not stack.trained.spec.has_critic:
            return {}
        rows = len(stack.candidates)
        scores = {name: np.full(rows, np.nan) for name in wanted}
        for row, candidate in enumerate(stack.candidates):
            critic = Critic(stack.trained, row)
            if candidate is None or not critic.finite:
                continue
            if "seem_normalized" in wanted:
                pairs = critic.probe(self.sources.train).pairs["backup"]
                scores["seem_normalized"][row] = pairs["seem_normalized"]
            if wanted & set(HELD_OUT):
                assert self.sources.held_out is not None
                numbers = critic.probe(self.sources.held_out).numbers
                named = {"td_error_held_out": numbers["td_error"], "q_held_out": numbers["q_data"]}
                for name in wanted & set(HELD_OUT):
                    scores[name][row] = named[name]
            self._say("measuring critics", row + 1, rows)
        return scores

    def _measurable(self, criteria: Collection[str]) -> set[str]:
        """Return what can be measured on these data, and note why the rest cannot."""
        wanted = set(criteria) & set(OF_NETWORKS)
        if not self.fitting.steps and (left := wanted & set(FITTED)):
            self._note(left, "no critics are fitted, by --fqe-steps 0")
            wanted -= left
        if self.sources.held_out is None and (left := wanted & set(HELD_OUT)):
            self._note(left, "no episodes were held out: train on DATA?split=train, or give --data")
            wanted -= left
        if self.sources.train.spaces.action_kind != "discrete" and (left := wanted & set(WEIGHTED)):
            self._note(left, "they weigh episodes by a model of the behaviour, for discrete actions alone")
            wanted -= left
        return wanted

    def _weigh(self) -> tuple[Dataset, Episodes] | None:
        """Fit a model of the behaviour and weigh held-out episodes, or else those of training."""
        weighted = self.sources.held_out or self.sources.train
        try:
            self._say("fitting the behaviour", 0, 0)
            behaviour = clone_behaviour(self.sources.train, self._same, self.fitting.steps or 10_000)
            episodes = whole_episodes(weighted, behaviour)
        except UserError as error:
            left = self.criteria & set(WEIGHTED)
            self._note(left, str(error))
            self.criteria -= left
            return None
        if self.sources.held_out is None:
            self.notes.append("wis and dr weigh episodes that were trained on, which flatters policies that know them")
        return weighted, episodes

    def _note(self, criteria: Collection[str], why: str) -> None:
        self.notes.append(f"{' and '.join(sorted(criteria))} not measured: {why}")


def _over_seeds(values: torch.Tensor) -> dict[str, Any]:
    """Return the mean over fitted critics [S, K] with Student's t interval, which one critic does not have."""
    zero = dict.fromkeys(range(len(values)), 0.0)
    differences = [
        paired_difference(dict(enumerate(column)), zero) if np.isfinite(column).all() else None
        for column in values.double().T.tolist()
    ]
    return {
        f"fqe{ending}": [getattr(estimate, bound) if estimate else np.nan for estimate in differences]
        for ending, bound in (("", "value"), ("_low", "low"), ("_high", "high"))
    }
