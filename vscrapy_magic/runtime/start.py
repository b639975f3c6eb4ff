"""Owns how a child iterates `start()`: as work under a lease, which one child of a crawl has.

Runs in the event loop of a child. What `start()` brings leaves in parts like the outcome of any
other lease, and no more is asked for while the workers have enough to do. A lease that was lost
begins anew elsewhere: what had been published before is dropped there by its content key.
"""

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from scrapy import Request, Spider
from scrapy.exceptions import CloseSpider
from scrapy.utils.defer import deferred_from_coro
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from vscrapy_magic.runtime.tracker import PART_OUTPUTS, Run, working_for

if TYPE_CHECKING:
    from vscrapy_magic.runtime.engine import LeasedEngine

logger = logging.getLogger(__name__)

START_AHEAD: Final = 50_000  # queued requests beyond which `start()` is not asked for more


class LeasedStart:
    """`start()` of the spider in one child.

    Attributes:
        source: what Scrapy has begun for the first lease; None when it was used, or cannot be.
    """

    def __init__(self, engine: "LeasedEngine") -> None:
        self.source: AsyncIterator[Any] | None = None
        self._engine: Final = engine
        self._tracker: Final = engine.tracker
        self._task: Deferred[None] | None = None
        self._run: Run | None = None

    def run(self, run: Run) -> None:
        """Iterate it under its lease."""
        self._tracker.begin(run)
        run.pending += 1
        with working_for(run):
            task = deferred_from_coro(self._iterate(run))
        self._task, self._run = task, run

        def ended(result: Any) -> None:
            self._task = self._run = None
            self._engine.iterate(None)
            if isinstance(result, Failure) and not self._stepper.draining:
                logger.error("start() could not be iterated", exc_info=result.value)
            self._tracker.request_done(run)
            self._stepper.poke()

        task.addBoth(ended)

    def cancel(self) -> None:
        """Iterate it no further; what it has brought stays."""
        task = self._task
        if task is not None:
            task.cancel()

    def plain(self) -> Run | None:
        """The lease of a `start()` under way that is Scrapy's own; None when code of it is running.

        Of that one it is known that it may begin anew elsewhere: it takes `start_urls` only.
        """
        kind, run = type(self._engine.spider), self._run
        for name in ("start", "start_requests"):
            if getattr(kind, name, None) is not getattr(Spider, name, None):
                return None
        if run is None or run is self._tracker.current():
            return None
        return run if run.live else None

    @property
    def _stepper(self) -> Any:
        return self._engine.crawler.host.stepper

    async def _iterate(self, run: Run) -> None:
        engine = self._engine
        source, self.source = self.source, None
        if source is None:
            # The lease was here before and got lost; a new run begins from the start.
            source = await engine.outputs_of_start()
        engine.iterate(self._requests_of(source, run))
        while run.live and await engine.take_next_of_start():
            while run.live and self._is_ahead(run):
                await engine.room.wait()

    def _is_ahead(self, run: Run) -> bool:
        """Whether it had better wait, for the next step or for the workers."""
        return len(run.unit.outputs) >= PART_OUTPUTS or self._stepper.queued >= START_AHEAD

    async def _requests_of(self, source: AsyncIterator[Any], run: Run) -> AsyncIterator[Any]:
        """What the engine is to schedule; items go to the pipelines and hold the lease open."""
        try:
            async for output in source:
                if isinstance(output, Request):
                    yield output
                    continue
                self._process_item(output, run)
                while run.pending > self._engine.scraper.concurrent_items:
                    await self._engine.room.wait()
        except CloseSpider:
            raise
        except Exception as exc:
            self._engine.crawler.host.failures.start_failed(exc)
            raise

    def _process_item(self, item: Any, run: Run) -> None:
        scraper: Any = self._engine.scraper
        process = getattr(scraper, "start_itemproc_async", scraper.start_itemproc)
        run.pending += 1
        done = process(item, response=None)
        if not isinstance(done, Deferred):
            done = deferred_from_coro(done)

        def ended(result: Any) -> None:
            if isinstance(result, Failure):
                logger.error("An item of start() was not processed", exc_info=result.value)
            self._tracker.request_done(run)
            self._engine.room.made()
            self._stepper.poke()

        done.addBoth(ended)
