"""State between callbacks is found, with its line; what each process may have for itself is not."""

import ast
import textwrap

import pytest

from vscrapy_magic.sender.bundle_family import Source
from vscrapy_magic.sender.shared_state import shared_state

SPIDERS = {
    "a token set at login": (
        """
        class Q(scrapy.Spider):
            def parse(self, response):
                self.token = response.css("token").get()  # here
                yield scrapy.Request("x", self.page)
            def page(self, response):
                yield scrapy.Request("y", headers={"T": self.token})
        """,
        "state on self: Q.token",
    ),
    "a seen set": (
        """
        class Q(scrapy.Spider):
            def __init__(self):
                self.seen = set()
            def parse(self, response):
                if response.url in self.seen:
                    return
                self.seen.add(response.url)  # here
        """,
        "state on self: Q.seen",
    ),
    "a seen set in a pipeline": (
        """
        class Dedupe:
            def open_spider(self, spider):
                self.seen = set()
            def process_item(self, item, spider):
                if item["id"] in self.seen:
                    raise DropItem
                self.seen.add(item["id"])  # here
                return item
        """,
        "state on self: Dedupe.seen",
    ),
    "a class attribute as a set": (
        """
        class Q(scrapy.Spider):
            seen = set()
            def parse(self, response):
                if response.url not in Q.seen:
                    Q.seen.add(response.url)  # here
                    yield {}
        """,
        "state on self: Q.seen",
    ),
    "a page counter that decides": (
        """
        class Q(scrapy.Spider):
            pages = 0
            def parse(self, response):
                self.pages += 1  # here
                if self.pages < 10:
                    yield response.follow("next")
        """,
        "state on self: Q.pages",
    ),
    "a number in items": (
        """
        class Numbers:
            def __init__(self):
                self.n = 0
            def process_item(self, item, spider):
                self.n += 1  # here
                item["id"] = self.n
                return item
        """,
        "state on self: Numbers.n",
    ),
    "a dictionary of parents": (
        """
        class Q(scrapy.Spider):
            def __init__(self, *a, **kw):
                super().__init__(*a, **kw)
                self.parents = {}
            def parse(self, response):
                self.parents[response.url] = 1  # here
            def child(self, response):
                yield {"p": self.parents[response.meta["up"]]}
        """,
        "state on self: Q.parents",
    ),
    "a list that a helper fills": (
        """
        class Q(scrapy.Spider):
            todo = []
            def parse(self, response):
                self._note(response)
                yield {"n": len(self.todo)}
            def _note(self, response):
                self.todo.append(response.url)  # here
        """,
        "state on self: Q.todo",
    ),
    "a module global": (
        """
        TOKEN = None
        class Q(scrapy.Spider):
            def parse(self, response):
                global TOKEN
                TOKEN = response.text  # here
            def page(self, response):
                yield {"t": TOKEN}
        """,
        "module global TOKEN",
    ),
    "a module container": (
        """
        SEEN = set()
        class Q(scrapy.Spider):
            def parse(self, response):
                if response.url not in SEEN:
                    SEEN.add(response.url)  # here
        """,
        "module global SEEN",
    ),
    "a module container in a function": (
        """
        SEEN = {}
        def is_new(url):
            if url in SEEN:
                return False
            SEEN[url] = 1  # here
            return True
        class Q(scrapy.Spider):
            def parse(self, response):
                if is_new(response.url):
                    yield {}
        """,
        "module global SEEN",
    ),
    "set by start, read by a callback": (
        """
        class Q(scrapy.Spider):
            async def start(self):
                self.base = await ask()  # here
                yield scrapy.Request("x")
            def parse(self, response):
                yield {"b": self.base}
        """,
        "state on self: Q.base",
    ),
    "set by a pipeline on the spider": (
        """
        class Pipe:
            def process_item(self, item, spider):
                spider.last = item["id"]  # here
                return item
        class Q(scrapy.Spider):
            def parse(self, response):
                yield {"after": self.last}
        """,
        "state on self: Pipe.last",
    ),
    "in a base class": (
        """
        class Base(scrapy.Spider):
            def log_in(self, response):
                self.key = 1  # here
        class Q(Base):
            def parse(self, response):
                yield {"k": self.key}
        """,
        "state on self: Base.key",
    ),
    "an own duplicate filter": (
        """
        class Filter(RFPDupeFilter):
            def request_seen(self, request):  # here
                return "x" in request.url
        """,
        "request_seen of Filter",
    ),
    "an object that keeps state": (
        """
        class Tracker:
            def __init__(self):
                self.urls = set()
            def is_new(self, url):
                if url in self.urls:
                    return False
                self.urls.add(url)  # here
                return True
        class Q(scrapy.Spider):
            def __init__(self):
                self.tracker = Tracker()
            def parse(self, response):
                if self.tracker.is_new(response.url):
                    yield {}
        """,
        "state on self: Tracker.urls",
    ),
    "setattr": (
        """
        class Q(scrapy.Spider):
            def parse(self, response):
                setattr(self, "mode", response.text)  # here
            def page(self, response):
                yield {"m": self.mode}
        """,
        "state on self: Q.mode",
    ),
    "a flag": (
        """
        class Q(scrapy.Spider):
            done = False
            def parse(self, response):
                if not self.done:
                    self.done = True  # here
                    yield scrapy.Request("once")
        """,
        "state on self: Q.done",
    ),
    "the spider's state dictionary": (
        """
        class Q(scrapy.Spider):
            def parse(self, response):
                self.state["n"] = self.state.get("n", 0) + 1  # here
                yield {"n": self.state["n"]}
        """,
        "state on self: Q.state",
    ),
    "numbers from a counter": (
        """
        class Q(scrapy.Spider):
            ids = itertools.count()
            def parse(self, response):
                yield {"id": next(self.ids)}  # here
        """,
        "state on self: Q.ids",
    ),
    "a middleware's token": (
        """
        class Mw:
            def process_response(self, request, response):
                self.token = response.headers["T"]  # here
                return response
            def process_request(self, request):
                request.headers["T"] = self.token
        """,
        "state on self: Mw.token",
    ),
}

