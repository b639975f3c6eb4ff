"""Owns a crawl that is there to fetch one page for somebody who wants to look at it.

Runs in the event loop of a child. The spider is loaded with its settings and middlewares, but its
`start()`, its callbacks and the pipelines are not run: the response is the crawl's only item.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from scrapy import Request
from scrapy.http import Response, TextResponse
from scrapy.settings import BaseSettings

from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.fetching import COOKIES_SETTING, FETCH_SETTING
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.messages import CookieChange


async def fetch_requests(settings: BaseSettings) -> AsyncIterator[Any]:
    """What is iterated instead of `start()`."""
    yield Request(settings[FETCH_SETTING], dont_filter=True)


def lent_cookies(store: Store, settings: BaseSettings) -> tuple[CookieChange, ...]:
    """Cookies of the crawl that lends them; none when none does."""
    crawl_id = settings.get(COOKIES_SETTING)
    return Crawls(store).cookies(CrawlId(crawl_id)) if crawl_id else ()


def is_fetching(settings: BaseSettings) -> bool:
    return bool(settings.get(FETCH_SETTING))


def response_record(response: Response) -> bytes:
    """The response as the record of an item; `captured.fetched_response` reads it."""
    kind = type(response)
    data = {
        "url": response.url,
        "status": response.status,
        "kind": f"{kind.__module__}:{kind.__qualname__}",
        "headers": {name: list(values) for name, values in dict.items(response.headers)},
        "body": response.body,
        "encoding": response.encoding if isinstance(response, TextResponse) else "",
        "flags": list(response.flags),
        "protocol": response.protocol or "",
    }
    return msgspec.msgpack.encode({"type": "response", "data": data})
