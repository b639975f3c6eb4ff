"""Owns in whose name code runs with Scrapy 2.13: there in the context that a Deferred fires in.

Runs in the event loop of a child. Later versions run middlewares, callbacks and pipelines in the
context of their request by themselves. What is touched here is listed in `engine.py`.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from scrapy import Request
from scrapy.core.downloader.middleware import DownloaderMiddlewareManager
from scrapy.core.scraper import Scraper
from scrapy.utils.defer import deferred_from_coro

from vscrapy_magic.runtime.tracker import Run, Tracker, working_for


def keep_context(
    middleware: DownloaderMiddlewareManager, scraper: Scraper, tracker: Tracker
) -> None:
    """Let downloader middlewares, callbacks and pipelines work for the lease of their request."""
    methods = middleware.methods
    for name in ("process_request", "process_response", "process_exception"):
        for place, method in enumerate(methods[name]):
            if method is not None:
                methods[name][place] = _in_context(method, tracker)
    of_scraper: Any = scraper
    handle, process = of_scraper.handle_spider_output_async, of_scraper._process_spidermw_output

    def handle_output(result: Any, request: Request, response: Any) -> Awaitable[None]:
        run = tracker.run_of(request)
        if run is not None and not isinstance(result, AsyncIterator):
            result = _iterated_for(run, result)
        outcome: Awaitable[None] = handle(result, request, response)
        return outcome

    def process_output(output: Any, response: Any) -> Any:
        request = getattr(response, "request", None)
        with working_for(tracker.run_of(request) or tracker.current()):
            return process(output, response)

    of_scraper.handle_spider_output_async = handle_output
    of_scraper._process_spidermw_output = process_output


def _in_context(method: Callable[..., Any], tracker: Tracker) -> Callable[..., Any]:
    def call(*, request: Request, **others: Any) -> Any:
        run = tracker.run_of(request) or tracker.current()
        with working_for(run):
            result = method(request=request, **others)
            return deferred_from_coro(result) if inspect.iscoroutine(result) else result

    return call


def _iterated_for(run: Run, outputs: Any) -> Iterator[Any]:
    """Outputs of a callback, each made in the context of its lease."""
    iterator = iter(outputs)
    while True:
        with working_for(run):
            try:
                output = next(iterator)
            except StopIteration:
                return
        yield output
