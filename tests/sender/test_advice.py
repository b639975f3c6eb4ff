"""What is said of common failures: of each record a word that must be said."""

import zlib

import pytest

from vscrapy_magic.sender.advice import advice, next_steps
from vscrapy_magic.store.failures import CapturedResponse, FailureKind, FailureRecord, Frame

URL = "https://example.com/page/1"


def response(body: bytes = b"<html>", status: int = 200, url: str = URL) -> CapturedResponse:
    return CapturedResponse(
        url=url,
        status=status,
        kind="scrapy.http.response.html:HtmlResponse",
        headers={"Content-Type": ["text/html"]},
        packed=zlib.compress(body),
        body_bytes=len(body),
    )


def failure(
    type_: str,
    message: str = "",
    line: str = "",
    kind: str = FailureKind.CALLBACK,
    came: CapturedResponse | None = None,
) -> FailureRecord:
    frames = (Frame("Cell In[3]", 12, "S.parse", line),)
    return FailureRecord(
        kind=kind,
        type=type_,
        message=message,
        traceback="",
        url=URL,
        frames=frames,
        response=came,
        worker="w-2",
    )


FLOAT = "could not convert string to float: '1,299.00'"
CASES = {
    "selector gave None": (
        failure(
            "AttributeError",
            "'NoneType' object has no attribute 'strip'",
            "title = response.css('h1::text').get().strip()",
            came=response(),
        ),
        "found nothing",
    ),
    "None in a regex": (
        failure(
            "TypeError",
            "expected string or bytes-like object, got 'NoneType'",
            "re.findall('x', text)",
        ),
        "found nothing",
    ),
    "login page": (
        failure(
            "AttributeError",
            "'NoneType' object has no attribute 'x'",
            "x",
            came=response(url="https://example.com/login?next=/page/1"),
        ),
        "login",
    ),
    "forbidden": (
        failure("IndexError", "list index out of range", came=response(status=403)),
        "403",
    ),
    "too many requests": (failure("KeyError", "'a'", came=response(status=429)), "DOWNLOAD_DELAY"),
    "HttpError 404": (
        failure(
            "scrapy.spidermiddlewares.httperror.HttpError",
            "Ignoring non-200 response: 404",
            kind=FailureKind.ERRBACK,
        ),
        "not there",
    ),
    "empty list": (
        failure("IndexError", "list index out of range", "response.css('a')[0]"),
        "fewer entries",
    ),
    "meta": (failure("KeyError", "'page'", "response.meta['page']"), "response.meta.get"),
    "number": (failure("ValueError", FLOAT, "float(price)"), "thousands separator"),
    "int": (failure("ValueError", "invalid literal for int() with base 10: 'n/a'"), "'n/a'"),
    "json of html": (
        failure("json.decoder.JSONDecodeError", "Expecting value", came=response()),
        "HTML",
    ),
    "empty json": (
        failure("json.decoder.JSONDecodeError", "Expecting value", came=response(b"")),
        "empty",
    ),
    "encoding": (failure("UnicodeDecodeError", "'utf-8' codec can't decode"), "encoding"),
    "binary": (failure("AttributeError", "'Response' object has no attribute 'css'"), "no text"),
    "relative link": (
        failure("ValueError", "Missing scheme in request url: /page/2"),
        "response.follow",
    ),
    "missing package": (
        failure("ModuleNotFoundError", "No module named 'pandas.core'"),
        "pandas is not installed on w-2",
    ),
    "missing name": (failure("NameError", "name 'helper' is not defined"), "helper"),
    "versions": (
        failure("AttributeError", "module 'scrapy' has no attribute 'FormRequest2'"),
        "version",
    ),
    "state on self": (
        failure("AttributeError", "'S' object has no attribute 'token'", "h = self.token"),
        "cb_kwargs",
    ),
    "file": (failure("FileNotFoundError", "[Errno 2] No such file: 'words.txt'"), "--file"),
    "sqlite": (failure("sqlite3.OperationalError", "database is locked"), "item_key"),
    "dns": (
        failure("twisted.internet.error.DNSLookupError", "x", kind=FailureKind.DOWNLOAD),
        "host",
    ),
    "memory": (failure("memory", "", kind=FailureKind.MEMORY), "too much memory"),
    "buried": (failure("buried", "", kind=FailureKind.BURIED), "%vlogs"),
    "recursion": (failure("RecursionError", "maximum recursion depth exceeded"), "itself"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_common_failure_is_explained(name: str) -> None:
    record, word = CASES[name]
    assert word in advice(record)


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert not advice(failure("RuntimeError", "something of the user's own"))


def test_what_to_type_next_is_what_can_be_done() -> None:
    steps = next_steps(3, failure("ValueError", came=response()))
    assert [step.split()[0] for step in steps] == [
        *("%vdebug", "%vreplay", "crawl.failures[2].response", "%vview"),
    ]
    steps = next_steps(3, failure("x.DNSLookupError", kind=FailureKind.DOWNLOAD))
    assert [step.split()[0] for step in steps] == ["%vfetch"]
