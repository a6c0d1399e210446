"""Run directories away from home: on the head of a cluster, reached over ssh, or where a sweep keeps its trials."""

import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow.fs as pafs

from dr3_ray.errors import UserError, first_line
from dr3_ray.stores import open_store
from dr3_ray.sweep.checkpoints import FOLDER
from dr3_ray.sweep.directory import RUN, is_run, read_run
from dr3_ray.sweep.histories import HISTORIES
from dr3_ray.sweep.index import INDEX
from dr3_ray.sweep.search import STUDIES

EVERY = 30.0  # seconds between two copies of a run that is going on
SNAPSHOT = "studies.snapshot.db"  # the studies of a search between two transactions, which any copy leaves whole

Copy = Callable[[str, Path], bool]  # a file or folder of the run, into a directory here; whether it is there


def home_of(run: str) -> Path:
    """Where a run from elsewhere comes to, unless it is said: `runs/` and its name."""
    return Path("runs") / run.partition("?")[0].rstrip("/").rpartition("/")[2]


def fetch(run: str, out: Path, cluster: Path | None = None, checkpoints: bool = False) -> None:
    """Bring a run home, or what has changed in it since the last time.

    `run` is a path on the head of the cluster that the file `cluster` describes, or else the path or URI that was
    `--storage`. The run may be going on: what is here can be read at any moment. Checkpoints that are here already are
    not sent again.

    Raises:
        UserError: there is no such run, the cluster or bucket does not answer, or `out` is something else.
    """
    copy = _from_head(run, cluster) if cluster else _from_storage(run)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as name:
            arrived = Path(name)
            if not copy(RUN, arrived):
                raise UserError(f"{run} is not a run directory: give what was --out of the sweep, or its --storage")
            if is_run(out) and read_run(out).get("id") != read_run(arrived).get("id"):
                raise UserError(f"{out} is another run than {run}: choose another directory")
            out.mkdir(exist_ok=True)
            (arrived / RUN).replace(out / RUN)
            copy(INDEX, out)  # before the others: rows and answers that the index does not know of yet do no harm
            copy(HISTORIES, out)
            if copy(SNAPSHOT, arrived):
                _copy_database(arrived / SNAPSHOT, out / STUDIES)
        if checkpoints:
            copy(FOLDER, out)
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{run} could not be brought to {out}: {first_line(error)}") from error


@contextmanager
def mirrored(run: Path, storage: str | None, say: Callable[[str], None]) -> Iterator[None]:
    """Copy what is known of a run to its storage, now and then and at the end, for `fetch` to find it there.

    So no result is lost with the machine that runs the sweep. Studies in the run directory are copied beside it, also
    where there is no storage. `say` is told when a copy fails; the sweep goes on.
    """
    if storage is None and not (run / STUDIES).exists():
        yield
        return
    over = threading.Event()

    def keep_copying() -> None:
        failed = False
        while True:
            last = over.wait(EVERY)
            try:
                _publish(run, storage)
                failed = False
            except (OSError, sqlite3.Error) as error:
                if not failed or last:
                    say(f"the results could not be copied to {storage or run / SNAPSHOT}: {first_line(error)}")
                failed = True
            if last:
                return

    thread = threading.Thread(target=keep_copying, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _publish(run: Path, storage: str | None) -> None:
    index = (run / INDEX).read_bytes()  # before histories and studies: it must not run ahead of them
    if (run / STUDIES).exists():
        partial = run / f".{SNAPSHOT}.partial"
        partial.unlink(missing_ok=True)  # a driver may have been killed while it wrote one
        _copy_database(run / STUDIES, partial)
        partial.replace(run / SNAPSHOT)
    if storage is None:
        return
    filesystem, root = _open(storage)
    filesystem.create_dir(root, recursive=True)
    for name in (RUN, HISTORIES, SNAPSHOT):
        if (run / name).exists():
            with filesystem.open_output_stream(f"{root}/{name}") as file:
                file.write((run / name).read_bytes())
    with filesystem.open_output_stream(f"{root}/{INDEX}") as file:
        file.write(index)


def _copy_database(source: Path, target: Path) -> None:
    """As it is between two transactions, whoever writes to it. sqlite3.Error: it cannot be read, or not be written."""
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


def _from_head(run: str, cluster: Path) -> Copy:
    """By `ray rsync-down`, which knows how the head is reached."""
    if not cluster.is_file():
        raise UserError(f"{cluster} is not there: give the file that `ray up` was given")

    def copy(name: str, to: Path) -> bool:
        source, target = (f"{run}/{name}/", f"{to / name}/") if name == FOLDER else (f"{run}/{name}", f"{to}/")
        Path(target).mkdir(exist_ok=True)
        command = [sys.executable, "-m", "ray.scripts.scripts", "rsync-down", str(cluster), source, target]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        if done.returncode == 0:
            return True
        if any("No such file or directory" in line for line in lines):
            return False
        reason = next((line for line in lines if line.startswith(("ssh:", "rsync:", "RuntimeError"))), lines[-1:])
        raise UserError(f"the head of {cluster} does not answer ({reason}): is the cluster up?")

    return copy


def _from_storage(run: str) -> Copy:
    filesystem, root = _open(run)

    def copy(name: str, to: Path) -> bool:
        found = filesystem.get_file_info(f"{root}/{name}")
        if found.type == pafs.FileType.NotFound:
            return False
        inside = (
            filesystem.get_file_info(pafs.FileSelector(found.path, recursive=True)) if not found.is_file else [found]
        )
        for info in inside:
            target = to / info.path.removeprefix(f"{root}/")
            if info.is_file and not (name == FOLDER and _is_here(info, target)):
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f".{target.name}.partial")
                pafs.copy_files(info.path, str(partial), filesystem, pafs.LocalFileSystem())
                partial.replace(target)
        return True

    return copy


def _is_here(info: pafs.FileInfo, target: Path) -> bool:
    """A file of a checkpoint never changes once it is there."""
    return target.is_file() and target.stat().st_size == info.size


def _open(storage: str) -> tuple[pafs.FileSystem, str]:
    try:
        return open_store(storage)
    except (OSError, ValueError) as error:
        raise UserError(f"{storage} cannot be used: {first_line(error)}") from error
