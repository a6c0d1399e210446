"""A headless Chromium, told what to do by its debugging protocol through two pipes: no port, no driver, no network."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

QUIET = ("quiet", "no-first-run", "disable-gpu", "disable-quic", "disable-background-networking",
         "disable-component-update", "disable-sync", "no-sandbox", "hide-scrollbars")  # fmt: skip
WAIT = 120  # seconds for what hangs
LEFT = "Inspected target navigated or closed"


class LeftError(Exception):
    """The page that was asked has given way to another one, before it answered."""


def program() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "this test needs a browser: apt-get install chromium"
    return found


class Tab:
    """A page in the browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers, self.number, self.rest, self.session = commands, answers, 0, b"", ""
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Do something and return the answer; events are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | (
            {"sessionId": self.session} if self.session else {}
        )
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                if answer.get("error", {}).get("message") == LEFT:
                    raise LeftError
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            assert select.select([self.answers], [], [], WAIT)[0], "the browser says nothing"
            self.rest += os.read(self.answers, 1 << 20)
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path) -> None:
        """Open a file, and wait until its scripts have run."""
        self("Page.navigate", url=page.as_uri())
        self.until("document.documentElement?.dataset.ready === 'yes'")

    def run(self, script: str) -> Any:
        """Return the value of an expression of the page."""
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression of the page is true."""
        end = time.monotonic() + WAIT
        while True:
            with suppress(LeftError):
                if self.run(script):
                    return
            assert time.monotonic() < end, script
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select, or type into a field."""
        self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)};"
            "for (const n of ['input', 'change']) e.dispatchEvent(new Event(n, {bubbles: true})); })()"
        )

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])

    def shot(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot")["data"]))
        return path

    def pdf(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self("Page.printToPDF", preferCSSPageSize=True)["data"]))
        return path

    def requests(self) -> list[str]:
        """Return the addresses that the page has asked for."""
        self.run("0")
        sent = (event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [params["request"]["url"] for params in sent]

    def complaints(self) -> list[str]:
        """Return what the browser has logged: errors, exceptions, and what the policy has stopped."""
        self.run("0")
        return [
            json.dumps(event["params"])
            for event in self.events
            if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
        ]


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """Start a browser and end it."""
    inner_in, outer_out = os.pipe()
    outer_in, inner_out = os.pipe()
    command = [
        program(),
        "--headless",
        *(f"--{each}" for each in QUIET),
        f"--user-data-dir={profile}",
        "--remote-debugging-pipe",
    ]
    wired = ["bash", "-c", f'exec "$@" 3<&{inner_in} 4>&{inner_out}', "bash", *command]
    process = subprocess.Popen(
        wired, pass_fds=(inner_in, inner_out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    os.close(inner_in), os.close(inner_out)
    try:
        yield Tab(outer_out, outer_in)
    finally:
        os.close(outer_out), os.close(outer_in)  # which ends it
        process.terminate()
        process.wait(WAIT)
