"""Rows of a sweep for other programs, as they come: TensorBoard, MLflow and Weights & Biases.

Each logger works in a thread of its own: one that is slow or fails does not touch the sweep, whose histories hold every
row in any case. A member is one run; runs that differ in nothing but the seed share a group.
"""

import importlib.util
import math
import os
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from dr3_ray.data.labels import dataset_label
from dr3_ray.errors import UserError, first_line
from dr3_ray.runs.identity import configuration
from dr3_ray.stores import inside
from dr3_ray.sweep.spec.spec import Config

FOLDER = "logs"
PATIENCE = 60.0  # seconds that all loggers together may take to finish after the last row
LONGEST = 50  # characters of a data set's name in that of a group
EXTRAS = ("mlflow", "wandb")  # that have to be installed


class MemberRun(NamedTuple):
    """A member as other programs see it."""

    member: str
    group: str
    config: Config

    @property
    def name(self) -> str:
        return f"{self.group}/seed-{self.config['seed']}"


class Logger(Protocol):
    """A taker of the rows of members; a step that comes again replaces what came from it on."""

    def row(self, run: MemberRun, step: int, values: Mapping[str, float]) -> None:
        """Take one row, of finite numbers."""

    def end(self, member: str) -> None:
        """Note that the member gets no further rows for now."""

    def flush(self) -> None:
        """Write what has come so far: there is time."""


def check_installed(names: Iterable[str]) -> None:
    """Check that the packages of these loggers are installed.

    Raises:
        UserError: one is not.
    """
    for name in names:
        if name in EXTRAS and importlib.util.find_spec(name) is None:
            raise UserError(f"--log {name} needs its package: pip install 'dr3-ray[{name}]', or leave it out")


def group_of(config: Config) -> str:
    """Return a name for all members that differ from this one in the seed alone."""
    data = re.sub(r"[\x00-\x1f\x7f\\]", "_", dataset_label(config["dataset"]))[:LONGEST]
    return f"{config['algorithm']}-{data}-c{config['dr3_coeff']:g}-{configuration(config)[:8]}"


class Loggers:
    """The loggers of a sweep in `out`, by their names; `say` is told of one that gives up, once."""

    def __init__(
        self, names: Sequence[str], out: Path, configs: Mapping[str, Config], say: Callable[[str], None]
    ) -> None:
        self._out, self._configs, self._say = out, configs, say
        self._queues: dict[str, queue.SimpleQueue[tuple[Any, ...] | None]] = {}
        self._threads: dict[str, threading.Thread] = {}
        for name in dict.fromkeys(names):
            self._queues[name] = queue.SimpleQueue()
            self._threads[name] = threading.Thread(target=self._work, args=(name,), daemon=True)
            self._threads[name].start()

    def row(self, member: str, step: int, values: Mapping[str, Any]) -> None:
        """Take a row of a member; numbers that are not finite stay out."""
        numbers = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        for waiting in self._queues.values():
            waiting.put((member, step, numbers))

    def end(self, members: Iterable[str]) -> None:
        """Note that these members get no further rows."""
        for member in members:
            for waiting in self._queues.values():
                waiting.put((member,))

    def close(self, patience: float = PATIENCE) -> None:
        """Wait until all rows are written, for some time."""
        for waiting in self._queues.values():
            waiting.put(None)
        end = time.monotonic() + patience
        for name, thread in self._threads.items():
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                self._say(f"--log {name} still has rows to write after {patience:g} s, and is left behind")

    def _work(self, name: str) -> None:
        open_runs: set[str] = set()
        try:
            logger: Logger = LOGGERS[name](inside(self._out, f"{FOLDER}/{name}"), self._out.resolve().name)
            while (item := self._queues[name].get()) is not None:
                member, *row = item
                if row:
                    config = self._configs[member]
                    logger.row(MemberRun(member, group_of(config), config), *row)
                    open_runs.add(member)
                elif member in open_runs:
                    logger.end(member)
                    open_runs.remove(member)
                if self._queues[name].empty():
                    logger.flush()
            for member in open_runs:
                logger.end(member)
        except Exception as error:  # whatever it is: the sweep goes on
            self._say(f"--log {name} gave up, and the sweep goes on without it: {first_line(error)}")


