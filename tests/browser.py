"""A headless Chromium, driven over its debugging pipe: enough to look at a page as a reader's browser shows it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-extensions", "--remote-debugging-pipe", "about:blank"),
)

START = """import fcntl, os, sys
asked, answers = (fcntl.fcntl(int(pipe), fcntl.F_DUPFD, 10) for pipe in sys.argv[1:3])
os.dup2(asked, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""  # the browser reads from 3 and writes to 4
DRAWN = """new Promise(done => {
  let tries = 0;
  const look = () => {
    const charts = [...document.querySelectorAll("[data-chart]")];
    const there = location.protocol === "file:" && document.readyState === "complete";
    const drawn = there && charts.every(chart => chart.querySelector("svg"));
    if (drawn || ++tries > 400) done(drawn); else setTimeout(look, 50);
  };
  look();
})"""


class Tab:
    """One page: commands of the DevTools protocol, and what the page said and asked for."""

    def __init__(self, ask: int, answers: int) -> None:
        self._ask, self._answers, self._rest, self._count, self._session = ask, answers, b"", 0, ""
        self.said: list[str] = []
        self.requests: list[str] = []
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{part}.enable")

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; what the page says meanwhile is kept."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._ask, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser is gone"
            self._rest += part
        text, self._rest = self._rest.split(b"\0", 1)
        answer = json.loads(text)
        params = answer.get("params", {})
        if answer.get("method") == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}:
            self.said.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif answer.get("method") == "Log.entryAdded":
            self.said.append(params["entry"]["text"])
        elif answer.get("method") == "Runtime.exceptionThrown":
            self.said.append(json.dumps(params["exceptionDetails"]))
        elif answer.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return dict(answer)

    def open(self, page: Path, width: int, *, dark: bool = False, media: str = "screen") -> None:
        """Show a file at a width in CSS pixels, and wait until its charts are drawn."""
        self.said, self.requests = [], []
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.do("Page.navigate", url=page.as_uri())
        assert self.value(DRAWN), f"charts are missing: {self.said}"

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page, as a debugger asks for it."""
        result = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """Yield a tab of a Chromium of its own, which ends with the block."""
    assert CHROMIUM is not None
    read_asked, ask = os.pipe()
    answers, write_answers = os.pipe()
    env = {**os.environ, "HOME": str(profile)}

    command = [sys.executable, "-c", START, str(read_asked), str(write_answers), CHROMIUM, f"--user-data-dir={profile}"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(  # noqa: S603  # Debian's Chromium
        [*command, *FLAGS], env=env, pass_fds=(read_asked, write_answers), stdout=quiet, stderr=quiet
    ) as process:
        os.close(read_asked)
        os.close(write_answers)
        try:
            yield Tab(ask, answers)
        finally:
            process.kill()
            os.close(ask)
            os.close(answers)
