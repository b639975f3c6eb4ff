"""Owns what is said of common failures in plain words: what usually causes them, and what to do.

Runs in the sender's process. Pure functions of a failure record: each rule looks at what was
captured and says one thing, or nothing. The first that fits speaks.
"""

import re
from collections.abc import Callable
from typing import Final

from vscrapy_magic.store.failures import CapturedResponse, FailureKind, FailureRecord

Rule = Callable[[FailureRecord], str]

_SHOWN_CHARS: Final = 60  # of a body
_FORBIDDEN: Final = frozenset({401, 403, 407})
_BUSY: Final = frozenset({429, 503})
_SERVER_ERROR: Final = 500
_LOGIN: Final = re.compile(r"log-?in|sign-?in|anmeld|sso|auth", re.IGNORECASE)
_HTML: Final = re.compile(rb"\s*(<!doctype|<html|<\?xml|<)", re.IGNORECASE)
_NONE: Final = re.compile(r"'?NoneType'?|got None\b|not None\b")
_SELF_ATTRIBUTE: Final = re.compile(r"'(\w+)' object has no attribute '(\w+)'")
_SELECTOR: Final = re.compile(r"\.(css|xpath|re|re_first|jmespath|get|attrib)\b")
_EXAMPLE: Final = "response"


def advice(record: FailureRecord) -> str:
    """What usually causes such a failure and what to try; empty when nothing is known of it."""
    for rule in _RULES:
        said = rule(record)
        if said:
            return said
    return ""


def next_steps(number: int, record: FailureRecord) -> list[str]:
    """What to type next, with what it does."""
    steps = []
    runs_again = record.kind not in {
        *(FailureKind.DOWNLOAD, FailureKind.REQUEST, FailureKind.CRASH, FailureKind.MEMORY),
        *(FailureKind.BURIED, FailureKind.TASK, FailureKind.SERIALIZATION, FailureKind.LOAD),
    }
    if runs_again:
        steps.append(f"%vdebug {number}    the same call here, with the debugger where it fails")
        steps.append(f"%vreplay {number}   the spider as you have edited it, on the same response")
    if record.response is not None:
        steps.append(f"crawl.failures[{number - 1}].response    to try selectors on")
        steps.append(f"%vview {number}     the page as {record.worker or 'the worker'} got it")
    elif record.url:
        steps.append(f"%vfetch {record.url}    the page as a worker gets it now")
    return steps


def _last(record: FailureRecord) -> str:
    """Text of the user's line that failed."""
    return record.frames[-1].source if record.frames else ""


def _is(record: FailureRecord, *types: str) -> bool:
    return record.type.rpartition(".")[2] in types


def _body_begin(response: CapturedResponse | None) -> str:
    if response is None:
        return ""
    return response.body[:_SHOWN_CHARS].decode(errors="replace").strip()


def _died(record: FailureRecord) -> str:
    if record.kind == FailureKind.MEMORY:
        return (
            "the worker ended the process because it used too much memory: look for what grows "
            "(lists on self, whole files in items), or give the worker more (--memory)"
        )
    if record.kind in {FailureKind.CRASH, FailureKind.BURIED}:
        return (
            "the process itself ended while it worked on this page: a crash in a C extension, "
            "os._exit(), the memory limit or a hang; the worker's last lines say which: "
            "%vlogs -L ERROR"
        )
    return ""


def _missing_package(record: FailureRecord) -> str:
    found = re.search(r"No module named '([\w.]+)'", record.message)
    if not found:
        return ""
    name = found[1].partition(".")[0]
    return (
        f"the package {name} is not installed on {record.worker or 'the worker'}: `pip install "
        f"{name}` in its environment (%vworkers shows where it runs), or import it only where it "
        "is there; modules beside your notebook travel by themselves, installed packages do not"
    )


def _missing_name(record: FailureRecord) -> str:
    found = re.search(r"name '(\w+)' is not defined", record.message)
    if not found:
        return ""
    return (
        f"{found[1]} was not part of what was shipped: it is defined nowhere in your cells when "
        "the crawl starts, or only by exec() or a star import; define it in a cell, or import it "
        "by name"
    )


