"""Memory in Redis per queued request and per seen URL: `python -m benchmarks.bytes`.

Against what scrapy-redis stores for the same requests (a pickled request in a sorted set, 40 hex
digits of a SHA-1 in a set), in the same server. Requests as Scrapy makes them for links of a page:
URL, callback, depth and Referer. `--largest N`: up to 10^N of them.
"""

import hashlib
import pickle
import random
import sys
from collections.abc import Iterator
from itertools import islice

from scrapy import Request, Spider
from scrapy.http import Response

from benchmarks.measure import conditions, options_from_line, table, workplace
from vscrapy_magic.runtime.codec import SpiderCodec
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import new_crawl_id
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import MemberToken, WorkerName, crawl_prefix
from vscrapy_magic.store.messages import Bundle, CrawlSpec, NewRequest, SlotLimit, Step
from vscrapy_magic.store.placement import Placement
from vscrapy_magic.store.server import EmbeddedServer

SMALLEST = 4  # decimal exponents
LINKS_PER_PAGE = 20
REQUESTS_PER_STEP = 200  # what ten pages bring
FINGERPRINT_BYTES = 8
QUEUE_KEYS = frozenset({"b", "ready", "slots"})  # and `q:<slot>`
SLOT = "www.exampleshop.com"
HOST = f"https://{SLOT}"
SYLLABLES = tuple(a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "ur", "an"))


class ShopSpider(Spider):
    name = "shop"

    def parse_product(self, response: Response) -> None:
        """A callback to be named."""


def word(dice: random.Random) -> str:
    return "".join(dice.choices(SYLLABLES, k=dice.randint(2, 3)))


def corpus(spider: ShopSpider) -> Iterator[Request]:
    """Requests without end, the same ones each time; their URLs have 80 bytes on average."""
    dice = random.Random(1)
    shelves = [f"{word(dice)}/{word(dice)}" for _ in range(500)]
    number = 0
    while True:
        shelf = dice.choice(shelves)
        page = f"{HOST}/goods/{shelf}/?page={dice.randint(1, 99)}"
        for _ in range(LINKS_PER_PAGE):
            number += 1
            slug = "-".join(word(dice) for _ in range(dice.randint(2, 4)))
            yield Request(
                f"{HOST}/goods/{shelf}/{slug}-{number:07d}.html",
                callback=spider.parse_product,
                headers={"Referer": page},
                meta={"depth": 3},
            )


def used_bytes(store: Store) -> int:
    return int(store.client.info("memory")["used_memory"])


def ours(store: Store, count: int) -> tuple[float, float, float]:
    """Bytes per queued request, per seen URL, and of all keys together per request."""
    spider = ShopSpider()
    codec = SpiderCodec(spider)
    spec = CrawlSpec(crawl_id=new_crawl_id(), spider=spider.name, bundle="none")
    placement = Placement(store)
    placement.create(spec, placement.survey(spec.bundle), Bundle(files={}, entry=""))
    frontier, token = Frontier(store, spec.crawl_id), MemberToken("child")
    frontier.join(token, WorkerName("worker"))
    before = used_bytes(store)
    requests = islice(corpus(spider), count)
    for seq in range(1, count // REQUESTS_PER_STEP + 1):
        new = tuple(new_request(codec, one) for one in islice(requests, REQUESTS_PER_STEP))
        limits = (SlotLimit(SLOT, 8),)
        frontier.step(Step(token=token, seq=seq, requests=new, limits=limits))
    whole = used_bytes(store) - before
    prefix = crawl_prefix(spec.crawl_id)
    queue = seen = 0
    for key in store.client.scan_iter(match=f"{prefix}*", count=1000):
        name = key.decode().removeprefix(prefix)
        size = store.client.memory_usage(key, samples=0) or 0
        if name[0] == "s" and name[1].isdigit():
            seen += size
        elif name in QUEUE_KEYS or name.startswith("q:"):
            queue += size
    return queue / count, seen / count, whole / count


def new_request(codec: SpiderCodec, request: Request) -> NewRequest:
    """What a child's scheduler makes of a request."""
    digest = hashlib.sha1(request.url.encode()).digest()  # as long as Scrapy's fingerprint
    return NewRequest(
        payload=codec.encode_request(request),
        slot=SLOT,
        fingerprint=int.from_bytes(digest[:FINGERPRINT_BYTES], "big", signed=True),
    )


def theirs(store: Store, count: int) -> tuple[float, float, float]:
    """The same of scrapy-redis 0.9.1: `queue.PriorityQueue` and `dupefilter.RFPDupeFilter`."""
    spider = ShopSpider()
    before = used_bytes(store)
    requests = islice(corpus(spider), count)
    while some := list(islice(requests, REQUESTS_PER_STEP)):
        pipe = store.client.pipeline(transaction=False)
        for request in some:
            pipe.zadd("shop:requests", {pickle.dumps(request.to_dict(spider=spider), -1): 0})
            pipe.sadd("shop:dupefilter", hashlib.sha1(request.url.encode()).hexdigest())
        pipe.execute()
    whole = used_bytes(store) - before
    queue, seen = (
        store.client.memory_usage(key, samples=0) for key in ("shop:requests", "shop:dupefilter")
    )
    return queue / count, seen / count, whole / count


def main() -> int:
    options = options_from_line(__doc__ or "", 1, largest=6)
    rows = []
    with (
        workplace() as folder,
        EmbeddedServer(folder / "server", persist=False) as server,
        Store.connect(server.url) as store,
    ):
        ours(store, REQUESTS_PER_STEP)  # its scripts are loaded, and connections have their buffers
        theirs(store, REQUESTS_PER_STEP)
        for exponent in range(SMALLEST, options.largest + 1):
            count = 10**exponent
            for label, store_them in (("vscrapy", ours), ("scrapy-redis", theirs)):
                store.client.execute_command("FLUSHALL", "SYNC")  # at once: memory is compared
                queue, seen, whole = store_them(store, count)
                figures = (f"{queue:.1f}", f"{seen:.1f}", f"{whole:.1f}")
                rows.append([f"10^{exponent}", label, *figures])
    urls = [len(request.url) for request in islice(corpus(ShopSpider()), 10_000)]
    print(f"Bytes in Redis; mean URL {sum(urls) / len(urls):.1f} bytes; {conditions()}")
    head = ["requests", "what", "queued request (<= 60)", "seen URL (<= 12)", "all memory"]
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
