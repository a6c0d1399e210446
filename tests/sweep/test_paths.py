"""Paths of a run mean the same in every folder, and those in its directory go with it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from dr3_ray.cli.spec_options import spec_from
from dr3_ray.errors import UserError
from dr3_ray.evolution import evolution
from dr3_ray.runs.checkpoints import Checkpoints
from dr3_ray.runs.directory import RUN, read_run
from dr3_ray.runs.index import INDEX
from dr3_ray.runs.places import absolute_study
from dr3_ray.runs.storage import claim
from dr3_ray.sweep.directory import open_run, spec_of
from dr3_ray.sweep.resume import unseen_packs
from dr3_ray.sweep.search.studies import foreseen
from dr3_ray.sweep.spec.problems import members, problems
from dr3_ray.sweep.spec.spec import SweepSpec

PACK = "DR3-CQL-2-0a1b2c3d"
TINY = {"coefficients": [0, 0.1], "seeds": 1, "environment": "none", "options": {"hidden_sizes": [8]}}


@pytest.fixture
def here(tmp_path, monkeypatch, cartpole) -> Path:
    """A folder with a data set, where commands are typed."""
    folder = tmp_path / "here"
    folder.mkdir()
    shutil.copytree(cartpole, folder / "data")
    monkeypatch.chdir(folder)
    return folder


def begin(spec: SweepSpec, kept: bool = True) -> None:
    """A run whose one pack was begun, with a checkpoint."""
    planned = members(spec)
    with open_run(spec, planned, ["x"]) as index:
        index.write(planned, "running", pack=PACK, configs=planned)
        claim(spec.checkpoints, read_run(spec.out)["id"], str(spec.out.resolve()))
    if kept:
        kept_in = Checkpoints(spec.checkpoints, PACK, read_run(spec.out)["id"])
        kept_in.save(1, lambda folder: (Path(folder) / "state").write_text("x") and None)


def unseen(spec: SweepSpec) -> list[str]:
    """What a sweep would find lost, after all that it asks before it trains."""
    with open_run(spec, members(spec), ["y"]) as index:
        return unseen_packs(spec, index.records.values())


RELATIVE = {"datasets": ["data"], "out": "runs/a", "objective": "td_error"}


@pytest.mark.parametrize("storage", [None, "kept", "runs/a/kept", "runs/a", "../here/kept/", "./kept"])
def test_a_run_goes_on_from_any_folder(here, tmp_path, monkeypatch, storage):
    begin(SweepSpec(**TINY | RELATIVE | {"storage": storage}))
    for folder in (tmp_path, here / "runs", Path("/")):
        monkeypatch.chdir(folder)
        spec = spec_of(Path(os.path.relpath(here / "runs" / "a")))
        assert spec.datasets == (str(here / "data"),)
        assert unseen(spec) == []
        assert len(members(spec)) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"here"}


@pytest.mark.parametrize("how", ["moved", "link", "copied", "moved parent"])
@pytest.mark.parametrize("storage", [None, "runs/a/kept", "runs/a", "kept", "URI"])
def test_a_run_directory_may_be_moved_with_all_that_lies_in_it(here, tmp_path, monkeypatch, how, storage):
    storage = (here / "runs" / "a" / "kept").as_uri() if storage == "URI" else storage
    search = {"trials": 2, "study": "sqlite:///runs/a/own.db"}
    asked = SweepSpec(**TINY | RELATIVE | {"storage": storage, "search": search})
    begin(asked)
    to = tmp_path / "elsewhere" / "other"
    to.parent.mkdir()
    if how == "moved":
        Path("runs/a").rename(to)
    elif how == "moved parent":
        Path("runs").rename(to.parent / "all")
        to = to.parent / "all" / "a"
    elif how == "link":
        to.symlink_to(here / "runs" / "a")
    else:
        shutil.copytree("runs/a", to)
    monkeypatch.chdir("/")
    spec = spec_of(to)
    place = to.resolve()
    inside = storage is not None and storage != "kept"
    own = place.as_uri() if storage and "://" in storage else str(place)
    assert spec.storage == (f"{own}{'/kept' * ('kept' in storage)}" if inside else asked.storage)
    assert spec.search.study == f"sqlite:///{place}/own.db"
    with open_run(spec, foreseen(spec, problems(spec), []), ["z"]) as index:
        assert unseen_packs(spec, index.records.values()) == []
        assert spec_of(to) == spec


def test_the_storage_in_a_moved_run_is_the_one_that_is_used(here, tmp_path, monkeypatch):
    begin(SweepSpec(**TINY | RELATIVE | {"storage": "runs/a/kept"}))
    Path("runs/a").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    spec = spec_of(tmp_path / "moved")
    assert spec.checkpoints == str(tmp_path / "moved" / "kept")
    assert unseen(spec) == []
    Checkpoints(spec.checkpoints, PACK, read_run(tmp_path / "moved")["id"]).save(2, lambda folder: None)
    assert not (here / "runs" / "a").exists()


def test_other_storage_in_which_nothing_is_seen_is_refused_until_it_is_wanted(here):
    """And the one that was asked for then is not forgotten by that."""
    begin(SweepSpec(**TINY | RELATIVE | {"storage": "kept"}))
    for _ in range(2):
        for storage in (None, "other"):
            with pytest.raises(UserError, match=rf"kept its checkpoints in {here}/kept, and .* has none of {PACK}"):
                unseen(SweepSpec(**TINY | RELATIVE | {"storage": storage}))
        assert read_run(Path("runs/a"))["spec"]["storage"] == str(here / "kept")
    shutil.copytree("kept", "copied")  # to a larger disk, as people do
    assert unseen(SweepSpec(**TINY | RELATIVE | {"storage": "copied"})) == []
    shutil.rmtree("copied/checkpoints")
    assert unseen(SweepSpec(**TINY | RELATIVE | {"storage": "copied"})) == [PACK]
    assert unseen(SweepSpec(**TINY | RELATIVE | {"storage": "copied", "checkpoint_every": 0})) == []


def as_typed(run: Path, **paths: object) -> None:
    """What version 0.1 wrote: paths as they were typed, but for those of data."""
    document = read_run(run)
    document["spec"] |= {"out": "runs/a"} | paths
    document.pop("place")
    (run / RUN).write_text(json.dumps(document))


@pytest.mark.parametrize("storage", ["kept", "runs/a/kept", "./kept", "file"])
def test_old_runs_are_taken_from_the_folder_in_which_they_were_begun(here, monkeypatch, storage):
    storage = (here / "kept").as_uri() if storage == "file" else storage
    Path("study.log").touch(), Path("study.db").touch()
    begin(SweepSpec(**TINY | RELATIVE | {"storage": storage}))
    for study in ("study.log", "sqlite:///study.db", "postgresql://h/db", None, str(here / "x.log")):
        as_typed(here / "runs" / "a", storage=storage, search=study and {"trials": 2, "study": study})
        monkeypatch.chdir("/")
        spec = spec_of(here / "runs" / "a")
        assert Path(spec.checkpoints.removeprefix("file://")).samefile(here / storage.removeprefix("file://"))
        assert not study or spec.search.study.replace(str(here), "").replace("/", "") == study.replace("/", "").replace(
            str(here).replace("/", ""), ""
        )
        monkeypatch.chdir(here)
        assert unseen(spec) == [] or study


@pytest.mark.parametrize("what", ["storage", "study"])
def test_old_runs_that_were_moved_say_what_to_do(here, tmp_path, monkeypatch, what):
    begin(SweepSpec(**TINY | RELATIVE | {"storage": "kept"}))
    Path("study.log").touch()
    paths = (
        {"storage": "kept"} if what == "storage" else {"storage": None, "search": {"trials": 2, "study": "study.log"}}
    )
    as_typed(here / "runs" / "a", **paths)
    Path("runs/a").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    before = (tmp_path / "moved" / INDEX).read_bytes()
    with pytest.raises(UserError, match=rf"moved has its {what} in .*, which is not here: give the whole"):
        spec_of(tmp_path / "moved")
    assert (tmp_path / "moved" / INDEX).read_bytes() == before


def test_conditions_on_data_sets_hold_after_a_run_is_resumed_elsewhere(here, tmp_path, monkeypatch):
    shutil.copytree("data", "more")
    (here / "more" / "manifest.json").write_text((here / "data" / "manifest.json").read_text())
    spec = SweepSpec(
        **TINY | {"datasets": ["data", "embedded:breakout-replay"], "out": "runs/a"},
        axes={"tau": {"grid": [0.5, 1.0], "when": {"dataset": "data"}}},
        exclude=[{"dataset": ["data"], "dr3_coeff": 0.1}, {"dataset": {"not": ["./data"]}, "dr3_coeff": 0}],
    )
    planned = members(spec)
    with open_run(spec, planned, ["x"]):
        pass
    monkeypatch.chdir(tmp_path)
    assert members(spec_of(here / "runs" / "a")).keys() == planned.keys()
    assert len(planned) == 3


def test_paths_in_a_file_are_those_of_the_folder_where_the_command_is_typed(here, tmp_path):
    (tmp_path / "sweep.yaml").write_text("datasets: [data]\nstorage: kept\nsearch: {trials: 2, study: s.log}\n")
    spec = spec_from(tmp_path / "sweep.yaml", {})
    assert (spec.datasets, spec.storage) == ((str(here / "data"),), str(here / "kept"))
    assert spec.search.study == str(here / "s.log")


@pytest.mark.parametrize(
    ("study", "found"),
    [
        ("sqlite:///a.db", "sqlite:///{}/a.db"),
        ("sqlite+pysqlite:///x/../a.db?timeout=3", "sqlite+pysqlite:///{}/a.db?timeout=3"),
        ("sqlite:////a.db", "sqlite:////a.db"),
        ("sqlite:///file:/x/memory.db?uri=true", "sqlite:///file:/x/memory.db?uri=true"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("journal.log", "{}/journal.log"),
    ],
)
def test_studies(here, study, found):
    assert absolute_study(study) == found.format(here)


@pytest.mark.parametrize(
    "study",
    [
        "", " ", "sqlite://", "sqlite:///", "sqlite+pysqlite://", "sqlite:///:memory:", "sqlite:///?timeout=3",
        "sqlite:////", "sqlite:///file:x?mode=memory&uri=true", "sqlite:///file::memory:?uri=true",
    ],
)  # fmt: skip
def test_studies_that_would_end_with_the_process_are_refused(here, study):
    with pytest.raises(UserError, match=r"in memory|no study"):
        SweepSpec(datasets=["embedded:breakout-replay"], search={"trials": 1, "study": study})


@pytest.mark.parametrize("given", [{"storage": ""}, {"datasets": [""]}, {"datasets": ["data", ""]}])
def test_nothing_is_no_place(here, given):
    with pytest.raises(UserError, match="an empty name is no place: give a path or a URI"):
        SweepSpec(**TINY | RELATIVE | given)


def test_a_population_goes_on_from_any_folder(here, tmp_path, monkeypatch):
    def take_up(**asked: object) -> dict[str, object]:
        spec = SweepSpec(**TINY | RELATIVE | {"coefficients": [0.1]} | asked)
        with evolution.claim(out, evolution.Evolution(spec, {"dr3_coeff": (0.1, 1.0)}, 0)):
            return json.loads((out / evolution.ASKED).read_text())["spec"]

    out = here / "runs" / "population"
    assert take_up()["datasets"] == [str(here / "data")]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="was begun with other options"):
        take_up()
    take_up(datasets=["here/data"])
    monkeypatch.chdir(here)
    document = json.loads((out / evolution.ASKED).read_text())
    document["spec"]["datasets"] = ["data"]  # as version 0.1 wrote it
    (out / evolution.ASKED).write_text(json.dumps(document))
    take_up()
