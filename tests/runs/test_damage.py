"""Files of a run that are folders, links to themselves, or hold odd values: one line, or read without them."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dr3_ray import UserError, load_run
from dr3_ray.cli.app import main
from dr3_ray.report.reader import read_tables
from dr3_ray.runs.directory import RUN, moment, read_run
from dr3_ray.runs.histories import HISTORIES, Histories
from dr3_ray.runs.index import FETCHED, INDEX, Index, read_index
from dr3_ray.runs.status import read_status
from dr3_ray.sweep.directory import open_run, spec_of
from dr3_ray.sweep.spec.names import option_types
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec

READERS: dict[str, Callable[[Path], object]] = {
    "run.json": read_run,
    "status": read_status,
    "tables": read_tables,
    "best": lambda run: load_run(run).best(),
    "specification": spec_of,
    "index": read_index,
}
ODD = (None, True, -1, 1.5, 10**400, "", "x\0", "\ud800", [], {}, [None], math.nan, "file:///a", "yesterday")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with members and histories; nothing was trained."""
    out = tmp_path_factory.mktemp("runs") / "run"
    spec = SweepSpec(datasets=["embedded:breakout-replay"], coefficients=[0, 0.1], environment="none", seeds=1, out=out)
    planned = members(spec)
    with open_run(spec, planned, ["x"]) as index:
        index.write(planned, "running", pack="p")
        histories = Histories(out, planned, ("algorithm", "dataset", "seed", "dr3_coeff"), option_types())
        for member in planned:
            histories.add(member, spec.steps, {"time_s": 1.0, "q_mean": 0.5})
        histories.flush()
        index.write(planned, "finished", end=spec.steps)
    return out


@pytest.fixture
def run(whole: Path) -> Iterator[Path]:
    kept = {name: (whole / name).read_bytes() for name in (RUN, INDEX, HISTORIES)}
    yield whole
    for name, content in kept.items():
        if (whole / name).is_dir() and not (whole / name).is_symlink():
            (whole / name).rmdir()
        (whole / name).unlink(missing_ok=True)
        (whole / name).write_bytes(content)
    for each in (*whole.glob("*.damaged-*"), whole / FETCHED):
        if each.is_dir():
            each.rmdir()
        each.unlink(missing_ok=True)


def reads(run: Path, name: str) -> str:
    """The line that a reader ends in; empty where it reads."""
    try:
        READERS[name](run)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def leaves(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = document.items() if isinstance(document, dict) else enumerate(document) if type(document) is list else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = json.loads(json.dumps(document))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


@pytest.mark.parametrize("name", [RUN, INDEX, HISTORIES, FETCHED])
@pytest.mark.parametrize("what", ["folder", "loop"])
def test_another_thing_in_the_place_of_a_file_is_one_line(run: Path, name: str, what: str, capsys: Any) -> None:
    (run / name).unlink(missing_ok=True)
    if what == "folder":
        (run / name).mkdir()
    else:
        (run / name).symlink_to(run / name)
    for reader in READERS:
        reads(run, reader)
    for command in ("status", "report"):
        with pytest.raises(SystemExit) as ended:
            main([command, str(run)])
        error = capsys.readouterr().err
        assert "Traceback" not in error and error.count("\n") <= 1
        assert (ended.value.code == 2) == bool(error)
        assert not error or str(run) in error
    assert name == FETCHED or any(reads(run, reader) for reader in READERS)


@pytest.mark.spread(7)
@pytest.mark.parametrize("value", ODD, ids=ascii)
def test_no_value_in_run_json_is_a_fault_of_ours(run: Path, value: Any) -> None:
    document = json.loads((run / RUN).read_bytes())
    for path in leaves(document):
        (run / RUN).write_text(json.dumps(with_value(document, path, value)))
        for reader in READERS:
            reads(run, reader)


@pytest.mark.spread(7)
@pytest.mark.parametrize("value", ODD, ids=ascii)
def test_no_value_in_the_index_is_a_fault_of_ours(run: Path, value: Any) -> None:
    lines = [json.loads(line) for line in (run / INDEX).read_bytes().splitlines()]
    for number in (0, len(lines) - 1):
        for path in leaves(lines[number]):
            new = [*lines[:number], with_value(lines[number], path, value), *lines[number + 1 :]]
            (run / INDEX).write_text("".join(json.dumps(line) + "\n" for line in new))
            for reader in READERS:
                reads(run, reader)


@pytest.mark.parametrize(
    ("field", "value"),
    [("time", "soon"), ("error", 3), ("pack", []), ("config", None), ("end", -1), ("member", "")],
)
def test_a_line_of_the_index_with_a_value_of_another_type_is_damaged(run: Path, field: str, value: Any) -> None:
    first, *others = (run / INDEX).read_text().splitlines()
    (run / INDEX).write_text("\n".join([json.dumps(json.loads(first) | {field: value}), *others, ""]))
    with pytest.raises(UserError, match=r"index\.jsonl is damaged at line 1"):
        read_index(run)
    with Index(run, {record["member"]: {} for record in map(json.loads, others)}) as index:
        assert index.records
    assert list(run.glob("index.jsonl.damaged-*"))


@pytest.mark.parametrize("created", ["yesterday", "", "2020-13-01", "0001-01-01T00:00:00+14:00", "2020"])
def test_a_run_was_created_at_a_moment(run: Path, created: str) -> None:
    (run / RUN).write_text(json.dumps(json.loads((run / RUN).read_bytes()) | {"created": created}))
    with pytest.raises(UserError, match=r"run\.json is damaged at created"):
        read_tables(run)
    assert moment(created) is None and moment("2026-11-29T21:24:23+00:00") is not None


@pytest.mark.parametrize("place", ["", "runs/a", "s3://b"])
def test_a_run_lies_at_an_absolute_path(run: Path, place: str) -> None:
    (run / RUN).write_text(json.dumps(json.loads((run / RUN).read_bytes()) | {"place": place}))
    with pytest.raises(UserError, match=r"run\.json is damaged at place"):
        spec_of(run)
