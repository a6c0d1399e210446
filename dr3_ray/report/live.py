"""The page of runs that are going on: built anew when their files change, in one thread, for whoever looks."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from dr3_ray.errors import UserError, not_shown
from dr3_ray.runs.directory import RUN, check_different, check_run
from dr3_ray.runs.fetch import fetch
from dr3_ray.runs.histories import HISTORIES
from dr3_ray.runs.index import INDEX, read_index
from dr3_ray.runs.mirror import EVERY as BROUGHT_EVERY
from dr3_ray.stores import inside
from dr3_ray.uris import anywhere

PAUSE = 2.0  # seconds between two looks at the files of runs,
SHARE = 0.1  # and more after a page was built, which may take so much of one core: a sweep has the rest
WATCHED = 30.0  # seconds since somebody asked, after which nothing is built
SHOWN = (RUN, INDEX, HISTORIES, "selection.csv", "diagnoses/*.json")  # files of a run that its page shows


class Page(NamedTuple):
    """A page and all that it links to. Nothing else can be asked for."""

    version: str
    """Empty before the first one is built."""
    files: Mapping[str, bytes]
    """By the name that stands in the page; the page itself is `report.html`."""


class Watched:
    """A run directory here, or one at a URI, which is brought into a folder here again and again.

    Raises:
        UserError: it is not there, or no run.
    """

    def __init__(self, run: str, folder: Path) -> None:
        if not run.strip():
            raise UserError("an empty name is no run: give the --out of a sweep, or . for the working directory")
        self.name = run
        self._brought = -BROUGHT_EVERY
        place = anywhere(run)
        self._uri = "" if isinstance(place, Path) else place
        self.path = place if isinstance(place, Path) else folder
        if not self._uri:
            check_run(self.path)
        self.look()

    def look(self) -> object:
        """Return what changes with the files that a page shows.

        Raises:
            UserError: they cannot be brought.
        """
        if self._uri and time.monotonic() >= self._brought + BROUGHT_EVERY:
            self._brought = time.monotonic()
            fetch(self._uri, self.path)
        states = []
        for name in SHOWN:
            for path in sorted(self.path.glob(name)):
                stat = path.stat()
                states.append((path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return states


class Live:
    """The newest page of runs, and what is to be said of it.

    Args:
        runs: Run directories or URIs, compared where there are several.
        folder: An empty folder of this machine.
        say: Is told what cannot be shown, once.

    Raises:
        UserError: a run is not there.
    """

    def __init__(self, runs: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
        self.runs = [Watched(run, inside(folder, f"run-{place}")) for place, run in enumerate(runs)]
        check_different(run.path for run in self.runs)
        self.page, self.said = Page("", {}), "Building the page…"
        self._folder, self._say, self._told = folder, say, ""
        self._asked = time.monotonic()  # the first page is for whoever comes first
        self._over = threading.Event()

    @property
    def names(self) -> str:
        """The runs as they were typed."""
        return ", ".join(run.name for run in self.runs)

    def start(self) -> None:
        """Begin to look and to build, in a thread that does not keep the process from ending."""
        threading.Thread(target=self._work, name="pages", daemon=True).start()

    def stop(self) -> None:
        """Build nothing any more."""
        self._over.set()

    def asked(self) -> None:
        """Note that somebody looks."""
        self._asked = time.monotonic()

    def _work(self) -> None:
        import dr3_ray.report.html  # noqa: F401 - once, and after the first word

        shown, pause = None, 0.0
        while not self._over.wait(pause):
            started = time.thread_time()
            if time.monotonic() - self._asked < WATCHED:
                shown = self.renew(shown)
            pause = max(PAUSE, (time.thread_time() - started) / SHARE)

    def renew(self, shown: object) -> object:
        """Build the page unless files are as they were when `shown` was returned; return what they are now.

        After a failure the last page stays, and None is returned: it is tried again.
        """
        failed = ""
        files: object = None
        try:
            if gone := [run.name for run in self.runs if not run.path.is_dir()]:
                failed = f"{', '.join(gone)} is gone: this is the last page of it"
            elif (files := [run.look() for run in self.runs]) != shown:
                self._build()
        except Exception as error:
            failed = f"{not_shown([run.name for run in self.runs], error)}: this is the last page of them"
        if failed and failed != self._told and not self._over.is_set():
            self._say(failed)
        self._told, self.said = failed, failed or self.said
        return None if failed else files

    def _build(self) -> None:
        from dr3_ray.report.html import write_report

        ready = [run for run in self.runs if read_index(run.path)]
        waiting = [run.name for run in self.runs if run not in ready]
        said = [f"No results yet: {', '.join(waiting)}."] if waiting else []
        if ready:
            version = f"{time.time_ns():x}"
            with TemporaryDirectory(dir=self._folder) as name:
                write_report(*(run.path for run in ready), out=Path(name), version=version)
                files = {path.name: path.read_bytes() for path in Path(name).iterdir()}
            self.page = Page(version, files)
            said.insert(0, f"As of {datetime.now(UTC):%H:%M:%S} UTC.")
        self.said = " ".join(said)
