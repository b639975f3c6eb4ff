"""Owns how queued requests are packed: up to 32 in one deflated blob; used by children and senders.

Deflating requests one by one costs ten times the CPU and three times the bytes: one blob shares its
header, and neighbours share most of their URL.
"""

import zlib
from collections.abc import Sequence
from typing import Final

import msgspec

from vscrapy_magic.errors import ProtocolError

REQUESTS_PER_BLOB: Final = 32  # letters in a mask; more would make a lost worker's re-run no dearer
_FORMAT: Final = (
    b"\x01"  # first byte of every blob; another dictionary or codec takes another number
)
_LEVEL: Final = 1  # of zlib; 6 saves 4 % and costs twice the time
_WBITS: Final = -15  # raw deflate: no header, no checksum
# What most requests have in common; may never change for this format number.
_DICTIONARY: Final = (
    b"cookiejarhandle_httpstatus_listdownload_timeoutdownload_slotproxyitemdont_redirectdont_retry"
    b"Content-Typeapplication/x-www-form-urlencodedapplication/jsonRefererUser-AgentAcceptPOST"
    b"parse_itemparse_pageparse_detaillink_textrule_response_downloaded_errbackdepthpriority"
    b"callbackerrbackmethodheadersbodycookiesmetacb_kwargsencodingpriorityflagsurl"
    b".html?page=/index.php?id=/category//product//page/http://127.0.0.1:http://www.https://www."
)


def pack_blob(payloads: Sequence[bytes]) -> bytes:
    """One blob of 1 to `REQUESTS_PER_BLOB` payloads."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WBITS, zdict=_DICTIONARY)
    return _FORMAT + packer.compress(msgspec.msgpack.encode(payloads)) + packer.flush()


def unpack_blob(blob: bytes) -> list[bytes]:
    """The payloads of a blob, in order.

    Raises:
        ProtocolError: the blob is of an unknown format.
    """
    if blob[:1] != _FORMAT:
        raise ProtocolError("queued requests of an unknown format: update vscrapy_magic here")
    unpacker = zlib.decompressobj(_WBITS, zdict=_DICTIONARY)
    return msgspec.msgpack.decode(unpacker.decompress(blob[1:]), type=list[bytes])
