"""Two machines with a cable between them: network namespaces of one test, and what runs in them."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest

from tests.e2e.terminal import Terminal

NEAR, FAR = "10.77.0.1", "10.77.0.2"
_CABLE = "vs0"  # name of both ends
_END_S = 20.0


class Network:
    """Namespaces `near` and `far`, each with an end of one cable; nothing else reaches them.

    The addresses exist in the two namespaces only, so tests may run side by side.
    """

    def __init__(self) -> None:
        self._names = {side: f"vscrapy-{os.getpid()}-{side}" for side in ("near", "far")}

    def within(self, side: str) -> list[str]:
        """What goes before a command that is to run on this side."""
        return ["ip", "netns", "exec", self._names[side]]

    def cut(self) -> None:
        _ip("-n", self._names["far"], "link", "set", _CABLE, "down")

    def mend(self) -> None:
        _ip("-n", self._names["far"], "link", "set", _CABLE, "up")

    def __enter__(self) -> Self:
        near, far = self._names["near"], self._names["far"]
        try:
            for name in (near, far):
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
            ends = ("name", _CABLE, "netns", near, "type", "veth")
            _ip("link", "add", *ends, "peer", "name", _CABLE, "netns", far)
            for name, address in ((near, NEAR), (far, FAR)):
                _ip("-n", name, "address", "add", f"{address}/30", "dev", _CABLE)
                _ip("-n", name, "link", "set", _CABLE, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def network() -> Iterator[Network]:
    """Two sides and a cable; skipped where the system does not let us make them."""
    if not shutil.which("ip"):
        pytest.skip("no `ip` on this machine; `apt install iproute2` brings it")
    try:
        made = Network().__enter__()
    except OSError as exc:
        pytest.skip(f"network namespaces cannot be made here (root is needed): {exc}")
    try:
        yield made
    finally:
        made.__exit__()


class Machine(Terminal):
    """Commands of one user on one side of a network."""

    def __init__(self, home: Path, url: str, network: Network, side: str) -> None:
        super().__init__(home, url)
        self._within = network.within(side)

    def command(self, *words: str) -> list[str]:
        return [*self._within, *super().command(*words)]

    def work(self, folder: Path, *options: str) -> "Talking":
        """A worker on this side."""
        return Talking(self, folder, "worker", *options)


class Talking:
    """A command that runs on a machine; what it writes to stderr is kept in `said`."""

    def __init__(self, terminal: Terminal, folder: Path, *words: str) -> None:
        self.said: list[str] = []
        self.process = terminal.start(folder, *words)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())

    def heard(self, text: str) -> int:
        """How many lines hold this."""
        return sum(text in line for line in list(self.said))

    def text(self) -> str:
        return "\n".join(self.said[-60:])

    def wait(self, timeout_s: float) -> int:
        return self.process.wait(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.terminate()
            try:
                self.process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                for process in family:
                    process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
