"""What the set-up scripts say on machines that lack something: one line with the remedy, and a failure."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def run(tmp_path):
    """Run a script on a machine that has these commands only."""

    def run(script: str, *arguments: str, commands: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        bin = tmp_path / "bin"
        bin.mkdir()
        for command in ("bash", "dirname", "id", *commands):
            (bin / command).symlink_to(shutil.which(command) or "/bin/true")
        command = [shutil.which("bash"), SCRIPTS / script, *arguments]
        return subprocess.run(command, env={"PATH": str(bin)}, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_without_a_python_that_fits(run):
    done = run("create_venv.sh", "env", commands=())
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: no Python 3.11, 3.12 or 3.13 found")


def test_a_package_counts_as_present_when_its_command_is(run):
    done = run("debian_packages.sh", "chromium:chromium", commands=("chromium",))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_debian(run):
    done = run("debian_packages.sh", "chromium:chromium", commands=())
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "chromium" in done.stderr
