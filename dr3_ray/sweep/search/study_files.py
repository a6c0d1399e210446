"""Whether the file that is to hold the studies of a search does: told before Optuna reads it, or writes in it.

A copy is taken between two transactions, whoever writes meanwhile.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from dr3_ray.errors import UserError, first_line
from dr3_ray.stores import check_folder, content_of
from dr3_ray.sweep.spec.search import Search
from dr3_ray.trust.secrets import real

OURS = {"studies", "trials"}  # by these a database is told to be Optuna's
READ = {  # what every version of it has made and a search goes on from; a table that is lost would be made anew, empty
    "study_directions", "study_user_attributes", "study_system_attributes", "trial_user_attributes",
    "trial_system_attributes", "trial_params", "trial_values",
}  # fmt: skip


def check_study(search: Search | None) -> None:
    """Check that the file of a study is Optuna's, or one that can be made; a server is asked when the sweep begins.

    Raises:
        UserError: it is damaged, of another kind, or in a folder that cannot be written.
    """
    if search is None or search.study is None:
        return
    file, is_database = _file_of(search.study)
    if file is None:
        return
    if not file.exists():
        return check_folder(file.parent)
    problem = _unlike_database(file) if is_database else _unlike_journal(file)
    if problem:
        raise UserError(f"--study {search.study} {problem}: move it away, or name another file")


@contextmanager
def copied(study: str) -> Iterator[str | None]:
    """Yield the name of a copy of a study, which is removed at the end; None where there is nothing to copy.

    That is a server's, or one that is not there yet.

    Raises:
        sqlite3.Error: it cannot be read.
        UserError: there is no room for the copy.
    """
    file, is_database = _file_of(study)
    if file is None or not file.exists():
        yield None
        return
    with TemporaryDirectory(prefix="dr3-ray-study-") as folder:
        copy = Path(folder) / "study"
        try:
            if is_database:
                with closing(_opened(file)) as one, closing(sqlite3.connect(copy)) as other:
                    one.backup(other)
            else:
                copy.write_bytes(content_of(file))
        except OSError as error:
            raise UserError(
                f"the study in {study} cannot be copied to {folder} ({error.strerror}): make room"
            ) from None
        yield f"sqlite:///{copy}" if is_database else str(copy)


def _file_of(study: str) -> tuple[Path | None, bool]:
    """Return the file that a study lies in, None for a server's, and whether it is a database."""
    if "://" not in study:
        return Path(study), False
    if not study.startswith("sqlite"):
        return None, True
    from sqlalchemy.engine import make_url

    database = make_url(real(study)).database or ""
    return (None if database.startswith("file:") else Path(database)), True


def _unlike_database(file: Path) -> str:
    """Return in what a file is no database of Optuna's; empty for one, and for an empty one."""
    try:
        with closing(_opened(file)) as database:
            tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
            ((answer,),) = database.execute("pragma quick_check(1)")
    except sqlite3.Error as error:
        return f"cannot be read as an SQLite database ({first_line(error)})"
    if tables and not tables >= OURS:
        return f"is another program's database, with {', '.join(sorted(tables)[:3])}"
    if tables and (lost := sorted(READ - tables)):
        return f"has lost its table {lost[0]}"
    return "" if answer == "ok" else f"is damaged ({' '.join(answer.split())})"


def _opened(file: Path) -> sqlite3.Connection:
    """Open a database that is there. A writer that was killed leaves a journal, by which this restores the file."""
    return sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True)


def _unlike_journal(file: Path) -> str:
    """Return in what a file is no journal of Optuna's; its last line may be one that is being written."""
    lines = content_of(file).split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = json.loads(line)
            fits = isinstance(entry, dict) and type(entry.get("op_code")) is int
        except (ValueError, RecursionError):
            fits = False
        if not fits:
            return f"is no journal of Optuna, or damaged at line {number}"
    return "is no journal of Optuna" if lines[-1] and not lines[-1].startswith(b"{") else ""
