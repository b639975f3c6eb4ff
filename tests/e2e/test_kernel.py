"""A notebook's kernel as the sender: what it sees, and that its crawls end with it, and no others.

Deadlines are the promised ones with three times their length.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernels import Kernel, kernel
from tests.waiting import wait_until
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.server import EmbeddedServer
from vscrapy_magic.store.views import CrawlView

pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")

SLACK = 3
BOOKS = """
import scrapy
class Books(scrapy.Spider):
    name = "books"
    async def start(self):
        for number in range(1, int(self.pages) + 1):
            yield scrapy.Request(f"{self.site}/book/{number % 190 + 1}?n={number}")
    def parse(self, response):
        yield {"title": response.css("h1::text").get()}
"""


@pytest.fixture
def site() -> Iterator[DemoSite]:
    with DemoSite(delay_ms=100) as running:
        yield running


@pytest.fixture
def url(server: EmbeddedServer, store: Store, tmp_path: Path) -> Iterator[str]:
    """A server with two workers."""
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "vscrapy_magic.worker", server.url, "-n", "2"),
            *("--name", "w", "--with-parent", "--log-level", "ERROR"),
        ],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
    ) as process:
        try:
            wait_until(lambda: len(Presence(store).workers()) == 2, 30, "two workers")
            yield server.url
        finally:
            process.terminate()
            process.wait(30)


def environment(url: str, folder: Path) -> dict[str, str]:
    return {
        "VSCRAPY_REDIS_URL": url,
        "VSCRAPY_SPOOL": str(folder / "spool"),
        "IPYTHONDIR": str(folder / "ipython"),
    }


@pytest.fixture
def notebook(url: str, tmp_path: Path) -> Iterator[Kernel]:
    with kernel(tmp_path, environment(url, tmp_path)) as running:
        yield running


def crawl_of(store: Store) -> CrawlView:
    views = Crawls(store).list_all()
    assert len(views) == 1
    return views[0]


def begun(store: Store, pages: int = 20) -> CrawlView:
    """The only crawl, once it has fetched some pages."""
    wait_until(
        lambda: any(view.totals.pages >= pages for view in Crawls(store).list_all()), 30, "pages"
    )
    return crawl_of(store)


def last_hit_s(site: DemoSite, quiet_s: float = 1.5) -> float:
    """When (monotonic) the site got its last request; returns once it is quiet."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < quiet_s:
        now = site.stats()["requests"]
        if now != count:
            count, since = now, time.monotonic()
        time.sleep(0.02)
    return since


def cell(site: DemoSite, options: str = "", pages: int = 5000) -> str:
    return f"%%vcrawl books -a site={site.url} -a pages={pages} -s LOG_LEVEL=INFO {options}{BOOKS}"


def free_slots(store: Store) -> bool:
    return all(view.record.used == 0 for view in Presence(store).workers())


def test_a_cell_brings_items_logs_and_stats_back(
    notebook: Kernel, site: DemoSite, store: Store
) -> None:
    reply = notebook.run(cell(site, "--as crawl -O out.jsonl", pages=60))
    assert reply.status == "ok", reply.text
    assert notebook.value("len(crawl.items)") == 60
    assert notebook.value("crawl.items[0]")["title"]
    assert notebook.value("crawl.stats['item_scraped_count']") == 60
    assert notebook.value("crawl.finish_reason") == "finished"
    assert notebook.value("len(open('out.jsonl').readlines())") == 60
    lines = notebook.value("[line.text for line in crawl.logs(pattern='Spider opened')]")
    assert lines
    assert "finished" in str(reply.data[-2:])
    assert crawl_of(store).state is CrawlState.FINISHED


