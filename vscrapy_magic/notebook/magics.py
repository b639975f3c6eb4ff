"""Owns the magics: each translates its line and calls one function.

Runs in the kernel's main thread. A mistake ends the cell with one line, never with a traceback.
"""

import functools
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from vscrapy_magic.errors import ConfigError, VscrapyError
from vscrapy_magic.notebook import show
from vscrapy_magic.notebook.cells import CellLog
from vscrapy_magic.notebook.interrupts import CrawlInterruptedError, UsageError
from vscrapy_magic.notebook.kernel import Kernel, find_spider
from vscrapy_magic.notebook.running import Screen, start
from vscrapy_magic.notebook.screen import screen_for
from vscrapy_magic.sender.classes import class_order
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.interrupts import Interrupts
from vscrapy_magic.sender.options import OptionParser, pairs, parse_line, split_line
from vscrapy_magic.sender.order import debuggable
from vscrapy_magic.store.control import Control
from vscrapy_magic.store.crawls import ID_CHARS, Crawls
from vscrapy_magic.store.keys import WorkerName
from vscrapy_magic.store.presence import Presence

P = ParamSpec("P")
R = TypeVar("R")

_LINES_SHOWN: Final = 100
_ITEMS_SHOWN: Final = 20


def _tidy(magic: Callable[P, R]) -> Callable[P, R]:
    """End a cell whose magic cannot do what it should with one line."""

    @functools.wraps(magic)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return magic(*args, **kwargs)
        except VscrapyError as exc:
            raise UsageError(f"{exc}") from None

    return run


