"""Owns `%vpatch`: the spider as edited now goes to the running crawl; and what "as edited" is.

Runs in the kernel's main thread.
"""

from collections.abc import Sequence

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.notebook.kernel import Kernel, find_spider, spiders_in
from vscrapy_magic.sender.classes import class_order
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.options import CrawlOptions
from vscrapy_magic.sender.order import Order
from vscrapy_magic.sender.origins import order_again, order_of_here
from vscrapy_magic.sender.patching import Patched
from vscrapy_magic.store.messages import Bundle

_WORDS_MAX = 2
_MAIN = "__main__"


def patch_crawl(kernel: Kernel, words: Sequence[str]) -> tuple[Crawl, Patched]:
    """Patch a crawl; blocks until the code is in force or refused.

    Args:
        words: id of a crawl, name of a spider; both may be left out.

    Raises:
        ConfigError: there is no such crawl or spider, or nothing is to be patched.
        PatchRefusedError: a worker cannot load it.
    """
    if len(words) > _WORDS_MAX:
        raise ConfigError("%vpatch: one crawl and one spider at most; %vpatch 1a2b3c4d quotes")
    known = spiders_in(kernel.shell.user_ns)
    classes = {kind.__name__ for kind in known.values()}
    crawl_id, name = (*words, "", "")[:_WORDS_MAX]
    if len(words) == 1 and (words[0] in known or words[0] in classes):
        crawl_id, name = "", words[0]
    crawl = kernel.crawl(crawl_id)
    return crawl, crawl.patch(edited_order(kernel, crawl, name))


def edited_order(
    kernel: Kernel, crawl: Crawl | None, name: str = "", *, shipped: Bundle | None = None
) -> Order:
    """What would be shipped now for a crawl that was ordered before.

    The cells are asked first; then, of a file or project of this machine, that is what is on disk;
    then the project around the working folder.

    Args:
        crawl: whose arguments are used; None for none.
        name: of another spider than the crawl's own, in a cell.
        shipped: what was shipped; None: only the cells are asked.

    Raises:
        ConfigError: no cell defines the spider, or its file or project is not there any more.
        CannotShipError: something that it uses exists in this process only.
    """
    namespace = kernel.shell.user_ns
    spider, args = ("", {}) if crawl is None else (crawl.spider, crawl.view.spec.args)
    if crawl is not None and not name:
        spec, known = crawl.view.spec, spiders_in(namespace).get(spider)
        if known is None or known.__module__ != _MAIN:  # not one that was imported here
            if crawl.origin is not None:
                return order_again(crawl.origin, spec)
            if known is None and shipped is not None and not shipped.cells:
                return order_of_here(shipped, spec)
    kind = find_spider(name or spider, namespace, namespace)
    return class_order(CrawlOptions(args=args), kind, kernel.cells.cells, namespace)
