"""`%vreplay` on a recorded crawl: all its pages with the spider as it is now, also years later."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.shell import fresh_shell, run
from tests.waiting import wait_until
from tests.worker.crew import Workers, workers
from vscrapy_magic.notebook.extension import unload
from vscrapy_magic.store.connection import Store

SPIDER = """
import time
import scrapy

class Shop(scrapy.Spider):
    name = "shop"

    async def start(self):
        for n in range(40):
            yield scrapy.Request(f"data:text/plain,{n}", cb_kwargs={"n": n})

    def parse(self, response, n):
        cents = 100 // (n % 10) if n >= 30 else n
        yield {"n": n, "text": response.text, "cents": cents, "at": time.time(),
               "depth": response.meta["depth"]}
        if n % 2 and response.text.isdecimal():
            yield scrapy.Request(f"data:text/plain,more{n}", self.parse, cb_kwargs={"n": n})
"""
EDITED = (
    SPIDER.replace("100 // (n % 10)", "100 // max(1, n % 10)")
    .replace('"cents": cents', '"cents": cents + (n == 4)')
    .replace('"text": response.text', '"text": [response.text][n == 9]')
    .replace("if n % 2 and", "if n != 7 and n % 2 and")
)


@pytest.fixture
def shell(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A shell that has run a recorded crawl, of which one page failed; its server is not asked."""
    monkeypatch.setenv("VSCRAPY_REDIS_URL", store.url)
    monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    with fresh_shell() as fresh, Workers(store.url, "--name", "w-1"):
        wait_until(lambda: len(workers(store)) == 1, 30, "a worker")
        run(fresh, "%load_ext vscrapy_magic")
        run(fresh, f"%%vcrawl shop --record --as crawl\n{SPIDER}")
        yield fresh
        unload(fresh)


def test_all_pages_run_again_with_the_edited_spider_and_what_changed_is_told(
    shell: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(shell, "%vreplay all").result.counts == {"same error": 1, "unchanged": 59}
    run(shell, EDITED)
    replayed = run(shell, "%vreplay all").result
    assert replayed.counts == {
        "newly broken": 2,
        "fixed": 1,
        "now yields other things": 2,
        "unchanged": 55,
    }
    assert replayed.unsteady == ("at",)
    broken, fixed, *changed = repr(replayed).splitlines()[1:]
    assert "newly broken: IndexError: list index out of range at Cell In[" in broken
    assert broken.split()[1].startswith("p"), "both are one row"
    assert "(was 1 item, 1 request)" in broken
    assert "fixed: now yields 1 item, 0 requests  (was ZeroDivisionError at" in fixed
    assert any('- GET data:text/plain,more7 -> parse {"cb_kwargs": {"n": 7}}' in x for x in changed)
    pages = list(shell.user_ns["crawl"].pages)
    place = next(n for n, page in enumerate(pages, 1) if page.url == "data:text/plain,4")
    text = repr(run(shell, f"%vreplay p{place}").result)
    assert '+ {"cents": 5, "depth": 0, "n": 4, "text": "4"}' in text
    assert '- {"cents": 4, "depth": 0, "n": 4, "text": "4"}' in text
    monkeypatch.setattr("builtins.input", lambda *_: "q")
    for word, told in (
        (broken.split()[0].rstrip(","), "IndexError: list index out of range, at Cell In["),
        (f"p{place}", "it does not fail"),
        ("p0", "no page: write 3, or p3"),
    ):
        capsys.readouterr()
        shell.run_cell(f"%vdebug {word}")
        assert told in capsys.readouterr().out
    shell.run_cell("%vreplay p61")
    assert "has 60 recorded pages" in capsys.readouterr().out
    run(shell, "%%vcrawl shop\n" + SPIDER.replace("if n >= 30", "if n < 0"))
    capsys.readouterr()
    shell.run_cell("%vreplay")
    said = capsys.readouterr().out
    assert "has no failures, and its pages were not recorded: run it with --record" in said


def test_in_another_kernel_without_a_server_it_runs_the_same_source_and_asks_before_that_of_others(
    shell: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    crawl_id = shell.user_ns["crawl"].id
    monkeypatch.setattr("builtins.input", lambda _: "n")
    with fresh_shell() as other:
        run(other, "%load_ext vscrapy_magic")
        monkeypatch.setenv("VSCRAPY_REDIS_URL", f"unix://{tmp_path}/gone.sock")
        run(other, EDITED)
        replayed = run(other, f"%vreplay all --crawl {crawl_id}").result
        assert replayed.counts["newly broken"] == 2
        unload(other)
    kept = tmp_path / "spool" / crawl_id / "code-1"
    kept.rename(tmp_path / "code-1")  # as of a crawl that another user has shipped
    capsys.readouterr()
    shell.run_cell("%vreplay all")
    said = capsys.readouterr().out
    assert "was not shipped by you from this machine" in said
    assert "class Shop(scrapy.Spider)" in said
    assert f"the source of crawl {crawl_id} was not run" in said
