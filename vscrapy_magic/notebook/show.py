"""Owns how workers, crawls, lines, items and failures are shown by the magics.

Runs in the kernel. What comes from workers is shown as text, never as markup.
"""

import html
import json
import textwrap
import time
from collections.abc import Sequence
from typing import Final

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.notebook.summary import summary_text
from vscrapy_magic.notebook.tables import Table
from vscrapy_magic.sender.advice import advice, next_steps
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.lines import format_line
from vscrapy_magic.store.codes import FIRST_CODE
from vscrapy_magic.store.failures import FailureRecord
from vscrapy_magic.store.keys import SessionId
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.presence import Liveness, SessionView, WorkerView
from vscrapy_magic.store.views import CrawlView

_BODY_CHARS: Final = 2000  # of a response, shown with its failure
_WIDTH: Final = 100  # of explanations
_MB: Final = 1024 * 1024
# JupyterLab would break lines in the middle of a word.
_PRE_STYLE: Final = "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"


def workers(views: Sequence[WorkerView]) -> Table:
    """One row a worker."""
    rows = [
        {
            "worker": view.record.name,
            "host": view.record.host,
            "pid": view.record.pid,
            "state": "leaving" if view.record.draining else view.liveness,
            "crawls": f"{view.record.used} of {view.record.slots}",
            "python": view.record.python,
            "scrapy": view.record.scrapy,
            "cpu": f"{view.record.cpu_percent:.0f} %",
            "memory": f"{view.record.memory_bytes // _MB} MB",
            "up": age(view.record.started_ms),
            "last beat": f"{view.silent_ms / 1000:.1f} s ago",
        }
        for view in views
    ]
    return Table(rows, nothing="no workers; start one with `vscrapy worker URL`")


def crawls(views: Sequence[CrawlView], sessions: Sequence[SessionView]) -> Table:
    """One row a crawl, newest first."""
    rows = [
        {
            "id": view.crawl_id,
            "spider": view.spec.spider,
            "state": view.state,
            "why": _why(view, int(time.time() * 1000)),
            "sender": _sender(view.session, sessions),
            "workers": len(view.members),
            "pages": view.totals.pages,
            "items": view.totals.items,
            "failures": view.totals.failures,
            "queued": view.totals.queued,
            "age": age(view.created_ms),
        }
        for view in views
    ]
    return Table(rows, nothing="no crawls on this Redis yet")


def _why(view: CrawlView, now_ms: int) -> str:
    why = view.waits(now_ms) or view.close_reason
    return "" if why == view.state else why


def _sender(session: SessionId | None, sessions: Sequence[SessionView]) -> str:
    if session is None:
        return "detached"
    for view in sessions:
        if view.record.session == session and view.liveness is not Liveness.GONE:
            return f"{view.record.kind} on {view.record.host} ({view.liveness})"
    return "gone"


def _pre(text: str) -> str:
    """Plain text as HTML."""
    return f'<pre style="{_PRE_STYLE}">{html.escape(text)}</pre>'


