"""Owns the life of one child: from its order to its exit code.

Runs in a process of its own, forked by the zygote or started as `python -m
vscrapy_magic.runtime.child` with the order (msgpack) on standard input. The event loop runs in the
main thread; the store is spoken with by threads, and the supervisor by another one.
"""

import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Final

from scrapy import Spider
from scrapy.settings import Settings
from scrapy.utils.log import configure_logging
from twisted.internet.defer import inlineCallbacks
from twisted.python.failure import Failure

from vscrapy_magic.errors import MemberGoneError, StateError, StoreError, VscrapyError
from vscrapy_magic.runtime.control import Control
from vscrapy_magic.runtime.crawl import LeasedCrawler, Seat, post
from vscrapy_magic.runtime.loader import (
    find_spider,
    force_settings,
    prepare,
    read_settings,
    run_entry,
    write_files,
)
from vscrapy_magic.runtime.report import PipeHandler, Reporter
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.frontier import MEMBER_TTL_MS, Frontier
from vscrapy_magic.store.messages import ChildOrder, CrawlSpec, decode
from vscrapy_magic.store.pipes import Command, ExitCode, ToChild

logger = logging.getLogger(__name__)

_LEVELS_SET: Final = 0  # root lets every record through; handlers have the level


class Child:
    """One child; made and run by the main thread."""

    def __init__(self, order: ChildOrder) -> None:
        self._order = order
        self._reporter = Reporter(order.report_fd)
        self._crawler: LeasedCrawler | None = None
        self._failure: Failure | None = None
        self._control = Control(order.control_fd, self._obey)

    def run(self) -> ExitCode:
        """Take part in the crawl until it ends, or until this child is told to go."""
        self._reporter.phase("loading")
        # An interrupt at a terminal goes to every process of the group; the sender handles it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            os.chdir(self._order.folder)
            with Store.connect(self._order.url) as store:
                return self._take_part(store)
        except StoreError as exc:
            self._reporter.fatal(str(exc))
            if not self._reporter.connected:
                sys.stderr.write(f"{exc}\n")
            return ExitCode.STORE_LOST
        except BaseException as exc:  # noqa: BLE001
            # Whatever shipped code does at import, SystemExit included, its author must hear of it.
            return self._fatal("".join(traceback.format_exception(exc)))

    def _fatal(self, text: str) -> ExitCode:
        self._reporter.fatal(text)
        if not self._reporter.connected:
            sys.stderr.write(text)
        return ExitCode.FATAL

    def _take_part(self, store: Store) -> ExitCode:
        crawls = Crawls(store)
        view = crawls.view(self._order.crawl_id)
        if view.over:
            return ExitCode.DONE
        spec = view.spec
        kind, settings = self._load(spec, crawls)
        frontier = Frontier(store, spec.crawl_id)
        try:
            frontier.join(self._order.token, self._order.worker, ttl_ms=MEMBER_TTL_MS)
        except StateError as exc:
            logger.info("%s", exc)
            return ExitCode.DONE
        seat = Seat(frontier, self._order.token, self._reporter.phase)
        self._crawler = LeasedCrawler(kind, settings, seat)
        self._loop(spec)
        code = self._code()
        if code is not ExitCode.MEMBER_GONE:
            frontier.leave(self._order.token)
        self._reporter.phase("closed")
        return code

    def _load(self, spec: CrawlSpec, crawls: Crawls) -> tuple[type[Spider], Settings]:
        bundle = crawls.bundle(spec.bundle)
        folder = Path.cwd()
        write_files(bundle, folder)
        prepare(bundle, folder)
        settings = read_settings(bundle, spec)
        self._log_to_pipe(settings)
        module = run_entry(bundle, folder)
        kind = find_spider(module, spec, settings)
        settings = force_settings(settings, kind, spec.limits)
        # The spider may have a level of its own.
        own = settings.copy()
        kind.update_settings(own)
        for handler in logging.root.handlers:
            if isinstance(handler, PipeHandler):
                handler.setLevel(own.get("LOG_LEVEL"))
        return kind, settings

    def _log_to_pipe(self, settings: Settings) -> None:
        if not self._reporter.connected:
            configure_logging(settings)
            return
        quiet = settings.copy()
        quiet.set("LOG_INSTALL_ROOT_HANDLER", False, priority="cmdline")
        if "LOG_INSTALL_ROOT_HANDLER" in Settings():
            configure_logging(quiet)
        else:
            configure_logging(quiet, install_root_handler=False)
        if settings.getbool("LOG_ENABLED"):
            logging.root.setLevel(_LEVELS_SET)
            logging.root.addHandler(PipeHandler(self._reporter, settings.get("LOG_LEVEL")))

    def _loop(self, spec: CrawlSpec) -> None:
        crawler = self._crawler
        if crawler is None:
            raise AssertionError("the crawler is made before the loop runs")
        done = self._crawl(crawler, spec)
        from twisted.internet import reactor

        running: Any = reactor
        self._control.loop_runs(post)

        def ended(result: Any) -> None:
            if isinstance(result, Failure):
                self._failure = result
            running.callLater(0, running.stop)

        # Through the loop, because what fails at once fails before it runs.
        running.callWhenRunning(done.addBoth, ended)
        running.run(installSignalHandlers=False)
        host = getattr(crawler, "host", None)
        if host is not None:
            host.link.close()

    @inlineCallbacks
    def _crawl(self, crawler: LeasedCrawler, spec: CrawlSpec) -> Any:
        try:
            yield crawler.crawl(**spec.args)
        finally:
            if hasattr(crawler, "host"):
                yield crawler.host.flushed()

    def _code(self) -> ExitCode:
        if self._failure is not None:
            return self._fatal(self._failure.getTraceback())
        error: VscrapyError | None = None if self._crawler is None else self._crawler.host.error
        if error is None or isinstance(error, StateError):
            return ExitCode.DONE
        return ExitCode.MEMBER_GONE if isinstance(error, MemberGoneError) else ExitCode.STORE_LOST

    def _obey(self, command: ToChild) -> None:
        """In the event loop."""
        if command.command is Command.PING:
            self._reporter.pong(command.number)
        elif command.command is Command.STOP:
            crawler = self._crawler
            if crawler is not None and hasattr(crawler, "host"):
                crawler.host.leave()
        else:
            logger.debug("Nothing to do for %s", command.command)


def run_child(order: ChildOrder) -> int:
    """Run one child in this process and return its exit code (`ExitCode`).

    The process must be fresh, or forked from one that has no event loop and no other thread.
    """
    return int(Child(order).run())


def main() -> int:
    """Entry point of `python -m vscrapy_magic.runtime.child`."""
    return run_child(decode(sys.stdin.buffer.read(), ChildOrder))


if __name__ == "__main__":
    sys.exit(main())