def test_an_error_names_the_line_of_its_cell(notebook: Kernel, site: DemoSite) -> None:
    source = cell(site, "--as crawl", pages=3) + "        1 / 0\n"
    assert notebook.run(source).status == "ok"
    place = notebook.value("crawl.failures[0].place")
    number = notebook.value("get_ipython().execution_count") - 3
    assert place == f"Cell In[{number}], line 10, in Books.parse"
    reply = notebook.run("%verrors 1")
    assert "ZeroDivisionError" in reply.text
    assert "1 / 0" in reply.text


def test_an_interrupt_stops_and_keeps_what_came(
    notebook: Kernel, site: DemoSite, store: Store
) -> None:
    running = notebook.send(cell(site, "--as crawl"))
    begun(store)
    interrupted = time.monotonic()
    notebook.interrupt()
    reply = notebook.result(running, 30)
    assert last_hit_s(site) - interrupted < 1 * SLACK
    assert (reply.status, reply.ename) == ("error", "CrawlInterruptedError")
    view = crawl_of(store)
    assert view.state is CrawlState.STOPPED
    assert notebook.value("len(crawl.items)") == view.totals.items > 0
    wait_until(lambda: free_slots(store), 5 * SLACK, "free slots")


def test_a_second_interrupt_kills(notebook: Kernel, site: DemoSite, store: Store) -> None:
    slow = cell(site).replace("yield {", "import time; time.sleep(2); yield {")
    running = notebook.send(slow)
    wait_until(lambda: site.stats()["requests"] > 4, 30, "pages")
    notebook.interrupt()
    time.sleep(0.3)  # a person's second press, not the same one twice
    notebook.interrupt()
    reply = notebook.result(running, 3 * SLACK)
    assert reply.ename == "CrawlInterruptedError"
    assert crawl_of(store).close_reason == "killed"


def test_a_callback_that_hangs_is_ended_by_force(
    notebook: Kernel, site: DemoSite, store: Store
) -> None:
    running = notebook.send(
        cell(site).replace("yield {", "\n        while True: pass\n        yield {")
    )
    wait_until(lambda: site.stats()["requests"] > 4, 30, "pages")
    notebook.interrupt()
    reply = notebook.result(running, 4 * SLACK)
    assert reply.ename == "CrawlInterruptedError"
    wait_until(lambda: free_slots(store), 5 * SLACK, "free slots")
    wait_until(lambda: crawl_of(store).over, 5 * SLACK, "the end")


def test_a_killed_kernel_loses_its_crawl_and_no_other(
    url: str, site: DemoSite, store: Store, tmp_path: Path
) -> None:
    with (
        kernel(tmp_path, environment(url, tmp_path)) as first,
        kernel(tmp_path, environment(url, tmp_path)) as second,
    ):
        first.send(cell(site))
        doomed = begun(store)
        with DemoSite(delay_ms=50) as other:
            survivor = second.send(cell(other, "--as crawl", pages=300))
            wait_until(lambda: other.stats()["requests"] > 10, 30, "pages of the other crawl")
            killed = time.monotonic()
            first.kill()
            assert last_hit_s(site) - killed < 2 * SLACK
            view = Crawls(store).view(doomed.crawl_id)
            assert view.state is CrawlState.CANCELLED
            assert view.why == "its sender is gone"
            assert second.result(survivor, 60).status == "ok"
            assert second.value("len(crawl.items)") == 300
        wait_until(lambda: free_slots(store), 5 * SLACK, "free slots")


def test_a_restarted_kernel_loses_its_crawl_and_finds_its_items(
    notebook: Kernel, site: DemoSite, store: Store
) -> None:
    notebook.send(cell(site))
    view = begun(store)
    notebook.restart()
    wait_until(lambda: crawl_of(store).over, 2 * SLACK, "the end")
    over = crawl_of(store)
    assert over.state in {CrawlState.CANCELLED, CrawlState.STOPPED}
    notebook.run("import vscrapy_magic as vs")
    notebook.run(f"found = vs.attach({view.crawl_id!r}); found.wait(10)")
    assert notebook.value("len(found.items)") == over.totals.items


