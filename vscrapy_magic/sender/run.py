"""Owns one crawl run from a terminal: orders it, shows it, writes its feeds, stops it.

Runs in the process of `vscrapy crawl` and `vscrapy runspider`, in its main thread. The first
interrupt stops the crawl, the second kills it, the third leaves at once.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vscrapy_magic.errors import ConfigError, StoreError
from vscrapy_magic.sender.account import describe, recorded
from vscrapy_magic.sender.collecting import kept_hint
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.interrupts import Interrupts
from vscrapy_magic.sender.keyboard import TerminalKeyboard, is_terminal
from vscrapy_magic.sender.options import CrawlOptions
from vscrapy_magic.sender.order import Order, debuggable
from vscrapy_magic.sender.session import Session
from vscrapy_magic.sender.terminal import DATE_FORMAT, FORMAT, LineFormat, Terminal, log_file
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.presence import Liveness, Presence

EXIT_FINISHED: Final = 0
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
AGAIN_S: Final = 1.0  # before a debugger that cannot be reached is tried again
LOOK_S: Final = 0.1  # between two looks at whether an interrupt came
_LEAVE_AT: Final = 3  # interrupts
_INFO: Final = 20


def run(session: Session, order: Order, options: CrawlOptions) -> int:
    """Run one crawl to its end in this terminal, or detach from it; the exit code.

    Raises:
        ConfigError: the order cannot be placed, or a file cannot be written.
        StoreError: the server cannot be asked.
    """
    _write_pid(options.pidfile)
    can_type = is_terminal() and not options.background  # here the same as detached
    order = debuggable(order, options, can_type=can_type)
    with log_file(
        options.logfile or order.text("LOG_FILE"),
        append=order.flag("LOG_FILE_APPEND", default=True),
        encoding=order.text("LOG_ENCODING", "utf-8"),
    ) as log:
        form = LineFormat(
            order.text("LOG_FORMAT", FORMAT),
            order.text("LOG_DATEFORMAT", DATE_FORMAT),
            tuple(order.shipped.bundle.env.values()),
        )
        shown = order.flag("LOG_ENABLED", default=True)
        terminal = Terminal(form, log if shown else None, quiet=options.nolog)
        for note in order.notes:
            terminal.note(note)
        if order.shipped.pinned and order.workers is None:
            terminal.say(f"WARNING: {order.shipped.pinned}: on one worker; --workers N overrides")
        if options.detach or options.background:
            return _detach(session, order, options, terminal)
        return _Run(session, order, terminal).to_its_end()


def _write_pid(path: str) -> None:
    if not path:
        return
    try:
        Path(path).write_text(f"{os.getpid()}\n", encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"--pidfile {path}: {exc.strerror}") from exc


def _detach(session: Session, order: Order, options: CrawlOptions, terminal: Terminal) -> int:
    files = (*options.output, *options.overwrite)
    named = next((each for each in files if each.startswith("-")), "")
    if named:
        raise ConfigError(
            f"{named}: a detached crawl has nobody here to print its items; leave it out, and "
            "fetch them with `vscrapy items ID`"
        )
    if not options.detach:
        terminal.note("--bg: in a terminal the same as --detach")
    crawl = session.place(order, detach=True, collect=False)
    terminal.say(f"crawl {crawl.id} {crawl.spider} goes on by itself on {_where(session)}")
    terminal.say(
        f"`vscrapy logs {crawl.id} -f` follows it, `vscrapy items {crawl.id}` fetches its items, "
        f"`vscrapy stop {crawl.id}` ends it"
    )
    if order.feeds is not None:
        terminal.say(f"`vscrapy attach {crawl.id}`, typed on this machine, writes its feeds")
    _tell_workers(session, terminal)
    return EXIT_FINISHED


def _where(session: Session) -> str:
    return "the local cluster" if session.is_local else session.store.address


def _tell_workers(session: Session, terminal: Terminal) -> None:
    """Say so when nobody is there to take the crawl."""
    workers = Presence(session.store).workers()
    if not session.is_local and not any(view.liveness is Liveness.LIVE for view in workers):
        terminal.say(
            f"no worker serves {session.store.address} now; the crawl waits for one: "
            "`vscrapy worker URL` on any machine"
        )


def attend(
    crawl: Crawl, terminal: Terminal, output: Sequence[str], overwrite: Sequence[str]
) -> int:
    """Follow a crawl that another sender began to its end; the exit code. An interrupt leaves it.

    Args:
        output: feeds that all its items are appended to then.
        overwrite: those that begin anew.

    Raises:
        ConfigError: a feed cannot be written.
    """
    crawl.listen(terminal)
    with Interrupts(signal.SIGINT, signal.SIGTERM) as interrupts:
        while not crawl.is_over:
            crawl.wait(LOOK_S)
            if interrupts.count:
                terminal.say(f"crawl {crawl.id} was left; `vscrapy stop {crawl.id}` ends it")
                return EXIT_INTERRUPTED
    are_written = tell_feeds(crawl, terminal)
    for files, anew in ((output, False), (overwrite, True)):
        for line in crawl.export(*files, overwrite=anew) if files else ():
            terminal.say(line)
    terminal.say(f"crawl {describe(crawl.view)}")
    if said := recorded(crawl.view, f"vscrapy replay {crawl.id}"):
        terminal.say(said)
    missing = crawl.view.totals.items - len(crawl.items)
    if missing > 0:
        terminal.say(
            f"{missing} of its items are with the sender that collected them, on another machine "
            f"or of another user{kept_hint(crawl.elsewhere)}"
        )
    is_well = crawl.state is CrawlState.FINISHED and are_written
    return EXIT_FINISHED if is_well else EXIT_FAILED


def tell_feeds(crawl: Crawl, terminal: Terminal) -> bool:
    """Show what was done for the feeds; whether all of them are as they should be."""
    is_well = True
    for note in crawl.feed_notes:
        (terminal.say if note.bad else terminal.note)(note.text)
        is_well = is_well and not note.bad
    if not is_well:
        terminal.say(
            f"not all feeds were written; the items are kept: `vscrapy attach {crawl.id}` writes "
            f"the feeds again, `vscrapy items {crawl.id} -O FILE` another one"
        )
    return is_well


def finish(crawl: Crawl, terminal: Terminal) -> int:
    """Follow a crawl that goes on under this session to its end; the exit code."""
    crawl.listen(terminal)
    with Interrupts(signal.SIGINT, signal.SIGTERM) as interrupts:
        is_over = _wait(crawl, terminal, interrupts)
    if not is_over:
        terminal.say(f"crawl {crawl.id} was left; its workers end it by themselves")
        return EXIT_INTERRUPTED
    are_written = tell_feeds(crawl, terminal)
    terminal.say(f"crawl {describe(crawl.view)}")
    if interrupts.count:
        return EXIT_INTERRUPTED
    is_well = crawl.state is CrawlState.FINISHED and are_written
    return EXIT_FINISHED if is_well else EXIT_FAILED


def _wait(crawl: Crawl, terminal: Terminal, interrupts: Interrupts) -> bool:
    """Wait for the end; False when the user does not want to wait any more."""
    told = 0
    while not crawl.is_over:
        crawl.wait(LOOK_S)
        if interrupts.count > told:
            told += 1
            if told >= _LEAVE_AT:
                return False
            _stop(crawl, terminal, now=told > 1)
        elif crawl.view.halts and not told:
            _debug(crawl, terminal, interrupts)
    return True


def _debug(crawl: Crawl, terminal: Terminal, interrupts: Interrupts) -> None:
    """Sit at the prompt of a child that stands in the debugger."""
    try:
        crawl.attend(TerminalKeyboard(terminal), interrupts)
    except StoreError as exc:
        terminal.say(str(exc))
        crawl.wait(AGAIN_S)


def _stop(crawl: Crawl, terminal: Terminal, *, now: bool) -> None:
    terminal.say(
        f"killing crawl {crawl.id}; once more leaves it"
        if now
        else f"stopping crawl {crawl.id} after what is in flight; once more kills it"
    )
    try:
        crawl.stop(now=now)
    except StoreError as exc:
        terminal.say(f"{exc}; once more {'leaves' if now else 'tries to kill it'}")


class _Run:
    """One crawl from its order to its exit code."""

    def __init__(self, session: Session, order: Order, terminal: Terminal) -> None:
        self._session = session
        self._order = order
        self._terminal = terminal

    def to_its_end(self) -> int:
        with Interrupts(signal.SIGINT, signal.SIGTERM) as interrupts:
            crawl = self._session.place(self._order)
            self._terminal.note(f"crawl {crawl.id} {crawl.spider} on {_where(self._session)}")
            _tell_workers(self._session, self._terminal)
            crawl.listen(self._terminal)
            is_over = _wait(crawl, self._terminal, interrupts)
        if not is_over:
            self._terminal.say(f"crawl {crawl.id} was left; its workers end it by themselves")
            return EXIT_INTERRUPTED
        return self._ended(crawl, interrupts)

    def _ended(self, crawl: Crawl, interrupts: Interrupts) -> int:
        view, order = crawl.view, self._order
        if order.flag("STATS_DUMP", default=True) and order.log_level <= _INFO:
            self._terminal.dump_stats(crawl.stats, view.ended_ms)
        are_written = tell_feeds(crawl, self._terminal)
        is_well = view.state is CrawlState.FINISHED and are_written
        say = self._terminal.note if is_well else self._terminal.say
        say(f"crawl {describe(view)}")
        if len(crawl.files):
            count = len(crawl.files)
            self._terminal.note(
                f"the spider wrote {count} files on its workers: {crawl.files.root}"
            )
        if said := recorded(view, f"vscrapy replay {crawl.id}"):
            self._terminal.note(said)
        if len(crawl.failures):
            self._terminal.note(f"`vscrapy errors {crawl.id}` shows the failures")
        if interrupts.count:
            return EXIT_INTERRUPTED
        return EXIT_FINISHED if is_well else EXIT_FAILED
