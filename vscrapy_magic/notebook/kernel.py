"""Owns what one kernel holds for the magics: its session, its cells, its crawls and panels.

Runs in the kernel's main thread.
"""

import atexit
import difflib
import sys
from collections.abc import Mapping
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell

from vscrapy_magic.errors import ConfigError, StateError
from vscrapy_magic.notebook.cells import CellLog
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.kept import open_kept
from vscrapy_magic.sender.session import Session, latest

SCREENS_MAX: Final = 20  # panels whose lines are kept for `%vpanel`
_SPIDER_BASE: Final = ("scrapy.spiders", "Spider")


class Kernel:
    """What the magics of one shell share."""

    def __init__(self, shell: InteractiveShell, cells: CellLog) -> None:
        self.shell: Final = shell
        self.cells: Final = cells
        self._session: Session | None = None
        self.last: Crawl | None = None
        self._seen: Crawl | None = None  # of those found by `vs.attach`
        self._screens: dict[str, Any] = {}
        atexit.register(self.disconnect)

    @property
    def kind(self) -> str:
        """How this sender is listed."""
        return "kernel" if getattr(self.shell, "kernel", None) is not None else "ipython"

    def connect(self, url: str | None = None, *, workers: int | None = None) -> Session:
        """Choose the server; the session before is closed, and its crawls end.

        Raises:
            VscrapyError: it cannot be used; the message says why.
        """
        session = Session.connect(url, kind=self.kind, workers=workers)
        if self._session is not None:
            self._session.close()
        self._session = session
        return session

    @property
    def session(self) -> Session:
        """The session; connects by itself when there is none yet, or the last one was given up."""
        if self._session is not None:
            try:
                self._session.check()
            except StateError:
                self._session.close()
                self._session = None
        return self._session or self.connect()

    def crawl(self, crawl_id: str = "") -> Crawl:
        """A crawl by its id; empty: the last one that was started here, or found by `vs.attach`.

        Raises:
            ConfigError: there was none yet.
            CrawlNotFoundError: nobody knows that id.
        """
        if crawl_id:
            return open_kept(crawl_id) or self.session.attach(crawl_id)
        found = latest()
        if found is not None and found is not self._seen:
            self.last = self._seen = found
        if self.last is None:
            raise ConfigError("no crawl was run in this kernel yet: name one, see %vlist")
        return self.last

    def remember(self, crawl: Crawl, screen: Any) -> None:
        """Keep the crawl that was started last, and where it is shown."""
        self.last, self._seen = crawl, latest()
        self._screens[crawl.id] = screen
        for crawl_id in list(self._screens)[:-SCREENS_MAX]:
            del self._screens[crawl_id]

    def screen(self, crawl_id: str = "") -> Any:
        """Where a crawl of this kernel is shown; empty: the last one.

        Raises:
            ConfigError: it was not started here.
        """
        wanted = crawl_id or (self.last.id if self.last else "")
        for known, screen in self._screens.items():
            if wanted and known == wanted:
                return screen
        raise ConfigError(f"crawl {wanted or '(none)'} was not started in this kernel")

    def known_screen(self, crawl_id: str) -> Any:
        """Where a crawl is shown; None when it was not started here."""
        return self._screens.get(crawl_id)

    @property
    def can_type(self) -> bool:
        """Whether somebody is there who can type at a prompt."""
        kernel: Any = getattr(self.shell, "kernel", None)
        if kernel is None:
            return sys.stdin is not None and sys.stdin.isatty()
        return bool(getattr(kernel, "_allow_stdin", True))

    def disconnect(self) -> None:
        """End the session and its crawls; the next magic that needs one connects again."""
        session, self._session = self._session, None
        if session is not None:
            session.close()


def spiders_in(namespace: Mapping[str, Any]) -> dict[str, type]:
    """Spider classes that a namespace holds, by the name that Scrapy knows them by."""
    found: dict[str, type] = {}
    for value in list(namespace.values()):
        if isinstance(value, type) and _is_spider(value):
            found[str(getattr(value, "name", None) or value.__name__)] = value
    return found


def _is_spider(kind: type) -> bool:
    bases = [(base.__module__, base.__name__) for base in kind.__mro__]
    return _SPIDER_BASE in bases and not kind.__module__.startswith("scrapy.")


def find_spider(name: str, namespace: Mapping[str, Any], before: Mapping[str, Any]) -> type:
    """The spider class of that name; of several the one that this cell has just defined.

    Args:
        before: the namespace as it was before the cell ran.

    Raises:
        ConfigError: there is none; the message has the nearest name.
    """
    new = {key: value for key, value in namespace.items() if before.get(key) is not value}
    for spiders in (spiders_in(new), spiders_in(namespace)):
        by_class = {kind.__name__: kind for kind in spiders.values()}
        kind = spiders.get(name) or by_class.get(name)
        if kind is not None:
            return kind
    names = sorted(spiders_in(namespace))
    if not names:
        raise ConfigError(f"no spider {name!r}: no cell has defined a spider yet")
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
    raise ConfigError(f"no spider {name!r} in this notebook; {hint}")
