"""A connection that breaks at a chosen moment: what was sent arrives, and no answer comes back."""

import contextlib
import socket
import threading
from typing import Final, Self

from tests.servers import LOOPBACK
from vscrapy_magic.config import socket_path

_PIECE_BYTES: Final = 64 * 1024


class Relay:
    """Passes bytes between clients and the server on a unix socket; a context manager."""

    def __init__(self, url: str) -> None:
        """Relay to the server of this address; `url` of the relay is for clients."""
        path = socket_path(url)
        assert path is not None
        self._server = str(path)
        self._listener = socket.create_server((LOOPBACK, 0))
        self.url = f"redis://{LOOPBACK}:{self._listener.getsockname()[1]}"
        self.broken = 0
        self._word = b""
        self._times = 0
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def break_after(self, word: bytes, times: int = 1) -> None:
        """Give on what holds this word, and close the connection before it is answered."""
        self._word, self._times = word, times

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._sockets += [client, server]
            mute = threading.Event()
            for sides in ((client, server, mute, True), (server, client, mute, False)):
                thread = threading.Thread(target=self._pass, args=sides)
                self._threads.append(thread)
                thread.start()

    def _pass(
        self, source: socket.socket, target: socket.socket, mute: threading.Event, asks: bool
    ) -> None:
        try:
            while data := source.recv(_PIECE_BYTES):
                if asks and self._times and self._word in data:
                    self._times -= 1
                    mute.set()
                    self.broken += 1
                if asks or not mute.is_set():
                    target.sendall(data)
                else:
                    break  # the server has done it, and said so
        except OSError:
            pass
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for each in self._sockets:
            each.close()
