"""Owns what a crawl has brought, as its user reads it: items, failures, pages, files, log lines.

Runs in the sender's process; any thread. All of it is read from the spool, so it is there when the
server is long gone.
"""

import logging
import re
from typing import Any, Final

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.feeds import export
from vscrapy_magic.sender.items import FailureList, Items, Pages
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.store.inspection import Origin
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.logs import LogLine

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Brought:
    """What one crawl has brought so far.

    Attributes:
        items: as dictionaries; a sequence that grows while the crawl runs.
        failures: what went wrong, with traceback, request and response; it grows likewise.
        pages: recorded ones (`record=True`, `--record`), with request and response; it grows too.
        files: `worker/path` -> path here, of files that the spider wrote into its working folder.
    """

    def __init__(self, spool: Spool, spider: str) -> None:
        self._spool = spool
        self.id: Final[CrawlId] = spool.crawl_id
        self.spider: Final = spider
        self.items: Final = Items(spool)
        self.failures: Final = FailureList(spool)
        self.pages: Final = Pages(spool)
        self.files: Final = spool.files

    @property
    def origin(self) -> Origin | None:
        """The file or project on this machine that it was ordered with; None for another crawl."""
        return self._spool.origin

    def logs(
        self, *, worker: str = "", level: str | int = "", pattern: str = "", last: int = 0
    ) -> list[LogLine]:
        """Log lines that were kept, oldest first.

        Args:
            worker: only its lines.
            level: this one and those above: `WARNING`.
            pattern: a regular expression that the text matches somewhere.
            last: at most so many, from the end; 0 means all.

        Raises:
            ConfigError: the level or the pattern is none.
        """
        lowest = _level(level)
        try:
            matches = re.compile(pattern).search
        except re.error as exc:
            raise ConfigError(f"{pattern!r} is no regular expression: {exc}") from exc
        found = [
            line
            for line in self._spool.lines()
            if line.level >= lowest
            and (not worker or line.worker == worker)
            and (not pattern or matches(line.text))
        ]
        return found[-last:] if last else found

    def export(self, *files: str, overwrite: bool = True) -> tuple[str, ...]:
        """Write what has been collected so far into feeds, by Scrapy's exporters.

        Blocks until it is written.

        Args:
            files: `items.csv`, `items.txt:jsonlines`, any address that `-O` of Scrapy takes.
            overwrite: begin the files anew; False appends.

        Returns:
            A line on each feed.

        Raises:
            ConfigError: not all could be written; the message says what.
        """
        return export(self._spool, self.spider, files, overwrite=overwrite)

    def to_pandas(self) -> Any:
        """The items as a data frame.

        Raises:
            ConfigError: pandas is not installed here.
        """
        try:
            import pandas as pd
        except ImportError as exc:
            raise ConfigError(
                "pandas is not installed here: `pip install pandas`, or use list(crawl.items)"
            ) from exc
        return pd.DataFrame(list(self.items))


def _level(level: str | int) -> int:
    if isinstance(level, int):
        return level
    if not level:
        return 0
    number = logging.getLevelName(level.upper())
    if not isinstance(number, int):
        raise ConfigError(f"{level!r} is no log level; there are {', '.join(_LEVELS)}")
    return number