class Lines:
    """Log lines as text."""

    def __init__(self, lines: Sequence[LogLine]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def __repr__(self) -> str:
        return "\n".join(map(format_line, self._lines)) or "no such lines"

    def _repr_html_(self) -> str:
        return _pre(repr(self))


class Summary:
    """A crawl as it is now, in a few lines of text."""

    def __init__(self, crawl: Crawl) -> None:
        self._crawl = crawl

    def __repr__(self) -> str:
        return summary_text(self._crawl.view, self._crawl.failures.groups())


def items(crawl: Crawl, last: int) -> Table:
    """The newest items, a column for each field."""
    count = len(crawl.items)
    shown = crawl.items[max(0, count - last) :]
    names = list(dict.fromkeys(name for item in shown for name in _fields(item)))
    is_patched = crawl.view.code_version > FIRST_CODE
    code = "code" if "code" not in names else "code version"
    first = count - len(shown)
    rows = [
        {
            "#": first + place,
            **({code: crawl.items.code_version(first + place)} if is_patched else {}),
            **{name: _value(_fields(item).get(name, "")) for name in names},
        }
        for place, item in enumerate(shown)
    ]
    note = f"{len(shown)} of {count} items; crawl.items has all" if len(shown) < count else ""
    return Table(rows, nothing="no items yet", note=note)


def _fields(item: object) -> dict[str, object]:
    return item if isinstance(item, dict) else {"value": item}


def _value(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def failures(crawl: Crawl, number: int = 0) -> "Table | FailureText":
    """Failures by place, the most frequent first; with a number, one of them whole.

    Raises:
        ConfigError: there is no failure of that number.
    """
    if number:
        count = len(crawl.failures)
        if not 1 <= number <= count:
            raise ConfigError(f"no failure {number}: crawl {crawl.id} has {count}")
        return FailureText(number, crawl.failures[number - 1].record)
    groups = crawl.failures.groups()
    retried = any(group.retried for group in groups)
    rows = [
        {
            "#": group.numbers[0],
            "count": group.count,
            **({"put back": group.retried} if retried else {}),
            "where": group.first.place or group.first.kind,
            "error": f"{group.first.type}: {group.first.message}",
            "url": group.first.url,
            "workers": ", ".join(group.workers),
        }
        for group in groups
    ]
    note = "%verrors NUMBER explains one and shows its request, response and locals"
    if crawl.failures.left_out:
        note += f"; {crawl.failures.left_out:,} are only counted"
    return Table(rows, nothing="no failures", note=note if rows else "")


class FailureText:
    """One failure, whole."""

    def __init__(self, number: int, record: FailureRecord) -> None:
        self.number = number
        self.record = record

    def __repr__(self) -> str:
        record = self.record
        is_first = record.code_version == FIRST_CODE
        code = "" if is_first else f", code version {record.code_version}"
        run = f"attempt {record.attempt}{code}"
        parts = [
            f"failure {self.number}: {record.kind} on {record.worker}, {run}",
            "\n".join(_trace(record)),
            *_explained(self.number, record),
        ]
        if record.url:
            parts.append(f"request: {record.method} {record.url}")
            parts += [f"  {name}: {', '.join(v)}" for name, v in record.headers.items()]
        response = record.response
        if record.cause is not None:
            parts.append(f"called with: {record.cause.type}: {record.cause.message}")
            response = response or record.cause.response
        if response is not None:
            parts.append(f"response: {response.status} {response.url}")
            parts += [f"  {name}: {', '.join(v)}" for name, v in response.headers.items()]
            body = response.body.decode(errors="replace")
            more = f" ... ({response.body_bytes} bytes)" if len(body) > _BODY_CHARS else ""
            parts.append(body[:_BODY_CHARS] + more)
        for frame in record.frames:
            parts.append(f"locals of {frame.function} ({frame.file}, line {frame.line}):")
            parts += [f"  {name} = {value}" for name, value in frame.locals.items()]
        if record.log:
            parts += ["before it:", *(f"  {line}" for line in record.log)]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        return _pre(repr(self))


def _explained(number: int, record: FailureRecord) -> list[str]:
    """What usually causes it, and what to type next."""
    said, steps = advice(record), next_steps(number, record)
    found = ["", textwrap.fill(f"why: {said}", _WIDTH, subsequent_indent="     ")] if said else [""]
    if steps:
        found.append("next:" + "".join(f"\n  {step}" for step in steps))
    return [*found, ""]


def _trace(record: FailureRecord) -> list[str]:
    """The traceback without the frames of libraries around the user's own."""
    if not record.frames:
        return [record.traceback.rstrip()]
    lines = ["Traceback (your own code; record.traceback has all of it):"]
    for frame in record.frames:
        lines.append(f"  {frame.file}, line {frame.line}, in {frame.function}")
        if frame.source:
            lines.append(f"    {frame.source}")
    return [*lines, f"{record.type}: {record.message}"]


def age(since_ms: int) -> str:
    """How long ago, in words: `12 s`, `3 min`, `5 h`, `2 d`."""
    seconds = max(0.0, time.time() - since_ms / 1000)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
