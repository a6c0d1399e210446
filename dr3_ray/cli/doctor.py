"""Is this machine ready? Each check says what it found and, where something is wrong, the remedy."""

import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dr3_ray.cli.document import print_document
from dr3_ray.errors import UserError, first_line

DISTRIBUTION = "dr3-ray"
EMBEDDED = Path(__file__).parents[1] / "data" / "embedded"
SHM_BYTES = 1 << 30  # Ray's object store goes to disk, which is slow, when /dev/shm has less room than it asks for


class Check(NamedTuple):
    """One finding of the doctor.

    `ok` and `note` let everything run, `failed` does not; `remedy` is empty unless something helps.
    """

    name: str
    status: Literal["ok", "note", "failed"]
    found: str
    remedy: str = ""


def doctor() -> list[Check]:
    """Examine Python, the libraries, the hardware and the data sets in the package; takes a few seconds."""
    return [*_versions(), *_machine(), _caches(), *_ray(), *_torch(), _minatar(), *_embedded()]


def report(checks: list[Check], as_json: bool = False, console: Console | None = None) -> int:
    """Print the checks, as a table and each remedy on one line; return the exit code, 1 if any check failed."""
    failed = int(any(check.status == "failed" for check in checks))
    if as_json:
        print_document([check._asdict() for check in checks])
        return failed
    console = console or Console()
    colour = {"ok": "green", "note": "yellow", "failed": "red"}
    table = Table("check", "status", "found", box=None, pad_edge=False)
    for check in checks:
        table.add_row(check.name, f"[{colour[check.status]}]{check.status}[/]", escape(check.found))
    console.print(table)
    for check in checks:
        if check.remedy:
            name = f"[{colour[check.status]}]{check.name}[/]"
            console.print(f"{name}: {escape(check.remedy)}", soft_wrap=True, highlight=False)
    return failed


def _versions() -> Iterator[Check]:
    """Compare Python and every required distribution with the ranges of our own package metadata."""
    try:
        own = metadata(DISTRIBUTION)
    except PackageNotFoundError:
        yield Check(DISTRIBUTION, "failed", "not installed", "pip install dr3-ray (in a checkout: make install)")
        return
    yield Check(DISTRIBUTION, "ok", own["Version"])
    yield _within("python", platform.python_version(), SpecifierSet(own["Requires-Python"]))
    for requirement in map(Requirement, requires(DISTRIBUTION) or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield Check(requirement.name, "failed", "not installed", f"pip install '{requirement}'")
        else:
            yield _within(requirement.name, installed, requirement.specifier)


def _within(name: str, installed: str, supported: SpecifierSet) -> Check:
    if supported.contains(installed, prereleases=True):
        return Check(name, "ok", f"{installed} ({supported})")
    remedy = f"pip install '{name}{supported}'" if name != "python" else f"make an environment with Python {supported}"
    return Check(name, "failed", f"{installed} is not {supported}", remedy)


def _machine() -> Iterator[Check]:
    cpus = len(os.sched_getaffinity(0))
    yield Check("CPUs", "ok", str(cpus))

    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and 0 < int(threads) <= cpus:
        yield Check("OMP_NUM_THREADS", "ok", threads)
    else:
        remedy = "export OMP_NUM_THREADS=1: processes that share cores slow each other down many times over otherwise"
        yield Check("OMP_NUM_THREADS", "note", threads or "not set", remedy)

    if not os.path.isdir("/dev/shm"):
        yield Check("/dev/shm", "note", "absent: Ray's object store uses the disk")
        return
    room = shutil.disk_usage("/dev/shm").total
    remedy = "" if room >= SHM_BYTES else "give the container more: docker run --shm-size=2g"
    yield Check("/dev/shm", "note" if remedy else "ok", f"{room / 2**30:.1f} GiB", remedy)


def _caches() -> Check:
    from dr3_ray.process.folders import CACHE, cache_home, can_be_written

    home = cache_home()
    if not can_be_written(home):
        return Check("caches", "failed", f"{home} cannot be written", f"export {CACHE}=FOLDER, another one")
    if os.environ.get(CACHE) or home.is_relative_to(Path.home()):
        return Check("caches", "ok", str(home))
    remedy = f"export {CACHE}=FOLDER, one that stays: {Path.home()} cannot be written"
    return Check("caches", "note", str(home), remedy)


def _ray() -> Iterator[Check]:
    """Check that Ray starts here, or that its cluster answers, and that no ended Ray left files behind."""
    from dr3_ray.cluster.connect import cluster_address, leftovers, temporary_folder

    try:
        yield Check("Ray cluster", "ok", cluster_address() or "none: a sweep starts Ray on this machine")
    except UserError as error:
        said, _, remedy = str(error).partition(": ")
        yield Check("Ray cluster", "failed", said, remedy)
    try:
        folder = temporary_folder()
    except UserError as error:
        said, _, remedy = str(error).rpartition(": ")
        yield Check("Ray's temporary folder", "failed", said, remedy)
        return
    left = leftovers(folder)
    size = sum(file.lstat().st_size for session in left for file in session.rglob("*") if not file.is_dir())
    said = f"{folder}; {len(left)} sessions that have ended left {size / 1e6:.0f} MB" if left else str(folder)
    remedy = f"remove them: {shlex.join(['rm', '-r', *map(str, left)])}" if left else ""
    yield Check("Ray's temporary folder", "note" if left else "ok", said, remedy)


def _torch() -> Iterator[Check]:
    """Check one gradient step on every device against the same step by hand.

    (w x)² / 2 with w = 1, x = 2 and rate 0.1 leaves w = 1 - 0.1 · 4.
    """
    try:
        import torch
    except ImportError as error:
        yield Check("torch step", "failed", str(error), "install torch again: pip install --force-reinstall torch")
        return
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    names = ", ".join(torch.cuda.get_device_name(gpu) for gpu in gpus)
    yield Check("GPUs", "ok", names or "none visible to torch: training runs on the CPU")
    for device in [torch.device("cpu"), *gpus]:
        try:
            weight = torch.nn.Parameter(torch.ones(1, device=device))
            (weight * 2).square().div(2).sum().backward()  # type: ignore[no-untyped-call]
            torch.optim.SGD([weight], lr=0.1).step()
            right = abs(weight.item() - 0.6) < 1e-6
        except RuntimeError as error:  # how torch reports a driver that does not fit
            yield Check(f"torch step on {device}", "failed", first_line(error), "check the GPU driver")
        else:
            yield Check(f"torch step on {device}", "ok" if right else "failed", f"weight {weight.item():.6f}, 0.6 due")


def _minatar() -> Check:
    if find_spec("minatar"):
        return Check("MinAtar", "ok", version("MinAtar"))
    return Check("MinAtar", "note", "not installed", f"to play its games: pip install '{DISTRIBUTION}[minatar]'")


def _embedded() -> Iterator[Check]:
    """Open each data set of the package and compare its files with the checksums in its manifest."""
    from dr3_ray.data import load_dataset, verify

    for manifest in sorted(EMBEDDED.glob("*/manifest.json")):
        name = f"embedded:{manifest.parent.name}"
        try:
            dataset = load_dataset(manifest.parent)
            verify(dataset)
            yield Check(name, "ok", f"{len(dataset):,} rows, checksums right")
        except (OSError, UserError) as error:
            yield Check(name, "failed", str(error), f"pip install --force-reinstall --no-deps {DISTRIBUTION}")
