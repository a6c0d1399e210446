"""Run directories away from home: on the head of a cluster, reached over ssh, or where a sweep keeps its trials."""

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from dr3_ray.errors import UserError, first_line
from dr3_ray.process.stopping import resuming
from dr3_ray.remote import remote
from dr3_ray.runs.directory import RUN, STUDIES, DamagedRunError, is_run, read_run
from dr3_ray.runs.histories import HISTORIES, histories_of, written_at
from dr3_ray.runs.index import FETCHED, INDEX, knows_more, read_index
from dr3_ray.runs.lock import lock
from dr3_ray.runs.mirror import SNAPSHOT, copy_database, opened
from dr3_ray.runs.storage import FOLDER
from dr3_ray.stores import inside, names_below, read_bytes, replace_file
from dr3_ray.trust.secrets import masked
from dr3_ray.uris import absolute, is_local, is_uri

TRIES = 20  # to copy the checkpoints of a sweep that is running
Copy = Callable[[str, Path], bool]  # a file or folder of the run, into a directory here; whether it is there


def home_of(run: str) -> Path:
    """Return the folder for a run from elsewhere, unless it is given: `runs/` and its name.

    Raises:
        UserError: it has no name.
    """
    run = absolute(run)
    if not is_local(run):
        remote(run)
    path = unquote(urlsplit(run).path.strip("/") or urlsplit(run).netloc) if is_uri(run) else run
    return inside("runs", path.rstrip("/").rpartition("/")[2])


