"""What children write: every line arrives, in order; bounds count what they drop."""

import logging

import pytest

from tests.waiting import wait_until
from tests.worker.crew import Ordered, Workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId, WorkerName
from vscrapy_magic.store.pipes import FromChild, Report
from vscrapy_magic.worker.output import GROUPS_MAX, SPOOL_ERRORS, SPOOL_LINES, Output

SPEAKS = """
import faulthandler, logging, warnings
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        print("from print")
        print("without an end", end="")
        sys.stderr.write("first line\\n  second line\\n\\nthird line\\n")
        os.write(1, b"\\nfrom a descriptor\\n")
        ctypes.CDLL(None).puts(b"from C code")
        warnings.warn("from a warning")
        logging.getLogger("mine").error("from logging\\nwith two lines")
        subprocess.run(["sh", "-c", "echo from a program; echo and its errors >&2"])
        yield page(1)
    def parse(self, response):
        print(", last words")
        ctypes.string_at(0)
"""


def output() -> Output:
    return Output(CrawlId("c"), WorkerName("w"))


def error(number: int, text: str) -> FromChild:
    return FromChild(Report.LOG, text=text, level=logging.ERROR, logger="scrapy", time_ms=number)


def test_all_that_a_process_writes_arrives(store: Store) -> None:
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, SPEAKS)
        crawl.wait_for_line("died of signal 11")
        lines = crawl.lines()
        texts = [line.text for line in lines]
        for text in ("from print", "from a descriptor", "from C code"):
            assert text in texts, crawl.log()
        at = texts.index("first line")
        assert texts[at : at + 4] == ["first line", "  second line", "", "third line"]
        assert {"from a program", "and its errors", "without an end, last words"} <= set(texts)
        record = next(line for line in lines if line.text.startswith("from logging"))
        assert (record.logger, record.level, record.source) == ("mine", logging.ERROR, "log")
        assert record.text == "from logging\nwith two lines"
        assert any("UserWarning: from a warning" in text for text in texts)
        assert "Fatal Python error: Segmentation fault" in texts
        assert any('"spider.py", line' in text and "in parse" in text for text in texts)


def test_lines_of_the_worker_respect_the_level_of_the_order(store: Store) -> None:
    with Workers(store.url, "--name", "w") as crew:
        crawl = Ordered(store, SPEAKS, LOG_LEVEL="ERROR")
        wait_until(lambda: crawl.view().over, 60)
        wait_until(lambda: not crew.zygote().children(), 10)
        levels = {line.level for line in crawl.lines() if line.source == "worker"}
        assert levels == {logging.ERROR}


def test_more_lines_than_the_bound_are_dropped_and_counted() -> None:
    kept = output()
    kept.raw("stdout", b"".join(b"%d\n" % n for n in range(SPOOL_LINES + 7)))
    lines = kept.take()
    assert (lines[0].dropped, lines[0].text) == (7, "7 lines were dropped here")
    assert [lines[1].text, lines[-1].text] == ["7", str(SPOOL_LINES + 6)]
    assert not kept.waiting
    assert kept.take() == []


def test_errors_beyond_their_bound_are_grouped_by_place_with_first_last_and_number() -> None:
    kept = output()
    for number in range(SPOOL_ERRORS):
        kept.record(error(number, f"early {number}"))
    for number in range(50):
        kept.record(error(number, f"Spider error\nTraceback {number}"))
    kept.record(error(99, "another place"))
    kept.raw("stdout", b"a plain line is not pushed out\n")
    later = [line for line in kept.take() if not line.text.startswith("early")]
    assert [(line.text, line.dropped) for line in later] == [
        ("Spider error\nTraceback 0", 0),
        ("Spider error\nTraceback 49", 0),
        ("48 more like this: [scrapy] Spider error", 48),
        ("another place", 0),
        ("a plain line is not pushed out", 0),
    ]


def test_places_of_errors_are_bounded_too() -> None:
    kept = output()
    for number in range(SPOOL_ERRORS + 3 * GROUPS_MAX):
        kept.record(error(number, f"place {number}"))
    lines = kept.take()
    assert len(lines) <= SPOOL_ERRORS + GROUPS_MAX + 3
    assert sum(line.dropped or 1 for line in lines) == SPOOL_ERRORS + 3 * GROUPS_MAX


@pytest.mark.parametrize("errors", [0, 3])
def test_lines_that_the_store_did_not_take_come_first_the_next_time(errors: int) -> None:
    kept = output()
    kept.raw("stdout", b"one\ntwo\n")
    for number in range(errors):
        kept.record(error(number, f"error {number}"))
    taken = kept.take()
    kept.raw("stdout", b"three\n")
    kept.keep(taken)
    texts = [line.text for line in kept.take()]
    assert texts == ["one", "two", *(f"error {n}" for n in range(errors)), "three"]


def test_lines_that_come_back_are_bounded_as_well() -> None:
    kept = output()
    kept.raw("stdout", b"old\n" * SPOOL_LINES)
    taken = kept.take()
    kept.raw("stdout", b"new\n" * 5)
    kept.keep(taken)
    lines = kept.take()
    assert lines[0].dropped == 5
    assert [line.text for line in lines[-5:]] == ["new"] * 5
    assert len(lines) == SPOOL_LINES + 1
