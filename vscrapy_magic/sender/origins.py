"""Owns where a crawl's source was read from, so that it can be read again as it is now.

Runs in the sender's process. Kept with the crawl's spool when the spider came of a file or of a
project; what a notebook's cells or a class brought is read from there.
"""

from pathlib import Path

import msgspec

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.inspecting import Inspecting
from vscrapy_magic.sender.options import CrawlOptions
from vscrapy_magic.sender.order import Order, file_order, project_order
from vscrapy_magic.store.inspection import Origin
from vscrapy_magic.store.messages import Bundle, CrawlSpec


def order_again(origin: Origin, spec: CrawlSpec) -> Order:
    """An order with the source of a file or project as it is on disk now, for a crawl of before.

    Blocks while another process imports it.

    Raises:
        ConfigError: it is not there any more, or cannot be imported.
    """
    source = origin.source
    place = Path(source.entry or origin.folder)
    if not place.exists() or not Path(origin.folder).is_dir():
        what = "the file" if source.entry else "the project"
        raise ConfigError(
            f"crawl {spec.crawl_id}: {what} it came from, {place}, is not there any more, so there "
            "is nothing to compare with; %vdebug runs what was shipped"
        )
    # Its feeds are not wanted again.
    source = msgspec.structs.replace(source, output=(), overwrite=(), args=spec.args)
    ordered = file_order if source.entry else project_order
    options = CrawlOptions(args=spec.args)
    return ordered(options, Inspecting(source, folder=Path(origin.folder)))


def order_of_here(shipped: Bundle, spec: CrawlSpec) -> Order:
    """The same for a crawl that was not ordered from this folder of spools: who has the project?

    Raises:
        ConfigError: the working folder is in no project with that spider; says where to go.
    """
    if shipped.project:
        try:
            return project_order(CrawlOptions(target=spec.spider, args=spec.args))
        except ConfigError as exc:
            raise ConfigError(
                f"crawl {spec.crawl_id} came from a project that was not crawled from here: go "
                f"into its folder to compare with it ({exc})"
            ) from exc
    raise ConfigError(
        f"crawl {spec.crawl_id} came from {shipped.entry or 'a file'}, which was not crawled from "
        "here: define the spider in a cell to compare with it"
    )
