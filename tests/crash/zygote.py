"""Drivers of sweeps in processes of their own, which start in milliseconds: forks of one that has imported everything.

The first process runs under the recorder of file operations; each fork is told what is to happen at which write.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.crash.shim import library


class Ended(NamedTuple):
    """How a driver ended, or that it stands still (`code` None), and what it said."""

    pid: int
    code: int | None
    said: str

    @property
    def line(self) -> str:
        """What a user's mistake, or a lack of room, was answered by; empty after anything else."""
        return next((line for line in self.said.splitlines() if line.startswith("error: ")), "")


class Zygote:
    """Starts drivers, one for each task, and waits for them."""

    def __init__(self, algorithms: Mapping[str, Sequence[str]]) -> None:
        """Those that sweeps will have, by data set: what is measured of them is found out once, here."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.zygote", json.dumps(algorithms)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "LD_PRELOAD": str(library())},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)

    def run(self, **task: Any) -> Ended:
        """Have a driver do a task, to its end or until it stands still."""
        return self._ask(task)

    def go_on(self, standing: Ended) -> Ended:
        """Have a driver that stands still go on to its end."""
        return self._ask({"continue": standing.pid})

    def _ask(self, question: dict[str, Any]) -> Ended:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._process.stdout.readline()))


def _do(task: dict[str, Any]) -> int:
    """The exit code of one command."""
    from dr3_ray.errors import UserError
    from dr3_ray.runs.fetch import fetch
    from dr3_ray.runs.status import read_status
    from dr3_ray.sweep.directory import resumed
    from dr3_ray.sweep.run import train_sweep
    from dr3_ray.sweep.spec.spec import SweepSpec
    from dr3_ray.sweep.trials.trainable import PackTrainable
    from tests.crash.untrained import InTurn

    try:
        match task["do"]:
            case "sweep":
                spec = SweepSpec(**task["spec"]) if "spec" in task else resumed(task["resume"], task.get("steps"))
                return train_sweep(spec, ["dr3-ray"], trials=InTurn(set(task.get("fails", ())))).exit_code
            case "train":
                return train_sweep(SweepSpec(**task["spec"]), ["dr3-ray"], trials=InTurn(pack=PackTrainable)).exit_code
            case "fetch":
                fetch(task["source"], Path(task["out"]), checkpoints=True)
            case "status":
                read_status(Path(task["run"]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _child(task: dict[str, Any], said: int) -> None:
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.chdir(task.get("cwd", "/"))
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
    try:
        os.environ |= task.get("at", {})  # the recorder looks at them when the first file is opened
        code = _do(task)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# what drivers import when they come to it: each fork would do so again
LATE = (
    "alembic.autogenerate.compare", "dr3_ray.cli.app", "dr3_ray.runs.fetch", "dr3_ray.runs.status",
    "dr3_ray.sweep.run", "dr3_ray.sweep.search.studies", "rich._emoji_codes", "rich.progress",
)  # fmt: skip


def _prepare(algorithms: dict[str, list[str]]) -> None:
    """Import all that drivers need, and find out what is the same for all of them."""
    for module in LATE:
        import_module(module)
    import optuna

    from dr3_ray.sweep.resume import versions
    from tests.crash.untrained import measured_names

    versions()
    for sampler in (optuna.samplers.TPESampler(), optuna.samplers.RandomSampler()):
        study = optuna.create_study(storage=optuna.storages.RDBStorage("sqlite://"), sampler=sampler)
        study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0.0, 1.0)}), 0.0)
    for dataset, names in algorithms.items():
        for algorithm in names:
            measured_names(algorithm, dataset)
    gc.collect()
    gc.freeze()  # so that a fork's collections copy no pages


def _serve() -> None:
    _prepare(json.loads(sys.argv[1]))
    standing: dict[int, str] = {}
    for line in sys.stdin:
        task = json.loads(line)
        if "continue" in task:
            pid = task["continue"]
            path = standing.pop(pid)
            os.kill(pid, signal.SIGCONT)
        else:
            said, path = tempfile.mkstemp()
            pid = os.fork()
            if not pid:
                _child(task, said)
            os.close(said)
        _, status = os.waitpid(pid, os.WUNTRACED)
        text = Path(path).read_text(errors="replace")
        if os.WIFSTOPPED(status):
            code = None
            standing[pid] = path
        else:
            code = os.waitstatus_to_exitcode(status)
            os.unlink(path)
        print(json.dumps({"pid": pid, "code": code, "said": text}), flush=True)


if __name__ == "__main__":
    _serve()