def fetch(run: str, out: Path, cluster: Path | None = None, checkpoints: bool = False) -> None:
    """Bring a run home, or what has changed in it since the last time.

    `run` is a path on the head of the cluster that the file `cluster` describes, or else the path or URI that was
    `--storage`. The run may be going on: what is here can be read at any moment. Checkpoints that are here already are
    not sent again.

    Raises:
        UserError: there is no such run, the cluster or bucket does not answer; or `out` is something else, the run's
            own directory, in use, or ahead of what would come. It is then as it was.
    """
    run = run if cluster else absolute(run)
    copy = _from_head(run, cluster) if cluster else _from_storage(run)
    place = out.resolve()
    if cluster is None and names_below(run, str(place)) is not None:
        raise UserError(f"{out} is in {run} itself: choose another --out")
    by = ["--cluster", str(cluster.resolve())] if cluster else []
    command = masked(shlex.join(["dr3-ray", "fetch", run, "--out", str(place), *by]))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as name, _alone(place):
            arrived = Path(name)
            if not copy(RUN, arrived):
                raise UserError(f"{run} is not a run directory: give what was --out of the sweep, or its --storage")
            with _told_of(run, arrived):
                document = read_run(arrived)  # before all of it is sent
            if there := is_run(place):
                _refuse_others(run, place, document, command)
            for file in (INDEX, HISTORIES, SNAPSHOT):  # in this order: no index may run ahead of the others
                copy(file, arrived)
            with _told_of(run, arrived):
                read_index(arrived), histories_of(arrived, ("member", "step"), ended=False)
            if there:
                _refuse_newer(run, place, arrived)
                _put(arrived, place, command)
            else:
                whole = arrived / "whole"
                whole.mkdir()
                _put(arrived, whole, command)
                whole.rename(place)
        if checkpoints:
            copy(FOLDER, place)
    except (OSError, pa.ArrowException, sqlite3.Error) as error:
        raise UserError(f"{run} could not be brought to {out}: {first_line(error)}") from error


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep sweeps from beginning in a directory.

    Raises:
        UserError: one is running there.
    """
    if not (index := inside(place, INDEX)).is_file():
        yield
        return
    locked = lock(index)
    try:
        yield
    finally:
        os.close(locked)


@contextmanager
def _told_of(run: str, arrived: Path) -> Iterator[None]:
    """Name the run of a file that has arrived in errors about the file."""
    try:
        yield
    except UserError as error:
        text = str(error).replace(resuming(arrived), resuming(Path(run)))
        raise UserError(text.replace(str(arrived), run)) from None


def _refuse_others(run: str, out: Path, document: dict[str, Any], command: str) -> None:
    try:
        same = read_run(out).get("id") == document.get("id")
    except DamagedRunError:
        if not (same := (out / FETCHED).exists() and (out / FETCHED).read_text(errors="replace") == command):
            raise
    if not same:
        raise UserError(f"{out} is another run than {run}: `dr3-ray fetch {masked(run)} --out ANOTHER` brings this one")
    if not (out / FETCHED).exists():
        raise UserError(
            f"{out} is the run's own directory, or was not made by fetch: choose another --out, or remove it first"
        )


def _refuse_newer(run: str, out: Path, arrived: Path) -> None:
    newer = knows_more(read_bytes(out / INDEX), read_bytes(arrived / INDEX))
    if newer or written_at(arrived) < written_at(out):
        raise UserError(f"{out} has newer things than {run}: it stays as it is; choose another --out for those")


def _put(arrived: Path, place: Path, command: str) -> None:
    """Put what has arrived in place, each file as a whole, and the index after the rows that it tells of."""
    replace_file(inside(place, FETCHED), command.encode())
    if inside(arrived, SNAPSHOT).exists():
        copy_database(arrived / SNAPSHOT, inside(place, STUDIES))
    for name in (HISTORIES, INDEX, RUN):
        if inside(arrived, name).exists():
            replace_file(inside(place, name), (arrived / name).read_bytes())


def _from_head(run: str, cluster: Path) -> Copy:
    """Return a copier by `ray rsync-down`, which knows how the head is reached."""
    if not cluster.is_file():
        raise UserError(f"{cluster} is not there: give the file that `ray up` was given")

    def copy(name: str, to: Path) -> bool:
        """Copy a file, or the folder of checkpoints, by `ray rsync-down`; return whether it is there."""
        source, target = (f"{run}/{name}/", f"{to / name}/") if name == FOLDER else (f"{run}/{name}", f"{to}/")
        if name == FOLDER:
            inside(to, name).mkdir(exist_ok=True)
        command = [sys.executable, "-m", "ray.scripts.scripts", "rsync-down", str(cluster), source, target]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        if done.returncode == 0:
            for path in (to / name, *(to / name).rglob("*")):
                inside(to, str(path.relative_to(to)))  # rsync brings links as they are
            return True
        if any("No such file or directory" in line for line in lines):
            return False
        reason = next((line for line in lines if line.startswith(("ssh:", "rsync:", "RuntimeError"))), lines[-1:])
        raise UserError(f"the head of {cluster} does not answer ({reason}): is the cluster up?")

    return copy


def _from_storage(run: str) -> Copy:
    filesystem, root = opened(run)

    def copy(name: str, to: Path) -> bool:
        """Copy a file or folder from the storage as a whole or not at all; return whether it is there.

        A running sweep removes old checkpoints: the folder is then looked at again, and nothing of them stays here.
        """
        info = filesystem.get_file_info(f"{root}/{name}")
        if info.type == pafs.FileType.NotFound:
            return False
        for _ in range(TRIES - 1):
            try:
                copy_now(info, name, to)
                return True
            except FileNotFoundError:
                if info.is_file:
                    raise
        copy_now(info, name, to)
        return True

    def copy_now(status: pafs.FileInfo, name: str, to: Path) -> None:
        """Copy what is there at this moment; a folder in which a file is gone before it is copied does not stay."""
        infos = (
            filesystem.get_file_info(pafs.FileSelector(status.path, recursive=True)) if not status.is_file else [status]
        )
        names = {info.path: info.path.removeprefix(f"{root}/") for info in infos}
        wanted = [(info, inside(to, names[info.path])) for info in infos]  # all, before the first is written
        if isinstance(filesystem, pafs.LocalFileSystem):
            for info in infos:
                inside(root, names[info.path])
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=to.parent) as folder:
            partial = Path(folder) / "partial"
            for info, target in wanted:
                if info.is_file and not (name == FOLDER and _is_here(info, target)):
                    try:
                        pafs.copy_files(info.path, str(partial), filesystem, pafs.LocalFileSystem())
                    except FileNotFoundError:
                        if name == FOLDER:
                            shutil.rmtree(target.parent, ignore_errors=True)
                        raise
                    target.parent.mkdir(parents=True, exist_ok=True)
                    partial.replace(target)

    return copy


def _is_here(info: pafs.FileInfo, target: Path) -> bool:
    """Return whether a file of a checkpoint is here; it never changes once it is."""
    return target.is_file() and target.stat().st_size == info.size
