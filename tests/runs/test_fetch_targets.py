"""Whatever is where a fetched run is to go: it is brought up to date, or refused in one line and left as it was."""

import json
import os
import re
import shlex
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr3_ray.errors import UserError
from dr3_ray.runs.directory import RUN
from dr3_ray.runs.fetch import fetch, home_of
from dr3_ray.runs.histories import HISTORIES
from dr3_ray.runs.index import FETCHED, INDEX, Index, knows_more, read_index
from dr3_ray.runs.mirror import check_storage, mirrored
from dr3_ray.sweep.directory import open_run
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from tests.cli.test_cli import run as run_command
from tests.runs.runs import TINY, advance, begin, snapshot, write_rows

TAKEN = {
    "absent",
    "empty",
    "fetched",
    "behind",
    "cut index",
    "damaged histories",
    "no histories",
    "no index",
    "damaged",
}
REFUSED = {
    "own": "is the run's own directory",
    "gone on": "is the run's own directory",
    "running": "a sweep is running in",
    "own running": "a sweep is running in",
    "ahead": "has newer things than",
    "newer rows": "has newer things than",
    "another run": "is another run than",
    "just made": "is another run than",
    "stranger": "exists and is not a run directory",
    "file": "exists and is not a run directory",
    "planted index": "is a link, which may lead out of",
    "planted histories": "is a link, which may lead out of",
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """What is in the storage of a run that went on after it was fetched first."""
    top = tmp_path_factory.mktemp("kept")
    begin(top / "early")
    shutil.copytree(top / "early", top / "late")
    advance(top / "late", 2)
    return top


def make(state: str, home: Path, kept: Path, stack: ExitStack) -> None:
    """Bring the target into a state."""
    if state in ("fetched", "newer rows", "ahead", "running", "cut index", "damaged histories", "no histories",
                 "no index", "damaged", "planted index", "planted histories", "gone on"):  # fmt: skip
        fetch(str(kept / "late"), home)
    match state:
        case "empty":
            home.mkdir()
        case "behind":
            fetch(str(kept / "early"), home)
        case "newer rows":
            write_rows(home, 1)
        case "ahead":
            advance(home)
        case "running" | "own running":
            if state == "own running":
                shutil.copytree(kept / "late", home)
            stack.enter_context(Index(home))
        case "cut index":
            (home / INDEX).write_bytes((kept / "early" / INDEX).read_bytes()[:-7])
        case "damaged histories":
            (home / HISTORIES).write_bytes(b"PAR1")
        case "no histories":
            (home / HISTORIES).unlink()
        case "no index":
            (home / INDEX).unlink()
        case "damaged":
            (home / RUN).write_bytes(b"")
        case "own":
            shutil.copytree(kept / "late", home)
        case "gone on":
            spec = SweepSpec(**TINY | {"out": home})
            with open_run(spec, members(spec), ["x"], force=True):
                pass
        case "another run":
            begin(home)
        case "just made":
            home.mkdir()
            (home / RUN).write_text(json.dumps({"format": 2}))
        case "stranger":
            home.mkdir()
            (home / "thesis.tex").write_text("mine")
        case "file":
            home.write_text("mine")
        case "planted index" | "planted histories":
            path = home / (INDEX if state == "planted index" else HISTORIES)
            path.rename(home.parent / "outside")
            path.symlink_to(home.parent / "outside")


@settings(max_examples=50, deadline=None)
@given(
    state=st.sampled_from(sorted(TAKEN | REFUSED.keys())),
    spelling=st.sampled_from(["plain", "link", "relative", "dots"]),
    again=st.booleans(),
)
def test_every_target_is_brought_up_to_date_or_left_as_it_was(kept, state, spelling, again):
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        top = Path(name)
        home = top / "home"
        make(state, home, kept, stack)
        (top / "link").symlink_to(home)
        out = {"plain": home, "link": top / "link", "dots": top / "x" / ".." / "home"}.get(spelling)
        out = out or Path(os.path.relpath(home))
        before, source = snapshot(top), snapshot(kept)
        if state in REFUSED:
            with pytest.raises(UserError, match=REFUSED[state]) as error:
                fetch(str(kept / "late"), out)
            assert "\n" not in str(error.value)
            assert snapshot(top) == before
        else:
            for _ in range(1 + again):
                fetch(str(kept / "late"), out)
            for each in (RUN, INDEX, HISTORIES):
                assert (home / each).read_bytes() == (kept / "late" / each).read_bytes()
            assert not knows_more(before.get(f"home/{INDEX}", b""), (home / INDEX).read_bytes())
            assert (home / FETCHED).exists()
        assert snapshot(kept) == source
        assert {path.name for path in top.iterdir()} <= {"home", "link", "outside"}


@pytest.mark.parametrize(
    "where", ["", "/", "/.", "/../late", "/home", "/checkpoints", "/checkpoints/deep/home", "URI", "link"]
)
def test_a_run_is_not_fetched_into_itself(kept, where, tmp_path):
    (tmp_path / "link").symlink_to(kept / "late")
    source = kept / "late"
    run, out = str(source), Path(f"{source}{where}")
    if where in ("URI", "link"):
        run, out = (source.as_uri(), source) if where == "URI" else (str(tmp_path / "link"), source)
    before = snapshot(kept)
    with pytest.raises(UserError, match=r"is in .* itself: choose another --out"):
        fetch(run, out)
    assert snapshot(kept) == before


def test_a_sweep_that_begins_while_a_run_is_fetched_does_not_write_into_the_index_that_is_gone(kept, tmp_path):
    home = tmp_path / "home"
    fetch(str(kept / "early"), home)
    old = os.open(home / INDEX, os.O_RDWR)
    fetch(str(kept / "late"), home)
    assert not os.path.samestat(os.fstat(old), os.stat(home / INDEX))
    os.close(old)
    with Index(home) as index:
        index.write(list(index.records), "failed", error="seen")
    assert (home / INDEX).read_text().count("seen") == 2


@pytest.mark.parametrize(
    ("run", "says"),
    [
        *((run, "do not trust") for run in ("s3://bucket/..", "s3://bucket/a/%2e%2e", "/", "s3://bucket/a%5Cb")),
        ("s3://", "names no bucket"),
    ],
)
def test_what_names_no_folder_has_no_home(run, says):
    with pytest.raises(UserError, match=says):
        home_of(run)


def test_homes():
    for run in ("s3://bucket/runs/pong?region=x", "s3://pong", "/mnt/runs/pong/", "/mnt/x/../pong", "file:///mnt/pong"):
        assert home_of(run) == Path("runs/pong")


@pytest.mark.parametrize("name", [RUN, INDEX, HISTORIES])
@pytest.mark.parametrize("damage", ["lost", "garbage"])
def test_a_damaged_run_is_named_and_its_copy_stays(tmp_path, name, damage):
    source, copy = tmp_path / "the run", tmp_path / "a copy"
    begin(source)
    fetch(str(source), copy)
    before = snapshot(copy)
    whole = (source / name).read_bytes()
    (source / name).unlink() if damage == "lost" else (source / name).write_bytes(b"no\n")
    if (name, damage) == (HISTORIES, "lost"):
        return  # of a run that has just begun
    with pytest.raises(UserError, match=rf"{source}.*(is damaged|is missing|is not a run directory)") as refused:
        fetch(str(source), copy)
    assert ".a copy." not in str(refused.value) and "brings it again" not in str(refused.value)
    assert snapshot(copy) == before
    (source / name).write_bytes(whole)
    fetch(str(source), copy)
    assert snapshot(copy) == before


@pytest.mark.parametrize("name", [RUN, INDEX, HISTORIES])
@pytest.mark.parametrize("damage", ["lost", "garbage"])
def test_what_a_damaged_copy_advises_repairs_it(tmp_path, name, damage, monkeypatch, capsys):
    source, copy = tmp_path / "the run", tmp_path / "a copy"
    begin(source)
    with open_run(SweepSpec(**TINY | {"out": source}), members(SweepSpec(**TINY | {"out": source})), ["x"]) as index:
        index.write(list(index.records), "failed")
    fetch(str(source), copy)
    before = snapshot(copy)
    (copy / name).unlink() if damage == "lost" else (copy / name).write_bytes(b"no\n")
    if (name, damage) != (HISTORIES, "lost"):
        assert run_command("status", str(copy)) == 2
        told = re.search(r"`(dr3-ray fetch .*)` brings it again", capsys.readouterr().err)
        assert told and shlex.split(told[1])[1:] == ["fetch", str(source), "--out", str(copy)]
    monkeypatch.chdir("/")
    fetch(str(source), copy)
    assert snapshot(copy) == before


def test_a_copy_of_before_the_damage_is_brought_up_to_date_after_the_repair(tmp_path):
    source, copy = tmp_path / "run", tmp_path / "copy"
    spec = begin(source)
    fetch(str(source), copy)
    for hurt in ("line", "file"):
        lines = (source / INDEX).read_text().splitlines()
        (source / INDEX).write_text("\n".join(["no", *lines[1:]]) + "\n") if hurt == "line" else (
            source / INDEX
        ).unlink()
        with open_run(spec, members(spec), ["x"]):
            pass
        fetch(str(source), copy)
        assert (copy / INDEX).read_bytes() == (source / INDEX).read_bytes()


@pytest.mark.parametrize("hurt", ["lost", "damaged"])
def test_a_run_with_a_storage_goes_on_from_the_index_there(tmp_path, hurt):
    storage = tmp_path / "storage"
    spec = begin(tmp_path / "run", storage=str(storage))
    with open_run(spec, members(spec), ["x"]) as index:
        index.write(list(index.records)[:1], "failed", error="it broke")
        with mirrored(spec.out, spec.storage, print):
            pass
    before = {record["member"]: record["status"] for record in read_index(spec.out)}
    if hurt == "lost":
        (spec.out / INDEX).unlink()
    else:
        (spec.out / INDEX).write_text("no\n" + (spec.out / INDEX).read_text().splitlines()[-2] + "\n")
    check_storage(spec.out, spec.storage)
    with open_run(spec, members(spec), ["x"]) as index:
        assert {member: record["status"] for member, record in index.records.items()} == before
