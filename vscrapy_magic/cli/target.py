"""Owns which Redis and which crawl a command means."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from vscrapy_magic import config
from vscrapy_magic.errors import ConfigError, CrawlNotFoundError, StoreUnreachableError
from vscrapy_magic.sender.cluster import LocalCluster
from vscrapy_magic.sender.options import OptionParser, nearest
from vscrapy_magic.sender.spools import spool_root
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.keys import CrawlId

_LISTED: Final = 3  # ids named when a beginning fits several


def parser(prog: str, description: str, example: str) -> OptionParser:
    """A parser of a command that asks a Redis."""
    parse = OptionParser(prog, description=description, epilog=f"example: {example}")
    parse.add_argument("--redis", default="", metavar="URL", help="another Redis than configured")
    return parse


def add_feeds(parse: OptionParser) -> None:
    """Options of a command that writes what a crawl has brought."""
    given: dict[str, Any] = {"metavar": "FILE", "action": "append", "default": []}
    parse.add_argument("-o", "--output", help="append the items to FILE, as Scrapy does", **given)
    parse.add_argument(
        "-O", "--overwrite-output", dest="overwrite", help="the same, and begin FILE anew", **given
    )


def server_url(options: argparse.Namespace) -> str | None:
    """Where the crawls are; None when nothing is configured and no local cluster runs."""
    if options.redis:
        return config.check_url(options.redis, source="--redis")
    return config.redis_url() or LocalCluster.running()


@contextmanager
def open_store(options: argparse.Namespace) -> Iterator[Store | None]:
    """The store that is meant; None when nothing runs.

    Raises:
        StoreError: it does not answer.
    """
    url = server_url(options)
    if url is None:
        yield None
        return
    with Store.connect(url) as store:
        yield store


@contextmanager
def open_crawl(options: argparse.Namespace) -> Iterator[tuple[CrawlId, Store | None]]:
    """The crawl that `options.crawl` names, and the store that it is on.

    What is kept here is found without a server, too: the store is None then.

    Raises:
        CrawlNotFoundError: there is none of this id, or more than one.
        StoreError: the server does not answer, and the crawl is not kept here.
    """
    with ExitStack() as opened:
        try:
            store = opened.enter_context(open_store(options))
        except StoreUnreachableError:
            kept = [each for each in _kept_ids() if each.startswith(options.crawl)]
            if len(kept) != 1:
                raise
            yield kept[0], None
            return
        yield find_crawl(options.crawl, store), store


def need(store: Store | None) -> Store:
    """The store.

    Raises:
        ConfigError: nothing runs.
    """
    if store is None:
        raise ConfigError(
            "nothing runs: the local cluster is not started, and no Redis is configured "
            f"(--redis URL, {config.URL_VARIABLE} or `vscrapy config --redis URL`)"
        )
    return store


def address(store: Store) -> str:
    """The store as users know it."""
    return "the local cluster" if store.url == LocalCluster.url() else store.address


def find_crawl(text: str, store: Store | None) -> CrawlId:
    """The crawl whose id is, or begins with, `text`: on the server, or kept here.

    Raises:
        CrawlNotFoundError: there is none, or more than one.
    """
    ids = [view.crawl_id for view in Crawls(store).list_all()] if store is not None else []
    ids = list(dict.fromkeys([*ids, *_kept_ids()]))
    if text in ids:
        return CrawlId(text)
    found = [each for each in ids if each.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CrawlNotFoundError(f"{text!r} begins {len(found)} ids: {_some(found)}")
    where = address(store) if store is not None else "this machine"
    close = nearest(text, ids)
    hint = f"; did you mean {close}?" if close else ""
    raise CrawlNotFoundError(f"no crawl {text!r} on {where}: `vscrapy -l` lists them{hint}")


def _kept_ids() -> list[CrawlId]:
    """Crawls of which something is kept on this machine."""
    return [CrawlId(path.name) for path in spool_root().iterdir() if path.is_dir()]


def _some(ids: Sequence[str]) -> str:
    more = ", ..." if len(ids) > _LISTED else ""
    return ", ".join(ids[:_LISTED]) + more
