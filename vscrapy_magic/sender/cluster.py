"""Owns a private cluster for one command: an embedded server and workers started by command line.

Runs in the sender's process. Everything it started ends with `close`, and also when the sender is
killed: each process ends when the pipe on its standard input does.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vscrapy_magic.errors import ServerStartError

LEAVE_WITHIN_S: Final = 5.0  # for workers that are told to go


class PrivateCluster:
    """A server and `workers` workers that nobody else uses; a context manager."""

    def __init__(self, workers: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="vscrapy-", dir="/tmp"))
        self._keeper: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._count = workers
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self.url = self._start_server()
            for number in range(1, self._count + 1):
                self._workers.append(self._start_worker(f"local-{number}"))
        except BaseException:
            self.close()
            raise
        return self

    def _start_server(self) -> str:
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "vscrapy_magic.store.keeper", str(self._folder / "server")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        if self._keeper.stdout is None:
            raise AssertionError("it is a pipe")
        line = self._keeper.stdout.readline().decode().strip()
        if not line.startswith("unix:"):
            raise ServerStartError(line.removeprefix("!") or "the embedded server did not start")
        return line

    def _start_worker(self, name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "vscrapy_magic.worker", self.url),
                *("--name", name, "--log-level", "ERROR", "--with-parent"),
            ],
            cwd=self._folder,
            stdin=subprocess.PIPE,
            start_new_session=True,  # an interrupt at the terminal is the sender's business
        )

    def close(self) -> None:
        """End workers, then the server. Idempotent."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            try:
                worker.wait(LEAVE_WITHIN_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            if worker.stdin is not None:
                worker.stdin.close()
        self._workers.clear()
        keeper, self._keeper = self._keeper, None
        if keeper is not None and keeper.stdin is not None and keeper.stdout is not None:
            keeper.stdin.close()
            keeper.wait()
            keeper.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
