"""Owns what is said of a crawl in one line, and its stats of time; runs in senders."""

import datetime
import time
from typing import Any

from vscrapy_magic.store.pages import RECORD_SETTING
from vscrapy_magic.store.views import CrawlView


def describe(view: CrawlView) -> str:
    """One crawl in one line: `1a2b3c4d quotes finished: 96 items, 12 pages, 1 failure in 3.1 s`."""
    totals = view.totals
    why = f" ({view.why or view.close_reason})" if view.why or view.close_reason else ""
    if not view.why and view.close_reason == view.state:
        why = ""
    end_ms = view.ended_ms if view.over else int(time.time() * 1000)
    seconds = max(0, end_ms - (view.started_ms or view.created_ms)) / 1000
    counts = (
        f"{_count(totals.items, 'item')}, {_count(totals.pages, 'page')}, "
        f"{_count(totals.failures, 'failure')}"
    )
    return f"{view.crawl_id} {view.spec.spider} {view.state}{why}: {counts} in {seconds:.1f} s"


def recorded(view: CrawlView, command: str = "%vreplay all") -> str:
    """What became of the pages of a recorded crawl, in one line; empty of another one.

    Args:
        command: what its user types to run them again.
    """
    spec, totals = view.spec, view.totals
    if not spec.record_bytes:
        return ""
    if not (view.recorded or view.unrecorded) and totals.pages:
        return (
            "no page was recorded: none reached a callback, or the workers are older than --record "
            "(update vscrapy_magic there)"
        )
    found = f"{_count(view.recorded, 'page')} recorded"
    if view.unrecorded:
        found += f", {view.unrecorded} more not kept ({RECORD_SETTING} is {spec.record_bytes:,})"
    return f"{found}: `{command}` runs the spider as it is now on them"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def time_stats(view: CrawlView) -> dict[str, Any]:
    """Stats that are facts of the crawl's clock."""
    times: dict[str, Any] = {}
    if view.started_ms:
        times["start_time"] = _utc(view.started_ms)
    if view.over and view.ended_ms:
        times["finish_time"] = _utc(view.ended_ms)
        times["finish_reason"] = view.close_reason
        if view.started_ms:
            times["elapsed_time_seconds"] = (view.ended_ms - view.started_ms) / 1000
    return times


def _utc(time_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
