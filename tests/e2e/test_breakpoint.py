"""A remote `breakpoint()` as users meet it: below a notebook's cell, and in a terminal.

Deadlines are the promised ones with three times their length.
"""

import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest

from tests.e2e.terminal import Terminal, serve
from tests.kernels import Kernel, kernel
from tests.waiting import wait_until
from tests.worker.crew import Workers
from vscrapy_magic.store.breakpoints import Halts
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.logs import Logs
from vscrapy_magic.store.messages import CrawlState

pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")

PAGES = 40
BEGUN = 6  # at most so many wait with the child that stands in the debugger
SPIDER = """
import scrapy
class Pages(scrapy.Spider):
    name = "pages"
    custom_settings = {"CONCURRENT_REQUESTS": 2}
    start_urls = [f"data:text/plain,{n}" for n in range(40)]


    def parse(self, response):
        n = int(response.text)
        if %s:
            breakpoint()
        yield {"n": n}
"""
AT_ONE = SPIDER % "n == 3"
FAILS = SPIDER.replace("breakpoint()", "raise LookupError(n)") % "n == 3"


@pytest.fixture
def workers(store: Store) -> Iterator[Workers]:
    with serve(store) as running:
        yield running


@pytest.fixture
def notebook(store: Store, workers: Workers, tmp_path: Path) -> Iterator[Kernel]:
    environment = {
        "VSCRAPY_REDIS_URL": store.url,
        "VSCRAPY_SPOOL": str(tmp_path / "spool"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    with kernel(tmp_path, environment) as running:
        yield running


def cell(source: str = AT_ONE, options: str = "") -> str:
    return f"%%vcrawl pages --as crawl -s LOG_LEVEL=INFO {options}{source}"


def numbers(notebook: Kernel) -> list[int]:
    return sorted(notebook.value("[item['n'] for item in crawl.items]"))


def the_crawl(store: Store) -> CrawlId:
    (view,) = Crawls(store).list_all()
    return view.crawl_id


def test_the_cell_shows_where_and_asks_while_the_other_worker_goes_on(
    notebook: Kernel, store: Store
) -> None:
    running = notebook.send(cell())
    assert notebook.prompt() == "(Pdb) "
    crawls = Crawls(store)
    wait_until(
        lambda: crawls.view(the_crawl(store)).totals.items >= PAGES - BEGUN, 30, "other pages"
    )
    for line, asked in (
        ("list", "(Pdb) "),
        ("p n, response.url", "(Pdb) "),
        ("interact", ">>> "),
        ("n + 40", ">>> "),
        ("exit()", "(Pdb) "),
        ("!n = 100", "(Pdb) "),
        ("n", "(Pdb) "),
    ):
        notebook.type(line)
        assert notebook.prompt() == asked, line
    notebook.type("c")
    reply = notebook.result(running)
    assert reply.status == "ok", reply.text
    assert re.search(r"breakpoint on local-\d, data:text/plain,3\n", reply.text), reply.text
    number = int(re.search(r"Cell In\[(\d+)\], line 12, in Pages.parse", reply.text)[1])
    assert f"> Cell In[{number}](12)parse()\n-> breakpoint()\n" in reply.text
    assert "(3, 'data:text/plain,3')" in reply.text
    assert "\n43\n" in reply.text
    assert re.search(r"local-\d: it goes on", reply.text)
    assert numbers(notebook) == sorted([*range(3), *range(4, PAGES), 100])


def test_workers_that_stop_there_are_asked_after_one_by_one(notebook: Kernel) -> None:
    running = notebook.send(cell(SPIDER % "n % 20 == 3"))
    for _ in range(2):
        assert notebook.prompt() == "(Pdb) "
        notebook.type("c")
    assert notebook.result(running).status == "ok"
    assert numbers(notebook) == list(range(PAGES))


def test_q_leaves_them_all(notebook: Kernel) -> None:
    running = notebook.send(cell(SPIDER % "n >= 0"))
    notebook.prompt()
    notebook.type("q")
    assert notebook.result(running).status == "ok"
    assert numbers(notebook) == list(range(PAGES))


def test_an_interrupt_at_the_prompt_leaves_it_and_stops_the_crawl(
    notebook: Kernel, store: Store
) -> None:
    running = notebook.send(cell(SPIDER.replace("range(40)", "range(4000)") % "n == 3"))
    notebook.prompt()
    begun = time.monotonic()
    notebook.interrupt()
    reply = notebook.result(running, 30)
    assert time.monotonic() - begun < 3 * 3.5
    assert (reply.status, reply.ename) == ("error", "CrawlInterruptedError")
    wait_until(lambda: Crawls(store).view(the_crawl(store)).over, 30, "the end")
    assert Crawls(store).view(the_crawl(store)).state is CrawlState.STOPPED
    assert 3 in numbers(notebook)  # what was in flight was finished
    assert notebook.run("1 + 1").status == "ok"


def test_a_child_that_is_killed_there_frees_the_cell_and_breaks_again_elsewhere(
    notebook: Kernel, store: Store, workers: Workers
) -> None:
    running = notebook.send(cell())
    notebook.prompt()
    (halt,) = Halts(store, the_crawl(store)).standing()
    lines, _ = Logs(store).read(the_crawl(store), "0-0")
    line = next(
        line.text for line in lines if line.worker == halt.worker and "a child starts" in line.text
    )
    psutil.Process(int(re.search(r"process (\d+)", line)[1])).kill()
    assert notebook.prompt() == "(Pdb) "
    (again,) = Halts(store, the_crawl(store)).standing()
    assert (again.url, again.number) == (halt.url, halt.number + 1)
    notebook.type("c")
    reply = notebook.result(running)
    assert reply.status == "ok", reply.text
    assert f"{halt.worker} is gone; what it worked on runs again elsewhere" in reply.text
    assert numbers(notebook) == list(range(PAGES))


def test_a_time_limit_frees_the_cell(notebook: Kernel) -> None:
    running = notebook.send(cell(options="-s VSCRAPY_BREAK_TIMEOUT=2 "))
    notebook.prompt()
    reply = notebook.result(running)
    assert reply.status == "ok", reply.text
    assert "nobody typed anything for 2 s, it goes on" in reply.text
    assert numbers(notebook) == list(range(PAGES))


def test_a_crawl_in_the_background_waits_for_vbreak(notebook: Kernel, store: Store) -> None:
    assert notebook.run(cell(options="--bg")).status == "ok"
    crawls = Crawls(store)
    wait_until(lambda: crawls.view(the_crawl(store)).halts == 1, 30, "a halt")
    shown = "[text for text in get_ipython().magics_manager.registry['VscrapyMagics'].kernel"
    shown += ".screen().widget.head['notices']]"
    wait_until(lambda: "%vbreak" in str(notebook.value(shown)), 10, "the panel's notice")
    running = notebook.send("%vbreak")
    assert notebook.prompt() == "(Pdb) "
    notebook.interrupt()
    left = notebook.result(running)
    assert left.ename == "CrawlInterruptedError"
    assert "still waits in the debugger: %vbreak" in left.text
    running = notebook.send("%vbreak")
    notebook.prompt()
    notebook.type("c")
    assert notebook.result(running).status == "ok"
    assert notebook.run("crawl.wait()").status == "ok"
    assert "no worker waits at a breakpoint" in notebook.run("%vbreak").text
    assert numbers(notebook) == list(range(PAGES))


@pytest.mark.parametrize("options", ["--no-break", "--detach"])
def test_it_is_passed_where_nobody_is_asked(notebook: Kernel, options: str) -> None:
    assert notebook.run(cell(options=options)).status == "ok"
    assert notebook.run("crawl.wait()").status == "ok"
    assert numbers(notebook) == list(range(PAGES))
    said = notebook.value("[line.text for line in crawl.logs(level='WARNING')]")
    assert len([text for text in said if "line 12, in Pages.parse was passed" in text]) == 1, said


def test_pdb_stops_at_the_first_failure(notebook: Kernel) -> None:
    running = notebook.send(cell(FAILS, "--pdb"))
    notebook.prompt()
    notebook.type("p n")
    notebook.prompt()
    notebook.type("c")
    reply = notebook.result(running)
    assert re.search(r"LookupError: 3 on local-\d, data:text/plain,3", reply.text), reply.text
    assert "-> raise LookupError(n)" in reply.text
    assert "\n3\n" in reply.text
    assert notebook.value("len(crawl.failures)") == 1


# In a terminal.


class Typing:
    """A command in a terminal of its own."""

    def __init__(self, terminal: Terminal, folder: Path, *words: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            terminal.command(*words),
            cwd=folder,
            env={**terminal.environment, "TERM": "dumb", "INPUTRC": "/dev/null"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.text = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            self.text += data.decode(errors="replace").replace("\r", "")

    def wait_for(self, text: str, timeout_s: float = 60) -> None:
        wait_until(lambda: text in self.text, timeout_s, f"{text!r} in:\n{self.text}")

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        os.close(self._master)


@pytest.fixture
def terminal(store: Store, workers: Workers, tmp_path: Path) -> Terminal:
    (tmp_path / "pages.py").write_text(AT_ONE)
    return Terminal(tmp_path / "home", store.url)


def test_a_terminal_has_a_prompt_with_history_and_completion(
    terminal: Terminal, tmp_path: Path
) -> None:
    with Typing(terminal, tmp_path, "runspider", "pages.py", "-O", "out.jsonl") as shell:
        shell.wait_for("(Pdb) ")
        assert "pages.py, line 12, in Pages.parse" in shell.text
        shell.type("list\n")
        shell.wait_for("int(response.text)")
        shell.type("p respon\t.url\n")
        shell.wait_for("'data:text/plain,3'\n")
        shell.type("p n + 1000\n")
        shell.wait_for("1003\n")
        shell.type("\x10\n")  # Ctrl-P: the line before
        wait_until(lambda: shell.text.count("1003\n") == 2, 20, shell.text)
        shell.type("whati\t n\n")
        shell.wait_for("whatis n\n")
        shell.wait_for("<class 'int'>\n")
        shell.type("c\n")
        assert shell.process.wait(60) == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == PAGES


def test_log_lines_do_not_mix_into_the_line_that_is_typed(
    terminal: Terminal, tmp_path: Path, store: Store
) -> None:
    with Typing(terminal, tmp_path, "runspider", "pages.py") as shell:
        shell.wait_for("(Pdb) ")
        seen = shell.text
        crawls, crawl_id = Crawls(store), the_crawl(store)
        # The other worker crawls meanwhile, at DEBUG.
        wait_until(lambda: crawls.view(crawl_id).totals.items >= PAGES - BEGUN, 30, "other pages")
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > 1, 5)
        assert shell.text == seen
        shell.type("c\n")
        assert shell.process.wait(60) == 0
        assert "Crawled (200)" in shell.text[len(seen) :]


def test_an_interrupt_at_the_prompt_of_a_terminal_stops_the_crawl(
    terminal: Terminal, tmp_path: Path
) -> None:
    with Typing(terminal, tmp_path, "runspider", "pages.py") as shell:
        shell.wait_for("(Pdb) ")
        os.kill(shell.process.pid, signal.SIGINT)
        assert shell.process.wait(30) == 130, shell.text
        assert "stopping crawl" in shell.text


def test_without_a_terminal_it_is_passed(terminal: Terminal, tmp_path: Path) -> None:
    done = terminal.run(tmp_path, "runspider", "pages.py", "--pdb", "-O", "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert "line 12, in Pages.parse was passed" in done.stderr
    assert "--pdb: nobody can type here" in done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == PAGES