@pytest.mark.parametrize("how", ["regex", "stopped"])
def test_a_kernel_that_cannot_answer_is_not_dead(
    url: str, site: DemoSite, store: Store, tmp_path: Path, how: str
) -> None:
    with kernel(tmp_path, environment(url, tmp_path)) as busy:
        busy.run(cell(site, "--bg --ttl 2"))
        begun(store)
        if how == "regex":
            busy.send("import re; re.match(r'(a+)+$', 'a' * 26 + 'b')")
        else:
            busy.signal(signal.SIGSTOP)
        ends = time.monotonic() + 6
        while time.monotonic() < ends:
            assert not crawl_of(store).over
            time.sleep(0.2)
        if how == "stopped":
            busy.signal(signal.SIGCONT)


def test_a_forked_child_of_the_kernel_does_not_keep_its_crawl_alive(
    url: str, site: DemoSite, store: Store, tmp_path: Path
) -> None:
    with kernel(tmp_path, environment(url, tmp_path)) as doomed:
        doomed.run(cell(site, "--bg"))
        forked = int(
            doomed.value(
                "(lambda pid: pid or __import__('time').sleep(60))(__import__('os').fork())"
            )
        )
        try:
            begun(store)
            killed = time.monotonic()
            doomed.kill()
            assert last_hit_s(site) - killed < 2 * SLACK
            assert crawl_of(store).state is CrawlState.CANCELLED
        finally:
            os.kill(forked, signal.SIGKILL)


def test_a_detached_crawl_outlives_its_kernel(
    url: str, site: DemoSite, store: Store, tmp_path: Path
) -> None:
    with kernel(tmp_path, environment(url, tmp_path)) as first:
        assert first.run(cell(site, "--detach", pages=150)).status == "ok"
        view = begun(store)
        first.kill()
    wait_until(lambda: crawl_of(store).over, 60, "the end")
    assert crawl_of(store).state is CrawlState.FINISHED
    with kernel(tmp_path, environment(url, tmp_path)) as second:
        second.run("import vscrapy_magic as vs")
        second.run(f"found = vs.attach({view.crawl_id!r}); found.wait(20)")
        assert second.value("len(found.items)") == 150


def test_a_crawl_in_the_background_is_changed_fed_and_stopped(
    notebook: Kernel, site: DemoSite, store: Store
) -> None:
    assert notebook.run(cell(site, "--bg --keep-open --as crawl", pages=20)).status == "ok"
    wait_until(lambda: crawl_of(store).totals.items == 20, 30, "all pages")
    assert "LOG_LEVEL = DEBUG" in notebook.run("%vset LOG_LEVEL=DEBUG").text
    assert "1 added" in notebook.run(f"%vpush {site.url}/book/3?pushed=1").text
    wait_until(lambda: crawl_of(store).totals.items == 21, 10, "the pushed page")
    wait_until(lambda: notebook.value("len(crawl.logs(pattern='pushed=1', level='DEBUG'))") > 0, 10)
    assert "books" in notebook.run("%vlist").text
    assert "w-1" in notebook.run("%vworkers").text
    assert "title" in notebook.run("%vitems").text
    assert "crawl" in notebook.run("%vstop").text
    wait_until(lambda: crawl_of(store).over, 10, "the end")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%vcrawl boks", "no spider 'boks': no cell has defined a spider yet"),
        ("%vcrawl books --worker 3", "did you mean --workers?"),
        ("%vstop", "no crawl was run in this kernel yet"),
        ("%vlogs deadbeef", "deadbeef"),
        ("%vconnect redis://127.0.0.1:1", "does not answer"),
        ("%vset LOG_LEVEL", "NAME=VALUE"),
    ],
)
def test_mistakes_are_one_clear_line(notebook: Kernel, line: str, message: str) -> None:
    reply = notebook.run(line)
    assert reply.status == "error"
    assert message in reply.evalue
    assert len(reply.text.strip().splitlines()) == 1, reply.text
