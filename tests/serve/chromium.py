"""A real Chromium, driven over its own pipe (DevTools protocol): no driver program, no port."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "--window-size=1000,900",
)  # fmt: skip
PATIENCE = 60.0


class Page:
    """One tab. `events` are all that the browser told of; messages end in a zero byte, on descriptors 3 and 4."""

    def __init__(self, folder: Path) -> None:
        if BROWSER is None:
            pytest.skip("no Chromium here: apt-get install chromium")
        down, self._out = os.pipe()
        self._in, up = os.pipe()

        def place() -> None:  # in the child, where the copies do not hide 3 and 4 from each other
            copies = os.dup(down), os.dup(up)
            for copy, number in zip(copies, (3, 4), strict=True):
                os.dup2(copy, number)

        command = [BROWSER, *SWITCHES, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            command, preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(down)
        os.close(up)
        self.events: list[dict[str, Any]] = []
        self._data, self._number, self._session = b"", 0, None
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]
            self.events.append(found)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._data:
            more = os.read(self._in, 1 << 16)
            assert more, "the browser ended"
            self._data += more
        text, _, self._data = self._data.partition(b"\0")
        return json.loads(text)

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """The first value of the expression that is true."""
        deadline = time.monotonic() + PATIENCE
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, self.run("document.body ? document.body.innerText : ''")
            time.sleep(0.05)
        return value

    def drop(self, selector: str, *files: Path) -> None:
        """Files dropped on an element, as the window system would."""
        where = f"document.querySelector('{selector}').getBoundingClientRect()"
        box = self.run(f"(b => [b.x + b.width / 2, b.y + 20])({where})")
        data = {"items": [], "files": list(map(str, files)), "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=box[0], y=box[1], data=data)

    def choose(self, selector: str, file: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def complaints(self) -> list[Any]:
        """What the console, the page's scripts or its security policy had to say."""
        self.run("0")  # whatever was under way has arrived
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for event in self.events if event["method"] in kinds]

    def asked(self) -> set[str]:
        """Every address that the page asked for."""
        return {e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"}

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._out)
        os.close(self._in)
