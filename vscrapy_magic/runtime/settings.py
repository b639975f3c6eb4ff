"""Owns how settings that a user changes while a crawl runs come into force in one child.

Runs in the event loop of a child, and once before it starts: a child that joins later begins with
the settings as they are then. What the scripts judge by (CLOSESPIDER_*, workers) is in force
already; here a child only ceases to count for itself.

Not public, and in which versions it was read: `Downloader.total_concurrency`, `domain_concurrency`,
`_process_queue` (2.13-2.19; with the spider up to 2.13) and `Slot.latercall`; `randomize_delay` of
both, which became `_jitter` and `jitter`; `AutoThrottle.mindelay`, `target_concurrency`;
`DownloadTimeoutMiddleware._timeout`; `CloseSpider.close_on`, `task` (2.13-2.19).
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from scrapy.core.downloader import Downloader, Slot
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.downloadtimeout import DownloadTimeoutMiddleware
from scrapy.extensions.closespider import CloseSpider
from scrapy.extensions.throttle import AutoThrottle
from scrapy.settings import BaseSettings, Settings

from vscrapy_magic.runtime.loader import FORCED_PRIORITY
from vscrapy_magic.runtime.pace import Pace
from vscrapy_magic.runtime.report import PipeHandler
from vscrapy_magic.runtime.slots import DELAY, PER_DOMAIN, Slots
from vscrapy_magic.store.control import WORKERS, Value

logger = logging.getLogger(__name__)

LOG_LEVEL: Final = "LOG_LEVEL"
_JITTER: Final = 0.5  # what RANDOMIZE_DOWNLOAD_DELAY means: 0.5 to 1.5 times the delay
# Names of what the CloseSpider extension counts.
_COUNTED: Final = {
    "CLOSESPIDER_ITEMCOUNT": "itemcount",
    "CLOSESPIDER_PAGECOUNT": "pagecount",
    "CLOSESPIDER_ERRORCOUNT": "errorcount",
    "CLOSESPIDER_TIMEOUT": "timeout",
}

T = TypeVar("T")


def begin_with(settings: Settings, values: Mapping[str, Value]) -> Settings:
    """Settings of a child that starts now, with what was changed since the crawl was ordered."""
    if not values:
        return settings
    changed = settings.copy()
    _put(changed, values)
    _set_level(values)
    return changed


def _put(settings: BaseSettings, values: Mapping[str, Value]) -> None:
    for name, value in values.items():
        if name != WORKERS:
            settings.set(name, 0 if name in _COUNTED else value, priority=FORCED_PRIORITY)


def _handlers() -> list[logging.Handler]:
    return [each for each in logging.root.handlers if isinstance(each, PipeHandler)]


def _set_level(values: Mapping[str, Value]) -> None:
    for handler in _handlers() if LOG_LEVEL in values else ():
        handler.setLevel(values[LOG_LEVEL])  # type: ignore[arg-type]


def _find(components: Iterable[object], kind: type[T]) -> T | None:
    return next((each for each in components if isinstance(each, kind)), None)


class LiveSettings:
    """Brings changes into force in a crawler that runs; every method is for the event loop."""

    def __init__(self, crawler: Crawler, downloader: Downloader, slots: Slots, pace: Pace) -> None:
        self._crawler = crawler
        self._downloader = downloader
        self._slots = slots
        self._pace = pace
        self._applied: dict[str, Value] = {}
        self._appliers: dict[str, Callable[[Any], None]] = {
            DELAY: self._set_delay,
            "RANDOMIZE_DOWNLOAD_DELAY": self._randomize,
            "DOWNLOAD_TIMEOUT": self._set_timeout,
            "CONCURRENT_REQUESTS": self._set_concurrency,
            PER_DOMAIN: self._set_per_domain,
            "AUTOTHROTTLE_TARGET_CONCURRENCY": self._set_target,
        }

    def begin(self, values: Mapping[str, Value]) -> None:
        """What the settings at the start did not reach, because the spider says otherwise."""
        self._take(values)

    def apply(self, values: Mapping[str, Value]) -> None:
        """Bring into force what differs from before; says so in the log."""
        news = {name: value for name, value in values.items() if self._applied.get(name) != value}
        if not news:
            return
        settings = self._crawler.settings
        settings.frozen = False
        _put(settings, news)
        settings.freeze()
        text = ", ".join(f"{name} = {value}" for name, value in news.items())
        # The line is to be seen if the level was, or is now, low enough.
        before = [(handler, handler.level) for handler in _handlers()]
        _set_level(news)
        for handler, level in before:
            handler.setLevel(min(level, handler.level))
        logger.info("Changed while the crawl runs: %s", text)
        _set_level(news)
        self._take(news)

    def _take(self, values: Mapping[str, Value]) -> None:
        self._slots.nominal.change(values)
        for name, value in values.items():
            self._applied[name] = value
            if name in _COUNTED:
                self._count_no_more(_COUNTED[name])
            elif name in self._appliers:
                self._appliers[name](value)

    def _local_slots(self, *settings: str) -> list[Slot]:
        """The downloader's slots, without those with a setting of their own."""
        nominal = self._slots.nominal
        return [
            slot
            for name, slot in self._downloader.slots.items()
            if not any(setting in nominal.own_settings(name) for setting in settings)
        ]

    def _set_delay(self, delay_s: float) -> None:
        throttle = self._throttle()
        if throttle is not None:
            throttle.mindelay = delay_s
        for slot in self._local_slots("delay"):
            # AutoThrottle lowers a delay by itself.
            slot.delay = delay_s if throttle is None else max(slot.delay, delay_s)
            self._hurry(slot)

    def _hurry(self, slot: Slot) -> None:
        """Let a slot that waits for the end of an old delay look again."""
        latercall, slot.latercall = slot.latercall, None
        if latercall is None:
            return
        if not hasattr(latercall, "active") or latercall.active():
            latercall.cancel()
        process: Any = self._downloader._process_queue
        needs_spider = "spider" in inspect.signature(process).parameters
        process(*([self._crawler.spider] if needs_spider else []), slot)

    def _randomize(self, wanted: bool) -> None:
        jitter = _JITTER if wanted else 0.0
        if not hasattr(self._downloader, "_jitter"):
            self._downloader.randomize_delay = wanted  # type: ignore[misc]
        else:
            self._downloader._jitter = jitter
        for slot in self._local_slots("jitter", "randomize_delay"):
            if hasattr(slot, "jitter"):
                slot.jitter = jitter
            else:
                slot.randomize_delay = wanted

    def _set_timeout(self, timeout_s: float) -> None:
        middleware = _find(
            self._downloader.middleware.middlewares,
            DownloadTimeoutMiddleware,
        )
        if middleware is not None:
            middleware._timeout = timeout_s

    def _set_concurrency(self, count: int) -> None:
        self._downloader.total_concurrency = count
        self._pace.limit(count)

    def _set_per_domain(self, count: int) -> None:
        self._downloader.domain_concurrency = count
        if self._slots.nominal.per_ip:
            logger.warning("%s has no effect: CONCURRENT_REQUESTS_PER_IP is set", PER_DOMAIN)

    def _set_target(self, target: float) -> None:
        throttle = self._throttle()
        if throttle is None:
            logger.warning(
                "AUTOTHROTTLE_TARGET_CONCURRENCY has no effect: AUTOTHROTTLE_ENABLED is not set"
            )
        else:
            throttle.target_concurrency = target

    def _throttle(self) -> AutoThrottle | None:
        return _find(self._extensions(), AutoThrottle)

    def _count_no_more(self, what: str) -> None:
        """The frontier counts for the whole crawl: this child does not for itself."""
        extension = _find(self._extensions(), CloseSpider)
        if extension is None:
            return
        extension.close_on[what] = 0
        if what == "timeout" and extension.task is not None:
            extension.task.cancel()
            extension.task = None

    def _extensions(self) -> Iterable[object]:
        extensions = self._crawler.extensions
        return () if extensions is None else extensions.middlewares
