"""Owns what a process does before its crawl is known, so that a crawl does not wait for it.

Runs in the zygote, and in a spare child. Imports what a crawl needs and fills caches; never
installs a reactor, because that must be the crawl's own choice.
"""

import contextlib
import ctypes
import functools
import importlib
import warnings
from typing import Any, Final

from scrapy import Request
from scrapy.http import HtmlResponse
from scrapy.settings import Settings
from scrapy.utils import versions
from scrapy.utils.misc import load_object
from scrapy.utils.request import fingerprint

from vscrapy_magic.errors import StoreError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import Bundle, CrawlSpec, decode, encode
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.values import Codec

REACTOR: Final = "twisted.internet.reactor"
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
_MODULES: Final = ("encodings.idna", "encodings.latin_1", "service_identity", "twisted.web.client")
_SCRIPTS: Final = ("join", "step", "leave")
_NOBODY: Final = "unix:///nobody/listens/here"
_LINE_BUFFERED: Final = 1  # _IOLBF of the C library


def warm() -> None:
    """Do beforehand whatever every crawl needs."""
    settings = Settings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about old names, some of which this version may not have
        for name in _COMPONENTS:
            for key, value in settings.getdict(name).items():
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
    page = HtmlResponse("http://localhost/", body=b"<a href='/b'>b</a>", encoding="utf-8")
    page.css("a::attr(href), a::text").getall()
    page.xpath("//a[contains(@href, 'b')]/text()").re(r"(.)")
    fingerprint(Request(page.urljoin("/b")))
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


def _buffer_lines() -> None:
    """Let C code's standard output leave line by line, as last words are lost with a buffer."""
    libc = ctypes.CDLL(None)
    try:
        stdout = ctypes.c_void_p.in_dll(libc, "stdout")
    except ValueError:
        return  # another C library names it differently
    libc.setvbuf(stdout, None, _LINE_BUFFERED, 0)
