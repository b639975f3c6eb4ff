"""Owns `%vreplay`: calls of a crawl with the spider as it is now in this notebook, or on disk.

Runs in the kernel's main thread.
"""

from functools import partial
from typing import TYPE_CHECKING

from vscrapy_magic.notebook.kernel import Kernel
from vscrapy_magic.notebook.patching import edited_order
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.patching import with_data
from vscrapy_magic.store.messages import Bundle

if TYPE_CHECKING:
    from vscrapy_magic.runtime.replayed import Replayed


def replay(kernel: Kernel, crawl: Crawl, which: str = "all") -> "Replayed":
    """Run calls with the spider as it is now, beside the source that was shipped.

    Args:
        which: number of a failure, or of a page (`p12`), or `all`.

    Raises:
        ConfigError: there is no such failure or page, or no such spider any more.
    """
    from vscrapy_magic.runtime.replaying import replay as run

    return run(crawl, partial(edited_source, kernel, crawl), which)


def edited_source(kernel: Kernel, crawl: Crawl, shipped: Bundle) -> Bundle:
    """The source as it would be shipped now; data files that went along go along again.

    Raises:
        ConfigError: there is no such spider any more.
        CannotShipError: something that it uses exists in this process only.
    """
    order, origin = edited_order(kernel, crawl, shipped=shipped), crawl.origin
    if origin is not None and order.origin is None:
        where = origin.source.entry or origin.folder
        print(f"compared with {order.spider} of this notebook, not of {where}")  # noqa: T201
    return with_data(order.shipped.bundle, shipped)
