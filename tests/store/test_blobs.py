"""Request blobs: what goes in comes out, and unknown formats are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscrapy_magic.errors import ProtocolError
from vscrapy_magic.store.blobs import pack_blob, unpack_blob


@given(st.lists(st.binary(), min_size=1, max_size=32))
def test_what_goes_in_comes_out(payloads: list[bytes]) -> None:
    assert unpack_blob(pack_blob(payloads)) == payloads


def test_neighbours_share_most_of_their_bytes() -> None:
    urls = [f"https://www.example.com/catalogue/books/page/{n}.html".encode() for n in range(32)]
    assert len(pack_blob(urls)) < sum(map(len, urls)) / 5


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ProtocolError, match="update"):
        unpack_blob(b"\x09whatever")
