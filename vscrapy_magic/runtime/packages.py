"""Owns the question whether this worker has the packages that a shipped spider needs.

Runs in a child before it joins its crawl. What it lacks is said in one line, and the child goes:
others may have it. Scrapy itself would not say all of it in time: a download handler that cannot be
imported makes each of its requests fail, and a component some workers only would give other items.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, Final

from scrapy.settings import Settings

from vscrapy_magic.errors import VscrapyError
from vscrapy_magic.store.messages import Bundle

_COMPONENTS: Final = (
    *("ADDONS", "ITEM_PIPELINES", "SPIDER_MIDDLEWARES", "DOWNLOADER_MIDDLEWARES", "EXTENSIONS"),
)
_HANDLERS: Final = "DOWNLOAD_HANDLERS"  # Scrapy imports some of them when they are needed
_CLASSES: Final = (
    *("DUPEFILTER_CLASS", "REQUEST_FINGERPRINTER_CLASS", "HTTPCACHE_STORAGE", "HTTPCACHE_POLICY"),
    *("DOWNLOADER", "ITEM_PROCESSOR", "LOG_FORMATTER", "ROBOTSTXT_PARSER", "DNS_RESOLVER"),
)
# Of well-known modules, the package that has them; others have the module's own name.
_PACKAGES: Final = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "google": "google-cloud-storage",
    "jwt": "PyJWT",
    "MySQLdb": "mysqlclient",
    "PIL": "pillow",
    "psycopg2": "psycopg2-binary",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}


class UnfitError(VscrapyError):
    """This worker lacks something that the spider needs; others may have it."""


@contextmanager
def needed(bundle: Bundle, worker: str) -> Iterator[None]:
    """Code of the bundle is imported here.

    Raises:
        UnfitError: it imports what this worker has not. Mistakes in what was shipped stay what
            they are.
    """
    try:
        yield
    except ImportError as exc:
        text = why_unfit(exc, bundle, worker)
        if not text:
            raise
        raise UnfitError(text) from exc


def why_unfit(exc: ImportError, bundle: Bundle, worker: str) -> str:
    """What a failed import says of this worker, in one line; empty: the bundle is to blame."""
    top = (exc.name or "").partition(".")[0]
    return "" if not top or top in _shipped(bundle) else _why(exc, top, worker)


def check_components(settings: Settings) -> None:
    """See that the packages of what the settings name are here.

    Nothing is imported: Scrapy does that when there is a reactor, which an import might install.

    Args:
        settings: with those of the spider.

    Raises:
        ModuleNotFoundError: one is not.
    """
    for path in _named(settings):
        top = path.partition(".")[0]
        if top not in sys.modules and importlib.util.find_spec(top) is None:
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)


def _named(settings: Settings) -> Iterator[str]:
    """Paths of components and classes that are not Scrapy's own."""
    # Of what nobody has set it is Scrapy's own; and to read some defaults brings a warning.
    given = [name for name in _CLASSES if (settings.getpriority(name) or 0) > 0]
    paths: list[Any] = [settings.get(name) for name in given]
    paths += settings.getdict(_HANDLERS).values()
    for name in _COMPONENTS:
        paths += [path for path, order in settings.getdict(name).items() if order is not None]
    for path in paths:
        if isinstance(path, str) and "." in path and not path.startswith("scrapy."):
            yield path


def _shipped(bundle: Bundle) -> set[str]:
    """Top-level names that came with the bundle."""
    return {
        "__main__",
        *(PurePosixPath(name).parts[0].removesuffix(".py") for name in bundle.files),
    }


def _why(exc: ImportError, top: str, worker: str) -> str:
    if top in sys.stdlib_module_names:
        version = ".".join(map(str, sys.version_info[:3]))
        return f"worker {worker} runs Python {version}, which is not enough: {exc}"
    package = _PACKAGES.get(top, top)
    if isinstance(exc, ModuleNotFoundError) and exc.name == top:
        return f"worker {worker} has no package {top}: pip install {package} there"
    return f"worker {worker} has another version of {top}: {exc}; pip install -U {package} there"
