"""The served page: live, read-only, to those who may ask, and nothing else of the machine."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.cli.app import main
from dr3_ray.errors import UserError
from dr3_ray.report.live import Live
from dr3_ray.report.serving import Server
from tests.report.browser import browser

SECRET = b"the key of another house"


class Visitor:
    """Asks a server for paths as they stand, and keeps what it was told by it."""

    def __init__(self, server):
        self.server, self.live = server, server.live

    def ask(self, path, method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        for name, value in ({"Host": "localhost"} | headers).items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.content = answer.read()
        connection.close()
        return answer

    @property
    def state(self):
        return json.loads(self.ask("/state.json").content)


@contextmanager
def serving(*runs, folder, say=lambda line: None):
    """A server whose pages are built when the test says so."""
    folder.mkdir()
    with Server(Live(list(map(str, runs)), folder, say), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Visitor(server)
        finally:
            server.shutdown()
            thread.join()


def small(run_writer, path, coefficients=(0.0, 0.1)):
    writer = run_writer(path)
    for c in coefficients:
        writer.add(dr3_coeff=c)
    return writer.write()


@pytest.fixture(scope="module")
def visitor(tmp_path_factory, run_writer):
    """A run in which links lead out of it, beside a secret; its page is built."""
    place = tmp_path_factory.mktemp("served")
    (place / "secret.txt").write_bytes(SECRET)
    run = small(run_writer, place / "run")
    for name in ("link.txt", "summary.csv", "report"):
        (run / name).symlink_to(place / "secret.txt" if "." in name else place)
    with serving(run, folder=place / "pages") as found:
        found.live.renew(None)
        yield found


def test_the_page_and_all_that_it_links_are_there(visitor):
    page = visitor.ask("/")
    assert page.status == 200 and page.content == visitor.ask("/report.html").content
    links = set(re.findall(r'href="([^#"]+)"', page.content.decode().partition("<script")[0]))
    assert {"summary.csv", "runs.csv"} <= links and any(link.endswith(".png") for link in links)
    for link in links:
        assert visitor.ask(f"/{link}").content == visitor.live.page.files[link]
    assert visitor.ask("/summary.csv").content.startswith(b"algorithm,")
    assert visitor.state["version"] == re.search(r'data-version="(\w+)"', page.content.decode())[1]


def test_a_page_that_is_known_is_not_sent_again(visitor):
    tag = visitor.ask("/").headers["ETag"]
    same = visitor.ask("/", If_None_Match=tag)
    assert (same.status, same.content) == (304, b"")
    assert visitor.ask("/", If_None_Match='"other"').status == 200


def refused(answer, *statuses):
    return answer.status in statuses and SECRET not in answer.content and len(answer.content) < 100


@pytest.mark.parametrize(
    "path",
    ["/../secret.txt", "/../../../../etc/passwd", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/%252e%252e/secret.txt",
     "/link.txt", "/report/secret.txt", "/run/summary.csv", "//etc/passwd", "/etc/passwd", "/run.json", "/index.jsonl",
     "/histories.parquet", "/summary%2ecsv", "/summary.csv/", "/./summary.csv", "/summary.csv%00", "\\..\\secret.txt",
     "/..\\secret.txt", "summary.csv", "*", "http://localhost/summary.csv", "file:///etc/passwd"],
)  # fmt: skip
def test_no_other_path_is_readable(visitor, path):
    assert refused(visitor.ask(path), 404)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40))
def test_whatever_is_asked_for_is_a_name_of_the_page_or_nothing(visitor, path):
    name = path.partition("?")[0]
    known = name.startswith("/") and name.removeprefix("/") in ("", "state.json", *visitor.live.page.files)
    assert (visitor.server.content(name) is not None) == known


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "MOVE"])
def test_nothing_can_be_written(visitor, method):
    answer = visitor.ask("/", method)
    assert refused(answer, 405) and answer.headers["Allow"] == "GET, HEAD"


def test_head_is_get_without_its_content(visitor):
    for path in ("/", "/summary.csv", "/nothing"):
        head, get = visitor.ask(path, "HEAD"), visitor.ask(path)
        assert head.content == b"" and head.status == get.status
        assert head.headers["Content-Length"] == str(len(get.content))


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[", "a@b", None]
)
def test_another_name_that_leads_here_is_refused(visitor, host):
    assert refused(visitor.ask("/", Host=host), 421)


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:80", "10.0.0.7:8300"])
def test_names_and_addresses_of_this_machine_are_not(visitor, host):
    assert visitor.ask("/state.json", Host=host).status == 200


def test_every_answer_is_kept_to_itself(visitor):
    for path, method in (("/", "GET"), ("/summary.csv", "GET"), ("/nothing", "GET"), ("/", "POST")):
        headers = visitor.ask(path, method).headers
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Referrer-Policy"] == "no-referrer" and "Access-Control-Allow-Origin" not in headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ") and "frame-ancestors 'none'" in policy
        assert ("script-src" in policy) == (path == "/" and method == "GET") and "unsafe-eval" not in policy


def test_a_line_that_is_no_request_ends_nothing(visitor):
    for line in (b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x00", b"GET /" + b"a" * 70_000):
        with socket.create_connection(("127.0.0.1", visitor.server.server_port), timeout=60) as connection:
            connection.sendall(line + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            assert SECRET not in connection.recv(1 << 16)
    assert visitor.ask("/").status == 200


def test_it_follows_the_run_and_keeps_its_last_page(tmp_path, run_writer):
    told = []
    run = small(run_writer, tmp_path / "run")
    content = (run / "histories.parquet").read_bytes()
    with serving(run, folder=tmp_path / "pages", say=told.append) as visitor:
        assert b"Building the page" in visitor.ask("/").content and visitor.state["version"] == ""
        seen = visitor.live.renew(None)
        first = visitor.state
        assert visitor.live.renew(seen) == seen and visitor.state == first  # nothing has changed
        (run / "histories.parquet").write_bytes(content[:-9])
        assert visitor.live.renew(seen) is None and visitor.live.renew(None) is None
        assert visitor.state["version"] == first["version"] and visitor.ask("/").status == 200
        assert f"the results are safe in {run}, but showing them failed (" in visitor.state["said"]
        assert len(told) == 1 and told[0] == visitor.state["said"]
        shutil.move(run, tmp_path / "away")
        assert visitor.live.renew(None) is None
        assert visitor.state == {"version": first["version"], "said": f"{run} is gone: this is the last page of it"}
        shutil.move(tmp_path / "away", run)
        (run / "histories.parquet").write_bytes(content)
        assert visitor.live.renew(None) and visitor.state["version"] > first["version"]
        assert visitor.state["said"].startswith("As of ") and not (run / "report").exists()


def test_a_run_without_rows_and_several_runs(tmp_path, run_writer):
    full, empty = small(run_writer, tmp_path / "full"), small(run_writer, tmp_path / "empty")
    index = (empty / "index.jsonl").read_text()
    (empty / "histories.parquet").unlink()
    (empty / "index.jsonl").unlink()
    with serving(empty, folder=tmp_path / "one") as visitor:
        visitor.live.renew(None)
        assert visitor.state == {"version": "", "said": f"No results yet: {empty}."}
        assert f"No results yet: {empty}." in visitor.ask("/").content.decode()
    with serving(full, empty, folder=tmp_path / "both") as visitor:
        visitor.live.renew(None)
        assert visitor.state["said"].endswith(f"No results yet: {empty}.") and visitor.state["version"]
        (empty / "index.jsonl").write_text(index.replace('"finished"', '"running"'))
        visitor.live.renew(None)  # members, and no row of theirs
        assert "No results" not in visitor.state["said"]
        assert "full, empty" in visitor.ask("/").content.decode()


def test_a_run_in_a_bucket_is_brought(tmp_path, run_writer, bucket):
    from pyarrow.fs import FileSystem, LocalFileSystem, copy_files

    run, uri = small(run_writer, tmp_path / "run"), bucket("run")
    filesystem, path = FileSystem.from_uri(uri)
    copy_files(str(run), path, LocalFileSystem(), filesystem)
    with serving(uri, folder=tmp_path / "pages") as visitor:
        visitor.live.renew(None)
        assert visitor.state["version"] and visitor.ask("/").status == 200
    with pytest.raises(UserError, match="is not a run directory"), serving(bucket("none"), folder=tmp_path / "other"):
        pass


def test_mistakes_are_one_line(tmp_path, run_writer, capsys):
    run = str(small(run_writer, tmp_path / "run"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        lines = {
            (
                "serve",
                run,
                "--port",
                str(port),
            ): f"127.0.0.1 port {port} cannot be listened on (Address already in use)",
            ("serve", run, "--host", "no.such.host.invalid"): "no.such.host.invalid port 8300 cannot be listened on",
            ("serve", str(tmp_path / "none")): f"{tmp_path}/none is not a run directory",
            ("serve", str(tmp_path)): f"{tmp_path} is not a run directory",
            ("serve", ""): "an empty name is no run",
            ("serve", run, f"{run}/../run"): f"{run} is named twice: compare different runs",
            ("serve", run, "--host", "no..name", "--port", "0"): "no..name port 0 cannot be listened on",
            ("serve", "file://elsewhere/run"): "file://elsewhere/run is a file of elsewhere",
        }
        for words, line in lines.items():
            with pytest.raises(SystemExit) as end:
                main(list(words))
            error = capsys.readouterr().err
            assert end.value.code == 2 and error.startswith(f"error: {line}") and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_without_torch_and_ends_cleanly(tmp_path, run_writer, number):
    run = small(run_writer, tmp_path / "run", (0.1,))
    code = (
        "import atexit, sys\nfrom dr3_ray.__main__ import main\n"
        "atexit.register(lambda: print(sorted({'torch', 'ray', 'pandas'} & sys.modules.keys())))\n"
        f"main(['serve', {str(run)!r}, '--port', '0'])"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        line = process.stdout.readline()
        port = int(re.fullmatch(rf"http://127\.0\.0\.1:(\d+)/ shows {run}; Ctrl-C ends it\n", line)[1])
        version = ""
        while not version:  # what hangs has the test's own limit
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/state.json")
            version = json.loads(connection.getresponse().read())["version"]
        process.send_signal(number)
        assert process.stdout.read() == "['pandas']\n" and process.wait(60) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"] and not (run / "report").exists()


@pytest.mark.slow
def test_a_browser_shows_what_is_new_and_keeps_what_was_chosen(tmp_path, tmp_path_factory, run_writer):
    run = small(run_writer, tmp_path / "run", (0.0, 0.01, 0.1))
    more = small(run_writer, tmp_path / "more", (0.0, 0.01, 0.1, 0.3))
    with serving(run, folder=tmp_path / "pages") as visitor, browser(tmp_path_factory.mktemp("browser")) as tab:
        address = visitor.server.address
        tab.resize(1280, 700)
        tab("Page.navigate", url=address)
        tab.until("document.documentElement?.dataset.live === 'yes'")
        assert "Building the page" in tab.run("document.body.textContent")
        visitor.live.renew(None)
        tab.until(
            "document.documentElement?.dataset.ready === 'yes' && document.documentElement.dataset.live === 'yes'"
        )
        tab.choose("#quantity", "dot_product")
        tab.choose("#scale", "linear")
        tab.click("#chips button[data-coefficient='0.01']")
        tab.click("#singles")
        tab.click("table.summary th")
        tab.run("document.querySelector('#reproduce details').open = true; window.scrollTo(0, 400)")
        before = visitor.state["version"]
        for name in ("histories.parquet", "index.jsonl"):
            shutil.copy(more / name, run / name)
        visitor.live.renew(None)
        tab.until(
            f"document.documentElement?.dataset.live === 'yes' && document.documentElement.dataset.version > '{before}'"
        )
        assert tab.run("[...document.querySelectorAll('#quantity, #scale')].map((each) => each.value)") == [
            "dot_product", "linear",
        ]  # fmt: skip
        assert tab.run(
            "[...document.querySelectorAll('#chips [aria-pressed=false]')].map((chip) => chip.dataset.coefficient)"
        ) == ["0.01"]
        named = "document.querySelector('#plot').data.filter((trace) => trace.name)"
        assert tab.run(f"{named}.map((trace) => trace.name)") == ["c₀ = 0", "c₀ = 0.1", "c₀ = 0.3"]
        assert tab.run(
            "document.querySelector('#singles').checked && document.querySelector('#reproduce details').open"
        )
        assert tab.run("document.querySelector('table.summary th').getAttribute('aria-sort')") == "ascending"
        assert tab.run("window.scrollY") == 400
        assert {url.partition("?")[0] for url in tab.requests()} == {address, f"{address}state.json"}
        assert tab.complaints() == []
