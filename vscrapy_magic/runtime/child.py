"""Owns the life of one child: from its order to its exit code.

Runs in a process of its own, forked by the zygote or started as `python -m
vscrapy_magic.runtime.child` with the order (msgpack) on standard input. The event loop runs in the
main thread; the store is spoken with by threads, and the supervisor by another one.
"""

import argparse
import faulthandler
import gc
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
from scrapy import Spider
from scrapy.settings import Settings
from scrapy.utils.log import configure_logging
from twisted.internet.defer import inlineCallbacks
from twisted.python.failure import Failure

from vscrapy_magic.errors import (
    InternalError,
    MemberGoneError,
    StateError,
    StoreError,
    VscrapyError,
)
from vscrapy_magic.failpoints import fail_point
from vscrapy_magic.runtime import mark
from vscrapy_magic.runtime.capture import error_of
from vscrapy_magic.runtime.control import Control
from vscrapy_magic.runtime.crawl import LeasedCrawler, Seat, post
from vscrapy_magic.runtime.debugger import BREAK_SETTING, BREAK_TIMEOUT_S, Debugger
from vscrapy_magic.runtime.failures import load_failure, recorder_for
from vscrapy_magic.runtime.loader import (
    find_spider,
    force_settings,
    prepare,
    read_settings,
    run_entry,
    write_files,
)
from vscrapy_magic.runtime.packages import UnfitError, check_components, needed, why_unfit
from vscrapy_magic.runtime.report import PipeHandler, Reporter
from vscrapy_magic.runtime.tracker import lease_in
from vscrapy_magic.runtime.trial import NotTakenError, Trial
from vscrapy_magic.runtime.warm import warm
from vscrapy_magic.store.codes import FIRST_CODE, Codes
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.files import Files, written_in
from vscrapy_magic.store.frontier import MEMBER_TTL_MS, Frontier
from vscrapy_magic.store.messages import Bundle, ChildOrder, Code, CrawlSpec, Step, decode
from vscrapy_magic.store.pipes import Command, ExitCode, FromChild, Phase, Report, ToChild
from vscrapy_magic.store.scratch import hold
from vscrapy_magic.store.shared import Defaults, Shared

logger = logging.getLogger(__name__)

STACK_SIGNAL: Final = signal.SIGUSR2  # writes the stack to stderr, also while the GIL is held
HANG_SETTING: Final = "VSCRAPY_HANG_TIMEOUT"  # seconds; 0 for never
CLOSE_SETTING: Final = "VSCRAPY_CLOSE_TIMEOUT"  # seconds
_DATA: Final = ".scrapy"  # Scrapy's name for it, in the working folder
_NAMED: Final = 3  # of its files in a line
_LEVELS_SET: Final = 0  # root lets every record through; handlers have the level


