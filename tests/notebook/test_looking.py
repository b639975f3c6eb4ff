"""`%vfetch` and `%vview`: a page as a worker gets it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.shell import fresh_shell, run
from tests.waiting import wait_until
from tests.worker.crew import Workers, workers
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.notebook.extension import unload
from vscrapy_magic.notebook.interrupts import UsageError
from vscrapy_magic.notebook.looking import Page
from vscrapy_magic.store.connection import Store

SPIDER = """
import scrapy

class Stamp:
    def process_request(self, request):
        request.headers["X-Stamp"] = "seen"

class Books(scrapy.Spider):
    name = "books"
    custom_settings = {
        "USER_AGENT": "books/1",
        "DOWNLOADER_MIDDLEWARES": {Stamp: 50},
        "CLOSESPIDER_PAGECOUNT": 1,
    }
    start_urls = ["data:,never"]
"""


@pytest.fixture
def shell(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("VSCRAPY_REDIS_URL", store.url)
    monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    with fresh_shell() as fresh, Workers(store.url, "-n", "2", "--name", "w"):
        wait_until(lambda: len(workers(store)) == 2, 30, "workers")
        run(fresh, "%load_ext vscrapy_magic")
        yield fresh
        unload(fresh)


@pytest.fixture
def site() -> Iterator[DemoSite]:
    with DemoSite(pages=30) as running:
        yield running


def mistake(shell: Any, line: str) -> str:
    error = shell.run_cell(line).error_in_exec
    assert isinstance(error, UsageError), repr(error)
    return str(error)


def test_a_page_is_fetched_through_a_worker_and_is_a_response_here(
    shell: Any, site: DemoSite
) -> None:
    said = run(shell, f"%vfetch {site.url}/book/3 --worker w-2").result
    response = shell.user_ns["response"]
    assert f"<200 {site.url}/book/3>" in said
    assert "from w-2" in said
    assert response.css("h1::text").get()
    assert response.request.url == response.url
    assert list(site.hits()) == ["/book/3"], "neither start() nor another page"


def test_settings_and_middlewares_are_the_spiders(shell: Any, site: DemoSite) -> None:
    run(shell, SPIDER)
    said = run(shell, f"%vfetch {site.url}/echo --spider books").result
    assert "with the settings of books" in said
    text = shell.user_ns["response"].text
    assert "books/1" in text
    assert "X-Stamp" in text


def test_a_page_that_does_not_come_is_explained_in_a_line(shell: Any) -> None:
    said = mistake(shell, "%vfetch http://127.0.0.1:9/ --worker w-1")
    assert "http://127.0.0.1:9/ was not fetched by w-1" in said
    assert "nothing listens" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%vfetch example.com", "is no address: write it as https://"),
        ("%vfetch http://x --worker w-3", "no worker w-3; did you mean w-"),
        ("%vfetch http://x --spider none", "no spider 'none'"),
        ("%vview", "nothing was fetched yet"),
        ("%vview 3", "no crawl was run in this kernel yet"),
    ],
)
def test_mistakes_end_with_one_line(shell: Any, line: str, said: str) -> None:
    assert said in mistake(shell, line)


def test_a_page_is_shown_in_a_frame_that_runs_and_loads_nothing(shell: Any, site: DemoSite) -> None:
    run(shell, f"%vfetch {site.url}/book/3")
    shown = run(shell, "%vview").result
    assert isinstance(shown, Page)
    markup = shown._repr_html_()
    assert 'sandbox=""' in markup
    assert "default-src &amp;#x27;none&amp;#x27;" in markup or "default-src" in markup
    assert "<h1" not in markup, "the page is an attribute's text, and no markup of the notebook"
    assert "<h1" in repr(shown)
