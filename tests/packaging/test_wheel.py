"""What the wheel holds, built once from the working tree."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EMBEDDED_LIMIT = 6_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The open wheel of a copy of the sources, so that nothing of an earlier build gets in."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("dr3_ray", "tests", "sweeps", "benchmarks"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Without isolation nothing is downloaded: torch brings setuptools along.
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", out, copy]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob("dr3_ray-*.whl"))) as archive:
        yield archive


def test_it_holds_the_package_and_nothing_beside_it(wheel):
    assert {name.split("/")[0].split("-")[0] for name in wheel.namelist()} == {"dr3_ray"}
    assert not [name for name in wheel.namelist() if "test" in Path(name).name]


def test_every_file_of_the_package_is_in_it(wheel):
    files = (path for path in (ROOT / "dr3_ray").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert {str(path.relative_to(ROOT)) for path in files} <= set(wheel.namelist())


def test_licence_typing_marker_templates_and_data_are_in_it(wheel):
    names = wheel.namelist()
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert "dr3_ray/py.typed" in names
    assert any(name.startswith("dr3_ray/report/templates/") for name in names)
    for script in ("plotly-basic.min.js", "page.js", "LICENSE.plotly"):
        assert f"dr3_ray/report/scripts/{script}" in names
    assert any(name.endswith("dist-info/licenses/dr3_ray/report/scripts/LICENSE.plotly") for name in names)
    for data in ("breakout-replay", "pendulum-replay"):
        assert f"dr3_ray/data/embedded/{data}/manifest.json" in names


def test_the_data_sets_stay_small(wheel):
    sizes = [info.file_size for info in wheel.infolist() if info.filename.startswith("dr3_ray/data/embedded/")]
    assert 0 < sum(sizes) < EMBEDDED_LIMIT


def test_the_command_is_declared(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "dr3-ray = dr3_ray.__main__:main" in wheel.read(name).decode()
