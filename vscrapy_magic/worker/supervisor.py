"""Owns one worker: compares what should run with what runs, and acts; never imports Scrapy.

One loop in the main thread owns the children. A second thread only waits for the worker's wake key
and pokes the loop; a wake-up that is lost costs at most one beat, because the loop looks then too.
"""

import logging
import os
import secrets
import selectors
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from vscrapy_magic.errors import CrawlNotFoundError, StateError, StoreError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import (
    ACTIVE_STATES,
    FINAL_STATES,
    STOPPED_BY_USER,
    Crawls,
    CrawlView,
    Mover,
)
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import CrawlId, MemberToken
from vscrapy_magic.store.logs import Logs
from vscrapy_magic.store.messages import ChildOrder, CrawlState, WorkerRecord
from vscrapy_magic.store.pipes import ExitCode, FromChild, Report
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.worker.child import READ_BYTES, Child, Pipe
from vscrapy_magic.worker.output import FLUSH_S, Output

logger = logging.getLogger(__name__)

IDLE_BEAT_S: Final = 2.0
BUSY_BEAT_S: Final = 1.0  # while there are crawls: leases are renewed with it
WAKE_WAIT_S: Final = 10.0  # of one blocking read
RETRY_S: Final = 1.0  # before a store that is away is asked again
RESTART_AFTER_S: Final = 2.0  # before a crawl whose child died here gets another one
_TOKEN_BYTES: Final = 3


