"""Small in-memory data and populations for the tests of the training core."""

import dataclasses
import gc
import inspect
import os
import resource
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import jaxtyping
import pyarrow.fs as pafs
import pytest
import torch
from hypothesis import settings
from torch import Tensor

from dr3_ray.algorithms.registry import ALGORITHMS
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data.mixing import Mixing
from dr3_ray.observations import Observations, Shape, each_part, is_image
from dr3_ray.process.memory import seldom_search_for_cycles
from dr3_ray.training.member import Member, build_networks
from dr3_ray.training.normalization import observation_statistics
from dr3_ray.training.population import Population
from dr3_ray.types import Spaces

# Ray decides once a process whether it wants tokens, so all tests in one agree; its own would lie in ~/.ray
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
# Ray's workers would be polite, and starve beside the other processes of the tests
os.environ.setdefault("RAY_worker_niceness", "0")
# a thread of Ray's goes on after its end, and exports metrics to nobody; a process of tests has died beside it
os.environ.setdefault("RAY_enable_metrics_collection", "0")
# the Rays of one process of the tests, and their clusters, are not for the others to find
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
os.environ["RAY_TMPDIR"] = os.path.join(tempfile.gettempdir(), f"ray-{os.getuid()}-{WORKER}")
# and its workers have the environment in which it was started; the server for S3 takes any key
os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def frames(context: int = 0) -> list[inspect.FrameInfo]:
    """Return what `inspect.stack` does, without a search for the sources of frames.

    RLlib's connectors ask for their caller's frame. Some frames of pytest's have no file, so that Python would search
    all modules for each, which is two thirds of the time of building an algorithm here.
    """
    frame, found = sys._getframe(1), []
    while frame:
        code = frame.f_code
        found.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back  # type: ignore[assignment]
    return found


inspect.stack = frames
seldom_search_for_cycles()
# an example may take as long as it does on a busy machine; the same ones each time, but for `make fuzz`
settings.register_profile("patient", deadline=None, derandomize="DR3_RAY_FUZZ" not in os.environ)
settings.load_profile("patient")
# sums of float32 are then the same however the tests are started; `make test` asks for it as well
torch.set_num_threads(1)

# small enough for thousands of updates, and every rule of the algorithms acts within a few of them
TINY: dict[str, Any] = {"hidden_sizes": (12, 8), "batch_size": 16, "normalize_observations": False}
TINY_CRITIC: dict[str, Any] = {
    "critic_lr": 1e-3,
    "tau": 0.5,
    "target_period": 3,
    "policy_delay": 3,
    "behaviour_steps": 1,
}
TINY_SIZES: dict[str, Any] = {"n_heads": 5, "n_quantiles": 4, "n_sampled_actions": 3, "n_divergence_samples": 3}
SPACES = {"discrete": Spaces((2, 3), "discrete", 3), "continuous": Spaces((2, 3), "continuous", 2)}
IMAGE = (8, 8, 3)


class TableData:
    """Columns in memory, as training asks for them."""

    mixing: Mixing | None = None

    def __init__(self, columns: dict[str, Any]):
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["actions"])

    @property
    def episodes(self) -> dict[str, Tensor]:
        """Ten rows each, of returns 0, 1, …"""
        offsets = torch.arange(0, len(self), 10)
        return {"offsets": offsets, "lengths": torch.full_like(offsets, 10), "returns": offsets / 10.0}

    def gather(self, indices: Tensor, columns: Sequence[str]) -> dict[str, Any]:
        return {name: each_part(lambda part: part[indices], self.columns[name]) for name in columns}


def random_observations(shape: Shape, rows: int, source: torch.Generator) -> Observations:
    """Images of bytes, and vectors of normal numbers."""

    def part(shape: tuple[int, ...]) -> Tensor:
        if is_image(shape):
            return torch.randint(256, (rows, *shape), dtype=torch.uint8, generator=source)
        return torch.randn(rows, *shape, generator=source)

    return {name: part(each) for name, each in shape.items()} if isinstance(shape, dict) else part(shape)


