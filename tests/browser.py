"""A headless Chromium over its own pipe (DevTools protocol, NUL-separated JSON): no driver, no port, nothing else."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
         "--remote-debugging-pipe"]
# Chromium reads commands from descriptor 3 and answers on 4, whatever numbers the pipes have here.
_ON_3_AND_4 = """
import fcntl, os, sys
for number, end in enumerate([fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]], start=3):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 120  # seconds for one answer: a cold browser on a busy machine


class Page:
    """One tab: what it is told, what it answers, which errors it threw and what it asked for."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._rest, self._number = to, back, b"", 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.asked: list[str] = []
        target = self.say("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.say("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.say(f"{domain}.enable")

    def say(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == number:
                assert "error" not in heard, heard
                return heard["result"]

    def open(self, address: str) -> None:
        """Go to an address and wait until it is loaded."""
        self.say("Page.navigate", url=address)
        until = time.monotonic() + PATIENCE
        while self.run("document.readyState") != "complete" or self.run("location.href") != address:
            assert time.monotonic() < until, "the page never loaded"

    def run(self, expression: str) -> Any:
        """Return what an expression evaluates to in the page."""
        found = self.say("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, element: str) -> None:
        """Press and release the mouse on the middle of an element, as a person does."""
        self.run(f"{element}.scrollIntoView({{block:'center'}})")
        x, y = self.run(f"(box=>[box.x+box.width/2,box.y+box.height/2])({element}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.say("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._back], [], [], PATIENCE)[0], "Chromium does not answer"
            got = os.read(self._back, 1 << 20)
            assert got, "Chromium has gone"
            self._rest += got
        line, _, self._rest = self._rest.partition(b"\0")
        heard = json.loads(line)
        if heard.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(heard["params"]))
        if heard.get("method") == "Network.requestWillBeSent":
            self.asked.append(heard["params"]["request"]["url"])
        return heard


def wait_for(page: Page, expression: str) -> None:
    until = time.monotonic() + 30
    while not page.run(expression):
        assert time.monotonic() < until, expression
        time.sleep(0.05)


def key(page: Page, name: str) -> None:
    text = {"Enter": "\r"}.get(name, name if len(name) == 1 else "")
    for kind in ("keyDown", "keyUp"):
        page.say("Input.dispatchKeyEvent", type=kind, key=name, text=text if kind == "keyDown" else "",
                 windowsVirtualKeyCode={"Enter": 13, "ArrowDown": 40, "ArrowUp": 38}.get(name, ord(name[0].upper())))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Start Chromium with a profile of its own and yield its page; skips, aloud, where there is none."""
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
                 None)
    if found is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium); the page was not looked at")
    to_read, to = os.pipe()
    back, back_write = os.pipe()

    process = subprocess.Popen([sys.executable, "-c", _ON_3_AND_4, str(to_read), str(back_write), found, *QUIET,
                                f"--user-data-dir={profile}"], pass_fds=(to_read, back_write),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(to_read)
    os.close(back_write)
    try:
        yield Page(to, back)
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(to)
        os.close(back)
