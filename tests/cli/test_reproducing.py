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
    assert [line.split(":")[0] for line in lines] == [
        "against_corl", "coadaptation", "health", "implicit_regularizer", "learning", "minatar_games", "selection",
    ]  # fmt: skip
    assert all("?" in line for line in lines)


def test_an_unknown_study_is_one_line(capsys):
    assert ended("coadaption") == 2
    assert "did you mean 'coadaptation'?" in capsys.readouterr().err


@pytest.mark.parametrize("text", [b"", b"# \xff\n", b"def (\n", b'"""\x1b[2J"""\n', b"\0"])
def test_what_lies_in_the_folder_of_the_shell_is_listed_at_most(text, capsys, monkeypatch, tmp_path):
    """And only where the package has no studies of its own beside it."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "coadaptation.py").write_bytes(text + b'if __name__ == "__main__":\n    1 / 0\n')
    (tmp_path / "studies" / "folder.py").mkdir()
    monkeypatch.chdir(tmp_path)
    assert ended() == 0 and "health: " in capsys.readouterr().out
    monkeypatch.setattr(dr3_ray, "__file__", str(tmp_path / "elsewhere" / "__init__.py"))
    assert ended() == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("coadaptation: ") and line.isprintable()


def test_without_the_repository(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dr3_ray, "__file__", str(tmp_path / "dr3_ray" / "__init__.py"))
    assert ended() == 2
    assert "run this in a checkout" in capsys.readouterr().err
