"""Owns the live panel of one crawl: a pane for each worker, what the crawl is doing, a Stop button.

Runs in the kernel. Lines, views and notices come from any thread and are only noted; one thread
sends them to the page, ten times a second at most: a server that gets a thousand messages a second
drops some, and a page that is slow pushes nothing back. So what is too much for one message stays
here, and the page says how many lines it does not show.

Nothing may depend on an answer of the page. While the cell blocks the kernel hears none (ipykernel
7.4 and before 7.0); from 7.0 to 7.3 it hears them in a thread of its own, hence the locks. That is
why the Stop button interrupts the kernel instead of sending a message, as long as the cell blocks.
"""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anywidget
import msgspec
import traitlets
from IPython.display import display

from vscrapy_magic.errors import VscrapyError
from vscrapy_magic.notebook.progress import STOPPABLE, Rate, halted, notices, progress
from vscrapy_magic.notebook.rings import Kept, Ring
from vscrapy_magic.notebook.summary import short_html, short_text, summary_html, summary_text
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.follow import SENDER
from vscrapy_magic.sender.lines import clean_lines
from vscrapy_magic.store.keys import WorkerName
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.views import CrawlView

logger = logging.getLogger(__name__)

FLUSH_S: Final = 0.1  # between two messages of lines; shorter costs much and shows no more
STATE_S: Final = 0.25  # between two messages of state
BEAT_MS: Final = 1000  # something is sent so often while a crawl goes on; see SILENT_MS in panel.js
FLUSH_CHARS_MAX: Final = 2_000_000  # of all lines in one message
BACKLOG_CHARS_MAX: Final = 16_000_000  # of all lines sent to a page that was loaded again
PANES_MAX: Final = 64  # workers with a pane of their own; later ones share one
NOTICES_MAX: Final = 20
KEPT_MAX: Final = 4  # panels of ended crawls whose lines stay in memory
_OTHERS: Final = WorkerName("other workers")
_VIEW_TYPE: Final = "application/vnd.jupyter.widget-view+json"
_HERE: Final = Path(__file__).parent

_ended: deque["Panel"] = deque()


class PanelWidget(anywidget.AnyWidget):
    """What the page shows. Lines come as messages; only small state is in traits.

    Attributes:
        key: names this panel in the page.
        head: the crawl: title, crawl_id, state, words, notices, beat, stoppable, blocking.
        panes: of each worker, in the order of their numbers: name, lines, errors, dropped, mark.
    """

    _esm = _HERE / "panel.js"
    _css = _HERE / "panel.css"
    key = traitlets.Unicode().tag(sync=True)
    head = traitlets.Dict().tag(sync=True)
    panes: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)


