"""The debugger's prompt in a real JupyterLab: typed in its box, and no box stays behind."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import browser
from tests.browser import Lab, Notebook
from tests.e2e.terminal import serve
from vscrapy_magic.store.connection import Store

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(browser.missing()), reason=browser.missing()),
]

REPOSITORY = Path(__file__).parents[2]
CRAWL = """%%vcrawl pages -s LOG_LEVEL=INFO -s VSCRAPY_BREAK_TIMEOUT={limit_s}
import scrapy
class Pages(scrapy.Spider):
    name = "pages"
    custom_settings = {{"CONCURRENT_REQUESTS": 2}}
    start_urls = [f"data:text/plain,{{n}}" for n in range(20)]
    def parse(self, response):
        n = int(response.text)
        if n == 3:
            breakpoint()
        yield {{"n": n}}
"""


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """The browser starts and ends processes as it likes."""


@pytest.fixture
def lab(store: Store, tmp_path: Path) -> Iterator[Lab]:
    environment = {
        "PYTHONPATH": str(REPOSITORY),
        "VSCRAPY_REDIS_URL": store.url,
        "VSCRAPY_SPOOL": str(tmp_path / "spool"),
    }
    with serve(store), Lab(tmp_path / "lab", environment) as running:
        yield running


def box(notebook: Notebook) -> Any:
    """The input boxes that wait."""
    return notebook.page.locator(".jp-Stdin-input:not([disabled])")


def begin(notebook: Notebook) -> None:
    """Run the crawl's cell until it asks."""
    notebook.run(0)
    notebook.run(1, wait=False)
    notebook.until(lambda: box(notebook).count() == 1, "no prompt")


def goes_on_well(notebook: Notebook) -> None:
    """No box is left, and the next cell runs and gets an input of its own."""
    notebook.until(lambda: box(notebook).count() == 0, "the box is still there", 10)
    notebook.run(2, wait=False)
    notebook.until(lambda: box(notebook).count() == 1, "the next cell does not ask")
    box(notebook).fill("mine")
    box(notebook).press("Enter")
    notebook.wait_text("got: 'mine'", 2)


CELLS = ["%load_ext vscrapy_magic", CRAWL.format(limit_s=600), "print('got:', repr(input('x ')))"]


def test_a_user_debugs_in_the_box_while_the_panel_lives(lab: Lab) -> None:
    with lab.notebook(CELLS) as notebook:
        begin(notebook)
        notebook.wait_text("-> breakpoint()", 1)
        notebook.wait_text("breakpoint on local-", 1)
        notebook.until(lambda: re.search(r" 1[4-9] items", notebook.text(1)), "nobody goes on")
        box(notebook).fill("p response.url")
        box(notebook).press("Enter")
        notebook.wait_text("'data:text/plain,3'", 1)
        notebook.until(lambda: box(notebook).count() == 1, "no second prompt")
        box(notebook).fill("c")
        box(notebook).press("Enter")
        notebook.wait_done(1)
        notebook.wait_text("finished: 20 pages, 20 items", 1)
        goes_on_well(notebook)


def test_a_prompt_that_has_come_to_nothing_leaves_no_box(lab: Lab) -> None:
    cells = [CELLS[0], CRAWL.format(limit_s=4), CELLS[2]]
    with lab.notebook(cells) as notebook:
        begin(notebook)
        box(notebook).fill("half a lin")
        notebook.wait_done(1)
        notebook.wait_text("nobody typed anything for 4 s, it goes on", 1)
        notebook.wait_text("finished: 20 pages, 20 items", 1)
        goes_on_well(notebook)


def test_an_interrupt_at_the_prompt_leaves_no_box(lab: Lab) -> None:
    with lab.notebook(CELLS) as notebook:
        begin(notebook)
        box(notebook).fill("half a lin")
        notebook.page.get_by_role("button", name="Stop", exact=True).first.click()
        notebook.wait_done(1)
        notebook.wait_text("stopped", 1)
        goes_on_well(notebook)
