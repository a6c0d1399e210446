"""Whatever is damaged in a run, each command that reads one gives an answer, or one line that is not of our code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dr3_ray import UserError, load_policy, load_run
from dr3_ray.report.selection import select
from dr3_ray.runs.status import read_status
from dr3_ray.sweep.parents import find_parents
from dr3_ray.sweep.spec.spec import SweepSpec

READERS: dict[str, Callable[[Path], object]] = {
    "policy": load_policy,
    "selection": lambda run: select(run, ["td_error"]),
    "verdict": lambda run: load_run(run).document(),
    "status": read_status,
    "parents": lambda run: find_parents(SweepSpec(parents=[str(run)], steps=20, evaluations=1, out=run / "new")),
}
DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "null": lambda file: file.write_bytes(b"null"),
    "folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("report")))


def lines(run: Path) -> dict[str, str]:
    """The line that each reader ends in, for those that do not answer."""
    said = {}
    for name, read in READERS.items():
        try:
            read(run)
        except UserError as error:
            assert "\n" not in str(error)
            said[name] = str(error)
    return said


def test_a_whole_run_is_read_by_all(copy):
    assert lines(copy) == {}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files(run, copy, damage):
    for file in [path for path in copy.rglob("*") if path.is_file()]:
        DAMAGES[damage](file)
        for line in lines(copy).values():
            assert str(copy) in line, line
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        shutil.copy(run / file.relative_to(copy), file)


def test_what_run_json_lacks(copy):
    document = json.loads((copy / "run.json").read_text())
    for name in document:
        (copy / "run.json").write_text(json.dumps({key: document[key] for key in document if key != name}))
        said = lines(copy)
        assert all(str(copy) in line for line in said.values()), said
        assert (name in ("format", "id", "spec")) == ("policy" in said), name


def test_a_run_of_a_later_version_says_so(copy):
    document = json.loads((copy / "run.json").read_text())
    document["spec"]["later"], document["versions"]["dr3-ray"] = 1, "9.0"
    (copy / "run.json").write_text(json.dumps(document))
    assert lines(copy)["policy"].startswith(f"{copy}/run.json is of dr3-ray 9.0, and this is ")
    (copy / "run.json").write_text(json.dumps(document | {"format": 3}))
    assert lines(copy).keys() == READERS.keys()
    assert all(
        "has format 3, and this version reads 2: use the one that wrote it" in line for line in lines(copy).values()
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda records: [record | {"status": "failed"} for record in records], "has a result (4 failed): `dr3-ray"),
        (lambda records: [record for record in records if "config" in record], "has ended yet"),
        (lambda records: [_without(record, "dataset") for record in records], "that is not a member's (no dataset)"),
    ],
)
def test_an_index_without_a_member_to_take(copy, change, said):
    records = [json.loads(line) for line in (copy / "index.jsonl").read_text().splitlines()]
    (copy / "index.jsonl").write_text("".join(json.dumps(record) + "\n" for record in change(records)))
    assert said in lines(copy)["policy"]


def test_an_index_without_members(copy):
    (copy / "index.jsonl").write_text('{"member": ')  # as a crash cut it
    assert "has no member in its index.jsonl" in lines(copy)["policy"]


def _without(record, name):
    config = {key: value for key, value in record.get("config", {}).items() if key != name}
    return record | ({"config": config} if config else {})
