"""Owns `vscrapy crawl` and `vscrapy runspider`."""

import sys
from collections.abc import Callable, Sequence
from typing import Final

from vscrapy_magic.sender.options import CrawlOptions, parse_words
from vscrapy_magic.sender.order import Order, file_order, project_order
from vscrapy_magic.sender.run import run
from vscrapy_magic.sender.session import Session

_MS: Final = 1000


def crawl(words: Sequence[str]) -> int:
    """A spider of the project around the working folder."""
    return _run(words, "vscrapy crawl", "spider", project_order)


def runspider(words: Sequence[str]) -> int:
    """The spider in one file."""
    return _run(words, "vscrapy runspider", "spider_file", file_order)


def _run(
    words: Sequence[str], prog: str, target: str, ordered: Callable[[CrawlOptions], Order]
) -> int:
    options = parse_words(words, prog, target)
    if options.help:
        sys.stdout.write(options.help)
        return 0
    order = ordered(options)  # mistakes in the spider come before anything is started
    ttl_ms = None if options.ttl_s is None else int(options.ttl_s * _MS)
    url = options.redis or None
    with Session.connect(url, kind="terminal", workers=options.workers, ttl_ms=ttl_ms) as session:
        return run(session, order, options)