HARMLESS = {
    "nothing": "class Q(scrapy.Spider):\n    def parse(self, response):\n        yield {}",
    "set in __init__": """
        class Q(scrapy.Spider):
            def __init__(self, site, **kw):
                super().__init__(**kw)
                self.site = site
                self.urls = []
                self.urls.append(site)
            def parse(self, response):
                yield {"s": self.site, "u": self.urls}
        """,
    "a counter that is logged at the end": """
        class Q(scrapy.Spider):
            count = 0
            def parse(self, response):
                self.count += 1
                yield {}
            def closed(self, reason):
                self.logger.info("%d pages", self.count)
        """,
    "a counter that is logged on the way": """
        class Q(scrapy.Spider):
            count = 0
            def parse(self, response):
                self.count += 1
                self.logger.info("page %d", self.count)
                if self.count % 100 == 0:
                    self.logger.info(f"{self.count} pages")
        """,
    "stats": """
        class Q(scrapy.Spider):
            def parse(self, response):
                self.crawler.stats.inc_value("pages")
                self.n = 1
                self.crawler.stats.set_value("n", self.n)
        """,
    "a file of a pipeline": """
        class Writer:
            def open_spider(self, spider):
                self.file = open("x.jsonl", "w")
            def process_item(self, item, spider):
                self.file.write(json.dumps(item))
                return item
            def close_spider(self, spider):
                self.file.close()
        """,
    "a connection of a pipeline": """
        class Db:
            def __init__(self, uri):
                self.uri = uri
            @classmethod
            def from_crawler(cls, crawler):
                return cls(crawler.settings["URI"])
            def open_spider(self, spider):
                self.client = MongoClient(self.uri)
                self.db = self.client["x"]
            def process_item(self, item, spider):
                self.db["items"].update_one({}, item)
                self.client.add(item)
                return item
        """,
    "a session with an add": """
        class Sql:
            def open_spider(self):
                self.session = Session()
            def process_item(self, item):
                self.session.add(item)
                self.session.commit()
                return item
        """,
    "a buffer of a pipeline": """
        class Batch:
            def open_spider(self, spider):
                self.rows = []
            def process_item(self, item, spider):
                self.rows.append(item)
                if len(self.rows) >= 100:
                    self.flush()
                return item
            def flush(self):
                insert_all(self.rows)
                self.rows = []
            def close_spider(self, spider):
                self.flush()
        """,
    "a note to itself": """
        class Q(scrapy.Spider):
            def parse(self, response):
                self.url = response.url
                yield {"u": self.url}
        """,
    "a note to a helper": """
        class Q(scrapy.Spider):
            def parse(self, response):
                self.page = response
                yield {"t": self._title()}
            def _title(self):
                return self.page.css("title").get()
        """,
    "set by a signal handler of the beginning": """
        class Q(scrapy.Spider):
            @classmethod
            def from_crawler(cls, crawler):
                spider = super().from_crawler(crawler)
                crawler.signals.connect(spider.begin, signal=signals.spider_opened)
                return spider
            def begin(self, spider):
                self.limit = 5
            def parse(self, response):
                yield {"l": self.limit}
        """,
    "loaded by what __init__ calls": """
        class Q(scrapy.Spider):
            def __init__(self):
                self._load()
            def _load(self):
                self.names = {}
                self.names["a"] = 1
            def parse(self, response):
                yield {"n": self.names["a"]}
        """,
    "only start's own": """
        class Q(scrapy.Spider):
            async def start(self):
                self.seen = set()
                for url in urls():
                    if self.is_new(url):
                        yield scrapy.Request(url)
            def is_new(self, url):
                if url in self.seen:
                    return False
                self.seen.add(url)
                return True
        """,
    "a module constant": """
        RATINGS = {"One": 1}
        URLS = []
        for i in range(3):
            URLS.append(i)
        class Q(scrapy.Spider):
            def parse(self, response):
                yield {"r": RATINGS["One"], "u": URLS}
        """,
    "a registry filled by decorators": """
        PARSERS = {}
        def parser(function):
            PARSERS[function.__name__] = function
            return function
        @parser
        def book(response):
            return {}
        class Q(scrapy.Spider):
            def parse(self, response):
                yield PARSERS["book"](response)
        """,
    "a local of the same name": """
        seen = set()
        class Q(scrapy.Spider):
            def parse(self, response):
                seen = set()
                for each in response.css("a"):
                    if each not in seen:
                        seen.add(each)
        """,
    "an object of one callback": """
        class Rows:
            def __init__(self):
                self.rows = []
            def add(self, row):
                self.rows.append(row)
            def first(self):
                return self.rows[0]
        class Q(scrapy.Spider):
            def parse(self, response):
                rows = Rows()
                rows.add(response.text)
                yield {"r": rows.first()}
        """,
    "an item's fields": """
        class Pipe:
            def process_item(self, item, spider):
                item["n"] = item["n"] + 1
                item.tags.append("x")
                return item
        """,
    "a filter that lets all pass": """
        class NoFilter(BaseDupeFilter):
            def request_seen(self, request):
                return False
        """,
    "request meta": """
        class Q(scrapy.Spider):
            def parse(self, response):
                response.meta["n"] += 1
                response.request.meta.update(a=1)
                yield response.follow("x", meta=response.meta)
        """,
    "only written": """
        class Q(scrapy.Spider):
            def parse(self, response):
                self.last_url = response.url
                self.pages = getattr(self, "other", 0)
        """,
    "patterns and link extractors": """
        class Q(scrapy.Spider):
            links = LinkExtractor()
            def parse(self, response):
                for link in self.links.extract_links(response):
                    yield scrapy.Request(link.url)
        """,
}


