"""Owns what a process does before its crawl is known, so that a crawl does not wait for it.

Runs in the zygote, and in a spare child. Imports what a crawl needs and fills caches; never
installs a reactor, because that must be the crawl's own choice.
"""

import codecs
import contextlib
import ctypes
import functools
import importlib
import sys
import warnings
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from logging.config import dictConfig
from typing import Any, Final

from scrapy import Request
from scrapy.http import Headers, HtmlResponse
from scrapy.responsetypes import responsetypes
from scrapy.settings import Settings
from scrapy.utils import versions
from scrapy.utils.log import DEFAULT_LOGGING
from scrapy.utils.misc import load_object
from scrapy.utils.request import fingerprint
from scrapy.utils.response import get_meta_refresh
from twisted.internet.ssl import AcceptableCiphers

from vscrapy_magic.errors import StoreError
from vscrapy_magic.runtime.loader import NOT_LOADED
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import Bundle, CrawlSpec, decode, encode
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.values import Codec

_COMPONENTS: Final = (
    "ADDONS",
    "DOWNLOADER_MIDDLEWARES_BASE",
    "DOWNLOAD_HANDLERS_BASE",
    "EXTENSIONS_BASE",
    "FEED_EXPORTERS_BASE",
    "ITEM_PIPELINES_BASE",
    "SPIDER_CONTRACTS_BASE",
    "SPIDER_MIDDLEWARES_BASE",
)
_CLASSES: Final = (
    "DEFAULT_ITEM_CLASS",
    "DNS_RESOLVER",
    "DOWNLOADER",
    "DOWNLOADER_CLIENTCONTEXTFACTORY",
    "DUPEFILTER_CLASS",
    "ITEM_PROCESSOR",
    "LOG_FORMATTER",
    "REQUEST_FINGERPRINTER_CLASS",
    "SCHEDULER",
    "SCHEDULER_PRIORITY_QUEUE",
    "SPIDER_LOADER_CLASS",
    "STATS_CLASS",
    "TWISTED_REACTOR",
)
_MODULES: Final = ("resource", "service_identity", "twisted.web.client")
_CODECS: Final = ("charmap", "idna", "latin-1")
_CIPHERS: Final = "DOWNLOADER_CLIENT_TLS_CIPHERS"
_SCRIPTS: Final = ("join", "step", "leave")
_NOBODY: Final = "unix:///nobody/listens/here"
_LINE_BUFFERED: Final = 1  # _IOLBF of the C library


class _NoReactor(MetaPathFinder):
    """Lets nothing install a reactor by importing it: Twisted's FTP (to 25.5) does, for one."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002
        if name == "twisted.internet.reactor":
            raise ImportError("which reactor there is is the crawl's own choice")


@contextlib.contextmanager
def _without_reactor() -> Iterator[None]:
    finder = _NoReactor()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@_without_reactor()
def warm() -> None:
    """Do beforehand whatever every crawl needs."""
    settings = Settings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about old names, some of which this version may not have
        for name in _COMPONENTS:
            for key, value in settings.getdict(name).items():
                if key not in NOT_LOADED:
                    _load(key)  # components by their order,
                    _load(value)  # handlers by their scheme
        for name in _CLASSES:
            _load(settings.get(name))
    for name in _MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # not needed by this version
    _remember_versions(settings)
    dictConfig(DEFAULT_LOGGING)  # a child's own finds the loggers there
    ciphers: Any = AcceptableCiphers
    ciphers.fromOpenSSLCipherString(settings.get(_CIPHERS, "DEFAULT"))  # Twisted remembers them
    _use_once()
    _buffer_lines()


def _load(path: Any) -> None:
    try:
        load_object(path)
    except (ImportError, NameError, ValueError, TypeError):
        return  # optional (HTTP/2, S3), or not in this version of Scrapy


def _remember_versions(settings: Settings) -> None:
    """Scrapy names versions in its first log lines; asking the package database costs 8-10 ms."""
    module: Any = versions
    if hasattr(module, "version"):
        module.version = functools.cache(module.version)
    module.get_versions(settings.getlist("LOG_VERSIONS"))


def _use_once() -> None:
    """Let caches of selectors, codecs, scripts and the driver fill."""
    _parse_once()
    codec = Codec()
    codec.decode(codec.encode({"text": "b", "number": 1}))
    decode(encode(Bundle(files={}, entry="")), Bundle)
    # Both fail, and leave their caches filled.
    with contextlib.suppress(StoreError):
        decode(b"\x80", CrawlSpec)
    for name in _SCRIPTS:
        load_script(name)
    with contextlib.suppress(StoreError):
        Store.connect(_NOBODY)


def _parse_once() -> None:
    """What the first page of a crawl goes through: patterns that libraries compile when used."""
    url = "http://localhost/a.html"
    body = b"<html><head><title>a</title></head><body><a href='/b'>b</a></body></html>"
    headers = Headers({b"Content-Type": b"text/html; charset=utf-8"})
    kind = responsetypes.from_args(headers=headers, url=url, body=body)
    kind(url, body=body, headers=headers)
    page = HtmlResponse(url, body=body)  # its encoding has to be found out
    get_meta_refresh(page)
    page.css("a::attr(href), a::text").getall()
    page.xpath("//a[contains(@href, 'b')]/text()").re(r"(.)")
    fingerprint(Request(page.urljoin("/b")))
    for name in _CODECS:
        codecs.lookup(name)


def _buffer_lines() -> None:
    """Let C code's standard output leave line by line, as last words are lost with a buffer."""
    libc = ctypes.CDLL(None)
    try:
        stdout = ctypes.c_void_p.in_dll(libc, "stdout")
    except ValueError:
        return  # another C library names it differently
    libc.setvbuf(stdout, None, _LINE_BUFFERED, 0)