def _versions(record: FailureRecord) -> str:
    found = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", record.message)
    imported = re.search(r"cannot import name '(\w+)' from '([\w.]+)'", record.message)
    if found:
        module, name = found[1], found[2]
    elif imported:
        module, name = imported[2], imported[1]
    else:
        return ""
    return (
        f"{module} on {record.worker or 'the worker'} has no {name}: it has another version than "
        "yours; %vworkers shows the versions of Python and Scrapy there"
    )


def _state_on_self(record: FailureRecord) -> str:
    found = _SELF_ATTRIBUTE.search(record.message)
    if not (_is(record, "AttributeError") and found and f"self.{found[2]}" in _last(record)):
        return ""
    return (
        f"self.{found[2]} is not set in this process: another callback sets it, and that ran on "
        f"another worker; pass it along with cb_kwargs or meta, set it in __init__, or run on one "
        "worker: --workers 1"
    )


def _no_text(record: FailureRecord) -> str:
    if "content isn't text" not in record.message and not (
        _is(record, "AttributeError")
        and re.search(r"'Response' object has no attribute '(css|xpath|text|json)'", record.message)
    ):
        return ""
    kind = _content_type(record.response)
    return (
        f"what came is no text{f' ({kind})' if kind else ''}, so it has no selectors: check "
        "response.headers[b'Content-Type'] first, or do not follow such links "
        "(LinkExtractor(deny_extensions=...))"
    )


def _content_type(response: CapturedResponse | None) -> str:
    for name, values in (response.headers if response is not None else {}).items():
        if name.lower() == "content-type" and values:
            return values[0]
    return ""


def _other_page(record: FailureRecord) -> str:
    """The page is another one than was asked for: a login, a captcha, an error page."""
    response = record.response
    if response is None:
        return ""
    if response.status in _FORBIDDEN:
        return (
            f"the site refused ({response.status}): it wants a login, or takes you for a robot; "
            "compare USER_AGENT and headers with those of your browser, and slow down"
        )
    if response.status in _BUSY:
        return (
            f"the site asked to slow down ({response.status}): %vset DOWNLOAD_DELAY=1, or "
            "AUTOTHROTTLE_ENABLED = True; RETRY_HTTP_CODES tries such pages again"
        )
    moved = record.url and response.url.rstrip("/") != record.url.rstrip("/")
    if (moved or record.kind == FailureKind.CALLBACK) and _LOGIN.search(response.url):
        return (
            f"this is a login page ({response.url}): the session has expired, or its cookies did "
            "not come along; log in again in the callback, with dont_filter=True"
        )
    return ""


def _no_json(record: FailureRecord) -> str:
    if not _is(record, "JSONDecodeError"):
        return ""
    begin = _body_begin(record.response)
    if record.response is not None and not record.response.body:
        return "the response is empty, so it is no JSON: look at its status and headers"
    if record.response is not None and _HTML.match(record.response.body):
        return (
            f"the response is HTML, no JSON (it begins with {begin!r}): an error or login page, or "
            "the address of the page instead of that of its data"
        )
    return f"the response is no JSON{f' (it begins with {begin!r})' if begin else ''}"


def _of_none(record: FailureRecord) -> str:
    if not (_is(record, "AttributeError", "TypeError") and _NONE.search(record.message)):
        return ""
    line = _last(record)
    if _SELECTOR.search(line) or "re." in line:
        return (
            f"a selector (or a regular expression) found nothing on this page and gave None: "
            f"`{line}`; try it on {_EXAMPLE} in %vdebug, use .get(default=''), or skip pages "
            "without it"
        )
    return f"a value is None here: `{line}`; %vdebug shows which" if line else ""


def _empty(record: FailureRecord) -> str:
    if not _is(record, "IndexError"):
        return ""
    return (
        f"there are fewer entries than expected: `{_last(record)}`; a selector that finds nothing "
        "gives an empty list: use .get() instead of [0], or check the length"
    )


def _key(record: FailureRecord) -> str:
    if not _is(record, "KeyError"):
        return ""
    if "meta[" in _last(record):
        return (
            f"the request has no meta {record.message}: not every request that comes here was made "
            "with it; use response.meta.get(...)"
        )
    return f"there is no {record.message} in what came: `{_last(record)}`; use .get(...)"