class Child:
    """One child; made and run by the main thread."""

    def __init__(self, order: ChildOrder) -> None:
        self._order = order
        self._reporter = Reporter(order.report_fd)
        self._crawler: LeasedCrawler | None = None
        self._bundle = Bundle(files={}, entry="")
        self._failure: Failure | None = None
        self._exited = False
        self._trial: Trial | None = None  # until the code that it tries is in force
        self._secrets: tuple[str, ...] = ()
        self._code_version = FIRST_CODE
        self._records = False
        self._debugger = Debugger(order, self._reporter)
        self._control = Control(
            order.control_fd, self._obey, self._reporter, self._debugger.go_on_for_good
        )

    def run(self) -> ExitCode:
        """Take part in the crawl until it ends, or until this child is told to go."""
        self._reporter.phase(Phase.LOADING)
        # An interrupt at a terminal goes to every process of the group; the sender handles it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            os.chdir(self._order.folder)
            hold(Path(self._order.folder).parent)  # nobody sweeps it while this process lives
            if self._order.mark_fd >= 0:
                mark.share(self._order.mark_fd)
                mark.follow_loop(lease_in)
            # The supervisor has seen what server it is.
            with Store(self._order.url) as store:
                code = self._try_or_take_part(store)
            if code is not ExitCode.EXITED:
                self._reporter.phase(Phase.CLOSED)
            return code  # noqa: TRY300 - what follows is for what went wrong
        except NotTakenError as exc:
            logger.info("%s", exc)
            return ExitCode.NOT_TAKEN
        except StoreError as exc:
            self._reporter.fatal(str(exc))
            if not self._reporter.connected:
                sys.stderr.write(f"{exc}\n")
            return ExitCode.STORE_LOST
        except UnfitError as exc:
            self._fatal(str(exc))
            return ExitCode.UNFIT
        except BaseException as exc:  # noqa: BLE001
            # Whatever shipped code does at import, SystemExit included, its author must hear of it.
            return self._fatal("".join(traceback.format_exception(exc)))

    def _fatal(self, text: str) -> ExitCode:
        self._reporter.fatal(text)
        if not self._reporter.connected:
            sys.stderr.write(text)
        return ExitCode.FATAL

    def _try_or_take_part(self, store: Store) -> ExitCode:
        try:
            return self._take_part(store)
        except (StoreError, NotTakenError):
            raise
        except BaseException as exc:
            if self._trial is not None and self._trial.fail(exc):
                raise NotTakenError(f"it cannot be loaded here: {exc!r}") from exc
            raise

    def _take_part(self, store: Store) -> ExitCode:
        crawls = Crawls(store)
        view = crawls.view(self._order.crawl_id, named=False)
        if view.over:
            return ExitCode.DONE
        spec, version = view.spec, self._order.code_version or view.code_version
        frontier = Frontier(store, spec.crawl_id)
        if self._order.is_trial:
            self._trial = Trial(frontier, self._order, self._reporter.phase)
        self._code_version, self._records = version, spec.record_bytes > 0
        code = Codes(store).get(spec, version)
        try:
            kind, settings = self._load(spec, code, crawls, Shared(store).read())
        except (Exception, SystemExit) as exc:
            self._tell_of(exc, frontier, joins=True)
            raise
        if self._trial is None:
            try:
                self._join(frontier, version)
            except StateError as exc:
                logger.info("%s", exc)
                return ExitCode.DONE
        # What is here now stays: looking for garbage costs a tenth from now on (see failures.py).
        gc.freeze()
        self._crawler = LeasedCrawler(kind, settings, self._seat(frontier))
        self._debugger.crawler = self._crawler
        self._loop(spec)
        if self._failure is not None and not hasattr(self._crawler, "host"):
            self._tell_of(error_of(self._failure), frontier)
        _say_what_goes()
        return self._leave(store, frontier)

    def _admit(self, frontier: Frontier) -> None:
        """All is made. A child that tries new code waits here until that is in force."""
        if self._trial is not None:
            self._trial.wait()
            self._trial = None
            try:
                self._join(frontier, self._order.code_version)
            except StateError as exc:
                raise NotTakenError(str(exc)) from exc

    def _join(self, frontier: Frontier, version: int) -> None:
        fail_point("child_before_join")
        order = self._order
        frontier.join(order.token, order.worker, ttl_ms=MEMBER_TTL_MS, code_version=version)
        if version > FIRST_CODE:
            logger.info("Code version %d from here on", version)

    def _leave(self, store: Store, frontier: Frontier) -> ExitCode:
        code = self._code()
        if code not in {ExitCode.MEMBER_GONE, ExitCode.EXITED, ExitCode.NOT_TAKEN}:
            if next(written_in(Path(self._order.folder)), None) is not None:
                Files(store, frontier.crawl_id).begin(self._order.token)  # the end waits for them
            fail_point("child_before_leave")
            frontier.leave(self._order.token)
            fail_point("child_after_leave")
        return code

    def _seat(self, frontier: Frontier) -> Seat:
        return Seat(
            frontier,
            self._order.token,
            self._reporter.phase,
            self._order.worker,
            code_version=self._code_version,
            admit=lambda: self._admit(frontier),
            secrets=self._secrets,
            records=self._records,
            failed=self._debugger.failed,
        )

    def _tell_of(self, exc: BaseException, frontier: Frontier, *, joins: bool = False) -> None:
        """Keep what ends the crawl before there is an engine that could."""
        if isinstance(exc, VscrapyError) or self._trial is not None:
            return  # in words of this package, which the crawl's state shows; or no end at all
        settings = Settings() if self._crawler is None else self._crawler.settings
        token = self._order.token
        record = load_failure(exc, recorder_for(self._seat(frontier), settings))
        packet = msgspec.msgpack.encode([record])
        try:
            if joins:
                self._join(frontier, self._code_version)
            frontier.step(Step(token=token, seq=1, failures=packet, failure_count=1))
            if joins:
                frontier.leave(token)
        except VscrapyError as failed:
            logger.info("What ended the crawl is not among its failures: %s", failed)

    def _load(
        self, spec: CrawlSpec, code: Code, crawls: Crawls, defaults: Defaults
    ) -> tuple[type[Spider], Settings]:
        self._bundle = bundle = crawls.bundle(code.bundle)
        self._secrets = tuple(bundle.env.values())
        self._reporter.mask(self._secrets)
        if self._trial is not None:
            self._trial.secrets = tuple(value for value in self._secrets if value)
        folder = Path.cwd()
        write_files(bundle, folder)
        prepare(bundle, folder)
        with needed(bundle, self._order.worker):
            settings = read_settings(bundle, spec)
            self._log_to_pipe(settings)
            self._debugger.install(spec, bundle.env.values())
            module = run_entry(bundle, folder)
            kind = find_spider(module, code.spider, settings)
            own = settings.copy()  # the spider may have a level of its own; slow: only once
            kind.update_settings(own)
            check_components(own)
        force_settings(settings, own, code.limits)
        for handler in logging.root.handlers:
            if isinstance(handler, PipeHandler):
                handler.setLevel(own.get("LOG_LEVEL"))
        self._debugger.timeout_s = own.getfloat(BREAK_SETTING, BREAK_TIMEOUT_S)
        level = own.get("LOG_LEVEL") if own.getbool("LOG_ENABLED") else logging.CRITICAL
        self._reporter.limits(
            logging.getLevelNamesMapping().get(str(level), level),
            hang_s=own.getfloat(HANG_SETTING, defaults.hang_timeout_s),
            close_s=own.getfloat(CLOSE_SETTING, defaults.close_timeout_s),
        )
        return kind, settings

    def _log_to_pipe(self, settings: Settings) -> None:
        if not self._reporter.connected:
            configure_logging(settings)
            return
        # All that is read when no handler is installed; a copy of the settings would take longer.
        quiet = {"LOG_INSTALL_ROOT_HANDLER": False, "LOG_STDOUT": settings.get("LOG_STDOUT")}
        if "LOG_INSTALL_ROOT_HANDLER" in settings:
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
        try:
            running.run(installSignalHandlers=False)
        except SystemExit as exc:
            self._exited = True
            logger.exception("Spider code ended the process (SystemExit: %s)", exc.code)
            return
        host = getattr(crawler, "host", None)
        if host is not None:
            host.link.close()

    @inlineCallbacks
    def _crawl(self, crawler: LeasedCrawler, spec: CrawlSpec) -> Any:
        try:
            yield crawler.crawl(**spec.args)
        except Exception as exc:
            if hasattr(crawler, "host"):
                crawler.host.failures.not_opened(exc)
            raise
        finally:
            if hasattr(crawler, "host"):
                yield crawler.host.flushed()

    def _code(self) -> ExitCode:
        if self._exited:
            return ExitCode.EXITED
        if self._failure is not None:
            exc = self._failure.value
            if self._trial is not None or isinstance(exc, NotTakenError):
                self._failure.raiseException()
            if isinstance(exc, ImportError):  # of a component, which Scrapy has just made
                text = why_unfit(exc, self._bundle, self._order.worker)
                if text:
                    self._fatal(text)
                    return ExitCode.UNFIT
            return self._fatal(self._failure.getTraceback())
        error: VscrapyError | None = None if self._crawler is None else self._crawler.host.error
        if error is None or isinstance(error, StateError):
            return ExitCode.DONE
        if isinstance(error, InternalError):
            return self._fatal(str(error))
        return ExitCode.MEMBER_GONE if isinstance(error, MemberGoneError) else ExitCode.STORE_LOST

    def _obey(self, command: ToChild) -> None:
        """In the event loop."""
        crawler = self._crawler
        if command.command is Command.PING:
            self._reporter.pong(command.number)
        elif crawler is None or not hasattr(crawler, "host"):
            logger.debug("Too early for %s", command.command)
        elif command.command is Command.STOP:
            crawler.host.leave()
        elif command.command is Command.SETTINGS:
            crawler.host.control_moved()
        else:
            logger.debug("Nothing to do for %s", command.command)


