"""Owns in whose name signal handlers run: a signal about a request works for that request's lease.

Runs in the event loop of a child. Scrapy sends some of its downloader signals in the context of
another request than they speak of; the request that they carry is right.
"""

from typing import Any

from scrapy.signalmanager import SignalManager

from vscrapy_magic.runtime.tracker import Tracker, working_for


class LeaseSignals(SignalManager):
    """Scrapy's signal manager of one crawler."""

    def __init__(self, sender: Any, tracker: Tracker) -> None:
        super().__init__(sender)
        self._tracker = tracker

    def send_catch_log(self, signal: Any, **kwargs: Any) -> list[tuple[Any, Any]]:
        run = self._tracker.run_of(kwargs.get("request"))
        if run is None:
            return super().send_catch_log(signal, **kwargs)
        with working_for(run):
            return super().send_catch_log(signal, **kwargs)
