"""What is taken out of texts and requests, and what is left alone."""

import msgspec
import pytest

from vscrapy_magic.store.secrets import Hider, mask_payload, mask_url, secret_values
from vscrapy_magic.store.values import Codec


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Cookie: sid=1; b=2\nA: b", "Cookie: ***\nA: b"),
        ("curl -H 'Authorization: Bearer x' u", "curl -H 'Authorization: ***' u"),
        ("{b'Set-Cookie': [b'a=b; Path=/'], 'n': 1}", "{b'Set-Cookie': [b'***'], 'n': 1}"),
        ('headers={"authorization": "Basic it\'s"}', 'headers={"authorization": "***"}'),
        ("cookie = response.headers['Set-Cookie']", "cookie = response.headers['Set-Cookie']"),
        ("def parse(cookie: str = None)", "def parse(cookie: str = None)"),
        ('headers={"Authorization": token}', 'headers={"Authorization": token}'),
        ("at http://me:pw@host/a@b and you@there", "at http://***@host/a@b and you@there"),
        ("with the-value of the environment", "with *** of the environment"),
    ],
)
def test_texts_are_shown_without_secrets(text: str, shown: str) -> None:
    assert Hider(["the-value", "abc"]).text(text) == shown


def test_values_are_taken_out_of_packed_data_without_moving_what_follows() -> None:
    packed = Codec().encode({"a": "x the-value y", "b": b"the-value", "c": 1})
    assert Codec().decode(Hider(["the-value"]).data(packed)) == {
        "a": "x ********* y",
        "b": b"*********",
        "c": 1,
    }


def test_cookies_are_known_by_their_values_and_not_by_their_attributes() -> None:
    assert secret_values({"Set-Cookie": ["sid=geheim1; Path=/private"], "X": ["y"]}) == {
        "sid=geheim1; Path=/private",
        "geheim1",
    }
    assert {"geheim1", "geheim2"} < secret_values({"Cookie": ["a=geheim1; b=geheim2; c=1"]})
    assert "token" in secret_values({"Authorization": ["Bearer token"]})


def test_a_packed_request_loses_its_secrets_and_nothing_else() -> None:
    headers = {b"Cookie": [b"a=b"], b"A": [b"b"]}  # as the runtime's codec packs them
    fields = {
        "url": "http://me:pw@host/",
        "cookies": {"a": "b"},
        "meta": {"proxy": "http://u:p@proxy:1", "depth": 1, "when": (1, {2})},
        "cb_kwargs": {"n": 2**80},
    }
    packed = msgspec.msgpack.encode({**Codec().tagged(fields), "headers": headers})
    found = Codec().decode(mask_payload(packed))
    assert found == fields | {
        "url": "http://***@host/",
        "headers": {b"Cookie": [b"***"], b"A": [b"b"]},
        "cookies": {"a": "***"},
        "meta": {"proxy": "http://***@proxy:1", "depth": 1, "when": (1, {2})},
    }
    assert mask_url("http://host/?q=a:b@c") == "http://host/?q=a:b@c"
