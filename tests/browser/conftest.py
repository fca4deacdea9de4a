"""Headless Chromium, driven through chromedriver: WebDriver is JSON over HTTP, which the standard library speaks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
]


class Browser:
    """One browser window of a WebDriver session (https://www.w3.org/TR/webdriver2)."""

    def __init__(self, driver_url: str, chromium: str, profile: Path) -> None:
        options = {"binary": chromium, "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        created = _send("POST", f"{driver_url}/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"{driver_url}/session/{created['sessionId']}"

    def show(self, page: Path, width: int, scheme: str) -> None:
        """Open a page at a width in CSS pixels and a colour scheme, light or dark."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._devtools("Emulation.setEmulatedMedia", {"features": features})
        _send("POST", f"{self._session}/url", {"url": page.as_uri()})

    def run(self, script: str) -> Any:
        """The value that a script returns in the page."""
        return _send("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def console(self) -> list[str]:
        """What the console said since the last call, informal messages left out."""
        entries = _send("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def close(self) -> None:
        """End the session, and the browser with it."""
        _send("DELETE", self._session, None)

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return _send("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("there is no chromium, or no chromedriver, on the PATH (Debian: chromium, chromium-driver)")
    direct = {**os.environ, "NO_PROXY": "localhost,127.0.0.1", "no_proxy": "localhost,127.0.0.1"}
    driver = subprocess.Popen([chromedriver, "--port=0"], stdout=subprocess.PIPE, text=True, env=direct)
    try:
        assert driver.stdout is not None
        ports = (re.search(r"started successfully on port (\d+)", line) for line in driver.stdout)
        port = next(found for found in ports if found)[1]
        opened = Browser(f"http://127.0.0.1:{port}", chromium, tmp_path_factory.mktemp("chromium"))
        try:
            yield opened
        finally:
            opened.close()
    finally:
        driver.terminate()
        driver.wait(timeout=20)
        driver.stdout.close()


def _send(method: str, url: str, body: dict[str, Any] | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=60) as answer:
        return json.load(answer)["value"]
