"""The images hold what was tested and no more; their steps run in an empty environment with an empty home.

There the package is used without extras first.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Step = tuple[str, str]  # instruction, what follows


def read_stages() -> dict[str, tuple[str, list[Step]]]:
    """Each stage by its name: the image it begins with, and its steps."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, tuple[str, list[Step]]] = {}
    for line in filter(None, text.splitlines()):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            image, _, name = rest.partition(" AS ")
            stages[name] = (image, [])
        else:
            stages[name][1].append((instruction, rest))
    return stages


STAGES = read_stages()
EXTRAS = "[minatar]"
SWEEP = "dr3-ray sweep --dataset embedded:breakout-replay --coefficients 0,0.03 --seeds 1 --steps 200 --evaluations 2"
TARGETS = [name for name, (image, _) in STAGES.items() if image != "scratch"]


def test_there_is_a_target_for_each_kind_of_machine() -> None:
    assert TARGETS == ["cpu", "cuda"]
    (ray,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    images = [STAGES[target][0] for target in TARGETS]
    assert images == [f"rayproject/ray:{ray}-py311-{kind}" for kind in ("cpu", "gpu")]  # never `latest`


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_installed_is_pinned_not_cached_and_owned_by_a_user(target: str) -> None:
    steps = STAGES[target][1]
    commands = [rest for instruction, rest in steps if instruction == "RUN"]
    installs = [command for command in commands if "install" in command]
    assert installs and not any(re.search(r"\b(apt|apt-get|curl|wget|sudo)\b", command) for command in commands)
    for command in installs:
        assert command.startswith("pip install --no-cache-dir --constraint dr3-ray/constraints.txt "), command
    instructions = [instruction for instruction, _ in steps]
    assert ("USER", "ray") in steps and instructions.index("USER") < instructions.index("RUN")
    assert set(instructions) <= {"COPY", "WORKDIR", "USER", "ARG", "RUN"}


def test_only_the_cpu_target_asks_for_a_torch_without_cuda() -> None:
    assert ("ARG", "TORCH_INDEX=https://download.pytorch.org/whl/cpu") in STAGES["cpu"][1]
    assert '--index-url "$TORCH_INDEX" torch' in STAGES["cpu"][1][4][1]
    assert not any("torch" in rest for _, rest in STAGES["cuda"][1])


def test_the_context_has_what_is_copied_and_nothing_else() -> None:
    copied = {source for _, rest in STAGES["package"][1] for source in rest.split()[:-1]}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored and {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


def test_cluster_files_use_these_images() -> None:
    cloud = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert cloud["docker"]["image"] == STAGES["cuda"][0]
    text = (ROOT / "cluster" / "kuberay.yaml").read_text()
    (target, tag) = re.findall(r"docker build --target (\w+) --tag (\S+) \.", text)[0]
    groups = yaml.safe_load(text)["spec"]["rayClusterSpec"]
    pods = [groups["headGroupSpec"], *groups["workerGroupSpecs"]]
    images = {container["image"] for pod in pods for container in pod["template"]["spec"]["containers"]}
    assert target == "cuda" and images == {tag} and re.fullmatch(r".+:\d+\.\d+\.\d+", tag)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # it downloads and installs two gigabytes
def test_the_steps_run_with_an_empty_home_and_what_they_install_sweeps_without_extras(tmp_path: Path) -> None:
    """Those of the CPU's image, in a new environment without this one's variables.

    Where torch's own index is out of reach, TORCH_INDEX is the usual one, as by `docker build --build-arg`.
    """
    home, python = tmp_path / "ray", tmp_path / "venv"
    for _, rest in STAGES["package"][1]:
        *sources, _ = rest.split()
        for source in sources:
            place = home / "dr3-ray" / source
            place.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, place)
    subprocess.run([sys.executable, "-m", "venv", python], check=True)
    argument = dict([rest.split("=", 1) for instruction, rest in STAGES["cpu"][1] if instruction == "ARG"])
    network = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "http"))}
    clean = {"HOME": str(home), "PATH": f"{python / 'bin'}:/usr/bin:/bin", "LANG": "C.UTF-8", **argument, **network}
    clean["PIP_COMPILE"] = "0"  # most of what is installed is never imported here
    try:
        socket.getaddrinfo(urlsplit(argument["TORCH_INDEX"]).hostname, 443)
    except OSError:
        clean["TORCH_INDEX"] = "https://pypi.org/simple"

    def run(command: str) -> str:
        done = subprocess.run(["sh", "-c", command], cwd=home, env=clean, capture_output=True, text=True, timeout=850)
        assert done.returncode == 0, f"{shlex.quote(command)}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
        return done.stdout

    torch, package, version = (rest for instruction, rest in STAGES["cpu"][1] if instruction == "RUN")
    run(torch)
    run(package.replace(EXTRAS, ""))
    run("OMP_NUM_THREADS=1 dr3-ray doctor")
    run(f"OMP_NUM_THREADS=1 {SWEEP} --out run")
    assert all((home / "run" / name).stat().st_size for name in ("histories.parquet", "report/report.html"))
    run(package)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run(version))
    assert not (home / ".cache" / "pip").exists()
    pinned = (ROOT / "constraints.txt").read_text()
    kept = subprocess.run([python / "bin" / "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    for name in ("ray", "pyarrow", "numpy", "MinAtar"):
        (version,) = re.findall(rf"(?m)^{name}==(.*)$", pinned)
        assert re.search(rf"(?mi)^{name}=={re.escape(version)}$", kept), name