class Supervisor:
    """One worker; `run` returns when it is told to go and its children have ended.

    Args:
        record: how the worker presents itself.
        parent_fd: a pipe whose end means that the worker must end at once.
    """

    def __init__(self, store: Store, record: WorkerRecord, *, parent_fd: int | None = None) -> None:
        self._store = store
        self._record = record
        self._presence = Presence(store)
        self._crawls = Crawls(store)
        self._logs = Logs(store)
        self._children: dict[CrawlId, Child] = {}
        self._outputs: dict[CrawlId, Output] = {}
        self._not_before: dict[CrawlId, float] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="vscrapy-"))
        self._selector = selectors.DefaultSelector()
        self._poked, self._poke = os.pipe()
        os.set_blocking(self._poked, False)
        self._selector.register(self._poked, selectors.EVENT_READ, None)
        self._parent_fd = parent_fd
        if parent_fd is not None:
            self._selector.register(parent_fd, selectors.EVENT_READ, None)
        self._going = 0
        self._busy = False

    def go(self) -> None:
        """Leave: the first call lets children finish what they hold, the second kills them.

        Safe to call from a signal handler.
        """
        self._going += 1
        os.write(self._poke, b"g")

    def run(self) -> None:
        """Serve until told to go; blocks. Survives a store that goes away for a while."""
        stop = threading.Event()
        waker = threading.Thread(
            target=self._wait_for_wakes, args=(stop,), name="wake", daemon=True
        )
        waker.start()
        try:
            while not (self._going and not self._children):
                self._turn()
        finally:
            stop.set()
            self._end()

    def _turn(self) -> None:
        delay = 0.0
        try:
            self._look()
            delay = BUSY_BEAT_S if self._busy else IDLE_BEAT_S
        except StoreError as exc:
            logger.warning("%s; trying again", exc)
            delay = RETRY_S
            if self._going > 1:
                for child in self._children.values():
                    child.kill()
        until = time.monotonic() + delay
        while (left := until - time.monotonic()) > 0:
            if self._children:
                left = min(left, FLUSH_S)
            if self._read(left):
                return
            now = time.monotonic()
            for child in self._children.values():
                child.press(now)
            self._reap()

    def _wait_for_wakes(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                if self._presence.wait_worker(self._record.name, WAKE_WAIT_S):
                    os.write(self._poke, b"w")
            except StoreError:
                stop.wait(RETRY_S)
            except OSError:
                return  # the loop has closed its end

    def _read(self, timeout_s: float) -> bool:
        """Take in what children wrote; True when somebody wants the loop to look."""
        poked = False
        for key, _ in self._selector.select(timeout_s):
            if key.fd == self._parent_fd and not os.read(key.fd, READ_BYTES):
                self._selector.unregister(key.fd)
                self._going = 2
                poked = True
                continue
            if key.data is None:
                poked = bool(os.read(key.fd, READ_BYTES))
                continue
            child: Child = key.data
            data = os.read(key.fd, READ_BYTES)
            if not data:
                self._selector.unregister(key.fd)
            self._take(child, child.pipes[key.fd], data)
        for output in self._outputs.values():
            output.flush()
        return poked

    def _take(self, child: Child, pipe: Pipe, data: bytes) -> None:
        output = self._outputs[child.crawl_id]
        if pipe is not Pipe.REPORT:
            output.raw(pipe, data)
            return
        for report in child.reports(data):
            self._heard(child, output, report)

    def _heard(self, child: Child, output: Output, report: FromChild) -> None:
        if report.report is Report.LOG:
            output.record(report)
        elif report.report is Report.PHASE:
            child.phase = report.text
        elif report.report is Report.FATAL:
            child.fatal = report.text
            output.own(logging.ERROR, report.text)

    def _look(self) -> None:
        """One comparison of what should run with what runs."""
        record = msgspec.structs.replace(
            self._record, used=len(self._children), draining=bool(self._going)
        )
        beat = self._presence.beat_worker(record)
        wanted = {view.crawl_id: view for view in self._crawls.wanted()} if beat.live_crawls else {}
        for crawl_id in set(beat.live_crawls) - set(wanted):
            self._over(crawl_id)
            self._crawls.sweep(crawl_id)
        for view in list(wanted.values()):
            if view.spec.session in beat.gone_sessions:
                self._crawls.cancel(view.crawl_id, Mover.WORKER, why="its sender is gone")
                del wanted[view.crawl_id]
            else:
                self._renew(view)
        self._busy = bool(wanted or self._children)
        for crawl_id, child in self._children.items():
            if crawl_id in wanted:
                self._steer(child, wanted[crawl_id])
            elif crawl_id not in beat.live_crawls:
                self._over(crawl_id)
        if not self._going:
            for view in wanted.values():
                self._consider(view)

    def _renew(self, view: CrawlView) -> None:
        """Keep our child a member, and judge the members of others."""
        child = self._children.get(view.crawl_id)
        try:
            Frontier(self._store, view.crawl_id).renew([child.token] if child else [])
        except CrawlNotFoundError:
            logger.info("Crawl %s is past its retention", view.crawl_id)

    def _over(self, crawl_id: CrawlId) -> None:
        """A crawl is over: a child that closed its spider may exit by itself, another is killed."""
        child = self._children.get(crawl_id)
        if child is None:
            return
        try:
            view = self._crawls.view(crawl_id)
            ended = view.state is CrawlState.FINISHED or view.close_reason == STOPPED_BY_USER
        except CrawlNotFoundError:
            ended = False
        if ended:
            child.stop()
        else:
            child.kill()

    def _steer(self, child: Child, view: CrawlView) -> None:
        if self._going > 1:
            child.kill()
        elif self._going or view.state is CrawlState.STOPPING:
            child.stop()

    def _consider(self, view: CrawlView) -> None:
        """Start a child when the crawl needs one more and this worker may give it."""
        crawl_id = view.crawl_id
        here = crawl_id in self._children or len(self._children) >= self._record.slots
        fits = view.spec.env in {"", self._record.env}
        if here or not fits or view.state not in ACTIVE_STATES:
            return
        if time.monotonic() < self._not_before.get(crawl_id, 0):
            return
        token = MemberToken(f"{self._record.name}.{secrets.token_hex(_TOKEN_BYTES)}")
        if not Frontier(self._store, crawl_id).reserve(token, self._record.name):
            return
        folder = self._folder / token
        folder.mkdir()
        child = Child(
            ChildOrder(
                crawl_id=crawl_id,
                token=token,
                worker=self._record.name,
                url=self._store.url,
                folder=str(folder),
            )
        )
        self._children[crawl_id] = child
        self._outputs.setdefault(crawl_id, Output(self._logs, crawl_id, self._record.name))
        for fd in child.pipes:
            self._selector.register(fd, selectors.EVENT_READ, child)
        logger.info("Crawl %s: started a child (pid %d)", crawl_id, child.process.pid)

    def _reap(self) -> None:
        for crawl_id, child in list(self._children.items()):
            if child.process.poll() is not None and self._drained(child):
                del self._children[crawl_id]
                self._buried(child, child.process.returncode)
                os.write(self._poke, b"r")

    def _drained(self, child: Child) -> bool:
        """Whether all that the child wrote has been read; its last words count most."""
        registered = self._selector.get_map()
        return not any(fd in registered for fd in child.pipes)

    def _buried(self, child: Child, code: int) -> None:
        output = self._outputs[child.crawl_id]
        for pipe in (Pipe.STDOUT, Pipe.STDERR):
            output.raw(pipe, b"")
        if code != ExitCode.DONE:
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            output.own(logging.WARNING, f"the child ended by {reason} while {child.phase}")
            self._not_before[child.crawl_id] = time.monotonic() + RESTART_AFTER_S
        try:
            self._tell_store(child, code)
        except (CrawlNotFoundError, StateError) as exc:
            logger.info("%s", exc)
        except StoreError as exc:
            logger.warning("%s; its leases go back when they expire", exc)
        output.flush(force=True)
        child.close()
        shutil.rmtree(child.folder, ignore_errors=True)
        logger.info("Crawl %s: the child has ended (%d)", child.crawl_id, code)

    def _tell_store(self, child: Child, code: int) -> None:
        Frontier(self._store, child.crawl_id).reclaim(child.token)
        if code == ExitCode.FATAL and child.fatal:
            reason = child.fatal.strip().splitlines()[-1]
            self._crawls.finish_failed(child.crawl_id, reason)
        elif self._crawls.view(child.crawl_id).state in FINAL_STATES:
            self._crawls.sweep(child.crawl_id)

    def _end(self) -> None:
        quietly: list[Callable[[], object]] = [
            lambda: self._presence.remove_worker(self._record.name),
            *(output.flush for output in self._outputs.values()),
        ]
        for child in self._children.values():
            child.kill()
            child.close()
        for step in quietly:
            try:
                step()
            except StoreError as exc:
                logger.warning("%s", exc)
        self._selector.close()
        os.close(self._poke)
        os.close(self._poked)
        shutil.rmtree(self._folder, ignore_errors=True)
