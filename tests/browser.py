"""A real JupyterLab in a headless Chromium, used as a user would: one `Lab`, many notebooks.

    with Lab(folder) as lab, lab.notebook(["print('hi')"]) as notebook:
        notebook.run(0)
        assert "hi" in notebook.text(0)

The server listens on the loopback only, with a token of its own, and all its folders are inside the
one that it is given. All waits look twenty times a second and have a deadline.
"""

import contextlib
import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil

TIMEOUT_S: Final = 60.0
LOOK_MS: Final = 50
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
_ARGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-default-apps"),
    "--disable-dev-shm-usage",
)
_FOLDERS: Final = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "IPYTHONDIR": "ipython",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
}
_NO_NEWS: Final = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
_WIDGET: Final = "jupyterapp.shell.currentWidget"


def missing() -> str:
    """What is not here that a `Lab` needs; empty when nothing is."""
    if browser() is None:
        return f"no browser on this machine ({', '.join(_BROWSERS)}): apt-get install chromium"
    for module in ("jupyterlab", "ipykernel", "playwright"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed here: pip install {module}"
    return ""


def browser() -> str | None:
    """Path of a Chromium."""
    return next(filter(None, map(shutil.which, _BROWSERS)), None)


class Lab:
    """One server and one browser; a context manager."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._env = env or {}
        self._token = secrets.token_hex(16)
        self._port = _free_port()
        self._made = 0
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "Lab":
        try:
            self._start_server()
            self._start_browser()
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _start_server(self) -> None:
        self.root.mkdir(parents=True)
        env = {**os.environ, "NO_PROXY": "127.0.0.1,localhost", **self._env}
        for variable, name in _FOLDERS.items():
            (self.folder / name).mkdir()
            env[variable] = str(self.folder / name)
        self.keep_setting("@jupyterlab/apputils-extension", "notification", _NO_NEWS)
        log = self._closing.enter_context((self.folder / "server.log").open("wb"))
        # So that the server ends with the tests, however they end.
        bound = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        self._server = subprocess.Popen(
            [
                *bound,
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
                *("--ip=127.0.0.1", f"--port={self._port}", "--ServerApp.port_retries=0"),
                f"--IdentityProvider.token={self._token}",
                f"--ServerApp.root_dir={self.root}",
                "--LabApp.expose_app_in_browser=True",
            ],
            cwd=self.root,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._closing.callback(self._stop_server)
        until(self._is_up, lambda: f"the server did not start:\n{self.server_log()[-2000:]}")

    def _is_up(self) -> bool:
        assert self._server.poll() is None, f"the server ended:\n{self.server_log()[-2000:]}"
        try:
            self.api("GET", "api/status")
        except (OSError, urllib.error.URLError):
            return False
        return True

    def _stop_server(self) -> None:
        kernels = psutil.Process(self._server.pid).children(recursive=True)
        self._server.terminate()
        try:
            self._server.wait(15)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        for kernel in kernels:  # that outlived their server
            with contextlib.suppress(psutil.NoSuchProcess):
                kernel.kill()

    def _start_browser(self) -> None:
        from playwright.sync_api import sync_playwright

        playwright = self._closing.enter_context(sync_playwright())
        self._context = playwright.chromium.launch_persistent_context(
            str(self.folder / "browser"),
            executable_path=browser(),
            args=list(_ARGS),
            viewport={"width": 1400, "height": 1000},
        )
        self._closing.callback(self._context.close)
        self._context.set_default_timeout(TIMEOUT_S * 1000)

    def keep_setting(self, package: str, plugin: str, value: dict[str, object]) -> None:
        """Write a user setting of JupyterLab; pages that are opened later have it."""
        path = self.folder / "settings" / package / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def server_log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def api(self, method: str, path: str) -> Any:
        """Ask the server itself."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/{path}",
            method=method,
            headers={"Authorization": f"token {self._token}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=TIMEOUT_S) as reply:
            content = reply.read()
        return json.loads(content) if content else None

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self._port}/lab/tree/{name}?reset&token={self._token}"

    @contextlib.contextmanager
    def notebook(self, cells: list[str]) -> Iterator["Notebook"]:
        """A notebook with these cells, open, with a kernel of its own; both end afterwards."""
        self._made += 1
        path = self.root / f"n{self._made}.ipynb"
        path.write_text(json.dumps(_notebook(cells)))
        notebook = Notebook(self, path, self._context.new_page())
        try:
            notebook.open()
            yield notebook
        finally:
            notebook.page.close()
            for session in self.api("GET", "api/sessions"):
                if session["path"] == path.name:
                    self.api("DELETE", f"api/sessions/{session['id']}")


class Notebook:
    """One notebook in one tab.

    Attributes:
        page: Playwright's page, for what has no method here.
        errors: of scripts, and what they wrote to the console as errors.
    """

    def __init__(self, lab: Lab, path: Path, page: Any) -> None:
        self._lab = lab
        self.path = path
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)

    def open(self, *, kernel: bool = True) -> None:
        """Load the page, the first time or again; without `kernel` it may be blocked in a cell."""
        self.page.goto(self._lab.address(self.path.name))
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.until(
            lambda: self.js("() => !!window.jupyterapp?.shell.currentWidget?.sessionContext")
        )
        if kernel:
            self.until(lambda: self.kernel_state() in {"idle", "busy"})

    def until(
        self,
        predicate: Callable[[], Any],
        what: Callable[[], str] | str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """Wait, while the page goes on, until something is true; what it was."""
        return until(predicate, what, timeout_s, lambda: self.page.wait_for_timeout(LOOK_MS))

    def js(self, script: str, argument: object = None) -> Any:
        return self.page.evaluate(script, argument)

    def kernel_state(self) -> str:
        script = f"() => {_WIDGET}.sessionContext.session?.kernel?.status ?? 'none'"
        return str(self.js(script))

    def cell(self, index: int) -> Any:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def prompt(self, index: int) -> str:
        """Empty for a cell that never ran, `*` while it runs, or its number."""
        text = self.cell(index).locator(".jp-InputPrompt").first.text_content() or ""
        return re.sub(r"[\[\]:\s]", "", text)

    def run(self, index: int, *, wait: bool = True) -> None:
        """Click into a cell and press Ctrl+Enter."""
        before = self.prompt(index)
        self.cell(index).locator(".jp-InputArea-editor .cm-content").first.click()
        self.page.keyboard.press("Control+Enter")
        self.until(lambda: self.prompt(index) != before, f"cell {index} did not start", 10)
        if wait:
            self.wait_done(index)

    def wait_done(self, index: int, timeout_s: float = TIMEOUT_S) -> None:
        self.until(
            lambda: self.prompt(index).isdigit(),
            lambda: f"cell {index} still runs: {self.text(index)[-800:]}",
            timeout_s,
        )

    def text(self, index: int) -> str:
        """What the output of a cell shows."""
        return str(self.cell(index).locator(".jp-Cell-outputArea").first.inner_text())

    def wait_text(self, text: str, index: int, timeout_s: float = TIMEOUT_S) -> None:
        self.until(
            lambda: text in self.text(index),
            lambda: f"{text!r} is not in cell {index}: {self.text(index)[-1500:]}",
            timeout_s,
        )

    def answer(self, text: str) -> None:
        """Type into the input box that is open, and press Enter."""
        box = self.page.locator(".jp-Stdin-input:not([disabled])").last
        box.fill(text)
        box.press("Enter")

    def save(self) -> dict[str, Any]:
        """Save the notebook; what is on disk now."""
        self.js(f"async () => {{ await {_WIDGET}.context.save(); }}")
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found


def until(
    predicate: Callable[[], Any],
    what: Callable[[], str] | str = "",
    timeout_s: float = TIMEOUT_S,
    pause: Callable[[], object] = lambda: time.sleep(LOOK_MS / 1000),
) -> Any:
    """Look until something is true; what it was."""
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError((what if isinstance(what, str) else what()) or "not in time")
        pause()
    return value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _notebook(cells: list[str]) -> dict[str, object]:
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}
        },
        "cells": [
            {
                "cell_type": "code",
                "id": f"c{number}",
                "metadata": {},
                "source": source,
                "outputs": [],
                "execution_count": None,
            }
            for number, source in enumerate(cells)
        ],
    }
