"""Owns crawls that were ordered and of which no answer came: nobody is to be surprised by them.

Runs in the sender's process. An order that was given up may have arrived, or arrive later; a thread
cancels the crawl as soon as the server answers again, and sees that a late order brings none.
"""

import logging
import threading
import time
from typing import Final

from vscrapy_magic.errors import StoreError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.keys import CrawlId

logger = logging.getLogger(__name__)

TRY_FOR_S: Final = 600.0  # then it is left to who sees it in `vscrapy -l`
RETRY_S: Final = 1.0
_WHY: Final = "its sender got no answer to the order, and gave it up"


class Forgone:
    """Orders of one session that were given up; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._crawls = Crawls(store)
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()

    def add(self, crawl_id: CrawlId, *, is_bound: bool) -> None:
        """See to it that this crawl does not run; returns at once.

        Args:
            is_bound: it ends with its session in any case.
        """
        thread = threading.Thread(
            target=self._see_to,
            args=(crawl_id, is_bound),
            name=f"vscrapy-forgo-{crawl_id}",
            daemon=True,
        )
        self._threads.append(thread)
        thread.start()

    def _see_to(self, crawl_id: CrawlId, is_bound: bool) -> None:
        until = time.monotonic() + TRY_FOR_S
        while time.monotonic() < until:
            is_last = self._closing.is_set()
            if is_last and is_bound:
                return
            try:
                self._crawls.forgo(crawl_id, why=_WHY)
            except StoreError as exc:
                if is_last:
                    logger.warning(
                        "Crawl %s may have begun; `vscrapy stop` ends it: %s", crawl_id, exc
                    )
                    return
            else:
                return
            self._closing.wait(RETRY_S)

    def close(self) -> None:
        """Try no longer; of a crawl that would outlive the session once more. Idempotent."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