class Panel:
    """The panel of one crawl; every method may be called from any thread.

    Args:
        blocking: whether the cell that shows it waits for the crawl's end.
        on_stop: called when the Stop button is pressed and nothing blocks; True means at once.
    """

    def __init__(
        self, *, blocking: bool = True, on_stop: Callable[[bool], object] = lambda _now: None
    ) -> None:
        self._on_stop = on_stop
        self._lock = threading.Lock()  # of what is noted
        self._sending = threading.Lock()  # of what is sent; taken before the other
        self._blocking = blocking
        self._view: CrawlView | None = None
        self._rate = Rate()
        self._notices: deque[str] = deque(maxlen=NOTICES_MAX)
        self._numbers: dict[WorkerName, int] = {}
        self._rings: list[Ring] = []
        self._marks: dict[WorkerName, str] = {}
        self._left: set[WorkerName] = set()
        self._wants_backlog = False
        self._state_sent_s = 0.0
        self._handles: list[Any] = []
        self._crawl: Crawl | None = None
        self._static: dict[str, str] = {}
        self._is_disposed = False
        self.widget: Final = PanelWidget(key=secrets.token_hex(8), head=self._head())
        self.widget.on_msg(self._received)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # A listener of the crawl.

    def lines(self, lines: Sequence[LogLine]) -> None:
        with self._lock:
            for line in lines:
                own = self._ring(line.worker)
                shared = own is self._rings[-1] and len(self._rings) > PANES_MAX
                own.add(_named(line) if shared else line)
                if line.source == SENDER:
                    self._say_last(" ".join(clean_lines(line.text)))

    def _say_last(self, text: str) -> None:
        """What the sender sees of its server: above the lines, the newest last. With the lock."""
        if text in self._notices:
            self._notices.remove(text)
        self._notices.append(text)

    def view(self, view: CrawlView) -> None:
        with self._lock:
            before = self._view.members if self._view is not None else ()
            now = {member.worker for member in view.members}
            self._left |= {member.worker for member in before}
            self._left -= now
            for worker in sorted(now):
                self._ring(worker)
            self._view = view

    def ended(self, view: CrawlView) -> None:
        """Show the last state; a summary that was made before the end is made again."""
        self.view(view)
        with self._lock:
            crawl = self._crawl
        if crawl is not None:
            self._replace(crawl)

    # A screen of the magics.

    def show(self) -> None:
        """Appear below the cell that runs; again for a second view of the same lines."""
        handle = display(self, display_id=True)
        with self._lock:
            is_live = self._crawl is None
            if is_live:
                self._handles.append(handle)
            start = is_live and self._thread is None
            if start:
                self._thread = threading.Thread(
                    target=self._flush_until_closed, name="vscrapy-panel", daemon=True
                )
        if start and self._thread is not None:
            self._thread.start()

    def notice(self, text: str) -> None:
        """Say something about the crawl, above its lines; the same only once."""
        text = " ".join(clean_lines(text))
        with self._lock:
            if text in self._notices:
                return
            self._notices.append(text)
            crawl = self._crawl
        if crawl is not None:
            self._replace(crawl)

    def mark(self, worker: WorkerName, text: str) -> None:
        """Say something beside a worker's name, as `late` or `12 pages`; empty takes it away."""
        with self._lock:
            self._ring(worker)
            self._marks[worker] = text

    def drain(self) -> None:
        """Nothing: the panel has a thread of its own."""

    def finish(self, crawl: Crawl) -> None:
        """Become a static summary wherever it is shown; a crawl that is not over yet may go on.

        The lines stay in memory, for `show`, until some more crawls have ended.
        """
        self.view(crawl.view)
        with self._lock:
            is_first, self._crawl = self._crawl is None, crawl
            self._blocking = False
        self.close()
        self._replace(crawl)
        if is_first:
            _ended.append(self)
            while len(_ended) > KEPT_MAX:
                _ended.popleft().dispose()

    def cancel_input(self, answer: str) -> None:
        """Answer the input box that is open in the page, in the user's place."""
        with self._sending:
            self.widget.send({"k": "enter", "v": answer})

    def close(self) -> None:
        """Send what is left and end the thread; the lines stay. Idempotent."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._flush(last=True)

    def dispose(self) -> None:
        """Let go of the lines, here and in the page; the summary stays. Idempotent."""
        self.close()
        with self._sending, self._lock:
            self._is_disposed = True
            self.widget.layout.close()
            self.widget.close()
            self._rings.clear()
            self._numbers.clear()

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live panel, and what a page without a kernel shows instead of it."""
        with self._lock:
            view, is_disposed, static = self._view, self._is_disposed, self._static
        if is_disposed:
            return {**static}, {}
        found: Any = self.widget._repr_mimebundle_()
        data, metadata = found if isinstance(found, tuple) else (found, {})
        live = {_VIEW_TYPE: data[_VIEW_TYPE]}
        if static:
            return {**live, **static}, metadata
        if view is None:
            begins = {"text/html": "<div>a crawl begins</div>", "text/plain": "a crawl begins"}
            return {**live, **begins}, metadata
        short = {"text/html": short_html(view), "text/plain": short_text(view)}
        return {**live, **short}, metadata

    def kept(self) -> dict[str, Kept]:
        """What is kept, by worker, in the order in which workers came."""
        with self._lock:
            return {
                name: self._rings[number].kept() for name, number in self._shown_names().items()
            }

    def _shown_names(self) -> dict[WorkerName, int]:
        own = {name: number for name, number in self._numbers.items() if number < PANES_MAX}
        return own | ({_OTHERS: PANES_MAX} if len(self._rings) > PANES_MAX else {})

    def _ring(self, worker: WorkerName) -> Ring:
        number = self._numbers.get(worker)
        if number is None:
            number = min(len(self._rings), PANES_MAX)
            if number == len(self._rings):
                self._rings.append(Ring())
            if number < PANES_MAX:
                self._numbers[worker] = number
        return self._rings[number]

    def _replace(self, crawl: Crawl) -> None:
        """The static summary instead of the live panel, in every output that shows it."""
        with self._sending:
            view, groups = crawl.view, crawl.failures.groups()
            with self._lock:
                notes, handles = list(self._notices), list(self._handles)
            self._static = {
                "text/html": summary_html(view, self.kept(), groups, notes),
                "text/plain": summary_text(view, groups),
            }
            for handle in handles:
                handle.update(self._static, raw=True)

    # What is sent to the page.

    def _flush_until_closed(self) -> None:
        while not self._stop.wait(FLUSH_S):
            try:
                self._flush()
            except Exception:  # the page cannot be reached; the crawl goes on
                logger.exception("The panel of a crawl is not updated any more")
                return

    def _flush(self, *, last: bool = False) -> None:
        """Send what is new: at most one message of state and one of lines."""
        with self._sending:
            now_s = time.monotonic()
            with self._lock:
                is_new = len(self._rings) > len(self.widget.panes)
                state = None
                if last or is_new or now_s - self._state_sent_s >= STATE_S:
                    self._state_sent_s = now_s
                    state = self._head(), self._panes()
                kind = "backlog" if self._wants_backlog else "lines"
                self._wants_backlog = False
                lines = self._take(everything=kind == "backlog")
            if state is not None:
                with self.widget.hold_sync():
                    self.widget.head, self.widget.panes = state
            if lines or kind == "backlog":
                self.widget.send({"k": kind, "v": lines})

    def _take(self, *, everything: bool) -> list[tuple[int, int, str]]:
        chars_max = BACKLOG_CHARS_MAX if everything else FLUSH_CHARS_MAX
        chars_max //= max(1, len(self._rings))
        return [
            (number, run.first, run.rows)
            for number, ring in enumerate(self._rings)
            for run in (ring.take_all(chars_max) if everything else ring.take(chars_max))
        ]

    def _head(self) -> dict[str, Any]:
        view, said = self._view, list(self._notices)
        if view is None:
            return {
                "title": "",
                "crawl_id": "",
                "state": "",
                "words": "a crawl begins",
                "notices": said,
                "beat": 0,
                "stoppable": False,
                "blocking": self._blocking,
            }
        now_ms = int(time.time() * 1000)
        rate = self._rate.per_s(view.totals.pages, time.monotonic())
        news = [*halted(view, blocking=self._blocking), *notices(view)]
        said += [" ".join(clean_lines(text)) for text in news if text not in said]
        return {
            "title": " ".join(clean_lines(view.spec.spider)),
            "crawl_id": view.crawl_id,
            "state": str(view.state),
            "words": progress(view, rate, now_ms),
            "notices": said,
            "beat": 0 if view.over else now_ms // BEAT_MS,
            "stoppable": view.state in STOPPABLE,
            "blocking": self._blocking,
        }

    def _panes(self) -> list[dict[str, Any]]:
        is_over = self._view is not None and self._view.over
        panes = []
        for name, number in self._shown_names().items():
            ring = self._rings[number]
            left = "left" if name in self._left and not is_over else ""
            panes.append(
                {
                    "name": " ".join(clean_lines(name)),
                    "lines": ring.lines,
                    "errors": ring.errors,
                    "dropped": ring.dropped,
                    "mark": "" if is_over else self._marks.get(name) or left,
                }
            )
        return panes

    # What comes from the page.

    def _received(self, _widget: object, content: object, _buffers: object) -> None:
        if not isinstance(content, Mapping):
            return
        if content.get("k") == "hello":
            with self._lock:
                self._wants_backlog = True
            if self._stop.is_set():
                self._flush(last=True)
        elif content.get("k") == "stop":
            try:
                self._on_stop(bool(content.get("now")))
            except VscrapyError as exc:
                self.notice(str(exc))


def _named(line: LogLine) -> LogLine:
    """The line with its worker in front, for a pane that several share."""
    return msgspec.structs.replace(line, text=f"({line.worker}) {line.text}")
