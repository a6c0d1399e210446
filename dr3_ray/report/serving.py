"""`dr3-ray serve`: pages over HTTP, to this machine alone unless it is asked otherwise, and only to be read.

What can be asked for is a table of names in memory (`Page.files`): no path of the file system is made of a request.
"""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import jinja2

from dr3_ray.errors import UserError
from dr3_ray.report.live import Live
from dr3_ray.report.pages import LIVE, PAGE, PLOTLY, scripts, template

WORKERS = 8  # requests that are answered at a time
SILENT = 10  # seconds without a byte, after which a request is given up
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
NOT_FRAMED = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Server(ThreadingHTTPServer):
    """Answers with the newest page of `live`.

    Raises:
        UserError: it cannot listen there.
    """

    def __init__(self, live: Live, host: str, port: int) -> None:
        self.live = live
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}
        self._pool = ThreadPoolExecutor(WORKERS, "requests")
        self._policies = {
            name: f"{scripts(names).policy}; {NOT_FRAMED}"
            for name, names in {"report.html": (PLOTLY, PAGE, LIVE), "waiting": (LIVE,)}.items()
        }
        try:
            self.address_family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            super().__init__(place[:2], _Handler)  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:  # the second of a name that no machine can have
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{host} port {port} cannot be listened on ({reason}): give another --port, 0 for one that is free, or "
                "another --host"
            ) from None

    def server_bind(self) -> None:
        """Bind without asking for the name of this machine, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @property
    def address(self) -> str:
        """Where the page is."""
        name = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{name}:{self.server_port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in one of the threads."""
        self._pool.submit(self.process_request_thread, request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has gone away."""

    def server_close(self) -> None:
        """Listen and answer no more."""
        super().server_close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def is_named(self, host: str | None) -> bool:
        """Return whether a request's `Host` is a name of this server; else another site's name was turned to it."""
        try:
            name = (urlsplit(f"//{host or ''}").hostname or "").lower()
            return name in self._names or bool(ip_address(name))
        except ValueError:
            return False

    def content(self, path: str) -> tuple[str, str, bytes, str] | None:
        """Return the type, policy, content and version of what a path names; None where it names nothing."""
        live = self.live
        live.asked()
        page, said = live.page, live.said
        name = {"/": "report.html"}.get(path, path.removeprefix("/"))
        policy = f"default-src 'none'; {NOT_FRAMED}"
        if path == "/state.json":
            return KINDS[".json"], policy, json.dumps({"version": page.version, "said": said}).encode(), ""
        if name == "report.html" and not page.files:
            return KINDS[".html"], self._policies["waiting"], self._waiting(said), ""
        if not path.startswith("/") or name not in page.files:
            return None
        kind = KINDS.get(Path(name).suffix, KINDS[".txt"])
        return kind, self._policies.get(name, policy), page.files[name], page.version

    def _waiting(self, said: str) -> bytes:
        """Return the page while there is none."""
        shown = scripts((LIVE,))
        colours: dict[str, list[str]] = {"light": [], "dark": []}
        page: jinja2.Template = template("waiting.html.j2")
        return page.render(
            name=self.live.names, said=said, version="", policy=shown.policy, script=shown.texts[0], colours=colours
        ).encode()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server: Server
    timeout = SILENT

    def do_GET(self) -> None:
        """Answer with what the path names, or that the browser has it already."""
        if not self.server.is_named(self.headers.get("Host")):
            return self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        answer = self.server.content(self.path.partition("?")[0])
        if answer is None:
            return self.send_error(HTTPStatus.NOT_FOUND)
        kind, policy, content, version = answer
        tag = f'"{version}"' if version else ""
        same = tag and self.headers.get("If-None-Match") == tag
        self._send(HTTPStatus.NOT_MODIFIED if same else HTTPStatus.OK, kind, policy, b"" if same else content, tag)

    do_HEAD = do_GET  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer that there is nothing, in words of our own."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._send(status, KINDS[".txt"], f"default-src 'none'; {NOT_FRAMED}", f"{status} {status.phrase}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, policy: str, content: bytes, tag: str = "") -> None:
        self.send_response(status)
        more = {"ETag": tag} if tag else {}
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            more["Allow"] = "GET, HEAD"
        sizes = {"Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in (sizes | HEADERS | more | {"Content-Security-Policy": policy}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def version_string(self) -> str:
        """Return the name of the server, without versions."""
        return "dr3-ray"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""


def serve(runs: list[str], host: str, port: int, tell: Any, say: Any) -> None:
    """Serve the page of runs until this thread is interrupted.

    Args:
        runs: Run directories or URIs.
        host: A name or address of this machine.
        port: 0: one that is free.
        tell: Is told the address, once requests are answered.
        say: Is told what cannot be shown.

    Raises:
        UserError: a run is not there, or the port is taken.
    """
    with TemporaryDirectory(prefix="dr3-ray-serve-", ignore_cleanup_errors=True) as folder:
        live = Live(runs, Path(folder), say)
        with Server(live, host, port) as server:
            live.start()
            try:
                tell(server.address)
                server.serve_forever()
            finally:
                live.stop()