def _number(record: FailureRecord) -> str:
    found = re.search(
        r"could not convert string to float: (.*)|invalid literal for int\(\).*?: (.*)",
        record.message,
    )
    if not found and not _is(record, "InvalidOperation"):
        return ""
    text = (found[1] or found[2]) if found else "the text"
    return (
        f"{text} is no number: a currency sign, a thousands separator, a unit or an empty text; "
        "clean it first, as with response.css(...).re_first(r'[\\d.,]+')"
    )


def _encoding(record: FailureRecord) -> str:
    if not _is(record, "UnicodeDecodeError", "UnicodeEncodeError"):
        return ""
    known = record.response.encoding if record.response is not None else ""
    return (
        f"the bytes are of another encoding{f' than {known}' if known else ''}: use response.text, "
        "or response.body.decode(..., errors='replace'); response.replace(encoding=...) changes "
        "what Scrapy takes it for"
    )


def _address(record: FailureRecord) -> str:
    if "Missing scheme in request url" not in record.message and "Request url must be str" not in (
        record.message
    ):
        return ""
    return (
        "a link was taken as it stands in the page: response.follow(link) or "
        "response.urljoin(link) makes an address of it; None means that there was no link"
    )


def _file(record: FailureRecord) -> str:
    if not _is(record, "FileNotFoundError"):
        return ""
    return (
        "the file is not on that worker: name it as a plain string beside your notebook, or send "
        "it along: --file NAME"
    )


def _locked(record: FailureRecord) -> str:
    if "database is locked" not in record.message:
        return ""
    return (
        "several workers write to one SQLite file: each has a folder of its own, and what is "
        "written there comes back as crawl.files; for a shared table use a server, with "
        "vs.item_key(item) as its key"
    )


def _network(record: FailureRecord) -> str:
    name = record.type.rpartition(".")[2]
    words = {
        "DNSLookupError": "the name of the host is not known there: a typo, or a worker without "
        "that network's DNS",
        "CannotResolveHostError": "the name of the host is not known there",
        "ConnectionRefusedError": "nothing listens at that address, as seen from that worker",
        "DownloadConnectionRefusedError": "nothing listens at that address, as seen from there",
        "TCPTimedOutError": "the host did not answer: a firewall, or it is down",
        "TimeoutError": "the page took longer than DOWNLOAD_TIMEOUT (180 s)",
        "DownloadTimeoutError": "the page took longer than DOWNLOAD_TIMEOUT (180 s)",
        "ResponseNeverReceived": "the site closed the connection without an answer: often a block "
        "by address or TLS fingerprint",
        "ConnectionLost": "the connection broke while the page came",
        "ResponseFailed": "the connection broke while the page came",
        "DownloadFailedError": "the connection broke while the page came",
        "SSLError": "the TLS handshake failed: a certificate or protocol that the worker refuses",
    }.get(name, "")
    if not words or record.kind not in {FailureKind.DOWNLOAD, FailureKind.ERRBACK}:
        return ""
    return f"{words}; %vfetch URL --worker {record.worker or 'NAME'} tries it from there"


def _status(record: FailureRecord) -> str:
    if not _is(record, "HttpError"):
        return ""
    found = re.search(r"\d{3}", record.message)
    status = int(found[0]) if found else 0
    if status in _BUSY:
        return "the site asked to slow down: %vset DOWNLOAD_DELAY=1, or AUTOTHROTTLE_ENABLED = True"
    if status in _FORBIDDEN:
        return "the site refused: it wants a login, or takes you for a robot (USER_AGENT, speed)"
    if status >= _SERVER_ERROR:
        return "the site itself failed; RETRY_TIMES and RETRY_HTTP_CODES say how often it is tried"
    return "the page is not there; handle_httpstatus_list lets your callback have it all the same"


def _recursion(record: FailureRecord) -> str:
    if not _is(record, "RecursionError"):
        return ""
    return "a function calls itself without an end, or data refers to itself"


def _serialization(record: FailureRecord) -> str:
    if record.kind not in {FailureKind.SERIALIZATION, FailureKind.REQUEST}:
        return ""
    return (
        "what is sent between workers must be data: text, numbers, lists, dicts, dates, items; "
        "open files, locks, connections and generators stay in their process"
    )


_RULES: Final[tuple[Rule, ...]] = (
    *(_died, _missing_package, _missing_name, _versions, _state_on_self, _no_text, _no_json),
    *(_other_page, _of_none, _empty, _key, _number, _encoding, _address, _file, _locked),
    *(_network, _status, _recursion, _serialization),
)
