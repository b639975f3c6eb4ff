"""Owns the processes of a user's local cluster: one server, and the workers of each environment.

Run as `python -m vscrapy_magic.store.keeper FOLDER` by the first sender that needs it, as a process
of its own that outlives that sender. It answers senders on a socket in the folder, starts again
what died, and ends everything when no session and no running detached crawl was there for a while.
It waits for calls and for signals; sessions are looked for every few seconds.

Whatever is killed, nothing stays behind: the server and the workers end with the keeper, because
pipes from it close. The next call of a sender starts another keeper, whose server reads what the
last one's had acknowledged.
"""

import contextlib
import fcntl
import logging
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import IO, Final

import msgspec

from vscrapy_magic.config import private_dir, setting_ms
from vscrapy_magic.errors import ServerStartError, StoreError, VscrapyError
from vscrapy_magic.failpoints import fail_point
from vscrapy_magic.store.crews import Answer, Call, Crew, Workers
from vscrapy_magic.store.inquiry import forget_all

logger = logging.getLogger(__name__)

SOCKET_NAME: Final = "keeper.sock"
LOG_NAME: Final = "log"
LOCK_NAME: Final = "keeper.lock"  # beside the folder: it outlives the folder
READY: Final = b"ready\n"
IDLE_VARIABLE: Final = "VSCRAPY_IDLE_S"
IDLE_MS: Final = 60_000  # without any session the cluster ends
CALL_BYTES: Final = 4 * 1024 * 1024  # environment variables included
CALL_WITHIN_S: Final = 2.0  # a caller says what it wants at once
_LOOK_S: Final = 5.0  # between two looks for sessions
_LOOKS_PER_IDLE: Final = 10  # but so many at least until the end
_LOG_BYTES_MAX: Final = 1024 * 1024  # then it begins anew
_SERVER_DEATHS_MAX: Final = 3  # in a row, each within `_DEATH_WINDOW_S`
_DEATH_WINDOW_S: Final = 10.0
_BACKLOG: Final = 64


