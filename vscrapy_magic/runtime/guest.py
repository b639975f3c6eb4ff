"""Owns how shipped source is a guest in a process that goes on: loaded, and taken out again.

Runs in the sender's process (a kernel, a terminal), in its main thread. While the guest is in,
`__main__`, the working folder and what imports find are the guest's, as in a child; `%run` of
IPython does the same with `__main__`. Then all is as it was, modules of the user's own included.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from scrapy import Spider
from scrapy.settings import Settings

from vscrapy_magic.runtime.loader import (
    find_spider,
    prepare,
    read_settings,
    run_entry,
    write_files,
)
from vscrapy_magic.store.messages import Bundle, CrawlSpec


@dataclass(frozen=True)
class Guest:
    """Shipped source that is loaded here.

    Attributes:
        settings: those of the project and of the order; a crawler adds the spider's own.
        missing: environment variables that went with the source and are not set here.
    """

    kind: type[Spider]
    settings: Settings
    spec: CrawlSpec
    missing: tuple[str, ...] = ()


@contextmanager
def guest(bundle: Bundle, spec: CrawlSpec) -> Iterator[Guest]:
    """Shipped source, loaded for as long as this is entered; what it raises at import is raised.

    Raises:
        LoadError: the source does not give the spider that was ordered.
    """
    missing = tuple(name for name in bundle.env if name not in os.environ)
    own = msgspec.structs.replace(bundle, env={})  # their values are not kept with the source
    with tempfile.TemporaryDirectory(prefix="vs-replay-") as name, _as_it_was(bundle):
        folder = Path(name).resolve()
        write_files(own, folder)
        os.chdir(folder)
        prepare(own, folder)
        settings = read_settings(own, spec)
        kind = find_spider(run_entry(own, folder), spec.spider, settings)
        yield Guest(kind, settings, spec, missing)


@contextmanager
def _as_it_was(bundle: Bundle) -> Iterator[None]:
    """Put back what loading changes in this process."""
    shipped = {Path(name).parts[0].removesuffix(".py") for name in bundle.files}
    names = {name for name in sys.modules if name.partition(".")[0] in shipped} | {"__main__"}
    modules = {name: sys.modules[name] for name in names if name in sys.modules}
    path, hooks = list(sys.path), list(sys.path_hooks)
    environ, here = dict(os.environ), Path.cwd()
    for name in names - {"__main__"}:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [each for each in sys.modules if each.partition(".")[0] in shipped]:
            del sys.modules[name]
        sys.modules.update(modules)
        sys.path[:], sys.path_hooks[:] = path, hooks
        sys.path_importer_cache.clear()
        os.environ.clear()
        os.environ.update(environ)
        os.chdir(here)
