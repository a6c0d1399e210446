"""A trial of Ray Tune: its data, its seed, and what it could not be built by."""

import os
import re
import zlib
from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.result import TRIAL_INFO
from ray.tune.search.sample import Domain

from dr3_ray.data.addresses import Address
from dr3_ray.data.mixture_names import MixtureName, is_mixture
from dr3_ray.errors import UserError
from dr3_ray.uris import absolute, is_uri

INPUT = ("input_", "input")  # the two names that RLlib has for it
DRIVERS_FOLDER = "TUNE_ORIG_WORKING_DIR"  # where Tune's worker was before it entered its trial's folder
NO_PATHS = ("embedded:", "minari:")


def is_searched(value: Any) -> bool:
    """Return whether Tune is to choose the value, or something inside of it."""
    if isinstance(value, Mapping):
        return "grid_search" in value or any(map(is_searched, value.values()))
    return isinstance(value, Domain) or (isinstance(value, list | tuple) and any(map(is_searched, value)))


def source_of(given: Any) -> Any:
    """Return the data set as text that means the same in every folder; anything else as it is."""
    if isinstance(given, list | tuple):
        if len(given) != 1:
            raise UserError(f"input_ names {len(given)} data sets: name one")
        given = given[0]
    if isinstance(given, os.PathLike):
        given = os.fspath(given)
    if isinstance(given, str) and is_mixture(given):
        mixture = MixtureName.parse(given)
        return str(mixture.renamed([source_of(part.data) for part in mixture.parts]))
    if not isinstance(given, str) or given in ("", "sampler") or given.startswith(NO_PATHS) or is_uri(given):
        return given
    here, elsewhere = given, os.path.join(os.environ.get(DRIVERS_FOLDER, "."), given)
    places = [Address.parse(source).place for source in (here, elsewhere)]
    return absolute(here if os.path.exists(places[0]) or not os.path.exists(places[1]) else elsewhere)


def resolve_data(config: dict[str, Any]) -> None:
    """Resolve the data set of a trial's config in place, on the driver: the trial has another working directory."""
    for name in INPUT:
        if name in config and not is_searched(config[name]):
            config[name] = source_of(config[name])


def seed_of(trial_id: str) -> int:
    """Return the seed of a trial that names none: its number in the experiment, else drawn from its id."""
    numbered = re.fullmatch(r".*_(\d{5,})", trial_id)
    return int(numbered[1]) if numbered else zlib.crc32(trial_id.encode())


class TuneTrial(Algorithm):
    """A mixin that lets a UserError reach the user as itself."""

    failure: UserError | None = None  # why it cannot be used, any more or at all; `train` and `evaluate` raise it

    def __init__(self, config: Any = None, env: Any = None, **kwargs: Any) -> None:
        trial = config.get(TRIAL_INFO) if isinstance(config, dict) else None
        if trial is None:
            super().__init__(config, env, **kwargs)
            return
        try:
            super().__init__(config | {"trial_seed": seed_of(trial.trial_id)}, env, **kwargs)
        except UserError as error:  # what an actor's `__init__` raises reaches nobody but as an actor's death
            self.failure = error

    def train(self) -> dict[str, Any]:
        """Make one iteration and return its result.

        Raises:
            UserError: what the algorithm could not be built by, in a trial of Tune; a mistake that training met; it was
                stopped.
        """
        try:
            self.check_usable()
            result: dict[str, Any] = super().train()
        except UserError as error:
            raise error.with_traceback(None) from None
        return result

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Play, unless it cannot be used any more.

        Raises:
            UserError: as `train`.
        """
        self.check_usable()
        result: dict[str, Any] = super().evaluate(*args, **kwargs)
        return result

    def check_usable(self) -> None:
        """Check that it was built, and was not stopped.

        Raises:
            UserError: why not.
        """
        if self.failure:
            raise self.failure

    def stop(self) -> None:
        """Stop learners and runners."""
        if self.failure is None:
            super().stop()
            self.failure = UserError("this algorithm was stopped: build another one, or take from_checkpoint()")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial, as `Reusable` does; where that fails, what was there before is gone.

        Raises:
            UserError: an algorithm cannot be built by its config.
        """
        try:
            return bool(super().reset_config(new_config))
        except UserError as error:
            self.failure = error
            raise

    def __repr__(self) -> str:
        if self.failure:  # Ray's first line about an error shows it
            return f"{type(self).__name__}: {self.failure}"
        return super().__repr__() if isinstance(getattr(self, "config", None), AlgorithmConfig) else type(self).__name__
