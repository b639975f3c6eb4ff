"""Owns in whose name signal handlers run: a signal about a request works for that request's lease.

Runs in the event loop of a child. Scrapy sends some of its downloader signals in the context of
another request than they speak of; the request that they carry is right. What a handler raises,
Scrapy logs, and hands to whoever sent the signal; here it is also kept as a failure.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from scrapy.exceptions import StopDownload
from scrapy.signalmanager import SignalManager
from twisted.python.failure import Failure

from vscrapy_magic.runtime.tracker import Tracker, working_for

_HAS_ASYNC: Final = hasattr(SignalManager, "send_catch_log_async")

# A handler, what it raised, and what its signal carried.
Tell = Callable[[Any, Any, dict[str, Any]], None]


class LeaseSignals(SignalManager):
    """Scrapy's signal manager of one crawler."""

    def __init__(self, sender: Any, tracker: Tracker) -> None:
        super().__init__(sender)
        self._tracker = tracker

    tell: Tell | None = None  # once there is somebody to tell

    def send_catch_log(self, signal: Any, **kwargs: Any) -> list[tuple[Any, Any]]:
        run = self._tracker.run_of(kwargs.get("request"))
        if run is None:
            results = super().send_catch_log(signal, **kwargs)
            self._look(results, kwargs)
            return results
        with working_for(run):
            results = super().send_catch_log(signal, **kwargs)
            self._look(results, kwargs)
        return results

    if _HAS_ASYNC:

        async def send_catch_log_async(self, signal: Any, **kwargs: Any) -> list[tuple[Any, Any]]:
            results = await super().send_catch_log_async(signal, **kwargs)
            self._look(results, kwargs)
            return results

    else:

        def send_catch_log_deferred(self, signal: Any, **kwargs: Any) -> Any:
            done = super().send_catch_log_deferred(signal, **kwargs)
            return done.addCallback(self._looked, kwargs)

    def _looked(self, results: Any, told: dict[str, Any]) -> Any:
        self._look(results, told)
        return results

    def _look(self, results: Iterable[tuple[Any, Any]], told: dict[str, Any]) -> None:
        """Tell of what was raised, but for what the sender of the signal waits for."""
        for receiver, result in results:
            if isinstance(result, Failure | BaseException) and self.tell is not None:
                exc = result.value if isinstance(result, Failure) else result
                if not isinstance(exc, _expected(told)):
                    self.tell(receiver, result, told)


def _expected(told: dict[str, Any]) -> tuple[type, ...]:
    """What handlers of a signal may raise to say something."""
    named = told.get("dont_log") or ()
    return (*(named if isinstance(named, tuple | list) else (named,)), StopDownload)
