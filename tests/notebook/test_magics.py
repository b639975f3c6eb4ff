"""The magics as a user of a terminal IPython types them: what they return, show and refuse."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from tests.notebook.shell import fresh_shell, run
from tests.waiting import wait_until
from tests.worker.crew import Workers, workers
from vscrapy_magic.notebook.extension import LINE_MAGICS, unload
from vscrapy_magic.notebook.interrupts import UsageError
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState

Captured = pytest.CaptureFixture[str]
PAGES = """
import scrapy
class Pages(scrapy.Spider):
    name = "pages"
    count = "4"
    async def start(self):
        for number in range(int(self.count)):
            yield scrapy.Request(f"data:text/plain,{number}", meta={"download_slot": "p"})
    def parse(self, response):
        yield {"n": int(response.text)}
        if response.text == "3":
            raise ValueError("no threes")
"""


@pytest.fixture
def shell(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A shell with the extension, on a server without workers."""
    monkeypatch.setenv("VSCRAPY_REDIS_URL", store.url)
    monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    with fresh_shell() as fresh:
        run(fresh, "%load_ext vscrapy_magic")
        yield fresh
        unload(fresh)


@pytest.fixture
def crew(store: Store) -> Iterator[Workers]:
    with Workers(store.url, "--name", "w-1") as running:
        wait_until(lambda: len(workers(store)) == 1, 30, "a worker")
        yield running


def mistake(shell: InteractiveShell, line: str) -> str:
    """The one line with which a magic ends that cannot do what was typed."""
    result = shell.run_cell(line, store_history=True)
    error = result.error_in_exec
    assert isinstance(error, UsageError), repr(error)
    (text,) = error._render_traceback_()
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", sorted(LINE_MAGICS))
def test_each_magic_has_help_and_starts_nothing_for_it(
    shell: InteractiveShell, capsys: Captured, name: str, store: Store
) -> None:
    result = run(shell, f"%{name} --help")
    shown = capsys.readouterr().out
    assert result.result is None
    assert f"%{name}" in shown
    assert re.search(r"^(example|options|Options)", shown, re.MULTILINE), shown
    assert store.client.keys() == []


def test_the_value_of_a_cell_is_its_crawl(
    shell: InteractiveShell, crew: Workers, capsys: Captured
) -> None:
    result = run(shell, f"%%vcrawl pages --as mine -O out.jsonl -L INFO{PAGES}")
    crawl = result.result
    assert isinstance(crawl, Crawl)
    assert shell.user_ns["mine"] is crawl
    assert shell.user_ns["_"] is crawl
    assert sorted(item["n"] for item in crawl.items) == [0, 1, 2, 3]
    assert Path("out.jsonl").read_text().count("\n") == 4
    assert "Spider opened" in capsys.readouterr().out
    assert "Pages" in shell.user_ns
    for line, text in {
        "%vitems -n 2": "2 of 4 items; crawl.items has all",
        "%verrors": "ValueError: no threes",
        "%verrors 1": "Cell In[2], line 12, in Pages.parse",
        "%vlogs -g opened -n 1": "Spider opened",
        "%vlist": "finished",
        "%vworkers": "w-1",
    }.items():
        assert text in repr(run(shell, line).result), line
    assert run(shell, f"%vstop {crawl.id}").result == f"crawl {crawl.id}: finished"
    assert mistake(shell, "%vset LOG_LEVEL=INFO").startswith(f"crawl {crawl.id} is finished")
    assert repr(run(shell, "%vpanel").result).startswith(f"crawl {crawl.id} pages finished")
    again = run(shell, "%vcrawl pages -a count=2").result
    assert len(again.items) == 2


def test_a_crawl_in_the_background_leaves_the_cell_at_once(
    shell: InteractiveShell, crew: Workers
) -> None:
    crawl = run(shell, f"%%vcrawl pages --bg --keep-open{PAGES}").result
    wait_until(lambda: len(crawl.items) == 4, 30, "items")
    assert not crawl.is_over
    assert run(shell, "%vset LOG_LEVEL=WARNING").result == f"crawl {crawl.id}: LOG_LEVEL = WARNING"
    assert run(shell, "%vpush data:text/plain,9").result == f"crawl {crawl.id}: 1 added"
    wait_until(lambda: len(crawl.items) == 5, 20, "the pushed page")
    assert run(shell, "%vstop").result.startswith(f"crawl {crawl.id}: ")
    assert crawl.wait(20).state is CrawlState.STOPPED
    assert run(shell, "%vstop --all").result == f"crawl {crawl.id}: stopped"


def test_a_class_of_a_cell_is_crawled_from_python(shell: InteractiveShell, crew: Workers) -> None:
    run(shell, PAGES.lstrip())
    run(shell, "import vscrapy_magic as vs; session = vs.connect()")
    try:
        run(shell, "crawl = session.crawl(Pages, args={'count': 5}); crawl.wait(30)")
        crawl = shell.user_ns["crawl"]
        assert len(crawl.items) == 5
        assert crawl.failures[0].place == "Cell In[2], line 11, in Pages.parse"
    finally:
        shell.user_ns["session"].close()


def test_slots_of_a_worker_are_changed(
    shell: InteractiveShell, crew: Workers, store: Store
) -> None:
    assert run(shell, "%vset -w w-1 slots=3").result == "worker w-1: slots = 3"
    wait_until(lambda: workers(store)["w-1"].record.slots == 3, 5, "three slots")
    assert "0 of 3" in repr(run(shell, "%vworkers").result)
    assert mistake(shell, "%vset -w w-2 slots=3") == ("there is no worker w-2; did you mean w-1?")
    assert "did you mean slots?" in mistake(shell, "%vset -w w-1 slot=3")


def test_the_server_is_chosen(shell: InteractiveShell, store: Store) -> None:
    assert run(shell, f"%vconnect {store.url}").result == f"connected to {store.address}"
    assert "no crawls on this Redis yet" in repr(run(shell, "%vlist").result)
    assert "no workers; start one" in repr(run(shell, "%vworkers").result)
    assert run(shell, "%vstop --all").result == "no crawls"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%vcrawl", "which spider?"),
        ("%vcrawl nothing", "no spider 'nothing': no cell has defined a spider yet"),
        ("%vcrawl x --worker 2", "unknown option --worker; did you mean --workers?"),
        ("%vpanel", "crawl (none) was not started in this kernel"),
        ("%vpush 1a2b", "which addresses?"),
        ("%vset", "[ID] NAME=VALUE is missing"),
        ("%vset 1a2b", "write it as NAME=VALUE"),
        ("%vitems", "no crawl was run in this kernel yet: name one, see %vlist"),
        ("%verrors 0badc0de", "crawl 0badc0de: not on"),
        ("%vconnect localhost", "'localhost' is no address of a Redis"),
        ("%vlogs 'x", "no closing quotation"),
    ],
)
def test_a_mistake_is_one_clear_line(shell: InteractiveShell, line: str, message: str) -> None:
    assert message.lower() in mistake(shell, line).lower()