class _Direct:
    def flush(self) -> None:
        """Do nothing: every row is there at once."""


class TensorBoard:
    """`GROUP/seed-N/events…`: for `tensorboard --logdir OUT/logs/tensorboard`."""

    def __init__(self, folder: Path, project: str) -> None:
        self._folder = folder
        self._open: dict[str, tuple[Any, int]] = {}

    def row(self, run: MemberRun, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX import SummaryWriter

        writer, last = self._open.pop(run.member, (None, -1))
        if writer is not None and step <= last:
            writer.close()
            writer = None
        if writer is None:
            # a name that no earlier attempt has, even one of the same second
            writer = SummaryWriter(
                str(inside(self._folder, run.name)),
                purge_step=step,
                filename_suffix=f".{os.getpid()}.{uuid.uuid4().hex[:8]}",
            )
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        self._open[run.member] = writer, step

    def flush(self) -> None:
        for writer, _ in self._open.values():
            writer.flush()

    def end(self, member: str) -> None:
        self._open.pop(member)[0].close()


class Mlflow(_Direct):
    """An experiment of the sweep's name in MLFLOW_TRACKING_URI, or in `OUT/logs/mlflow`."""

    def __init__(self, folder: Path, project: str) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # plain files need no server and no database
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", folder.resolve().as_uri()))
        experiment = self._client.get_experiment_by_name(project)
        self._experiment = experiment.experiment_id if experiment else self._client.create_experiment(project)
        self._runs: dict[str, tuple[str, int]] = {}  # of each member its run, and the last step there
        token = None
        while experiment:
            page = self._client.search_runs([self._experiment], page_token=token)
            for run in page:
                self._runs[run.data.tags["member"]] = run.info.run_id, int(run.data.tags["step"])
            if not (token := page.token):
                break

    def row(self, run: MemberRun, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        if run.member not in self._runs:
            tags = {"mlflow.runName": run.name, "group": run.group, "member": run.member, "step": "-1"}
            made = self._client.create_run(self._experiment, tags=tags).info.run_id
            params = [Param(name, str(value)) for name, value in run.config.items()]
            self._client.log_batch(made, params=params)
            self._runs[run.member] = made, -1
        key, last = self._runs[run.member]
        if step > last:  # a step that comes again has the same numbers: training is deterministic
            metrics = [Metric(name, value, 0, step) for name, value in values.items()]
            self._client.log_batch(key, metrics=metrics, tags=[RunTag("step", str(step))])
            self._client.update_run(key, status="RUNNING")
            self._runs[run.member] = key, step

    def end(self, member: str) -> None:
        self._client.set_terminated(self._runs[member][0])


class WeightsAndBiases(_Direct):
    """A project of the sweep's name; offline in `OUT/logs/wandb` unless WANDB_MODE says otherwise."""

    def __init__(self, folder: Path, project: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._folder, self._project = folder, project
        self._open: dict[str, Any] = {}

    def row(self, run: MemberRun, step: int, values: Mapping[str, float]) -> None:
        import wandb

        if run.member not in self._open:
            mode: Any = os.environ.get("WANDB_MODE", "offline")
            self._folder.mkdir(parents=True, exist_ok=True)
            self._open[run.member] = wandb.init(
                project=self._project,
                group=run.group,
                name=run.name,
                id=run.member,
                config=run.config,
                dir=self._folder.parent,  # where wandb makes a folder of its name
                mode=mode,
                resume=None if mode == "offline" else "allow",
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
            )
        self._open[run.member].log(dict(values), step=step)

    def end(self, member: str) -> None:
        self._open.pop(member).finish()


LOGGERS: dict[str, Callable[[Path, str], Logger]] = {
    "tensorboard": TensorBoard, "mlflow": Mlflow, "wandb": WeightsAndBiases,
}  # fmt: skip
