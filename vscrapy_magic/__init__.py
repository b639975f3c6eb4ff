"""Distributed Scrapy crawls from a notebook or a terminal, as easy as a local one.

`%load_ext vscrapy_magic` brings the magics; the same from Python:

    import vscrapy_magic as vs

    session = vs.connect()
    crawl = session.crawl(Quotes, settings={"DOWNLOAD_DELAY": 0.5}, workers=4)
    crawl.wait()
    crawl.items, crawl.stats, crawl.failures, crawl.files

    vs.attach("1a2b3c4d").to_pandas()
    vs.replay(crawl), vs.debug(crawl, 1)
"""

import sys
from typing import TYPE_CHECKING, Any

from vscrapy_magic.version import __version__

if TYPE_CHECKING:
    from vscrapy_magic.sender.crawl import Crawl
    from vscrapy_magic.sender.session import Session

__all__ = ["__version__", "attach", "connect", "debug", "item_key", "replay"]


def connect(url: str | None = None, *, workers: int | None = None) -> "Session":
    """An open session on the Redis at `url`; see `Session.connect`.

    Args:
        url: None means `VSCRAPY_REDIS_URL`, then the configuration file, then the local cluster.
        workers: of the local cluster, when it has to be started.
    """
    from vscrapy_magic.sender.session import Session

    _note_cells()
    return Session.connect(url, kind="python", workers=workers)


def _note_cells() -> None:
    """In a notebook without our magics: what it runs is the source of its spiders all the same."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        from vscrapy_magic.notebook.extension import note_cells

        note_cells(shell)


def attach(crawl_id: str, *, take: bool = False) -> "Crawl":
    """Find a crawl again after its sender has ended; what was collected here needs no server.

    Args:
        take: collect what is still to come here, though another session does so now.

    Raises:
        CrawlNotFoundError: nobody knows it any more.
    """
    from vscrapy_magic.sender.session import attach as found

    return found(crawl_id, take=take)


def replay(crawl: "Crawl", which: str | int = "all", spider: type | None = None) -> Any:
    """Failed calls of a crawl, and its recorded pages, with the spider as it is now.

    The same as `%vreplay`; see `vscrapy_magic.sender.replaying.replay`.

    Args:
        which: number of a failure, or of a recorded page (`"p12"`), or `all`.
        spider: the edited class; None: the file or project on disk that the crawl came from, or
            the class of that name in the script or notebook.
    """
    from vscrapy_magic.sender.replaying import replay as run

    return run(crawl, which, spider)


def debug(crawl: "Crawl", number: int = 0, *, enter: bool = False) -> None:
    """Run a failed call again here, and open the debugger where it fails; as `%vdebug`.

    Args:
        number: of the failure, from 1; 0: the newest.
        enter: open it at the first line of the call instead.
    """
    from vscrapy_magic.notebook.debugging import debug as run

    ipython = sys.modules.get("IPython")
    said = run(ipython.get_ipython() if ipython is not None else None, crawl, number, enter=enter)
    if said:
        print(said)  # noqa: T201 - as the prompt was, it is text


def item_key(item: Any) -> str:
    """A stable key of an item, 16 hex digits: the same in a pipeline and of what came back.

    Delivery of items is exactly once. What a pipeline does elsewhere, an INSERT for one, is done
    again when a worker dies in the middle of it: make this the unique key there.
    """
    from vscrapy_magic.store.item_key import item_key as key_of

    return key_of(item)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext vscrapy_magic`: silent, and starts nothing."""
    from vscrapy_magic.notebook.extension import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """End the session of this kernel."""
    from vscrapy_magic.notebook.extension import unload

    unload(shell)
