"""`%vdebug` and `%vreplay` as a user of a terminal IPython types them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.shell import fresh_shell, run
from tests.waiting import wait_until
from tests.worker.crew import Workers, workers
from vscrapy_magic.notebook.extension import unload
from vscrapy_magic.store.connection import Store

Captured = pytest.CaptureFixture[str]
SPIDER = """
import json
import scrapy

class Price(scrapy.Item):
    name = scrapy.Field()
    cents = scrapy.Field()

class Shop(scrapy.Spider):
    name = "shop"
    factor = 100

    async def start(self):
        for text in ("12.50", "free", "7"):
            yield scrapy.Request(f"data:text/plain,{text}", cb_kwargs={"tag": text})
        yield scrapy.Request("data:text/plain,{broken", self.parse_json)
        yield scrapy.Request("data:text/plain,late", self.parse_late, meta={"seen": 2})

    def parse(self, response, tag):
        yield {"tag": tag}
        cents = self.cents_of(response.text)
        yield Price(name=tag, cents=cents)

    def cents_of(self, text):
        return round(self.factor * float(text))

    def parse_json(self, response):
        return json.loads(response.text)

    async def parse_late(self, response):
        seen = response.meta["seen"]
        yield {"seen": seen}
        raise LookupError(f"{response.text} {seen}")
"""
LINE_OF_CENTS = 25


@pytest.fixture
def shell(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A shell that has run a crawl with three failures."""
    monkeypatch.setenv("VSCRAPY_REDIS_URL", store.url)
    monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)
    with fresh_shell() as fresh, Workers(store.url, "--name", "w-1"):
        wait_until(lambda: len(workers(store)) == 1, 30, "a worker")
        run(fresh, "%load_ext vscrapy_magic")
        run(fresh, f"%%vcrawl shop --as crawl\n{SPIDER}")
        yield fresh
        unload(fresh)


class Typist:
    """Types at each prompt what it was told to, and notes the prompts."""

    def __init__(self, *words: str) -> None:
        self._words = list(words)
        self.prompts: list[str] = []

    def __call__(self, prompt: str = "") -> str:
        self.prompts.append(prompt)
        return self._words.pop(0) if self._words else "q"


def number_of(shell: Any, kind: str) -> int:
    failures = shell.user_ns["crawl"].failures
    return next(n for n, failure in enumerate(failures, start=1) if failure.type == kind)


def test_a_failed_call_fails_again_here_at_the_same_line_with_the_debugger_there(
    shell: Any, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, path = sys.modules["__main__"], list(sys.path)
    typist = Typist("p text, self.factor", "up", "p tag, response.meta['depth']", "q")
    monkeypatch.setattr("builtins.input", typist)
    capsys.readouterr()
    run(shell, f"%vdebug {number_of(shell, 'ValueError')}")
    said = capsys.readouterr().out
    place = f"Cell In[2], line {LINE_OF_CENTS}, in Shop.cents_of"
    assert f"here as on w-1, at {place}" in said
    assert f"Cell In[2]({LINE_OF_CENTS})cents_of()" in said
    assert "return round(self.factor * float(text))" in said
    assert "vs-replay" not in said
    assert "('free', 100)" in said
    assert "('free', 0)" in said
    assert len(typist.prompts) == 4
    assert (sys.modules["__main__"], sys.path) == (main, path)


def test_the_prompt_is_in_the_users_frame_and_not_in_a_library(
    shell: Any, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", Typist("p response.url", "q"))
    run(shell, f"%vdebug {number_of(shell, 'json.decoder.JSONDecodeError')}")
    assert "data:text/plain,%7Bbroken" in capsys.readouterr().out


def test_an_async_callback_fails_again(
    shell: Any, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", Typist("p seen + 40", "q"))
    run(shell, f"%vdebug {number_of(shell, 'LookupError')}")
    said = capsys.readouterr().out
    assert "in Shop.parse_late" in said
    assert "42" in said


@pytest.mark.parametrize(("kind", "shown"), [("ValueError", "'free'"), ("LookupError", "'late'")])
def test_a_call_is_entered_at_its_first_line(
    shell: Any, capsys: Captured, monkeypatch: pytest.MonkeyPatch, kind: str, shown: str
) -> None:
    typist = Typist("p response.text", "n", "n", "c")
    monkeypatch.setattr("builtins.input", typist)
    capsys.readouterr()
    run(shell, f"%vdebug {number_of(shell, kind)} --enter")
    said = capsys.readouterr().out
    assert shown in said
    assert "vs-replay" not in said
    assert len(typist.prompts) == 4
    assert sys.gettrace() is None


def test_the_source_that_was_shipped_fails_also_after_the_cell_was_edited(
    shell: Any, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(shell, SPIDER.replace("round(self.factor * float(text))", "0"))
    monkeypatch.setattr("builtins.input", Typist("q"))
    run(shell, f"%vdebug {number_of(shell, 'ValueError')}")
    assert "here as on w-1" in capsys.readouterr().out


def test_a_response_of_a_failure_is_one_to_try_selectors_on(shell: Any) -> None:
    failure = shell.user_ns["crawl"].failures[number_of(shell, "ValueError") - 1]
    assert failure.response.text == "free"
    assert failure.response.request.cb_kwargs == {"tag": "free"}
    assert "ValueError" in repr(failure)


def test_edited_source_is_run_on_all_that_failed(shell: Any) -> None:
    edited = SPIDER.replace("float(text)", "float(text.replace('free', '0'))").replace(
        "json.loads(response.text)", "[][0]"
    )
    run(shell, edited)
    replayed = run(shell, "%vreplay all").result
    assert replayed.counts == {"fixed": 1, "different error": 1, "same error": 1}
    number = number_of(shell, "ValueError")
    one = repr(run(shell, f"%vreplay {number}").result)
    assert "fixed: now yields 2 items, 0 requests" in one
    assert '+ {"cents": 0, "name": "free"}' in one
