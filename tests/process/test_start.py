"""Ray on a machine that is too busy for its limits is started again; one that does not start is one line."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CODE = """
from dr3_ray.cluster import connect
from dr3_ray.compat.ray import node
from dr3_ray.errors import UserError
connect.PATIENCE = int({patience})
try:
    print(connect.connect(), *sorted(node().all_processes))
except UserError as error:
    print(len(str(error).splitlines()), error)
"""


def start(patience: int, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", CODE.format(patience=patience)]
    return subprocess.run(command, env=known | environment, capture_output=True, text=True, timeout=200)


def test_a_start_that_times_out_is_tried_again_with_longer_limits_and_starts_no_more_than_it_needs():
    done = start(180, RAY_gcs_server_port_wait_time_s="0")  # no machine is as quick as that
    assert (done.returncode, done.stdout, done.stderr) == (0, "True gcs_server raylet\n", "")


def test_a_ray_that_does_not_start_is_one_line():
    done = start(1, RAY_gcs_server_port_wait_time_s="0", RAY_gcs_storage="nowhere")
    assert done.returncode == 0
    assert done.stdout.startswith("1 Ray does not start on this machine (")
    assert "its logs are in" in done.stdout and "Traceback" not in done.stderr
