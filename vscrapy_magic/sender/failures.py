"""Owns a failure as its user holds it: what was captured, and its response to try selectors on.

Runs in the sender's process. Scrapy's classes are imported when somebody asks for a response or a
request: a sender that only follows crawls does without them.
"""

import importlib
from typing import Any, Final

from vscrapy_magic.store.failures import FailureRecord

_CAPTURED: Final = "vscrapy_magic.runtime.captured"  # by name: it is the runtime that knows Scrapy


class Failure:
    """One failure of a crawl; what a `FailureRecord` has can be asked of it, too.

    Attributes:
        record: all that came back, as plain data.
    """

    def __init__(self, record: FailureRecord) -> None:
        self.record: Final = record

    @property
    def response(self) -> Any:
        """What had come back when it failed, as a response of Scrapy; None when nothing had."""
        return importlib.import_module(_CAPTURED).plain_response(self.record)

    @property
    def request(self) -> Any:
        """The request as one of Scrapy, without its callbacks; None when there was none."""
        return importlib.import_module(_CAPTURED).request_of(self.record)

    def __getattr__(self, name: str) -> Any:
        if name == "record":  # not yet there, as while it is copied
            raise AttributeError(name)
        return getattr(self.record, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Failure) and other.record == self.record

    def __hash__(self) -> int:
        return hash((self.record.group, self.record.url, self.record.time_ms))

    def __repr__(self) -> str:
        record = self.record
        where = f" at {record.place}" if record.place else f" ({record.kind})"
        url = f", {record.url}" if record.url else ""
        return f"<Failure {record.type}: {record.message}{where}{url}>"