@magics_class
class VscrapyMagics(Magics):
    """The magics of this package, for one shell."""

    def __init__(self, shell: InteractiveShell, cells: CellLog) -> None:
        super().__init__(shell)
        self.kernel: Final = Kernel(shell, cells)

    # Crawling.

    @cell_magic("vcrawl")  # type: ignore[arg-type]
    @_tidy
    def vcrawl_cell(self, line: str, cell: str) -> Crawl | None:
        """Run the cell, then crawl with the spider NAME on all workers; see %vcrawl --help."""
        before = dict(self.kernel.shell.user_ns)
        self.kernel.cells.run_body(cell)
        return self._crawl(line, "%%vcrawl", before)

    @line_magic("vcrawl")  # type: ignore[arg-type]
    @_tidy
    def vcrawl_line(self, line: str) -> Crawl | None:
        """Crawl with the spider NAME of an earlier cell; see %vcrawl --help."""
        return self._crawl(line, "%vcrawl", self.kernel.shell.user_ns)

    def _crawl(self, line: str, prog: str, before: Any) -> Crawl | None:
        options = parse_line(line, prog)
        if options.help:
            print(options.help)  # noqa: T201 - what the user asked for
            return None
        kernel, namespace = self.kernel, self.kernel.shell.user_ns
        kind = find_spider(options.target, namespace, before)
        order = class_order(options, kind, kernel.cells.cells, namespace)
        order = debuggable(order, options, can_type=kernel.can_type)
        session = kernel.connect(options.redis) if options.redis else kernel.session
        if options.ttl_s is not None:
            session.set_ttl(round(1000 * options.ttl_s))
        is_blocking = not (options.background or options.detach)

        def open_screen() -> Screen:
            return screen_for(
                kernel.shell, blocking=is_blocking, on_stop=lambda now: running.crawl.stop(now=now)
            )

        running = start(session, order, options, open_screen)
        kernel.remember(running.crawl, running.screen)
        if options.variable:
            namespace[options.variable] = running.crawl
        if is_blocking:
            running.wait()
        return running.crawl

    # The server and its workers.

    @line_magic
    @_tidy
    def vconnect(self, line: str) -> str | None:
        """%vconnect [URL] [--workers N]: choose the Redis; without URL the local cluster."""
        parse = _parser("%vconnect", "redis://host:6379")
        parse.add_argument("url", nargs="?", default=None)
        parse.add_argument("--workers", type=int, default=None, help="of the local cluster")
        options = _parsed(parse, line)
        if options is None:
            return None
        session = self.kernel.connect(options.url, workers=options.workers)
        return f"connected to {session.store.address}"

    @line_magic
    @_tidy
    def vworkers(self, line: str) -> Any:
        """%vworkers: who is there to crawl."""
        if _parsed(_parser("%vworkers", ""), line) is None:
            return None
        return show.workers(Presence(self.kernel.session.store).workers())

    @line_magic
    @_tidy
    def vlist(self, line: str) -> Any:
        """%vlist: all crawls on this Redis."""
        if _parsed(_parser("%vlist", ""), line) is None:
            return None
        store = self.kernel.session.store
        return show.crawls(Crawls(store).list_all(), Presence(store).sessions())

    # A crawl.

    @line_magic
    @_tidy
    def vstop(self, line: str) -> str | None:
        """%vstop [ID] [--now] [--all]: stop a crawl; --now kills."""
        parse = _parser("%vstop", "1a2b3c4d --now")
        parse.add_argument("crawl", nargs="?", default="")
        parse.add_argument("--now", action="store_true", help="kill instead of finishing")
        parse.add_argument("--all", action="store_true", help="all crawls of this kernel")
        options = _parsed(parse, line)
        if options is None:
            return None
        chosen = self.kernel.session.crawls if options.all else (self.kernel.crawl(options.crawl),)
        return "\n".join(f"crawl {c.id}: {c.stop(now=options.now)}" for c in chosen) or "no crawls"

    @line_magic
    @_tidy
    def vset(self, line: str) -> str | None:
        """%vset [ID] NAME=VALUE ...: change a running crawl; -w WORKER slots=4: a worker."""
        parse = _parser("%vset", "LOG_LEVEL=DEBUG DOWNLOAD_DELAY=0.5")
        parse.add_argument("words", nargs="+", metavar="[ID] NAME=VALUE")
        parse.add_argument("-w", "--worker", default="", help="change this worker: slots=4")
        options = _parsed(parse, line)
        if options is None:
            return None
        words: Sequence[str] = options.words
        has_id = "=" not in words[0] and not options.worker
        crawl_id, words = (words[0], words[1:]) if has_id else ("", words)
        if not words:
            raise ConfigError(f"%vset: write it as NAME=VALUE; {parse.epilog}")
        changed = pairs(words, "%vset")
        shown = ", ".join(f"{name} = {value}" for name, value in changed.items())
        if options.worker:
            control = Control(self.kernel.session.store)
            control.set_worker(WorkerName(options.worker), changed)
            return f"worker {options.worker}: {shown}"
        crawl = self.kernel.crawl(crawl_id)
        crawl.set(**changed)
        return f"crawl {crawl.id}: {shown}"

    @line_magic
    @_tidy
    def vpush(self, line: str) -> str | None:
        """%vpush [ID] URL ...: add addresses to a running crawl."""
        parse = _parser("%vpush", "https://example.com/page --callback parse_item")
        parse.add_argument("words", nargs="+", metavar="[ID] URL")
        parse.add_argument("--callback", default="", help="method of the spider (parse)")
        options = _parsed(parse, line)
        if options is None:
            return None
        words: Sequence[str] = options.words
        crawl_id, urls = ("", words) if ":" in words[0] else (words[0], words[1:])
        if not urls:
            raise ConfigError(f"%vpush: which addresses? {parse.epilog}")
        crawl = self.kernel.crawl(crawl_id)
        count = crawl.push(*urls, callback=options.callback)
        return f"crawl {crawl.id}: {count} added"

    @line_magic
    @_tidy
    def vlogs(self, line: str) -> Any:
        """%vlogs [ID] [-w WORKER] [-L LEVEL] [-g REGEX] [-n N]: stored lines."""
        parse = _parser("%vlogs", "-L WARNING -g timeout -n 20")
        parse.add_argument("crawl", nargs="?", default="")
        parse.add_argument("-w", "--worker", default="")
        parse.add_argument("-L", "--level", default="")
        parse.add_argument("-g", "--grep", default="", metavar="REGEX")
        parse.add_argument("-n", dest="last", type=int, default=_LINES_SHOWN)
        options = _parsed(parse, line)
        if options is None:
            return None
        crawl = self.kernel.crawl(options.crawl)
        found = crawl.logs(
            worker=options.worker, level=options.level, pattern=options.grep, last=options.last
        )
        return show.Lines(found)

    @line_magic
    @_tidy
    def vitems(self, line: str) -> Any:
        """%vitems [ID] [-n N]: the newest items."""
        parse = _parser("%vitems", "-n 50")
        parse.add_argument("crawl", nargs="?", default="")
        parse.add_argument("-n", dest="last", type=int, default=_ITEMS_SHOWN)
        options = _parsed(parse, line)
        if options is None:
            return None
        return show.items(self.kernel.crawl(options.crawl), options.last)

    @line_magic
    @_tidy
    def verrors(self, line: str) -> Any:
        """%verrors [ID] [NUMBER]: failures by place; with a number, one of them explained."""
        parse = _parser("%verrors", "3")
        parse.add_argument("words", nargs="*", metavar="[ID] [NUMBER]")
        parse.add_argument("-n", dest="number", type=int, default=0, help="one failure, explained")
        options = _parsed(parse, line)
        if options is None:
            return None
        numbers = [word for word in options.words if word.isdecimal() and len(word) < ID_CHARS]
        ids = [word for word in options.words if word not in numbers]
        if len(numbers) > 1 or len(ids) > 1:
            raise ConfigError(f"%verrors: one crawl and one number at most; {parse.epilog}")
        number = int(numbers[0]) if numbers else options.number
        return show.failures(self.kernel.crawl("".join(ids)), number)

    # Debugging.

    @line_magic
    @_tidy
    def vdebug(self, line: str) -> str | None:
        """%vdebug [N|pN] [--enter]: run a failed call again here, and stop where it fails."""
        parse = _parser("%vdebug", "3")
        what = "a number of %%verrors (newest), or p and one of a recorded page"
        parse.add_argument("which", nargs="?", default="0", help=what)
        parse.add_argument("--enter", action="store_true", help="stop at the call's first line")
        parse.add_argument("--crawl", default="", metavar="ID", help="another than the last")
        options = _parsed(parse, line)
        if options is None:
            return None
        from vscrapy_magic.notebook.debugging import debug, debug_page
        from vscrapy_magic.notebook.replaying import edited_source

        shell, which, crawl = self.kernel.shell, options.which, self.kernel.crawl(options.crawl)
        if which.isdecimal():
            said = debug(shell, crawl, int(which), enter=options.enter)
        else:
            edited = functools.partial(edited_source, self.kernel, crawl)
            said = debug_page(shell, crawl, which, edited, enter=options.enter)
        if said:
            print(said)  # noqa: T201 - as the prompt was, it is text
        return None

    @line_magic
    @_tidy
    def vbreak(self, line: str) -> None:
        """%vbreak [ID]: debug where a worker waits at a breakpoint() of a --bg crawl."""
        parse = _parser("%vbreak", "")
        parse.add_argument("crawl", nargs="?", default="")
        options = _parsed(parse, line)
        if options is None:
            return
        from vscrapy_magic.notebook.keyboard import CellKeyboard

        kernel, crawl = self.kernel, self.kernel.crawl(options.crawl)
        if not kernel.can_type:
            raise ConfigError("%vbreak: nobody can type here")
        with Interrupts(signal.SIGINT) as interrupts:
            halt = crawl.attend(CellKeyboard(kernel.known_screen(crawl.id)), interrupts)
        if halt is None:
            print(f"crawl {crawl.id}: no worker waits at a breakpoint")  # noqa: T201
        elif interrupts.count:
            raise CrawlInterruptedError(f"{halt.worker} still waits in the debugger: %vbreak")

    @line_magic
    @_tidy
    def vreplay(self, line: str) -> Any:
        """%vreplay [N|pN|all]: failed calls, and recorded pages, with the spider as it is now."""
        parse = _parser("%vreplay", "all")
        parse.add_argument(
            "which",
            nargs="?",
            default="all",
            help="a number of %%verrors, p and one of a recorded page, or all",
        )
        parse.add_argument("--crawl", default="", metavar="ID", help="another than the last")
        options = _parsed(parse, line)
        if options is None:
            return None
        from vscrapy_magic.notebook.replaying import replay

        return replay(self.kernel, self.kernel.crawl(options.crawl), options.which)

    @line_magic
    @_tidy
    def vpatch(self, line: str) -> str | None:
        """%vpatch [ID] [NAME]: the spider as it is now, for a running crawl; its queue stays."""
        parse = _parser("%vpatch", "1a2b3c4d quotes")
        parse.add_argument("words", nargs="*", metavar="[ID] [NAME]")
        options = _parsed(parse, line)
        if options is None:
            return None
        from vscrapy_magic.notebook.patching import patch_crawl

        crawl, patched = patch_crawl(self.kernel, options.words)
        return f"crawl {crawl.id}: {patched}"

    @line_magic
    @_tidy
    def vretry(self, line: str) -> str | None:
        """%vretry [N|all] [ID]: failed requests again; of a crawl that is over, which goes on."""
        parse = _parser("%vretry", "all 1a2b3c4d")
        parse.add_argument("words", nargs="*", metavar="[N|all] [ID]")
        parse.add_argument("--bg", action="store_true", help="do not wait for a crawl that goes on")
        options = _parsed(parse, line)
        if options is None:
            return None
        from vscrapy_magic.notebook.retrying import retry

        return retry(self.kernel, options.words, background=options.bg)

    @line_magic
    @_tidy
    def vfetch(self, line: str) -> str | None:
        """%vfetch URL [--worker W] [--spider NAME]: a page as a worker gets it, as `response`."""
        parse = _parser("%vfetch", "https://example.com --worker w-2")
        parse.add_argument("url")
        parse.add_argument("--worker", default="", help="through this one's network")
        parse.add_argument("--spider", default="", help="whose settings and middlewares are used")
        parse.add_argument("--crawl", default="", metavar="ID", help="whose cookies go along")
        options = _parsed(parse, line)
        if options is None:
            return None
        from vscrapy_magic.notebook.looking import fetch_page

        return fetch_page(
            self.kernel,
            options.url,
            worker=options.worker,
            spider=options.spider,
            crawl_id=options.crawl,
        )

    @line_magic
    @_tidy
    def vview(self, line: str) -> Any:
        """%vview [N]: the page of a failure, or of %vfetch, as the worker got it."""
        parse = _parser("%vview", "3")
        parse.add_argument("number", nargs="?", default="", help="of %%verrors")
        parse.add_argument("--load", action="store_true", help="also images and styles of the web")
        parse.add_argument("--crawl", default="", metavar="ID", help="another than the last")
        options = _parsed(parse, line)
        if options is None:
            return None
        from vscrapy_magic.notebook.looking import page

        return page(self.kernel, options.number, crawl_id=options.crawl, loading=options.load)

    @line_magic
    @_tidy
    def vpanel(self, line: str) -> Any:
        """%vpanel [ID]: show the live panel of a crawl again; in a terminal how it stands."""
        parse = _parser("%vpanel", "")
        parse.add_argument("crawl", nargs="?", default="")
        options = _parsed(parse, line)
        if options is None:
            return None
        screen = self.kernel.screen(options.crawl)
        screen.show()
        screen.drain()
        has_widgets = getattr(self.kernel.shell, "kernel", None) is not None
        return None if has_widgets else show.Summary(self.kernel.crawl(options.crawl))


def _parser(prog: str, example: str) -> OptionParser:
    return OptionParser(prog, epilog=f"example: {prog} {example}".rstrip(), add_help=False)


def _parsed(parse: OptionParser, line: str) -> Any:
    """The options; None when help was asked for, which is shown then.

    Raises:
        ConfigError: a word is wrong.
    """
    words = split_line(line)
    if {"-h", "--help"} & set(words):
        print(parse.format_help())  # noqa: T201 - what the user asked for
        return None
    return parse.parse_all(words)
