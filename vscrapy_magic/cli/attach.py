"""Owns `vscrapy attach`: a crawl that goes on without its sender gets one again."""

import sys
from collections.abc import Sequence

from vscrapy_magic.cli.target import add_feeds, need, open_crawl, parser
from vscrapy_magic.sender.kept import open_complete
from vscrapy_magic.sender.run import attend
from vscrapy_magic.sender.session import Session
from vscrapy_magic.sender.terminal import LineFormat, Terminal


def attach_here(words: Sequence[str]) -> int:
    """Follow a crawl to its end, collect its items, complete its feeds."""
    parse = parser(
        "vscrapy attach",
        "Follow a crawl that was detached, or whose sender has ended: collect what it brings, and "
        "complete the feeds that were ordered with it here.",
        "vscrapy attach 1a2b -O items.csv",
    )
    parse.add_argument("crawl", metavar="ID", help="or the beginning of one")
    parse.add_argument("--nolog", action="store_true", help="no log lines of the workers")
    parse.add_argument("--take", action="store_true", help="though another terminal collects it")
    add_feeds(parse)
    options = parse.parse_all(words)
    terminal = Terminal(LineFormat(), None if options.nolog else sys.stderr)
    with open_crawl(options) as (crawl_id, store):
        kept = open_complete(crawl_id)
        if kept is not None:
            return attend(kept, terminal, options.output, options.overwrite)
        with Session.connect(need(store).url, kind="terminal") as session:
            crawl = session.attach(crawl_id, take=options.take)
            return attend(crawl, terminal, options.output, options.overwrite)