class Keeper:
    """The local cluster in `folder`; `run` returns when it has ended.

    Args:
        log: where workers write.
    """

    def __init__(self, folder: Path, idle_s: float, log: IO[bytes]) -> None:
        # The driver of Redis takes 100 ms to import: time in which the server has started.
        from vscrapy_magic.store.server import EmbeddedServer

        self._folder = folder
        self._idle_s = idle_s
        self._look_s = min(_LOOK_S, idle_s / _LOOKS_PER_IDLE)
        self._log = log
        self._server = EmbeddedServer(folder / "server")
        self._server_deaths: list[float] = []
        self._crews: dict[str, Crew] = {}
        self._named = 0
        self._last_use = time.monotonic()
        self._told_to_go = False
        self._selector = selectors.DefaultSelector()
        self._socket = self._listen()
        self._woken, self._wake = os.pipe()
        for fd in (self._woken, self._wake):
            os.set_blocking(fd, False)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def _listen(self) -> socket.socket:
        path = self._folder / SOCKET_NAME
        path.unlink(missing_ok=True)  # of a keeper that was killed
        forget_all(self._folder)  # of its workers, who ended with it
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(_BACKLOG)
        self._selector.register(listening, selectors.EVENT_READ)
        return listening

    def run(self) -> None:
        """Serve until nobody needs the cluster, or SIGTERM; blocks.

        Raises:
            VscrapyError: the server died and cannot be started again.
        """
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._go)
        is_idle = False
        try:
            look_at = time.monotonic() + self._look_s
            while not (is_idle or self._told_to_go):
                self._wait(min(look_at, self._tend(time.monotonic())))
                if (now := time.monotonic()) >= look_at:
                    is_idle = self._look(now)
                    look_at = now + self._look_s
        finally:
            self._end(remove=is_idle)

    def _go(self, *_: object) -> None:
        self._told_to_go = True

    def start_server(self) -> None:
        """Start the server; what an earlier one had acknowledged is there again.

        Raises:
            VscrapyError: it cannot be started; the message says why.
        """
        fail_point("keeper_before_server")
        try:
            self._server.start()
        except ServerStartError as exc:
            data = self._folder / "server"
            if not any(data.glob("appendonly*")):
                raise
            # Better without what it held than never again.
            logger.warning("%s; its data were moved away", exc)
            unreadable = self._folder / "unreadable"
            shutil.rmtree(unreadable, ignore_errors=True)
            data.rename(unreadable)
            self._server.start()
        fail_point("keeper_after_server")

    def _wait(self, until: float) -> None:
        """Serve callers until something happened, or it is time."""
        for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
            if key.fd == self._woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, CALL_BYTES)
            else:
                connection, _ = self._socket.accept()
                with connection:
                    self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(CALL_WITHIN_S)
        try:
            with connection.makefile("rb") as file:
                line = file.readline(CALL_BYTES)
            answer = self._answer(msgspec.json.decode(line, type=Call))
            connection.sendall(msgspec.json.encode(answer) + b"\n")
        except (OSError, msgspec.MsgspecError) as exc:
            logger.warning("A call was not understood: %s", exc)

    def _answer(self, call: Call) -> Answer:
        now = time.monotonic()
        if not self._server.runs:
            self._tend(now)
        if call.environment:
            self._last_use = now
            crew = self._crews.setdefault(call.environment, Crew(now))
            crew.is_used_by(call.pid, now)
            if call.count > crew.count:
                self._enlarge(crew, call)
                self._tend(now)
        return Answer(url=self._server.url)

    def _enlarge(self, crew: Crew, call: Call) -> None:
        fail_point("keeper_before_workers")
        self._named += 1
        name = f"local{self._named if self._named > 1 else ''}"
        count = call.count - crew.count
        crew.workers.append(
            Workers(call, url=self._server.url, name=name, count=count, log=self._log)
        )

    def _tend(self, now: float) -> float:
        """Start again what has died; when to do so next (monotonic seconds)."""
        if not self._server.runs:
            logger.warning("The server has ended; starting it again")
            self._server_deaths = [t for t in self._server_deaths if now - t < _DEATH_WINDOW_S]
            self._server_deaths.append(now)
            if len(self._server_deaths) > _SERVER_DEATHS_MAX:
                raise ServerStartError("the embedded server dies again and again")
            self._server.stop()
            self.start_server()
        times = [w.tend(now) for crew in self._crews.values() for w in crew.workers]
        return min(times, default=float("inf"))

    def _look(self, now: float) -> bool:
        """Whether nobody has needed the cluster for long enough; ends crews of which it is true."""
        if (self._folder / LOG_NAME).stat().st_size > _LOG_BYTES_MAX:
            self._log.truncate(0)
        try:
            wanted = self._look_for_use(now)
        except StoreError as exc:
            logger.warning("%s", exc)
            return False
        for environment, crew in list(self._crews.items()):
            if crew.has_users() or environment in wanted:
                crew.last_use = now
            elif now - crew.last_use >= self._idle_s:
                logger.info("Nobody needs the workers of environment %s any more", environment)
                del self._crews[environment]
                crew.end()
        return now - self._last_use >= self._idle_s

    def _look_for_use(self, now: float) -> set[str]:
        """Note whether there are sessions or detached crawls; environments that crawls want."""
        from vscrapy_magic.store.connection import Store
        from vscrapy_magic.store.crawls import Crawls
        from vscrapy_magic.store.presence import Liveness, Presence

        with Store.connect(self._server.url) as store:
            sessions = Presence(store).sessions()
            crawls = Crawls(store).wanted()
        is_used = any(view.liveness is not Liveness.GONE for view in sessions)
        if is_used or any(view.session is None for view in crawls):
            self._last_use = now
        return {view.spec.env for view in crawls}

    def _end(self, *, remove: bool) -> None:
        """End workers, then the server.

        Args:
            remove: nobody needs what the server holds.
        """
        (self._folder / SOCKET_NAME).unlink(missing_ok=True)
        self._socket.close()  # whoever calls from now on starts another keeper, which waits for us
        for crew in self._crews.values():
            crew.end()
        forget_all(self._folder)  # of zygotes that were killed
        self._server.stop()
        signal.set_wakeup_fd(-1)
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake)
        if remove:
            shutil.rmtree(self._folder, ignore_errors=True)


def main(folder: Path) -> int:
    """Become a process of its own, tell the starter when calls are answered, and keep; exit code.

    One keeper at a time: another one waits here until the one before has ended.
    """
    if os.fork():  # single-threaded: nothing but imports has run
        os._exit(0)
    os.setsid()
    with (folder.parent / LOCK_NAME).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        private_dir(folder)
        with (folder / LOG_NAME).open("ab", buffering=0) as log:
            os.dup2(log.fileno(), sys.stderr.fileno())
            logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
            keeper = Keeper(folder, setting_ms(IDLE_VARIABLE, IDLE_MS) / 1000, log)
            try:
                keeper.start_server()
            except VscrapyError as exc:
                os.write(sys.stdout.fileno(), f"{exc}\n".encode())
                return 1
            os.write(sys.stdout.fileno(), READY)
            os.dup2(sys.stdin.fileno(), sys.stdout.fileno())
            try:
                keeper.run()
            except Exception:
                logger.exception("The local cluster has ended")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
