"""A path stays that path where it becomes a URL, whatever characters it has."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from optuna.storages import RDBStorage

from dr3_ray.errors import UserError
from dr3_ray.remote import open_store
from dr3_ray.stores import below
from dr3_ray.sweep.search.studies import _storage, sqlite_url
from dr3_ray.sweep.search.study_files import check_study
from dr3_ray.sweep.spec.search import Search

NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cc", "Cs")), max_size=30)
FOLDER = NAME.filter(lambda name: name not in ("", ".", "..") and len(name.encode()) < 200)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(FOLDER)
@example("a?b")
@example("a#b")
@example("100%")
@example("a%20b")
@example("?mode=memory&cache=shared#x")
def test_a_study_lies_in_its_run_directory(name):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / name
        run.mkdir()
        optuna.create_study(storage=RDBStorage(sqlite_url(run / "studies.db")), study_name="one")
        assert [path.relative_to(folder) for path in Path(folder).rglob("*.db")] == [Path(name) / "studies.db"]
        assert optuna.get_all_study_names(RDBStorage(sqlite_url(run / "studies.db"))) == ["one"]


@settings(max_examples=100, deadline=None)
@given(FOLDER, FOLDER)
@example("a?b", "c#d")
@example("a%20b", "100%")
def test_a_folder_of_a_storage_is_where_its_path_says(name, inner):
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / name
        (store / "checkpoints").mkdir(parents=True)
        assert Path(open_store(str(store))[1]) == store
        filesystem, root = open_store(below(str(store), "checkpoints"))
        assert Path(root) == store / "checkpoints"
        with filesystem.open_output_stream(f"{root}/{inner}") as file:
            file.write(b"it")
        assert (store / "checkpoints" / inner).read_bytes() == b"it"


def database(file, *tables):
    with closing(sqlite3.connect(file)) as connection:
        for table in tables:
            connection.execute(f"create table {table} (a)")


FILES = {
    "text": lambda file: file.write_text("hello\nworld\n"),
    "one line": lambda file: file.write_text("hello"),
    "json": lambda file: file.write_text('{"a": 1}\n'),
    "list": lambda file: file.write_text('[1]\n{"op_code": 0}\n'),
    "bytes": lambda file: file.write_bytes(bytes(range(256)) * 20),
    "other": lambda file: database(file, "people"),
    "half": lambda file: database(file, "studies"),
    "folder": lambda file: file.mkdir(),
}


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
@pytest.mark.parametrize("damage", FILES)
def test_a_file_that_is_no_study_is_one_line_and_stays(tmp_path, form, damage):
    file = tmp_path / "study"
    FILES[damage](file)
    before = file.is_file() and file.read_bytes()
    with pytest.raises(UserError) as error:
        check_study(Search(trials=1, study=form.format(file)))
    assert "\n" not in str(error.value) and str(file) in str(error.value)
    assert (file.is_file() and file.read_bytes()) == before


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_a_study_to_be_made_or_of_optunas_passes(tmp_path, form):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = Search(trials=1, study=form.format(tmp_path / "new" / "study"))
    check_study(search)
    assert not list(tmp_path.iterdir())
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "study").touch()
    check_study(search)
    storage = _storage(search.study)
    optuna.create_study(storage=storage, study_name="one")
    check_study(search)
    if "://" not in form:
        with (tmp_path / "new" / "study").open("a") as file:
            file.write('{"op_code": 4, "wor')  # as another process may be writing it
        check_study(search)
    for study in (None, "postgresql://h/db"):
        check_study(Search(trials=1, study=study))
    with pytest.raises(UserError, match="cannot be a folder"):
        check_study(Search(trials=1, study=form.format("/dev/null/x")))
