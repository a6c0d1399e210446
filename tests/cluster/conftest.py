"""A laptop and two hosts, each a machine of its own as far as Ray can tell, on the machine that runs the tests."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("hosts.sh")
NAMESPACES = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child"]
ADDRESSES = ("10.77.0.11", "10.77.0.12")
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
ON_HOSTS = {
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",
    # A host that is gone is noticed within 15 seconds rather than after a minute, and started soon when it is back.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "AUTOSCALER_HEARTBEAT_TIMEOUT_S": "10",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_worker_niceness": "0",  # other tests on this machine would get nearly all of it
}


def missing() -> str | None:
    """What this machine lacks for the hosts, with the remedy."""
    if os.geteuid():
        return "hosts are network namespaces, which only root may create: run these tests as root"
    packages = {"sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "ip": "iproute2"}
    search = os.environ["PATH"] + ":/usr/sbin"
    if lacking := [package for command, package in packages.items() if not shutil.which(command, path=search)]:
        return f"hosts need what Debian calls {' '.join(lacking)}: run scripts/debian_packages.sh {' '.join(lacking)}"
    tried = subprocess.run([*NAMESPACES, "ip", "link", "add", "try", "type", "bridge"], capture_output=True, text=True)
    if tried.returncode:
        return f"hosts are namespaces, which cannot be made here ({tried.stderr.strip()}): use a privileged container"
    return None


class Testbed:
    """The laptop, from which everything is done, and the two hosts."""

    __test__ = False

    def __init__(self, disks: Path) -> None:
        self.disks, self.shared = disks, disks / "shared"
        for host in ("host1", "host2"):
            self._install(disks / host / "root")
        self._write_cluster_file()
        visible = sorted({str(ROOT), sys.prefix, sys.base_prefix})
        # the last process of the chain dies with this one, and takes everything with it
        command = ["setpriv", "--pdeathsig", "KILL", *NAMESPACES, str(SCRIPT), "laptop", str(disks), "2", *visible]
        with (disks / "laptop.log").open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._wait_until_ready()

    def close(self) -> None:
        """Nothing is left but the disks."""
        self._process.kill()
        self._process.wait()

    def run(self, command: str, timeout: float = 400, check: bool = True) -> str:
        """What a command on the laptop prints, stderr included."""
        process = self.start(command)
        try:
            shown, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            pytest.fail(f"{command}: not done after {timeout} s: {error.output}")
        if check and process.returncode:
            pytest.fail(f"{command}: exit code {process.returncode}\n{shown}\n{self.logs()}")
        return shown

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command on the laptop."""
        init = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().strip()
        path = f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        settings = SETTINGS | {"HOME": "/root", "TERM": "dumb", "PATH": path, "RAY_AUTH_MODE": "token"}
        inside = [
            "nsenter",
            "--target",
            init,
            "--all",
            "env",
            "-i",
            *(f"{key}={value}" for key, value in settings.items()),
        ]
        shell = ["bash", "-c", f"cd {shlex.quote(str(ROOT))} && {command}"]
        return subprocess.Popen([*inside, *shell], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def network(self, host: int, state: str) -> None:
        """Take the network away from a host (`down`), or give it back (`up`)."""
        self.run(f"ip link set port{host} {state}")

    def on(self, host: int, command: str, timeout: float = 200, check: bool = True) -> str:
        """What a command on a host prints."""
        options = "-o StrictHostKeyChecking=no -o LogLevel=ERROR"
        return self.run(f"ssh {options} {ADDRESSES[host - 1]} {shlex.quote(command)}", timeout, check)

    def logs(self) -> str:
        """The end of what Ray's monitor says."""
        files = (self.disks / "host1/tmp/ray").glob("session_2*/logs/monitor.*")
        return "\n".join(f"== {file.name}\n{file.read_text()[-3000:]}" for file in files)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while not ((self.disks / "ready").exists() and (self.disks / "ready").read_text()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                logs = "".join(file.read_text() for file in self.disks.glob("*.log"))
                pytest.fail(f"the hosts did not come up: {logs}")
            time.sleep(0.1)

    @staticmethod
    def _install(home: Path) -> None:
        """A home in which the packages that ours depends on are installed already, and no package index is asked."""
        environment = home / "dr3-ray-env"
        home.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
        packages = next(environment.glob("lib/python3*/site-packages"))
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        ray = environment / "bin" / "ray"
        ray.write_text("#!/root/dr3-ray-env/bin/python\nfrom ray.scripts.scripts import main\n\nmain()\n")
        ray.chmod(0o755)
        lines = [f"export {name}={value}" for name, value in (SETTINGS | ON_HOSTS).items()]
        (home / ".bashrc").write_text("\n".join(lines) + "\n")
        (home / ".profile").write_text(". ~/.bashrc\n")

    def _write_cluster_file(self) -> None:
        """The project's own file for machines over ssh, with the addresses, user and key of these."""
        config = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())
        config["provider"] |= {"head_ip": ADDRESSES[0], "worker_ips": list(ADDRESSES[1:])}
        config["auth"]["ssh_user"] = "root"
        for start in ("head_start_ray_commands", "worker_start_ray_commands"):
            config[start][-1] += " --num-cpus=1"  # as many trials at a time as there are hosts
        home = self.disks / "laptop" / "root"
        home.mkdir(parents=True)
        (home / "cluster.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="session")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """The machines; nothing runs on them yet."""
    if lack := missing():
        pytest.fail(lack, pytrace=False)
    testbed = Testbed(tmp_path_factory.mktemp("machines"))
    yield testbed
    testbed.close()
