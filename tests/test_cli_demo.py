"""`vscrapy demo` and the local cluster, as somebody meets them who has just installed it."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.terminal import Terminal
from tests.waiting import wait_until

IDLE_S = 2


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal with a local cluster of its own, which is gone afterwards."""
    sockets = Path(tempfile.mkdtemp(prefix="vs-"))
    terminal = Terminal(tmp_path / "home")
    terminal.environment |= {"XDG_RUNTIME_DIR": str(sockets), "VSCRAPY_IDLE_S": str(IDLE_S)}
    yield terminal
    wait_until(lambda: not _cluster(sockets), 30, "end of the local cluster")
    shutil.rmtree(sockets)


def _cluster(sockets: Path) -> list[psutil.Process]:
    """Processes that know of this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and str(sockets) in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_demo_tells_what_happened_and_what_to_type_next(
    newcomer: Terminal, tmp_path: Path
) -> None:
    listed = newcomer.run(tmp_path, "-l")
    assert listed.stdout == "nothing runs: the local cluster starts with the first crawl\n"
    ended = newcomer.run(tmp_path, "demo")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    text = ended.stdout
    assert "200 items from 209 pages in " in text
    pages = {name: int(n) for name, n in re.findall(r"^  (\S+) +(\d+) pages$", text, re.MULTILINE)}
    assert len(pages) == 2
    assert sum(pages.values()) == 209
    assert max(map(len, text.split("\n\n", 1)[1].splitlines())) <= 90
    found = re.search(r"vscrapy items (\w+) -n 3", text)
    assert found
    assert len(newcomer.run(tmp_path, "items", found[1], "-n", "3").stdout.splitlines()) == 3
    listed = newcomer.run(tmp_path, "-l")
    assert re.search(rf"^{found[1]} demo_books finished", listed.stdout, re.MULTILINE)
    assert "the local cluster: 2 workers" in listed.stdout
