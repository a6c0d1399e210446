"""Ray for a command: the cluster that is asked for, or a Ray of its own on this machine, and the end of that."""

import atexit
import logging
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray

from dr3_ray.compat import ray as compat
from dr3_ray.errors import UserError, first_line
from dr3_ray.process import stopping

LONGEST = 107  # bytes of the path of a Unix socket
SOCKET = "session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"  # the longest that Ray makes
PATIENCE = 180  # seconds that a second start of Ray may take for each of its steps
LOOK_EVERY = 1.0  # seconds
STARTING = 120.0  # seconds, in which a Ray may not listen yet
SILENT = 20.0  # seconds for which the head of a cluster may refuse connections, as one that is started again does
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": a Ray that nobody joins, on the loopback address alone
LIMITS = (  # of a start of Ray, in seconds
    "RAY_gcs_server_port_wait_time_s",
    "RAY_raylet_client_num_connect_attempts",  # one a second: Ray's "connect timeout" is the pause between two
    "RAY_worker_register_timeout_seconds",
    "RAY_gcs_rpc_server_connect_timeout_s",
)


def connect() -> bool:
    """Connect to Ray, unless this process already is, and return whether this started a Ray of its own.

    It listens on the loopback address alone, because nobody joins it. `disconnect`, at the end of this process at the
    latest, ends it and removes what it has written.

    Raises:
        UserError: the cluster that was asked for does not answer, or Ray does not start here.
    """
    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    # Ray's own handler of SIGTERM would end this process at once
    with compat.signals_left_alone():
        if address := cluster_address():
            alone = address.startswith("127.")  # else Ray would look for it at this machine's other address
            try:
                with _on_loopback() if alone else nullcontext():
                    ray.init(**quiet)  # without the address, so that a cluster found here brings its token
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise _no_cluster(address, error) from error
            stopping.handle_again()
            _watch(lambda: _refuses(address), SILENT, f"the head of the Ray cluster at {address} is gone")
            return False
        _start(quiet)
    stopping.handle_again()
    node = compat.node()
    session = Path(node.get_session_dir_path())
    _watch(lambda: _ended(node), 0.0, "Ray has died on this machine")
    atexit.register(disconnect, session)
    return True


def disconnect(session: Path) -> None:
    """End the Ray that `connect` started, and remove the folder of its `session` in Ray's temporary folder."""
    if ray.is_initialized() and not stopping.lost():
        ray.shutdown(wait_for_processes=True)
    shutil.rmtree(session, ignore_errors=True)
    latest = session.with_name("session_latest")
    if latest.is_symlink() and not latest.exists():
        latest.unlink(missing_ok=True)


def cluster_address() -> str | None:
    """Return HOST:PORT of the cluster of RAY_ADDRESS or of a `ray start` here; None where none is to be used.

    Raises:
        UserError: that is no address, or nobody answers there.
    """
    asked = os.environ.get("RAY_ADDRESS", "")
    if asked.startswith("ray://"):
        raise UserError(
            f"RAY_ADDRESS={asked} is an address for Ray Client, through which Tune does not work: give HOST:PORT of "
            "the head (its port is 6379 as a rule) on a machine of the cluster, or send the command by `ray submit`"
        )
    try:
        address = compat.bootstrap_address()
        if address is None:
            return None
        host, port = _host(address), address.rpartition(":")[2]
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError
    except ValueError as error:
        raise UserError(
            f"RAY_ADDRESS={asked} is no address of a Ray cluster: give HOST:PORT, or unset it to start Ray here"
        ) from error
    except (ConnectionError, OSError) as error:
        raise _no_cluster(asked or "this machine", error) from error
    local = re.fullmatch(r"(127\.[0-9.]+|localhost):[0-9]+", asked) and f"127.0.0.1:{port}"
    for place in filter(None, (address, local)):  # a Ray that a sweep has started listens on the loopback address alone
        try:
            socket.create_connection((_host(place), int(port)), timeout=10).close()
            return str(place)
        except (OSError, UnicodeError) as error:  # Ray would try for minutes
            reason = error
    raise _no_cluster(address, reason) from reason


def _host(address: str) -> str:
    return address.rpartition("://")[2].rpartition(":")[0].strip("[]")


def _no_cluster(where: str, error: Exception) -> UserError:
    reason = first_line(error)
    return UserError(
        f"no Ray cluster answers at {where} ({reason}): start it, or unset RAY_ADDRESS and call `ray stop`"
    )