def found(source: str) -> str:
    return shared_state([Source("Cell In[3]", 1, ast.parse(textwrap.dedent(source)))])


@pytest.mark.parametrize("name", SPIDERS)
def test_shared_state_is_named_with_its_line(name: str) -> None:
    source, what = SPIDERS[name]
    lines = textwrap.dedent(source).split("\n")
    line = next(number for number, text in enumerate(lines, 1) if text.endswith("# here"))
    assert found(source) == f"{what}, Cell In[3] line {line}"


@pytest.mark.parametrize("name", HARMLESS)
def test_state_of_each_process_is_let_be(name: str) -> None:
    assert found(HARMLESS[name]) == ""


def test_the_project_s_own_test_spiders_run_on_any_number_of_workers() -> None:
    from pathlib import Path

    for path in (Path(__file__).parents[1] / "spiders").glob("*.py"):
        source = Source(path.name, 1, ast.parse(path.read_text()))
        assert shared_state([source]) == ""


def test_state_is_found_across_cells_and_modules() -> None:
    first = Source("Cell In[1]", 3, ast.parse("SEEN = set()"))
    second = Source(
        "helpers.py",
        1,
        ast.parse("def is_new(u):\n    new = u not in SEEN\n    SEEN.add(u)\n    return new"),
    )
    assert shared_state([first, second]) == "module global SEEN, helpers.py line 3"
