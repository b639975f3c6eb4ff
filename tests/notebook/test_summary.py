"""What stays in the notebook: words, counts, failures, last lines; escaped, bounded, no script."""

import io
from pathlib import Path

import pytest

from tests.notebook.feeding import CRAWL, HOSTILE, STARTED_MS, ended_crawl, failure, line, view
from vscrapy_magic.notebook.plain import NOTEBOOK_LINES, WAITING_MAX, PlainSink
from vscrapy_magic.notebook.progress import Rate, duration, notices, progress
from vscrapy_magic.notebook.rings import Kept, Ring, Row
from vscrapy_magic.notebook.summary import (
    GROUPS_SHOWN,
    ROWS_IN_ALL,
    ROWS_PER_WORKER,
    pick,
    short_html,
    short_text,
    summary_html,
    summary_text,
)
from vscrapy_magic.sender.lines import format_line
from vscrapy_magic.store.failures import FailureGroup
from vscrapy_magic.store.views import CrawlView

FINISHED = view("finished")


def group(number: int = 1, message: str = "no price", count: int = 3) -> FailureGroup:
    numbers = tuple(range(number, number + count))
    return FailureGroup(failure(message=message), numbers, ("host-1",))


def kept(count: int, level: int = 20) -> Kept:
    ring = Ring()
    for number in range(count):
        ring.add(line(f"n {number}", level))
    return ring.kept()


def test_the_summary_has_counts_reason_duration_and_failures() -> None:
    html = summary_html(FINISHED, {"host-1": kept(3)}, [group(7)], ["1 worker: state on self"])
    for part in (
        *("quotes", CRAWL, "finished: 120 pages, 96 items, 2 errors, 8.0 s"),
        *(
            "ValueError",
            "no price",
            "Cell In[3], line 12",
            "%verrors 7",
            "1 worker: state on self",
        ),
        *("<details>", "<pre", "[quotes] INFO: n 2"),
    ):
        assert part in html
    text = summary_text(FINISHED, [group(7)])
    assert text.splitlines() == [
        f"crawl {CRAWL} quotes finished: 120 pages, 96 items, 2 errors, 8.0 s",
        "  3 x ValueError: no price at Cell In[3], line 12 (%verrors 7, %vdebug 7)",
    ]


def test_foreign_text_stays_text() -> None:
    last = view("failed", spider=HOSTILE, why=HOSTILE)
    ring = Ring()
    ring.add(line(HOSTILE, worker=HOSTILE, logger=HOSTILE))
    groups = [group(message=HOSTILE)]
    for html in (
        summary_html(last, {HOSTILE: ring.kept()}, groups, [HOSTILE]),
        short_html(last),
    ):
        assert "<script" not in html
        assert "<img" not in html
        assert "</pre></details>$" not in html
        assert "$" not in html
        assert "&lt;script&gt;" in html
    assert html.count("<div") == html.count("</div")
    for text in (summary_text(last, groups), short_text(last), format_line(line(HOSTILE))):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "\n" not in short_text(last)


def test_each_worker_keeps_few_rows_and_errors_are_preferred() -> None:
    errors, others = kept(100, 40).rows, kept(1000).rows
    many = errors + [Row(row.number + 100, row.text) for row in others]
    picked = pick(many, ROWS_PER_WORKER)
    assert len(picked) == ROWS_PER_WORKER
    assert sum(row.text[0] == "E" for row in picked) == ROWS_PER_WORKER // 2
    assert [row.number for row in picked] == sorted(row.number for row in picked)
    assert picked[-1].number == 1100
    html = summary_html(FINISHED, {"host-1": Kept(many, 1100, 100, 7)})
    assert "1,100 lines, 100 errors, 7 dropped" in html
    assert html.count("[quotes]") == ROWS_PER_WORKER
    assert "900 lines not shown" in html


def test_many_workers_share_the_rows_of_a_summary() -> None:
    html = summary_html(FINISHED, {f"host-{number}": kept(500) for number in range(50)})
    assert html.count("[quotes]") <= ROWS_IN_ALL
    assert html.count("<details>") == 50


def test_many_kinds_of_failures_are_cut() -> None:
    groups = [group(number) for number in range(1, GROUPS_SHOWN + 6)]
    assert "5 more kinds of failures" in summary_html(FINISHED, {}, groups)
    assert "more kinds of failures: %verrors" in summary_text(FINISHED, groups)


@pytest.mark.parametrize(
    ("crawl", "words"),
    [
        (view(), "running: 4 workers, 120 pages, 96 items, 2 errors, 40 queued, 12.3 pages/s, 8 s"),
        (
            view("stopped", close_reason="shutdown"),
            "stopped (shutdown): 120 pages, 96 items, 2 errors, 8.0 s",
        ),
    ],
)
def test_the_state_is_said_in_words(crawl: CrawlView, words: str) -> None:
    assert progress(crawl, 12.34, STARTED_MS + 8400) == words


def test_notices_say_why_a_crawl_was_cancelled() -> None:
    cancelled = view("cancelled", why="not heard of for 14 s", limited_by="DOWNLOAD_DELAY = 1")
    assert notices(cancelled) == ["cancelled: not heard of for 14 s"]


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.per_s(0, 100.0) == 0
    assert rate.per_s(10, 100.1) == 0
    assert rate.per_s(20, 101.0) == 20
    for second in range(2, 30):
        last = rate.per_s(20, 100.0 + second)
    assert last == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(8.4, "8 s"), (65, "1 min 5 s"), (3 * 3600 + 240, "3 h 4 min")],
)
def test_durations_are_said_in_their_largest_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_plain_lines_are_printed_by_drain_alone() -> None:
    out = io.StringIO()
    sink = PlainSink(out, is_notebook=False)
    sink.notice("1 worker: state on self")
    sink.lines([line("a"), line("b\nc", 40, "host-2"), line("raw", source="stdout")])
    sink.view(view("waiting", why="no worker"))
    assert out.getvalue() == ""
    sink.drain()
    clock = format_line(line("a"))[7:15]
    assert out.getvalue().splitlines() == [
        "vscrapy: 1 worker: state on self",
        "vscrapy: waiting: no worker",
        f"host-1 {clock} [quotes] INFO: a",
        f"host-2 {clock} [quotes] ERROR: b",
        "host-2 c",
        f"host-1 {clock} raw",
    ]


def test_in_a_notebook_few_lines_are_printed_and_the_others_counted(tmp_path: Path) -> None:
    out = io.StringIO()
    sink = PlainSink(out, is_notebook=True)
    sink.lines([line("bad", 40), *[line(f"n {number}") for number in range(2 * WAITING_MAX)]])
    sink.drain()
    first, *printed = out.getvalue().splitlines()
    assert first == f"... {2 * WAITING_MAX - NOTEBOOK_LINES + 1:,} lines not shown: %vlogs has them"
    assert len(printed) == NOTEBOOK_LINES
    assert printed[0].endswith("ERROR: bad")
    sink.lines([line("soon after")])
    sink.drain()
    assert "soon after" not in out.getvalue()
    sink.finish(ended_crawl(tmp_path, failures=[failure()]))
    assert "soon after" in out.getvalue()
    assert out.getvalue().splitlines()[-1].startswith("  1 x ValueError: no price")
