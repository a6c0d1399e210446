"""Which environments may be made: a name with a module runs it, so that it has to come from the user."""

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.utils.error import EnvError

from dr3_ray.cli import app as cli
from dr3_ray.cluster.environments import make_known, publish
from dr3_ray.data.schema import MANIFEST
from dr3_ray.errors import UserError
from dr3_ray.evaluation.environments import make_environment, module_of
from dr3_ray.rllib.config import OfflineConfig
from dr3_ray.runs.index import INDEX, read_index
from dr3_ray.sweep.directory import open_run
from dr3_ray.sweep.packs.packing import begun_packs, pack_members
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec

MODULE = "planted_module"
NAME = f"gymnasium:{MODULE}:CartPole-v1"


@pytest.fixture(autouse=True)
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Whether a module that can be imported was, which leaves a file."""
    marker, folder = tmp_path / "ran", tmp_path / "modules"
    folder.mkdir()
    (folder / f"{MODULE}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop(MODULE, None)
    return marker.exists


@pytest.fixture
def theirs(cartpole: str, tmp_path: Path) -> Path:
    """A data set whose manifest names an environment of theirs."""
    data = Path(shutil.copytree(cartpole, tmp_path / "theirs"))
    manifest = json.loads((data / MANIFEST).read_text())
    (data / MANIFEST).write_text(json.dumps(manifest | {"environment": NAME}))
    return data


@pytest.mark.parametrize(
    ("name", "module"),
    [
        (NAME, MODULE), (f"{MODULE}:CartPole-v1", MODULE), ("gymnasium:a.b:ns/X-v0", "a.b"), ("a:b:X-v0", "a:b"),
        ("gymnasium:CartPole-v1", None), ("CartPole-v1", None), ("minatar:breakout", None), ("none", None),
        ("gymnasium::X-v0", ""), (None, None), (f"{MODULE}.CartPole", MODULE), ("a.b.C", "a.b"), ("é.C", "é"),
        ("gymnasium:a.b-v0", None), ("a.b-v0", None), ("gymnasium:ns/a.B-v0", None), (".", None), ("a..B", None),
    ],
)  # fmt: skip
def test_which_names_have_a_module(name: str | None, module: str | None) -> None:
    assert module_of(name) == module


def test_the_user_may_name_one(ran: Callable[[], bool]) -> None:
    make_environment(NAME).close()
    assert ran()


@pytest.mark.parametrize("how", [["--dry-run", "--no-calibration"], ["--dry-run"]])
def test_a_manifest_s_is_not_imported(
    theirs: Path, ran: Callable[[], bool], how: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["sweep", "--dataset", str(theirs), "--seeds", "1", "--coefficients", "0", "--set", "hidden_sizes=[8]"]
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--steps", "20", "--out", str(tmp_path / "run"), *how])
    said = capsys.readouterr().err
    assert not end.value.code and not ran()
    assert f"no rollouts in {NAME}: it imports {MODULE}, which data alone may not ask for: give --environment" in said


def asked(data: str, run: Path) -> SweepSpec:
    return SweepSpec(
        datasets=[data], coefficients=[0], seeds=2, steps=4, evaluations=2, environment=NAME, out=run, cpus=1,
        options={"hidden_sizes": [8]},
    )  # fmt: skip


def resumed(run: Path, *more: str) -> object:
    with pytest.raises(SystemExit) as end:
        cli.main(["sweep", "--resume", str(run), "--dry-run", "--no-calibration", *more])
    return end.value.code


def test_a_run_s_own_is_imported_where_this_user_made_it_and_another_s_is_not(
    cartpole: str, tmp_path: Path, ran: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = asked(cartpole, tmp_path / "run")
    with open_run(spec, members(spec), ["x"]):
        pass
    assert ran()
    (tmp_path / "ran").unlink()
    sys.modules.pop(MODULE)
    shutil.copytree(tmp_path / "run", tmp_path / "sent")  # what somebody sends
    assert resumed(tmp_path / "sent") == 2
    said = capsys.readouterr().err
    assert f"sent asks for environment {NAME}, which imports {MODULE}" in said and "give --trust" in said
    assert not ran()
    assert not resumed(tmp_path / "sent", "--trust") and ran()
    (tmp_path / "ran").unlink()
    sys.modules.pop(MODULE)
    assert not resumed(tmp_path / "run") and ran()


def test_modules_in_another_s_run_are_not_looked_for(
    cartpole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = asked(cartpole, tmp_path / "run").model_copy(update={"environment": "none"})
    with open_run(spec, members(spec), ["x"]):
        pass
    shutil.copytree(tmp_path / "run", tmp_path / "sent")
    (tmp_path / "sent" / "deeper").mkdir()
    for folder, run in (("sent", "."), ("sent/deeper", "..")):
        monkeypatch.chdir(tmp_path / folder)
        assert resumed(Path(run)) == 2
        assert "Ray would look for modules in" in capsys.readouterr().err
        assert not resumed(Path(run), "--trust")
    monkeypatch.chdir(tmp_path / "run")
    assert not resumed(Path("."))


def test_an_index_cannot_name_another_one(cartpole: str, tmp_path: Path) -> None:
    spec = asked(cartpole, tmp_path / "run").model_copy(update={"environment": "none"})
    planned = members(spec)
    (pack,) = pack_members(planned, 2, 1)
    with open_run(spec, planned, ["x"]) as index:
        index.write(pack.members, "running", pack=pack.name)
        assert [each.name for each in begun_packs(planned, index.records)[0]] == [pack.name]
        first, second = planned
        index.records[first]["config"]["environment"] = NAME
        index.records[first]["status"] = "diverged"
        again, rest = begun_packs({second: planned[second]}, index.records)
    assert again == [] and list(rest) == [second]


def test_a_checkpoint_cannot_name_one(ran: Callable[[], bool]) -> None:
    config = OfflineConfig.__subclasses__()[0]
    for values in (
        {"env": NAME},
        {"env": f"{MODULE}.CartPole"},
        {"env": f"{MODULE}:X-v0"},
        {"callbacks_class": "os:system"},
        {"env_runner_cls": "x"},
    ):
        with pytest.raises(UserError, match=r"^a checkpoint may not set .* give from_checkpoint a config$"):
            config.from_settings(values, config)
    assert not ran()


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["", "gymnasium:", "gymnasium:gymnasium:", " ", "ns/"]),
    st.sampled_from([f"{MODULE}{sign}{rest}" for sign in (".", ":", "/", ".:", ":.") for rest in ("X", "X-v0", "a.X")]),
    st.sampled_from(["", "-v1", ":X", ".json", ".yaml"]),
)
def test_a_name_that_passes_imports_nothing_wherever_it_is_used(before: str, name: str, after: str) -> None:
    name = f"{before}{name}{after}"
    if module_of(name) is not None:
        return
    sys.modules.pop(MODULE, None)
    for use in (make_environment, make_known, publish, lambda name: from_rllib(name)):
        with suppress(UserError, EnvError):
            use(name)
        assert MODULE not in sys.modules


def from_rllib(name: str) -> None:
    """Have RLlib find what makes the environment, as when an algorithm is built, and make it."""
    config = OfflineConfig.__subclasses__()[0]()
    _, make = config.algo_class._get_env_id_and_creator(name, config)
    make({})


def test_what_is_printed_of_others_moves_no_cursor(
    cartpole: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = asked(cartpole, tmp_path / "run").model_copy(update={"environment": "none"})
    with open_run(spec, members(spec), ["x"]) as index:
        index.write(list(index.records), "failed", error="\x1b]0;yours\x07 [red]\x9b2J [/nothing] \u202e")
    evil = (tmp_path / "run" / INDEX).read_text().replace("DR3-CQL", "DR3-\\u001b[2J[/x]CQL")
    (tmp_path / "run" / INDEX).write_text(evil)
    for record in read_index(tmp_path / "run"):
        assert record["error"] == r"\x1b]0;yours\x07 [red]\x9b2J [/nothing] " + r"\u202e"
    for words in (["status"], ["report"]):
        with pytest.raises(SystemExit):
            cli.main([*words, str(tmp_path / "run")])
        said = capsys.readouterr()
        assert not {"\x1b]", "\x1b[2J", "\x9b", "\u202e", "Traceback"} & {
            part for part in ("\x1b]", "\x1b[2J", "\x9b", "\u202e", "Traceback") if part in said.out + said.err
        }
