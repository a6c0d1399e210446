"""The doctor finds this machine sound, and says what is wrong where something is."""

import io
import json
import shutil

import pytest
from packaging.specifiers import SpecifierSet
from rich.console import Console

from dr3_ray.cli import doctor


def status(checks):
    return {check.name: check.status for check in checks}


def test_a_sound_machine_passes_and_every_library_is_looked_at():
    found = status(doctor.doctor())
    assert "failed" not in found.values()
    assert {"dr3-ray", "python", "torch", "ray", "minari", "optuna", "pyarrow", "torch step on cpu"} <= set(found)
    assert {"embedded:breakout-replay", "embedded:pendulum-replay"} <= set(found)


@pytest.mark.parametrize(
    ("found", "supported", "expected"),
    [("2.13.0+cu130", ">=2.6,<3", "ok"), ("3.0.0", ">=2.6,<3", "failed"), ("2.61.0", "==2.60.*", "failed")],
)
def test_versions_are_held_against_their_range(found, supported, expected):
    assert doctor._within("torch", found, SpecifierSet(supported)).status == expected


def test_threads_that_would_crowd_the_cores_are_noted(monkeypatch):
    for value, expected in {"": "note", "1": "ok", "100000": "note", "two": "note"}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert status(doctor._machine())["OMP_NUM_THREADS"] == expected


def test_a_changed_byte_in_the_package_data_fails(monkeypatch, tmp_path):
    copy = shutil.copytree(doctor.EMBEDDED, tmp_path / "embedded")
    monkeypatch.setattr(doctor, "EMBEDDED", copy)
    shard = copy / "breakout-replay" / "shard-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert status(doctor._embedded()) == {"embedded:breakout-replay": "failed", "embedded:pendulum-replay": "ok"}


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("note", 0), ("failed", 1)])
def test_remedies_are_printed_as_they_are_and_failures_set_the_exit_code(state, code):
    console = Console(file=io.StringIO(), width=60)
    assert (
        doctor.report(
            [doctor.Check("MinAtar", state, "not installed", "pip install 'dr3-ray[minatar]'")], console=console
        )
        == code
    )
    assert "MinAtar: pip install 'dr3-ray[minatar]'" in console.file.getvalue()


def test_the_checks_are_one_document_on_request(capsys):
    checks = [doctor.Check("torch", "ok", "2.13"), doctor.Check("MinAtar", "failed", "not installed", "pip install it")]
    assert doctor.report(checks, as_json=True) == 1
    assert json.loads(capsys.readouterr().out) == [check._asdict() for check in checks]
