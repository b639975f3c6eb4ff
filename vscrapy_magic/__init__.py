"""Distributed Scrapy crawls from a notebook or a terminal, as easy as a local one.

`%load_ext vscrapy_magic` brings the magics; `connect` and `attach` do the same from Python.
"""

from typing import TYPE_CHECKING, Any

from vscrapy_magic.version import __version__

if TYPE_CHECKING:
    from vscrapy_magic.sender.crawl import Crawl
    from vscrapy_magic.sender.session import Session

__all__ = ["__version__", "attach", "connect"]


def connect(url: str | None = None, *, workers: int | None = None) -> "Session":
    """An open session on the Redis at `url`; see `Session.connect`.

    Args:
        url: None means `VSCRAPY_REDIS_URL`, then the configuration file, then the local cluster.
        workers: of the local cluster, when it has to be started.
    """
    from vscrapy_magic.sender.session import Session

    return Session.connect(url, kind="python", workers=workers)


def attach(crawl_id: str) -> "Crawl":
    """Find a crawl again after its sender has ended; what was collected here needs no server.

    Raises:
        CrawlNotFoundError: nobody knows it any more.
    """
    from vscrapy_magic.sender.session import attach as found

    return found(crawl_id)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext vscrapy_magic`: silent, and starts nothing."""
    from vscrapy_magic.notebook.extension import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """End the session of this kernel."""
    from vscrapy_magic.notebook.extension import unload

    unload(shell)
