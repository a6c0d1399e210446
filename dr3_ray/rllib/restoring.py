"""Saving and restoring of an offline algorithm, which RLlib 2.60 restores as if it had runners that collect data."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.rllib.core import (
    COMPONENT_EVAL_ENV_RUNNER,
    COMPONENT_LEARNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.utils.checkpoints import CHECKPOINT_VERSION_LEARNER_AND_ENV_RUNNER

from dr3_ray.cluster.pickles import check_trusted
from dr3_ray.errors import UserError, first_line
from dr3_ray.rllib.checkpoint import (
    STATE,
    check_fits,
    check_state,
    folder_to_read,
    folder_to_write,
    read_metadata,
    write_constructor,
)
from dr3_ray.rllib.evaluating import NoTrainingRunners
from dr3_ray.rllib.learner import PopulationLearner
from dr3_ray.rllib.module import write_module
from dr3_ray.rllib.trials import TuneTrial
from dr3_ray.runs.plain import DAMAGES, is_plain, read_plain, write_plain
from dr3_ray.training.saved import NAME, PLACE

UNREAD = "not all learners could read the checkpoint in {}: is it complete?"
SETTINGS = "settings"  # of the config, beside RLlib's state


class Restoring(TuneTrial):
    """A mixin that saves an algorithm without pickles, and restores it without training runners.

    `structure` is what a state has to fit.
    """

    structure: dict[str, Any]

    def _ask(self, question: Callable[[PopulationLearner], Any]) -> list[Any]:
        """Return every learner's answer to a question."""
        return [answer.get() for answer in self.learner_group.foreach_learner(question)]

    def get_metadata(self) -> dict[str, Any]:
        """Return RLlib's metadata, the structure that a checkpoint must have, and the number of gradient steps."""
        num_updates = self._ask(lambda learner: learner.population.step)[0]
        version = {"checkpoint_version": str(CHECKPOINT_VERSION_LEARNER_AND_ENV_RUNNER)}
        return super().get_metadata() | version | {"structure": self.structure, "num_updates": num_updates}

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state, and the structure.

        Raises:
            UserError: the algorithm was stopped.
        """
        self.check_usable()
        return super().get_state(*args, **kwargs) | {"structure": self.structure}

    def save_to_path(
        self,
        path: Any = None,
        *,
        state: dict[str, Any] | None = None,
        filesystem: Any = None,
        constructors: bool = True,
        **_: Any,
    ) -> str:
        """Write a checkpoint to a new folder unless `path` names one; return its path.

        `constructors` are pickles for RLlib's `Algorithm.from_checkpoint` and `RLModule.from_checkpoint`.
        """
        path = path or tempfile.mkdtemp()
        if state is not None:
            check_state(state, self.structure, "the given state", whole=True)
        state = dict(state or self.get_state(not_components=[COMPONENT_EVAL_ENV_RUNNER]))
        learner = dict(state[COMPONENT_LEARNER_GROUP][COMPONENT_LEARNER])
        parameters = learner.pop(COMPONENT_RL_MODULE)[DEFAULT_MODULE_ID]
        plain, made, arguments = self._ask(_about_module)[0]
        rest = state | {COMPONENT_LEARNER_GROUP: {COMPONENT_LEARNER: learner}, SETTINGS: self.config.plain_settings()}
        with folder_to_write(path, filesystem) as folder:
            (folder / self.METADATA_FILE_NAME).write_text(json.dumps(self.get_metadata()))
            write_plain(folder, STATE, rest)
            write_module(folder / PLACE, plain, parameters)
            if constructors:
                write_constructor(folder, type(self), self.get_ctor_args_and_kwargs())
                (folder / f"{STATE}.pkl").touch()  # RLlib looks whether it is there, and does not open it
                write_constructor(folder / PLACE, made, arguments)
        return os.fspath(path)

    # RLlib 2.60 restores every algorithm as if it had runners that collect training data; an offline one has none.

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore; evaluation runners get their weights at the next evaluation.

        Raises:
            UserError: it is none, or does not fit; nothing has changed then.
        """
        check_state(state, self.structure, "the given state")
        with NoTrainingRunners(self):
            super().set_state({name: value for name, value in state.items() if name != "eval_env_runner"})
        if len(self._ask(lambda learner: learner.population.step)) < max(1, self.config.num_learners):
            raise UserError("not all learners could take the given state: is it complete? Build the algorithm anew")

    def restore_from_path(
        self, path: Any, *, component: str | None = None, filesystem: Any = None, trust: bool = False, **_: Any
    ) -> None:
        """Restore from a checkpoint directory, or with `component` from a directory inside one.

        Checkpoints of version 0.1 are pickles, which need `trust`.

        Raises:
            UserError: the checkpoint is damaged, does not fit, or is not trusted.
        """
        if component:
            return self._restore_networks(path, component, filesystem)
        saved = read_metadata(path, filesystem)
        check_fits(saved["structure"], self.structure, f"the checkpoint in {path}")
        with folder_to_read(path, filesystem) as folder:
            if is_plain(folder, STATE):
                try:
                    self.set_state(_whole(folder))
                except (RuntimeError, *DAMAGES) as error:
                    if isinstance(error, UserError):
                        raise
                    if self.learner_group.is_remote:  # which RLlib has given up
                        raise UserError(UNREAD.format(path)) from error
                    said = first_line(error)
                    raise UserError(f"the checkpoint in {path} is damaged ({said}): take another one") from error
            else:
                check_trusted(f"the checkpoint in {path}", trust)
                with NoTrainingRunners(self):
                    super().restore_from_path(folder, trust=True)
        # RLlib leaves the errors of remote learners unread
        if {saved["num_updates"]} != set(self._ask(lambda learner: learner.population.step)):
            raise UserError(UNREAD.format(path))

    def _restore_networks(self, path: Any, component: str, filesystem: Any) -> None:
        """Take the networks alone, from their folder in a checkpoint or the one above: nothing else lies apart."""
        inside = {PLACE: "", os.path.dirname(PLACE): DEFAULT_MODULE_ID}
        if component not in inside:
            raise UserError(
                f"component = {component!r}: only {' and '.join(inside)} can be restored alone, from the folder of "
                "that name in a checkpoint"
            )
        with folder_to_read(path, filesystem) as folder:
            part = folder / inside[component]
            if is_plain(part, NAME):
                state = {COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: read_plain(part, NAME)["state"]}}
                return self.set_state({COMPONENT_LEARNER_GROUP: {COMPONENT_LEARNER: state}})
        if not part.exists():
            raise UserError(f"{path} has no networks: give the folder {component} of a checkpoint")
        with NoTrainingRunners(self):
            super().restore_from_path(path, component=component, filesystem=filesystem)


def _about_module(learner: PopulationLearner) -> tuple[dict[str, Any], type, Any]:
    """Return the arguments of a learner's module, as plain values and as RLlib has it."""
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    return module.plain(), type(module), module.get_ctor_args_and_kwargs()


def _whole(folder: Path) -> dict[str, Any]:
    """Read the state in a checkpoint."""
    state, module = read_plain(folder, STATE), read_plain(folder / PLACE, NAME)
    state[COMPONENT_LEARNER_GROUP][COMPONENT_LEARNER][COMPONENT_RL_MODULE] = {DEFAULT_MODULE_ID: module["state"]}
    return {name: value for name, value in state.items() if name != SETTINGS}
