"""A crawl is placed as senders place it, from a spec that a test has made."""

import msgspec

from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import Bundle, CrawlSpec
from vscrapy_magic.store.placement import Placement
from vscrapy_magic.store.views import CrawlView

NO_SOURCE = Bundle(files={}, entry="")


def place(store: Store, spec: CrawlSpec, bundle: Bundle | None = None) -> CrawlView:
    """The crawl as it is then; workers begin at once. Without a bundle no source is kept."""
    placement = Placement(store)
    ground = placement.survey(spec.bundle)
    if bundle is None:
        ground = msgspec.structs.replace(ground, has_bundle=True)
    return placement.create(spec, ground, bundle or NO_SOURCE)
