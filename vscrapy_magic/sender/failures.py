"""Owns a captured call as its user holds it: its response, to try selectors on; and a failed one.

Runs in the sender's process. Scrapy's classes are imported when somebody asks for a response or a
request: a sender that only follows crawls does without them.
"""

import importlib
from typing import Any, Final, Generic, TypeVar

from vscrapy_magic.store.failures import FailureRecord

_CAPTURED: Final = "vscrapy_magic.runtime.captured"  # by name: it is the runtime that knows Scrapy


R = TypeVar("R")


class Captured(Generic[R]):
    """A call that was captured; what its record has can be asked of it, too.

    Attributes:
        record: all that came back, as plain data.
    """

    def __init__(self, record: R, call: FailureRecord) -> None:
        self.record: Final[R] = record
        self._call = call

    @property
    def response(self) -> Any:
        """What the call got, as a response of Scrapy to try selectors on; None for nothing."""
        return importlib.import_module(_CAPTURED).plain_response(self._call)

    @property
    def request(self) -> Any:
        """The request as one of Scrapy, without its callbacks; None when there was none."""
        return importlib.import_module(_CAPTURED).request_of(self._call)

    def __getattr__(self, name: str) -> Any:
        if name in {"record", "_call"}:  # not yet there, as while it is copied
            raise AttributeError(name)
        return getattr(self.record, name)


class Failure(Captured[FailureRecord]):
    """One failure of a crawl."""

    def __init__(self, record: FailureRecord) -> None:
        super().__init__(record, record)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Failure) and other.record == self.record

    def __hash__(self) -> int:
        return hash((self.record.group, self.record.url, self.record.time_ms))

    def __repr__(self) -> str:
        record = self.record
        where = f" at {record.place}" if record.place else f" ({record.kind})"
        url = f", {record.url}" if record.url else ""
        return f"<Failure {record.type}: {record.message}{where}{url}>"
