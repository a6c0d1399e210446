"""Workers of a Ray that a sweep starts begin as they do with Ray's own script, in a part of the time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray._private.workers import setup_worker

from dr3_ray.compat import start_worker
from dr3_ray.compat.start_worker import CONTEXT, command

WORKER = "import json, os, sys; print(json.dumps([sys.argv, os.environ.get('A'), os.environ.get('B'), sys.executable]))"
PLAIN = {"command_prefix": [], "env_vars": {}, "py_executable": sys.executable, "java_jars": []}


def asked(worker: Path, context: dict | None) -> list[str]:
    """Arguments as a raylet gives them."""
    words = [str(worker), "--node-ip-address=127.0.0.1", "--language=PYTHON", "--logging-rotate-bytes=1 '2'"]
    return words if context is None else [*words, CONTEXT + json.dumps(context)]


@pytest.mark.parametrize("variables", [{"A": "1", "B": 'it\'s "two" words'}, {"A": "${NOTHING}/$HOME"}])
def test_it_is_the_worker_that_rays_script_starts(variables: dict[str, str], tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    (tmp_path / "setup_worker.py").symlink_to(setup_worker.__file__)
    words = asked(worker, PLAIN | {"env_vars": variables})
    ours, rays = (
        subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=True).stdout
        for script in (start_worker.__file__, setup_worker.__file__)
    )
    assert ours == rays and json.loads(ours)[1]


@pytest.mark.parametrize("context", [None, {}, PLAIN, PLAIN | {"env_vars": {"A": "1"}}])
def test_a_plain_environment_needs_no_ray(context: dict | None) -> None:
    found, variables = command(asked(Path("/ray/default_worker.py"), context))
    assert found == [
        sys.executable, "/ray/default_worker.py", "--node-ip-address=127.0.0.1", "--logging-rotate-bytes=1 '2'"
    ]  # fmt: skip
    assert variables == (context or {}).get("env_vars", {})


@pytest.mark.parametrize(
    "more",
    [
        {"command_prefix": ["nice"]},
        {"py_executable": "/usr/bin/python3"},
        {"override_worker_entrypoint": "/other.py"},
        {"java_jars": ["a.jar"]},
        {"new": 1},
        {"env_vars": {"A": "${B}"}},
    ],
)
def test_what_is_more_is_left_to_rays_script(more: dict) -> None:
    words = asked(Path("/ray/default_worker.py"), PLAIN | more)
    assert command(words) == ([sys.executable, os.path.join("/ray", "setup_worker.py"), *words], {})


def test_so_is_another_language() -> None:
    words = ["/ray/default_worker.py", "--language=JAVA"]
    assert command(words) == ([sys.executable, "/ray/setup_worker.py", *words], {})