def _say_what_goes() -> None:
    """Name what components have kept in Scrapy's data folder: it goes with this process."""
    kept = sorted(str(path) for path in Path(_DATA).glob("*/*"))
    if kept:
        logger.warning(
            "What is kept in %s%s goes with this worker's process, and the next crawl begins "
            "without it: give its component an absolute folder",
            ", ".join(kept[:_NAMED]),
            ", ..." if len(kept) > _NAMED else "",
        )


def run_child(order: ChildOrder) -> int:
    """Run one child in this process and return its exit code (`ExitCode`).

    The process must be fresh, or forked from one that has no event loop and no other thread.
    """
    settle_streams()
    for fd in (order.control_fd, order.report_fd, order.mark_fd):
        if fd >= 0:
            os.set_inheritable(fd, False)  # programs that the spider starts must not hold them
    return int(Child(order).run())


def settle_streams() -> None:
    """Let each line leave at once, and crashes leave their stack: last words count most."""
    # New ones, because those of a forked process remember what they were connected to.
    for fd, name in ((1, "stdout"), (2, "stderr")):
        stream = _stream(fd)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    faulthandler.enable(sys.stderr, all_threads=False)
    faulthandler.register(STACK_SIGNAL, sys.stderr, all_threads=False)


def _stream(fd: int) -> TextIO:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def main() -> int:
    """Entry point of `python -m vscrapy_magic.runtime.child`."""
    parse = argparse.ArgumentParser(prog="vscrapy_magic.runtime.child")
    parse.add_argument("--spare", type=int, metavar="FD", help="warm up, say so there, then wait")
    report_fd = parse.parse_args().spare
    if report_fd is not None:
        warm()
        Reporter(report_fd).send(FromChild(Report.READY))
    order = sys.stdin.buffer.read()
    if not order:
        return ExitCode.PARENT_GONE  # a spare that was not needed
    code = run_child(decode(order, ChildOrder))
    if code == ExitCode.EXITED:
        # The loop was left as it was, and its threads would keep this process.
        sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
