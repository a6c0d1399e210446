"""Whether the file that is to hold the studies of a search does: told before Optuna reads it, or writes in it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from dr3_ray.errors import UserError, first_line
from dr3_ray.stores import check_folder, content_of
from dr3_ray.sweep.spec.search import Search
from dr3_ray.trust.secrets import real

OURS = {"studies", "trials"}  # tables that every version of Optuna has made


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
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
    except sqlite3.Error as error:
        return f"is no SQLite database ({first_line(error)})"
    return (
        f"is another program's database, with {', '.join(sorted(tables)[:3])}" if tables and not tables >= OURS else ""
    )


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
