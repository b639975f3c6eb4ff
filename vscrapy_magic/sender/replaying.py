"""Owns `crawl.replay` and `vscrapy replay`: which source is the one as it is now.

Runs in the sender's process. Scrapy is imported when somebody asks for it.
"""

import importlib
import sys
from typing import Any, Final

from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.order import Order
from vscrapy_magic.sender.origins import order_again, order_of_here
from vscrapy_magic.sender.patching import spider_order, with_data
from vscrapy_magic.store.messages import Bundle

_REPLAYING: Final = (
    "vscrapy_magic.runtime.replaying"  # by name: it is the runtime that knows Scrapy
)


def replay(crawl: Crawl, which: str | int = "all", spider: type | None = None) -> Any:
    """Run calls of a crawl with its spider as it is now, beside the source that was shipped.

    To be called in the main thread: the source is loaded in this process.

    Args:
        which: number of a failure, or of a recorded page (`"p12"`), or `all`.
        spider: the edited class; None: the file or project that the crawl came from, as it is on
            disk, or the class of that name in `__main__`.

    Returns:
        A `Replayed`: `counts`, `rows()`, and its text.

    Raises:
        ConfigError: there is no such failure, page or spider, or the source is not there any more.
        CannotShipError: something that the spider uses exists in this process only.
        StateError: this user did not want to run source of somebody else.
    """

    def edited(shipped: Bundle) -> Bundle:
        return with_data(_order(crawl, shipped, spider).shipped.bundle, shipped)

    return importlib.import_module(_REPLAYING).replay(crawl, edited, str(which))


def _order(crawl: Crawl, shipped: Bundle, spider: type | None) -> Order:
    spec = crawl.view.spec
    if spider is None and crawl.origin is not None:
        return order_again(crawl.origin, spec)
    found = spider or next(
        (
            value
            for value in list(vars(sys.modules["__main__"]).values())
            if isinstance(value, type)
            and spec.spider in {getattr(value, "name", ""), value.__name__}
        ),
        None,
    )
    return order_of_here(shipped, spec) if found is None else spider_order(found, spec)