def random_data(action_kind: str, rows: int = 200, seed: int = 0, shape: Shape | None = None) -> TableData:
    """Random rows in which every tenth episode step terminates, and every tenth is truncated."""
    source = torch.Generator().manual_seed(seed)
    spaces = SPACES[action_kind]
    shape = spaces.observation_shape if shape is None else shape
    ending = torch.arange(rows) % 20

    def actions() -> Tensor:
        if action_kind == "discrete":
            return torch.randint(spaces.n_actions, (rows,), generator=source)
        return torch.rand(rows, spaces.n_actions, generator=source) * 2.0 - 1.0

    return TableData(
        {
            "observations": random_observations(shape, rows, source),
            "actions": actions(),
            "rewards": torch.randn(rows, generator=source),
            "next_observations": random_observations(shape, rows, source),
            "terminateds": (ending == 9).float(),
            "truncateds": (ending == 19).float(),
            "next_actions": actions(),
            "next_actions_valid": (ending != 9) & (ending != 19),
            "monte_carlo_returns": torch.randn(rows, generator=source),
            "episode_ids": torch.arange(rows) // 10,
            "timesteps": torch.arange(rows) % 10,
        }
    )


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """For tests of many updates, of which the checks of shapes would take half the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Training flushes denormals for the whole process; Hypothesis draws them and refuses to go on without."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def table_data() -> type[TableData]:
    return TableData


@pytest.fixture
def make_data() -> Callable[..., TableData]:
    return random_data


@pytest.fixture
def make_population() -> Callable[..., Population]:
    """A population from plain values of its members; tiny unless they say otherwise."""

    def make(
        spec: AlgorithmSpec,
        members: Sequence[dict[str, Any]] = ({},),
        execution: Any = "in_turn",
        dtype: torch.dtype = torch.float32,
        data: TableData | None = None,
        spaces: Spaces | None = None,
        regularized: bool = True,
        device: str = "cpu",
    ) -> Population:
        spaces = spaces or SPACES[spec.action_kind]
        known = {name for name, _ in spec.options()}
        tiny = {name: value for name, value in (TINY | TINY_CRITIC | TINY_SIZES).items() if name in known}
        made = [Member.from_dict(spec, tiny | member) for member in members]
        if not regularized:  # the base algorithm, which DR3 has never touched
            made = [dataclasses.replace(member, regularizers={}) for member in made]
        data = data or random_data(spec.action_kind, shape=spaces.observation_shape)
        statistics = observation_statistics(data) if made[0].options.normalize_observations else None
        networks = build_networks(spec, spaces, made, statistics).to(device, dtype)
        return Population(spec, networks, made, data, spaces, execution)

    return make


@pytest.fixture
def moto() -> Iterator[Any]:
    """A server for S3 on this machine."""
    from moto.server import ThreadedMotoServer  # slow to import, and few tests need it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(moto: Any) -> Callable[[str], str]:
    """URI of a path in an empty bucket, with what its server on this machine needs, as a function of the path."""
    host, port = moto.get_host_and_port()
    options = f"scheme=http&region=us-east-1&endpoint_override={host}:{port}"
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST"))  # servers of a process share what they keep
    filesystem, _ = pafs.FileSystem.from_uri(f"s3://?{options}&allow_bucket_creation=true")
    filesystem.create_dir("results")
    return lambda path: f"s3://results/{path}?{options}"


@pytest.fixture
def outage(moto: Any) -> Callable[[], AbstractContextManager[None]]:
    """Nobody listens where the server for S3 was; then it is back with all it had."""

    @contextmanager
    def away() -> Iterator[None]:
        moto.stop()
        moto._server.server_close()  # it would let clients wait for the end of time
        yield
        moto.start()

    return away


@pytest.fixture(scope="module")
def one_cpu() -> Iterator[None]:
    """A Ray for the sweeps of a file, in which a sweep's trials take turns in one process, as in a small cluster."""
    import ray  # slow to import, and most tests do without

    from dr3_ray.cluster.connect import connect

    ray.shutdown()  # of tests that were here before
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 1}')
        connect()
    yield
    ray.shutdown()


def child_cpu_s() -> float:
    """Return the CPU seconds of all ended child processes, which a busy machine does not lengthen."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def every_algorithm() -> list[Any]:
    """Each algorithm on each kind of actions."""
    return [
        pytest.param(spec, id=f"{name}-{kind}") for name, kinds in ALGORITHMS.items() for kind, spec in kinds.items()
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `spec` runs for every algorithm and space; with `critic_spec`, those with a critic."""
    if "spec" in metafunc.fixturenames:
        metafunc.parametrize("spec", every_algorithm())
    if "critic_spec" in metafunc.fixturenames:
        metafunc.parametrize("critic_spec", [each for each in every_algorithm() if each.values[0].has_critic])


# what takes longest, longest first: files of tests, and folders of them
SLOWEST = (
    "crash/test_model.py", "sweep/test_survival.py", "cluster/test_two_hosts.py", "packaging/test_dockerfile.py",
    "studies", "benchmarks", "evolution", "sweep/test_scripts.py", "sweep/test_recovery.py", "sweep/test_run.py",
    "sweep/spec/test_halving.py", "sweep/search", "rllib", "process", "packaging", "report", "policies", "training",
    "test_options.py", "networks/test_encoders.py", "algorithms",
)  # fmt: skip


def place(path: Path) -> int:
    """Return the place of a file of tests in the order of `SLOWEST`."""
    name = path.relative_to(Path(__file__).parent).as_posix()
    found = (number for number, first in enumerate(SLOWEST) if name == first or name.startswith(f"{first}/"))
    return next(found, len(SLOWEST))


def lists_of(item: Any) -> list[tuple[str, ...]]:
    """Return the names of arguments that come from one list of a parametrised test, list by list."""
    given = [mark.args[0] for mark in item.iter_markers("parametrize")]
    lists = [tuple(map(str.strip, names.split(","))) if isinstance(names, str) else tuple(names) for names in given]
    return lists + [(name,) for name in item.callspec.params if not any(name in names for names in lists)]


def left_out(items: Sequence[Any]) -> Iterator[pytest.Item]:
    """Yield the combinations of parameters that `spread(n)` leaves to the slow tests.

    A combination stays where the places of its values, each in its list, have a sum that n divides. The fast tests so
    meet every value of a list where the others together offer n sums; of three lists and n = 2, every pair of values.
    """
    places: dict[tuple[Any, ...], dict[Any, int]] = {}
    for item in items:
        if (mark := item.get_closest_marker("spread")) and hasattr(item, "callspec"):
            total = 0
            for names in lists_of(item):
                known = places.setdefault((item.path, item.originalname, names), {})
                total += known.setdefault(tuple(id(item.callspec.params[name]) for name in names), len(known))
            if total % mark.args[0]:
                yield item


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes minutes first, so that no process is long at a file when the others are done."""
    for item in list(left_out(items)):
        item.add_marker("slow")
    items.sort(key=lambda item: place(item.path))


def pytest_collection_finish() -> None:
    """Search what was imported for garbage no more: each full search would take a second."""
    gc.freeze()
