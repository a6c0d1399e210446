"""Taking up a run: only by the same code on the same data, and in the same packs."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from dr3_ray.cli import app as cli
from dr3_ray.errors import UserError
from dr3_ray.runs.directory import RUN, read_run
from dr3_ray.runs.histories import Histories
from dr3_ray.runs.index import Index
from dr3_ray.runs.storage import claim
from dr3_ray.sweep import resume
from dr3_ray.sweep.directory import lengthened, open_run, resumed, spec_of
from dr3_ray.sweep.packs.packing import begun_packs, pack_members
from dr3_ray.sweep.resume import versions
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.names import option_types
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.search import Search
from dr3_ray.sweep.spec.spec import SweepSpec


@pytest.fixture
def data(cartpole, tmp_path) -> Path:
    return Path(shutil.copytree(cartpole, tmp_path / "data"))


@pytest.fixture
def tiny(data, tmp_path) -> SweepSpec:
    return SweepSpec(datasets=[str(data)], coefficients=[0, 0.1], seeds=3, out=tmp_path / "run", environment="none")


def begin(spec: SweepSpec, limit: int = 2) -> list[str]:
    """Packs of a sweep that is killed right after its start; their names."""
    planned = members(spec)
    with open_run(spec, planned, ["x"]) as index:
        packs = pack_members(planned, limit, 1)
        for pack in packs:
            index.write(pack.members, "running", pack=pack.name)
    return [pack.name for pack in packs]


def evaluated(spec: SweepSpec, ended: Iterable[str]) -> None:
    """Rows of members up to their ends."""
    histories = Histories(spec.out, members(spec), ["seed"], option_types())
    for member in ended:
        histories.add(member, spec.steps, {"time_s": 1.0})
    histories.flush()


def taken_up(spec: SweepSpec) -> tuple[list[str], int]:
    """Names of the packs that go on, and how many members are in none."""
    planned = members(spec)
    with open_run(spec, planned, ["x"]) as index:
        left = [member for member, record in index.records.items() if record["status"] not in ("finished", "diverged")]
        again, rest = begun_packs({each: planned[each] for each in left if each in planned}, index.records)
    return [pack.name for pack in again], len(rest)


def test_packs_come_together_as_they_were(tiny):
    names = begin(tiny)
    assert taken_up(tiny) == (names, 0)
    with Index(tiny.out) as index:
        first, second, third = ([m for m, r in index.records.items() if r["pack"] == name] for name in names)
        index.write(first, "finished", pack=names[0])
        index.write(second[:1], "diverged")
        index.write(third, "failed", error="lost")
        evaluated(tiny, [*first, *second[:1]])
    assert taken_up(tiny) == (names[1:], 0)


def test_a_sweep_that_grew_keeps_its_packs_and_one_that_shrank_leaves_them(tiny):
    names = begin(tiny)
    grown = SweepSpec(**dict(tiny) | {"seeds": 4})
    assert taken_up(grown) == (names, 2)
    fewer = SweepSpec(**dict(tiny) | {"seeds": [0]})
    assert taken_up(fewer) == ([], 2)


def test_other_code_is_refused_by_name_unless_forced(tiny, monkeypatch):
    begin(tiny)
    before = (tiny.out / RUN).read_bytes(), (tiny.out / "index.jsonl").read_bytes()
    other = versions() | {"torch": "9.9.9", "code": "0123"}
    monkeypatch.setattr("dr3_ray.sweep.resume.versions", lambda: other)
    with pytest.raises(UserError) as error, open_run(tiny, members(tiny), ["x"]):
        pass
    assert "with other versions (torch 2." in str(error.value)
    assert "9.9.9 now; code " in str(error.value)
    assert "--force" in str(error.value)
    assert ((tiny.out / RUN).read_bytes(), (tiny.out / "index.jsonl").read_bytes()) == before
    with open_run(tiny, members(tiny), ["x"], force=True):
        pass
    assert [entry["versions"]["python"] for entry in read_run(tiny.out)["history"]] == [versions()["python"]] * 2


def test_other_code_does_not_matter_where_nothing_was_begun_or_nothing_is_left(tiny, monkeypatch):
    with open_run(tiny, members(tiny), ["x"]):
        pass
    document = read_run(tiny.out)
    (tiny.out / RUN).write_text(json.dumps(document | {"versions": {"torch": "1"}}))
    with open_run(tiny, members(tiny), ["x"]) as index:
        index.write(members(tiny), "finished", pack="p")
        evaluated(tiny, members(tiny))
    assert read_run(tiny.out)["versions"] == versions()
    (tiny.out / RUN).write_text(json.dumps(document | {"versions": {"torch": "1"}}))
    with open_run(tiny, members(tiny), ["x"]) as index:
        assert {index.status(member) for member in members(tiny)} == {"finished"}
    assert read_run(tiny.out)["versions"] == versions()


def test_other_data_are_refused_by_name_unless_forced(tiny, data, collected):
    begin(tiny)
    old = next(config["data_fingerprint"] for config in members(tiny).values())
    shutil.rmtree(data)
    collected(data, "CartPole-v1", episodes=5)
    planned = members(tiny)
    new = next(config["data_fingerprint"] for config in planned.values())
    with pytest.raises(UserError) as error, open_run(tiny, planned, ["x"]):
        pass
    assert f"({data} had fingerprint {old[:12]}, has {new[:12]})" in str(error.value)
    assert "--force" in str(error.value)
    with open_run(tiny, planned, ["x"], force=True) as index:
        assert len(index.records) == 12
        index.write(planned, "running", pack="p")
    with open_run(tiny, planned, ["x"]):  # both are known now
        pass


def test_storage_of_another_sweep_is_left_alone(tiny, tmp_path):
    storage = tmp_path / "storage"
    claim(str(storage), "theirs", "/runs/theirs")
    with pytest.raises(UserError, match="belongs to the sweep in /runs/theirs"):
        train_sweep(SweepSpec(**dict(tiny) | {"storage": str(storage)}))
    assert [path.name for path in storage.rglob("*")] == ["checkpoints", "owner.json"]


def test_the_code_that_counts_is_what_trains():
    package = Path(resume.__file__).parents[1]
    assert all((package / name).exists() for name in resume.NO_PART_OF_TRAINING)
    assert len(versions()["code"]) == 12


def test_a_run_says_what_it_was_asked_for(tiny, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin(SweepSpec(**dict(tiny) | {"datasets": ["data"], "out": "run"}))
    moved = tiny.out.rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    assert spec_of(moved) == SweepSpec(**dict(tiny) | {"out": moved})


def test_a_run_goes_on_with_more_steps_and_evaluations_as_far_apart(tiny, tmp_path):
    begin(tiny)
    longer = resumed(str(tiny.out), 150_000)
    assert longer == SweepSpec(**dict(tiny) | {"steps": 150_000, "evaluations": 30})
    assert resumed(str(tiny.out), 150_000, 3).evaluations == 3
    assert resumed(str(tiny.out), 100_000) == resumed(str(tiny.out)) == tiny  # as after an interruption
    with pytest.raises(UserError, match="evaluations of a run change with its steps alone"):
        resumed(str(tiny.out), evaluations=40)
    search = tiny.model_copy(update={"search": Search(method="random", trials=2), "out": tmp_path / "searched"})
    with pytest.raises(UserError, match=r"with 200,000 it is another search: give another --out, or .* longer by --fr"):
        lengthened(search, 200_000)


def test_two_sweeps_do_not_write_one_run(tiny):
    with open_run(tiny, members(tiny), ["x"]), pytest.raises(UserError, match=r"a sweep is running in .*/run: wait"):
        train_sweep(resumed(str(tiny.out), 150_000))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--resume nowhere", "nowhere is not a run directory: there is nothing to resume"),
        ("--resume .", "is not a run directory"),
        ("--resume run --steps 5", "run has 100,000 steps already: give more than that, not 5"),
        (
            "--resume run --steps 102k",
            "every 5,000 steps, and 102,000 is no multiple of that: ask for 100,000 or 105,000, or",
        ),
        ("--resume run --steps 200k --evaluations 7", "200000 steps cannot be cut into 7 equal parts"),
        ("--resume run --evaluations 40", "or with more --steps: leave out --evaluations, or give no --resume"),
        ("--resume run --steps 200k --seeds 2", "leave out --seeds"),
        ("--resume run --set tau=1 --dataset x", "leave out --dataset"),
        ("--resume changed", "changed was begun with other versions (numpy 1.0 then, "),
        ("--resume cut", "cut does not say what was asked for: give the whole command again"),
    ],
)
def test_mistakes_with_resume(tiny, arguments, message, tmp_path, monkeypatch, capsys):
    begin(tiny)
    changed = Path(shutil.copytree(tiny.out, tmp_path / "changed")) / RUN
    document = json.loads(changed.read_text())
    changed.write_text(json.dumps(document | {"versions": document["versions"] | {"numpy": "1.0"}}))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / RUN).write_text('{"format": 2}')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["sweep", *arguments.split()])
    shown = capsys.readouterr().err
    assert end.value.code == 2
    assert message in shown
    assert shown.count("\n") == 1
