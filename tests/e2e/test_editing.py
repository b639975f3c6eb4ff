"""A spider that is edited while its crawl runs, and what failed before: in a notebook."""

import re
import subprocess
import sys
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

BROKEN = """
import scrapy
class Books(scrapy.Spider):
    name = "books"
    async def start(self):
        for number in range(1, int(self.pages) + 1):
            yield scrapy.Request(f"{self.site}/book/{number}?n={number}")
    def parse(self, response):
        number = int(response.url.partition("=")[2])
        if number % 10 == 0:
            price = response.css(".nothing::text").get().strip()
        yield {"n": number}
"""
MENDED = BROKEN.replace(".get().strip()", '.get("").strip()').replace(
    '{"n": number}', '{"n": number, "new": True}'
)

CANNOT = """    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        raise RuntimeError("not on this worker")
"""


@pytest.fixture
def site() -> Iterator[DemoSite]:
    with DemoSite(delay_ms=100) as running:
        yield running


@pytest.fixture
def notebook(server: EmbeddedServer, store: Store, tmp_path: Path) -> Iterator[Kernel]:
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "vscrapy_magic.worker", server.url, "-n", "2"),
            *("--name", "w", "--with-parent", "--log-level", "ERROR"),
        ],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
    ) as process:
        try:
            wait_until(lambda: len(Presence(store).workers()) == 2, 60, "two workers")
            environment = {
                "VSCRAPY_REDIS_URL": server.url,
                "VSCRAPY_SPOOL": str(tmp_path / "spool"),
                "IPYTHONDIR": str(tmp_path / "ipython"),
            }
            with kernel(tmp_path, environment) as running:
                yield running
        finally:
            process.terminate()
            process.wait(30)


def view(store: Store) -> CrawlView:
    return Crawls(store).list_all()[0]


def test_an_edited_spider_goes_to_its_crawl_and_what_failed_runs_again(
    notebook: Kernel, site: DemoSite, store: Store
) -> None:
    order = f"%%vcrawl books -a site={site.url} -a pages=150 -s CONCURRENT_REQUESTS=2"
    begun = notebook.run(f"{order} --bg --as crawl -O out.jsonl\n{BROKEN}")
    assert begun.status == "ok", begun.text
    wait_until(lambda: view(store).totals.failures >= 2, 60, "failures")
    late = MENDED.replace("    async def start", f"{CANNOT}    async def start")
    assert notebook.run(late).status == "ok"
    refused = notebook.run("%vpatch")
    assert refused.status == "error"
    assert "code version 2 was refused on w-" in refused.evalue
    assert "Cell In[" in refused.evalue
    assert "in Books.__init__" in refused.evalue
    assert "RuntimeError: not on this worker" in refused.evalue
    assert notebook.run(MENDED).status == "ok"
    patched = notebook.run("%vpatch")
    assert "code version 3 is in force" in patched.text, patched.text
    wait_until(lambda: any("new" in item for item in notebook.value("crawl.items[-5:]")), 60, "new")
    assert re.search(r"#\s+code\s+n", notebook.run("%vitems").text)
    wait_until(lambda: view(store).over, 120, "the end")
    notebook.run("crawl.wait(30)")
    failed = notebook.value("len(crawl.failures)")
    assert 2 <= failed < 15
    retried = notebook.run("%vretry all")
    assert retried.status == "ok", retried.text
    assert f"{failed} failed requests are put back" in retried.text
    assert view(store).state is CrawlState.FINISHED
    assert sorted(notebook.value("[item['n'] for item in crawl.items]")) == list(range(1, 151))
    assert notebook.value("len(open('out.jsonl').readlines())") == 150
    assert notebook.value("len(crawl.failures)") == failed
    again = notebook.run("%vretry")
    assert "nothing to put back" in again.text
    assert "put back" in notebook.run("%verrors").text
    over = notebook.run("%vpatch")
    assert over.status == "error"
    assert "its code stays as it is" in over.evalue
