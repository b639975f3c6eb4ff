"""Owns the demo site as seen from its parent: starts the process, asks it, ends it.

Runs in whoever wants a site: a test, a notebook, `vscrapy demo`.
"""

import http.client
import json
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

from vscrapy_magic.demo.routes import DEFAULT_OPTIONS
from vscrapy_magic.errors import VscrapyError

START_TIMEOUT_S = 15.0  # until the site has printed its address
STOP_TIMEOUT_S = 3.0  # between SIGTERM and SIGKILL
ASK_TIMEOUT_S = 10.0
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class DemoSiteError(VscrapyError):
    """The demo site's process did not start, or does not answer."""


class DemoSite:
    """The site in a process of its own, from construction until `close`.

    It also ends when this process does, however that ends. Construction blocks until the site
    listens (about 0.2 s). Methods may be called from any thread.

    Attributes:
        url: its address without a slash at the end, as in `f"{site.url}/book/1"`.
        pid: the process.
    """

    def __init__(
        self,
        *,
        pages: int = DEFAULT_OPTIONS.pages,
        seed: int = DEFAULT_OPTIONS.seed,
        related: int = DEFAULT_OPTIONS.related,
        delay_ms: int = DEFAULT_OPTIONS.delay_ms,
        port: int = 0,
    ) -> None:
        """Start the process.

        Args:
            pages: how many book pages there are; one book in ten is in no listing.
            seed: another seed, other content.
            related: links to other books on a book's page.
            delay_ms: added to every answer but those under `/_`.
            port: 0 takes a free one.

        Raises:
            DemoSiteError: no address within `START_TIMEOUT_S`; its stderr, which is ours, says why.
        """
        command = [sys.executable, "-m", "vscrapy_magic.demo", "--with-parent", "--port", str(port)]
        command += ["--pages", str(pages), "--seed", str(seed)]
        command += ["--related", str(related), "--delay-ms", str(delay_ms)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_PACKAGE_PARENT,  # found even where the package is not installed
            start_new_session=True,
        )
        self.pid = self._process.pid
        try:
            self.url = self._address()
        except BaseException:
            self.close()
            raise

    def _address(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_TIMEOUT_S)
        line = self._process.stdout.readline().decode().strip() if ready else ""
        if not line:
            raise DemoSiteError(
                f"the demo site (pid {self.pid}) did not start within {START_TIMEOUT_S:.0f} s"
            )
        return line.rstrip("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; safe to call again."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def hits(self) -> dict[str, int]:
        """How often each path (with its query) was asked for since the last `reset`."""
        return cast("dict[str, int]", self._ask("/_hits"))

    def log(self) -> list[tuple[float, str]]:
        """Arrival (as of `time.monotonic`) and path of the last 200,000 requests."""
        entries = cast("list[tuple[float, str]]", self._ask("/_log"))
        return [(came_s, path) for came_s, path in entries]

    def stats(self) -> dict[str, int]:
        """`requests`, `in_flight` and `max_in_flight` since the start or the last `reset`."""
        return cast("dict[str, int]", self._ask("/_stats"))

    def reset(self) -> None:
        """Forget hits, log and the failures that flaky pages have had."""
        self._ask("/_reset")

    def _ask(self, path: str) -> object:
        # Not urllib: a proxy in the environment must not come between.
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=ASK_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException) as error:
            raise DemoSiteError(f"the demo site at {self.url} does not answer: {error}") from error
        finally:
            connection.close()
