"""`dr3-ray reproduce`, without running a study."""

import subprocess
import sys

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
        "against_corl", "coadaptation", "coadaptation_input", "health", "implicit_regularizer", "learning",
        "mazes", "minatar_games", "selection",
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


STUDY = """
import os, signal, sys
import shared  # which lies beside it
print(sys.argv[1:], __name__, flush=True)
os.kill(os.getpid(), signal.SIGTERM)
while True: signal.pause()
if __name__ == "__main__":
    pass
"""
COMMAND = """
import sys, dr3_ray
dr3_ray.__file__ = "nowhere/else/__init__.py"
sys.argv[:] = ["dr3-ray", "reproduce", "one", "--scale", "smoke"]
from dr3_ray.__main__ import main
main()
"""


def test_a_study_is_stopped_in_one_line_while_it_imports_still(tmp_path):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "one.py").write_text(STUDY)
    (tmp_path / "studies" / "shared.py").touch()
    done = subprocess.run([sys.executable, "-c", COMMAND], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "['--scale', 'smoke', '--out', 'runs/one'] __main__\n"
    assert (done.returncode, done.stderr) == (
        130, "stopped; this goes on: dr3-ray reproduce one --scale smoke\n"
    )  # fmt: skip


def test_without_the_repository(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dr3_ray, "__file__", str(tmp_path / "dr3_ray" / "__init__.py"))
    assert ended() == 2
    assert "run this in a checkout" in capsys.readouterr().err
