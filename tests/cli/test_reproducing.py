"""`dr3-ray reproduce`, without running a study."""

import pytest

import dr3_ray
from dr3_ray.cli.app import main


def ended(*words):
    with pytest.raises(SystemExit) as end:
        main(["reproduce", *words])
    return end.value.code or 0


def test_studies_are_listed_with_their_questions(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert ended() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["against_corl", "coadaptation", "health", "learning"]
    assert all("?" in line for line in lines)


def test_an_unknown_study_is_one_line(capsys):
    assert ended("coadaption") == 2
    assert "did you mean 'coadaptation'?" in capsys.readouterr().err


def test_without_the_repository(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dr3_ray, "__file__", str(tmp_path / "dr3_ray" / "__init__.py"))
    assert ended() == 2
    assert "run this in a checkout" in capsys.readouterr().err
