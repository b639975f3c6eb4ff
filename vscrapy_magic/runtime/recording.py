"""Owns what a child keeps of each page when its crawl is recorded.

Runs in the event loop of a child; nothing of it is there in a crawl that is not recorded. What the
callback is called with is packed right before the call, because it may change what it gets. The
record leaves with the end of the lease, as one of its outputs: a second run tells each page once.
"""

import logging
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from scrapy import Request
from scrapy.http import Response

from vscrapy_magic.runtime.blame import function_name
from vscrapy_magic.runtime.capture import Recorder
from vscrapy_magic.runtime.codec import SpiderCodec
from vscrapy_magic.runtime.failures import recorder_for
from vscrapy_magic.runtime.inline import Asker
from vscrapy_magic.runtime.tracker import Output, OutputKind, Run, working_for
from vscrapy_magic.store.pages import BODY_BYTES_MAX, BODY_SETTING, PageRecord

if TYPE_CHECKING:
    from vscrapy_magic.runtime.crawl import LeasedCrawler

logger = logging.getLogger(__name__)


class Recording:
    """Records the pages of one child.

    Attributes:
        full: no more pages are kept of this crawl: they are only counted.
    """

    def __init__(self, crawler: "LeasedCrawler", codec: SpiderCodec) -> None:
        self._crawler = crawler
        self._tracker: Final = crawler.tracker
        self._recorder: Final[Recorder] = recorder_for(
            crawler.seat,
            crawler.settings,
            codec,
            body_bytes=crawler.settings.getint(BODY_SETTING, BODY_BYTES_MAX),
        )
        self._open: dict[Request, PageRecord | None] = {}
        self.full = False

    def called(self, response: Response, **_: Any) -> None:
        """A callback is about to be called, which all middlewares have let pass.

        Scrapy calls this as the `process_spider_input` that is nearest to the spider.
        """
        request = response.request
        run = self._tracker.run_of(request) or self._tracker.current()
        if request is None or run is None or not run.live:
            return
        try:
            self._open[request] = None if self.full else self._record(response, request)
        except Exception:
            logger.exception("A page could not be recorded")

    def _record(self, response: Response, request: Request) -> PageRecord:
        callback = request.callback or getattr(self._crawler.spider, "parse", None)
        return PageRecord(
            url=self._recorder.url(request.url),
            method=request.method,
            callback=function_name(callback, "parse"),
            response=self._recorder.response(response, request),
            request=self._recorder.packed(request),
            worker=self._crawler.seat.worker,
            code_version=self._crawler.seat.code_version,
            time_ms=int(time.time() * 1000),
        )

    def ended(self, run: Run, request: Request | None) -> None:
        """Scrapy is done with a response: what was kept of it goes with its lease."""
        if request is None or request not in self._open:
            return
        record = self._open.pop(request)
        data = identity = b""
        if record is not None:
            asked = run.inline.of(Asker.SPIDER) if run.inline is not None else ()
            inline = tuple(self._recorder.response(each, None) for each in asked)
            data = msgspec.msgpack.encode(msgspec.structs.replace(record, inline=inline))
            identity = f"{record.method} {record.url} {record.callback}".encode()
        with working_for(run):
            self._tracker.add(Output(OutputKind.PAGE, data=data, identity=identity))
