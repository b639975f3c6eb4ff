"""Owns what is kept of a recorded page: a response that reached a callback, and how it was called.

Made in children of a crawl that is recorded, read by senders. Plain data only, in bounds: reading
one runs no code. What the callback brought is not kept: who compares runs the shipped source again.
"""

from typing import Final

import msgspec

from vscrapy_magic.store.failures import CapturedResponse, FailureKind, FailureRecord

RECORD_SETTING: Final = "VSCRAPY_RECORD_BYTES"  # of all recorded pages of a crawl, compressed
RECORD_BYTES_MAX: Final = 1024**3  # its default
BODY_SETTING: Final = "VSCRAPY_RECORD_BODY_BYTES"  # of one body, before compression
BODY_BYTES_MAX: Final = 1024**2  # its default


class PageRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One page.

    Attributes:
        callback: name of the function that was called.
        request: payload of the runtime's codec, as it was before the call; empty where it could
            not leave its process.
        inline: responses that the function awaited itself, in order.
        worker: who called it.
    """

    url: str
    method: str
    callback: str
    response: CapturedResponse
    request: bytes = b""
    inline: tuple[CapturedResponse, ...] = ()
    worker: str = ""
    code_version: int = 1
    time_ms: int = 0

    @property
    def call(self) -> FailureRecord:
        """The call as one that can be run again, as those that failed are."""
        return FailureRecord(
            kind=FailureKind.CALLBACK,
            type="",
            message="",
            traceback="",
            url=self.url,
            method=self.method,
            callback=self.callback,
            request=self.request,
            response=self.response,
            inline=self.inline,
            worker=self.worker,
            code_version=self.code_version,
            time_ms=self.time_ms,
        )


def read_pages(packet: bytes) -> list[PageRecord]:
    """Pages of one commit, as its child packed them; none of an empty packet."""
    return msgspec.msgpack.decode(packet, type=list[PageRecord]) if packet else []
