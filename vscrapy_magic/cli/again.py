"""Owns what is done after a spider was edited: `vscrapy patch`, `retry` and `replay`."""

import contextlib
import sys
from collections.abc import Iterator, Sequence

from vscrapy_magic.cli.target import find_crawl, need, open_crawl, open_store, parser
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.kept import open_kept
from vscrapy_magic.sender.options import CrawlOptions
from vscrapy_magic.sender.order import Order, file_order, project_order
from vscrapy_magic.sender.patching import patch as bring
from vscrapy_magic.sender.replaying import replay as run_again
from vscrapy_magic.sender.retrying import ALL, failure_of
from vscrapy_magic.sender.run import finish
from vscrapy_magic.sender.session import TERMINAL, Session
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.sender.spools import spool_root
from vscrapy_magic.sender.terminal import LineFormat, Terminal
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.messages import CrawlSpec


def patch(words: Sequence[str]) -> int:
    """Let a running crawl go on with the spider as it is now."""
    parse = parser(
        "vscrapy patch",
        "Bring the spider as it is now into a running crawl: the one in FILE, or of this project. "
        "Every worker tries it first; one that cannot load it leaves all as it is.",
        "vscrapy patch 1a2b quotes.py",
    )
    parse.add_argument("crawl", metavar="ID")
    parse.add_argument("file", metavar="FILE", nargs="?", default="")
    options = parse.parse_all(words)
    with open_store(options) as opened:
        store = need(opened)
        crawl_id = find_crawl(options.crawl, store)
        view = Crawls(store).view(crawl_id)
        order = _order(options.file, view.spec)
        with _spool(view.spec) as spool:
            patched = bring(store, view, order, spool)
    sys.stdout.write(f"crawl {crawl_id}: {patched}\n")
    return 0


def retry(words: Sequence[str]) -> int:
    """Put failed requests back; a crawl that is over goes on with them, and is followed here."""
    parse = parser(
        "vscrapy retry",
        "Run failed requests of a crawl again, each once: all of them, or those like failure N. A "
        "crawl that is over goes on with them, and is followed here to its end.",
        "vscrapy retry 1a2b 3",
    )
    parse.add_argument("crawl", metavar="ID")
    parse.add_argument("number", metavar="N", nargs="?", default=ALL, help="of `vscrapy errors`")
    options = parse.parse_all(words)
    number = failure_of(options.number, "retry")
    with open_store(options) as opened:
        store = need(opened)
        crawl_id = find_crawl(options.crawl, store)
        with Session.connect(store.url, kind=TERMINAL) as session:
            crawl, retried = session.retry(crawl_id, number)
            sys.stdout.write(f"crawl {crawl_id}: {retried}\n")
            sys.stdout.flush()
            if not retried.reopened:
                return 0
            return finish(crawl, Terminal(LineFormat(), sys.stderr))


def replay(words: Sequence[str]) -> int:
    """Run failed calls, and recorded pages, with the spider as it is now.

    Returns:
        1 when a page fails that did not fail before, 0 otherwise.
    """
    parse = parser(
        "vscrapy replay",
        "Run the spider as it is now on what failed, and on all pages of a crawl that was run with "
        "--record, beside the source that was shipped; needs no network.",
        "vscrapy replay 1a2b all",
    )
    parse.add_argument("crawl", metavar="ID", help="or the beginning of one")
    parse.add_argument("which", metavar="N|pN", nargs="?", default=ALL, help="one failure or page")
    options = parse.parse_all(words)
    with open_crawl(options) as (crawl_id, store):
        crawl = open_kept(crawl_id)
        if crawl is None:
            with Session.connect(need(store).url, kind=TERMINAL) as session:
                return _replay(session.attach(crawl_id), options.which)
        return _replay(crawl, options.which)


def _replay(crawl: Crawl, which: str) -> int:
    found = run_again(crawl, which)
    sys.stdout.write(found.text(f"vscrapy replay {crawl.id}") + "\n")
    return int(found.has_broken)


def _order(file: str, spec: CrawlSpec) -> Order:
    if file:
        return file_order(CrawlOptions(target=file, args=spec.args))
    return project_order(CrawlOptions(target=spec.spider, args=spec.args))


@contextlib.contextmanager
def _spool(spec: CrawlSpec) -> Iterator[Spool | None]:
    """Where this user keeps what the crawl brings; None: it was not ordered from here."""
    try:
        spool = Spool(spool_root(), spec.crawl_id)
    except FileNotFoundError:
        yield None
        return
    spool.release()  # whoever collects goes on with it
    with spool:
        yield spool
