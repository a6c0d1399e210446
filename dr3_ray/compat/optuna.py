"""What is used of Optuna that is not public."""

from typing import Any

NAMES = {
    "optuna.trial.FrozenTrial._trial_id": "sweep/search/studies.py: a trial of a study is taken up again",
    "optuna.study.Study._storage": "sweep/search/studies.py: what a trial scored that the sampler must not know",
}


def id_of(trial: Any) -> int:
    """Return the number by which a study's storage knows a trial."""
    return int(trial._trial_id)


def note(study: Any, number: int, name: str, value: Any) -> None:
    """Set an attribute of the trial with this number in a study."""
    study._storage.set_trial_user_attr(id_of(study.trials[number]), name, value)
