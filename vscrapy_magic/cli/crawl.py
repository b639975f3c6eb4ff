"""Owns `vscrapy crawl` and `vscrapy runspider`.

The spider's source is read by another process; this one imports what it needs itself meanwhile.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Final

from vscrapy_magic.sender.inspecting import Inspecting, file_source, project_source
from vscrapy_magic.sender.options import CrawlOptions, parse_words
from vscrapy_magic.store.inspection import Source

_MS: Final = 1000


def crawl(words: Sequence[str]) -> int:
    """A spider of the project around the working folder."""
    return _run(parse_words(words, "vscrapy crawl", "spider"), project_source)


def runspider(words: Sequence[str]) -> int:
    """The spider in one file."""
    return _run(parse_words(words, "vscrapy runspider", "spider_file"), file_source)


def _run(options: CrawlOptions, source_of: Callable[[CrawlOptions], Source]) -> int:
    if options.help:
        sys.stdout.write(options.help)
        return 0
    with Inspecting(source_of(options)) as inspecting:
        from vscrapy_magic.sender.order import file_order, project_order
        from vscrapy_magic.sender.run import run
        from vscrapy_magic.sender.session import Session

        # Mistakes in the spider come before anything is started.
        ordered = file_order if inspecting.source.entry else project_order
        order = ordered(options, inspecting)
    ttl_ms = None if options.ttl_s is None else int(options.ttl_s * _MS)
    url = options.redis or None
    with Session.connect(url, kind="terminal", workers=options.workers, ttl_ms=ttl_ms) as session:
        return run(session, order, options)
