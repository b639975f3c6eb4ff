"""Log lines on their way: in order, in batches, bounded."""

import logging

from vscrapy_magic.store import logs as logs_module
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import WorkerName, crawl_key
from vscrapy_magic.store.logs import LINES_PER_BATCH, LogLine, Logs

from .driver import order


def lines(count: int, first: int = 0) -> list[LogLine]:
    worker = WorkerName("w1")
    return [
        LogLine(n, logging.INFO, "s", f"line {n} ä", worker) for n in range(first, first + count)
    ]


def test_lines_come_in_order_and_go_on_where_reading_stopped(store: Store) -> None:
    crawl_id, logs = order(store).crawl_id, Logs(store)
    sent = lines(2 * LINES_PER_BATCH + 1)
    logs.append(crawl_id, sent)
    got, after = logs.read(crawl_id)
    assert got == sent
    assert store.client.xlen(crawl_key(crawl_id, "log")) == 3
    assert logs.read(crawl_id, after) == ([], after)
    logs.append(crawl_id, lines(2, 9000))
    assert logs.read(crawl_id, after)[0] == lines(2, 9000)


def test_a_flood_is_bounded(store: Store, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(logs_module, "LINES_PER_BATCH", 1)
    crawl_id, logs = order(store).crawl_id, Logs(store)
    for first in range(0, 3000, 1000):
        logs.append(crawl_id, lines(1000, first))
    assert store.client.xlen(crawl_key(crawl_id, "log")) <= 1200
    assert logs.read(crawl_id, entries=2000)[0][-1] == lines(1, 2999)[0]
