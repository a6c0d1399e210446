"""What is damaged or lost of a run directory is rebuilt, or is trained again; nothing that was there is removed."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dr3_ray.cli.app import main
from dr3_ray.errors import UserError
from dr3_ray.runs.directory import RUN, read_run
from dr3_ray.runs.histories import HISTORIES, read_histories
from dr3_ray.runs.index import INDEX, read_index
from dr3_ray.runs.mirror import check_storage, mirrored
from dr3_ray.sweep.directory import open_run
from dr3_ray.sweep.packs.packing import begun_packs, pack_members
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec
from tests.sweep.untrained import EVERY, STEPS, asked, trained


@pytest.fixture
def sweep(cartpole, tmp_path) -> SweepSpec:
    sweep = asked(cartpole, tmp_path / "run")
    trained(sweep)
    return sweep


def rows(run: Path) -> list[str]:
    """All that is in the table, in an order of its own."""
    table = read_histories(run)
    plain = table.select(sorted(table.column_names)).to_pylist()
    return sorted(repr({name: value for name, value in row.items() if value is not None}) for row in plain)


def statuses(run: Path) -> dict[str, str]:
    return {record["member"]: record["status"] for record in read_index(run)}


def taken_up(sweep: SweepSpec) -> tuple[dict[str, str], list[str]]:
    """As a sweep that goes on finds it: statuses, and what was said."""
    said: list[str] = []
    with open_run(sweep, members(sweep), ["sweep"], say=said.append) as index:
        return {member: record["status"] for member, record in index.records.items()}, said


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other(**columns: list[Any]) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table(columns), path)


DAMAGES = [
    remove, truncate, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"PAR1 nonsense PAR1"),
    lambda path: path.write_bytes(bytes(path.stat().st_size)),
    other(member=["a"]), other(step=[1]), other(member=["a"], step=["ten"]), other(member=["a", None], step=[1, 2]),
    other(member=["a"], step=[1.5]), lambda path: pd.DataFrame().to_parquet(path),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_histories_are_rebuilt_from_the_checkpoints_whatever_happened_to_them(sweep, damage, capsys):
    path = sweep.out / HISTORIES
    before, ended = rows(sweep.out), statuses(sweep.out)
    damage(path)
    content = path.read_bytes() if path.exists() else None
    for command in ("status", "report"):
        assert run(command, str(sweep.out)) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert f"`dr3-ray sweep --resume {sweep.out}` rebuilds it" in shown
    assert (path.read_bytes() if path.exists() else None) == content
    found, said = taken_up(sweep)
    assert found == ended | {member: "pending" for member, status in ended.items() if status == "running"}
    assert "restored" in said[-1]
    # the pack that was under way brings its rows with its checkpoint
    going = [member for member, status in ended.items() if status == "running"]
    assert rows(sweep.out) == [row for row in before if not any(member in row for member in going)]
    kept = path.with_name(f"{HISTORIES}.damaged-1")
    assert (kept.read_bytes() if kept.exists() else None) == content
    assert taken_up(sweep)[1] == []  # once
    assert run("status", str(sweep.out)) == 0


def test_members_that_have_ended_without_rows_are_trained_again_where_no_checkpoint_has_them(sweep):
    records = [record for record in read_index(sweep.out) if record["status"] == "finished"]
    shutil.rmtree(sweep.out / "checkpoints" / records[0]["pack"])
    (sweep.out / HISTORIES).unlink()
    found, said = taken_up(sweep)
    again = {record["member"] for record in read_index(sweep.out) if record["pack"] == records[0]["pack"]}
    assert {member for member, status in found.items() if status == "pending"} >= again
    assert found[records[1]["member"]] == "finished"
    assert f"{len(again)} have no checkpoint that holds them, and are trained again" in said[-1]


def test_rows_of_some_members_alone_come_back_and_the_others_stay(sweep):
    """As where a copy of the histories is older than the index."""
    before, table = rows(sweep.out), read_histories(sweep.out)
    first = table["member"][0].as_py()
    pq.write_table(table.filter(pa.compute.not_equal(table["member"], first)), sweep.out / HISTORIES)
    assert taken_up(sweep)[1] == ["1 runs that had ended were without their rows: 1 restored"]
    assert rows(sweep.out) == before


def test_without_checkpoints_every_member_that_has_no_rows_is_trained_again(sweep):
    shutil.rmtree(sweep.out / "checkpoints")
    (sweep.out / HISTORIES).write_bytes(b"")
    found, _ = taken_up(sweep)
    assert set(found.values()) == {"pending"}


def test_a_storage_that_is_not_there_is_told_before_anything_is_given_up(cartpole, tmp_path):
    sweep = asked(cartpole, tmp_path / "run", storage=str(tmp_path / "storage"))
    trained(sweep)
    (tmp_path / "storage").rename(tmp_path / "elsewhere")
    (sweep.out / HISTORIES).unlink()
    with pytest.raises(UserError, match="does not see the sweep's storage"):
        taken_up(sweep)
    (tmp_path / "elsewhere").rename(tmp_path / "storage")
    found, said = taken_up(sweep)
    assert "finished" in found.values() and "restored" in said[-1]


def test_checkpoints_of_earlier_versions_have_no_members_and_serve_as_well(cartpole, tmp_path):
    sweep = asked(cartpole, tmp_path / "run")
    trained(sweep, names_members=False, left=0)
    before, ended = rows(sweep.out), statuses(sweep.out)
    truncate(sweep.out / HISTORIES)
    assert taken_up(sweep)[0] == ended
    assert rows(sweep.out) == before


def test_from_an_object_store(cartpole, tmp_path, bucket):
    sweep = asked(cartpole, tmp_path / "run", storage=bucket("sweep"))
    trained(sweep, left=0)
    before, ended = rows(sweep.out), statuses(sweep.out)
    (sweep.out / HISTORIES).unlink()
    assert taken_up(sweep)[0] == ended
    assert rows(sweep.out) == before


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_bit_that_has_changed_in_the_rows_is_seen(sweep, at, bit):
    path = sweep.out / HISTORIES
    whole, ended = path.read_bytes(), statuses(sweep.out)
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    content = bytearray(whole)
    content[4 + int(at * (len(whole) - footer - 4))] ^= 1 << bit
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(sweep.out, Path(folder) / "run"))
        (copy / HISTORIES).write_bytes(content)
        moved = SweepSpec(**dict(sweep) | {"out": copy})
        found, _ = taken_up(moved)
        assert {member for member, status in found.items() if status != "pending"} == {
            member for member, status in ended.items() if status != "running"
        }
        finished = [member for member, status in ended.items() if status != "running"]
        places = (sweep.out, copy)
        one, two = ([row for row in rows(where) if any(each in row for each in finished)] for where in places)
        assert one == two


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_index_with_damaged_lines_goes_on_with_what_the_others_say(sweep, data):
    """A line that is lost takes a member back to what was said of it before; its pack comes together all the same."""
    lines = (sweep.out / INDEX).read_bytes().splitlines(keepends=True)
    lost = data.draw(st.sets(st.integers(0, len(lines) - 1), min_size=1, max_size=3))
    nonsense = data.draw(
        st.sampled_from([b"\n", b"\0\0\0\n", b"{}\n", b'{"member": "x", "status": "no"}\n', b"\xff{\n"])
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(sweep.out, Path(folder) / "run"))
        content = b"".join(nonsense if number in lost else line for number, line in enumerate(lines))
        (copy / INDEX).write_bytes(content)
        with pytest.raises(UserError, match=r"is damaged at line .*--resume"):
            read_index(copy)
        moved = SweepSpec(**dict(sweep) | {"out": copy})
        planned, said = members(moved), []
        with open_run(moved, planned, ["sweep"], say=said.append) as index:
            assert index.records.keys() == planned.keys()
            rest = [json.loads(line) for number, line in enumerate(lines) if number not in lost]
            last = {record["member"]: record for record in rest}
            for member, record in index.records.items():
                before = last.get(member, {"status": "pending", "pack": None})
                going = before["status"] in ("pending", "running")
                assert record["status"] == ("pending" if going else before["status"])
                assert record["pack"] == before["pack"]
            missing = {m: planned[m] for m, r in index.records.items() if r["status"] == "pending"}
            again, _ = begun_packs(missing, index.records)
            whole = {record["pack"] for record in index.records.values()} - {None}
            packs = {pack.name: list(pack.members) for pack in pack_members(planned, 3, 1)}
            known = {p for p in whole if all(index.records[m]["pack"] == p for m in packs[p])}
            assert {pack.name for pack in again} == {p for p in known if any(m in missing for m in packs[p])}
        numbers = ", ".join(str(line + 1) for line in sorted(lost))
        assert said[0].startswith(f"{copy / INDEX} was damaged at line {numbers}, and goes on")
        assert (copy / f"{INDEX}.damaged-1").read_bytes() == content
        assert taken_up(moved)[1] == []


@pytest.mark.parametrize("damage", [remove, truncate, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"[]")])
def test_without_run_json_the_whole_command_goes_on(sweep, damage, capsys):
    path, before, ended = sweep.out / RUN, rows(sweep.out), statuses(sweep.out)
    run_id = read_run(sweep.out)["id"]
    damage(path)
    for command in (["status", str(sweep.out)], ["report", str(sweep.out)], ["sweep", "--resume", str(sweep.out)]):
        assert run(*command) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert "whole command" in shown
    found, said = taken_up(sweep)
    assert found == ended | {member: "pending" for member, status in ended.items() if status == "running"}
    assert "renewed by this command" in said[0]
    assert read_run(sweep.out)["id"] == run_id
    assert rows(sweep.out) == before


def test_rows_after_the_last_checkpoint_of_a_member_that_was_cut_are_missed(sweep):
    """A scheduler cuts a trial between two checkpoints: its last rows are in the histories alone."""
    (cut, *_), known = [[r["member"] for r in read_index(sweep.out) if r["status"] == "cut"], statuses(sweep.out)]
    for end, status in ((EVERY, "cut"), (STEPS, "pending")):  # its rows reach EVERY
        with open_run(sweep, members(sweep), ["sweep"]) as index:
            index.write([cut], "cut", end=end)
        assert [record.get("end") for record in read_index(sweep.out) if record["member"] == cut] == [end]
        (sweep.out / HISTORIES).unlink()
        found, said = taken_up(sweep)
        assert found[cut] == status
        others = {member: each for member, each in known.items() if member != cut and each != "running"}
        assert others.items() <= found.items()
    assert "1 have no checkpoint that holds them, and are trained again" in said[-1]


def test_an_index_that_was_lost_before_there_was_anything_beside_it_comes_back_from_the_storage(cartpole, tmp_path):
    """As on a disk that was full from the start, where histories were never written."""
    sweep = asked(cartpole, tmp_path / "run", storage=str(tmp_path / "storage"))
    trained(sweep, left=0)
    ended, before = statuses(sweep.out), rows(sweep.out)
    with mirrored(sweep.out, sweep.storage, print):
        pass
    for path in sweep.out.iterdir():
        if path.name != RUN:
            path.unlink()
    check_storage(sweep.out, sweep.storage)
    found, said = taken_up(sweep)
    assert found == ended and rows(sweep.out) == before
    assert said[0] == f"{sweep.out / INDEX} was missing: it goes on from the copy in the storage"