def temporary_folder() -> Path:
    """Return the folder for sessions of a Ray that is started here: `ray` in RAY_TMPDIR, TMPDIR or /tmp.

    Raises:
        UserError: its sockets cannot lie there, because the path is too long, or nothing can be written.
    """
    folder = Path(compat.get_default_ray_temp_dir()).absolute()
    room = LONGEST - len(os.fsencode(str(folder / SOCKET.format(pid="4194304"))))
    if room < 0:
        raise UserError(
            f"the path of Ray's temporary folder {folder} is {-room} bytes too long for a Unix socket: "
            "export RAY_TMPDIR=/tmp, or another short path"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (probe := folder / f".dr3-ray-{os.getpid()}").touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"Ray's temporary folder {folder} cannot be written ({os.strerror(error.errno or 0)}): "
            "export RAY_TMPDIR=FOLDER, with a short path"
        ) from error
    return folder


def leftovers(folder: Path) -> list[Path]:
    """Return the sessions in Ray's temporary folder whose Ray has ended without removing them, oldest first."""
    old = [
        path for path in folder.glob("session_2*") if path.is_dir() and time.time() - path.stat().st_mtime > STARTING
    ]
    return sorted(session for session in old if not _lives(session))


def _lives(session: Path) -> bool:
    """Return whether a raylet or an object store listens in a session."""
    for path in session.glob("sockets/*"):
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(1.0)
            try:
                asked.connect(str(path))
                return True
            except OSError:
                continue
    return False


def _start(quiet: dict[str, Any]) -> None:
    """Start a Ray of our own, a second time with more patience where a busy machine is too slow for its limits."""
    folder = temporary_folder()
    # A token of its own, because the one that Ray would leave in ~/.ray changes how later clusters start.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # trials share the machine's CPUs
    # There is no dashboard to see them, and Ray's thread that exports them goes on after its end, to nobody.
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    local: dict[str, Any] = {"include_dashboard": False, "_temp_dir": str(folder), **quiet}
    with _on_loopback(), compat.without_servants():
        try:
            ray.init("local", **local)
            return
        except Exception:  # Ray raises bare ones
            logging.getLogger(__name__).debug("Ray did not start", exc_info=True)
            ray.shutdown()
        with _patient():
            try:
                ray.init("local", **local)
            except Exception as error:
                ray.shutdown()
                raise UserError(
                    f"Ray does not start on this machine ({first_line(error)}): try again when it is less busy; "
                    f"its logs are in {folder}/session_latest/logs"
                ) from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have Ray take the loopback address for this machine's, in this process and in those that start."""
    with _environment({LOOPBACK: "0"}), compat.on_loopback():
        yield


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set these variables for a while, and leave alone what Ray sets meanwhile, such as its token."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _patient() -> Iterator[None]:
    """Raise the limits of a start of Ray above its own."""

    def by(raylet: Callable[..., Any]) -> Callable[..., Any]:
        """Return Ray's search for a raylet, repeated while it is not there."""

        def until_there(*asked: Any, **named: Any) -> Any:
            """Ask until the raylet is there or `PATIENCE` is over."""
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    return raylet(*asked, **named)
                except RuntimeError:  # it has not registered yet
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.5)

        return until_there

    longer = dict.fromkeys(LIMITS, str(PATIENCE))
    with _environment(longer), compat.asking_for_nodes(by):
        yield


def _watch(gone: Callable[[], bool], patience: float, what: str) -> None:
    """Interrupt this process once what it needs has been gone for `patience` seconds; Ray waits for a minute."""

    def watch() -> None:
        """Look every `LOOK_EVERY` seconds until Ray has ended or been gone for too long."""
        since = None
        while ray.is_initialized():
            since = (since or time.monotonic()) if gone() else None
            if since is not None and time.monotonic() - since >= patience:
                time.sleep(LOOK_EVERY)  # a signal to the whole process group says more
                stopping.lose(what)
                return
            time.sleep(LOOK_EVERY)

    if threading.current_thread() is threading.main_thread():
        threading.Thread(target=watch, name="ray-watch", daemon=True).start()


def _ended(node: Any) -> bool:
    """Return whether a part of Ray without which nothing goes on has ended."""
    return any(kind in ("gcs_server", "raylet") for kind, _ in node.dead_processes())


def _refuses(address: str) -> bool:
    try:
        socket.create_connection((_host(address), int(address.rpartition(":")[2])), timeout=5).close()
    except OSError:
        return True
    return False
