"""Notebooks whose spiders must run anywhere: cells, class of the spider, items expected."""

# ruff: noqa: E501 - a cell in one line of text is easier to compare with its neighbours

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Snippet:
    name: str
    cells: tuple[str, ...]
    items: list[dict[str, Any]]
    files: dict[str, str] = field(default_factory=dict)
    spider: str = "Q"
    fails: str = ""  # place of its one failure


def q(value: str, body: str = "", bases: str = "scrapy.Spider", head: str = "") -> str:
    """A cell with a spider that yields one item with a value."""
    lines = [f"    {line}" for line in body.splitlines()]
    return "\n".join(
        [
            *([head] if head else []),
            f"class Q({bases}):",
            '    name = "q"',
            '    start_urls = ["data:,hello"]',
            *lines,
            "    def parse(self, response):",
            f'        yield {{"v": {value}}}',
        ]
    )


def one(name: str, value: Any, *cells: str, **files: str) -> Snippet:
    """A snippet of one item; files are named with `__` for `/` and without their `.py`."""
    named = {
        f"{key.replace('__', '/')}" + ("" if "." in key else ".py"): text
        for key, text in files.items()
    }
    return Snippet(name, cells, [{"v": value}], named)


S = "import scrapy"
IMPORTS = [
    one("plain", "hello", S, q("response.text")),
    one("all in one cell", "hello", f"{S}\n{q('response.text')}"),
    one("aliased import", "4", S, "import json as j", q("j.dumps(4)")),
    one("from import", "a-b", S, "from re import sub as replace", q("replace(':', '-', 'a:b')")),
    one("dotted imports", "bx", f"{S}\nimport os.path\nimport os", q("os.path.basename('a/bx')")),
    one(
        "two submodules of one package",
        ["<a/>", "y"],
        f"{S}\nimport xml.etree.ElementTree\nimport xml.sax.saxutils",
        q(
            "[xml.etree.ElementTree.tostring(xml.etree.ElementTree.Element('a')).decode()"
            ".replace(' ', ''), xml.sax.saxutils.escape('y')]"
        ),
    ),
    one("star import", 3.0, S, "from math import *", q("sqrt(9)")),
    one(
        "import in the function",
        "YQ==",
        S,
        q(
            "self.b()",
            "def b(self):\n    import base64\n    return base64.b64encode(b'a').decode()",
        ),
    ),
    one(
        "import that fails at first",
        "[1]",
        S,
        "try:\n    import no_such_json as json\nexcept ImportError:\n    import json",
        q("json.dumps([1])"),
    ),
    one(
        "import beside one that workers lack",
        "1",
        S,
        "import sys\nsys.modules['only_here'] = sys\nimport json, only_here",
        q("json.dumps(1)"),
    ),
    one("import under a condition", "2", S, "if True:\n    import json", q("json.dumps(2)")),
    one(
        "future annotations of an earlier cell",
        "none",
        f"from __future__ import annotations\n{S}",
        "class Later: ...",
        q("self.f(1)", "def f(self, x: NotThere | None) -> Never:\n    return 'none'"),
    ),
    one(
        "imports for types only",
        1,
        f"from __future__ import annotations\n{S}\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nowhere import Thing",
        q("self.f(1)", "def f(self, x: Thing):\n    return x"),
    ),
]
NAMES = [
    one(
        "helper of another cell",
        "HELLO",
        S,
        "def up(t):\n    return t.upper()",
        q("up(response.text)"),
    ),
    one(
        "helper of a helper",
        6,
        S,
        "def a(x):\n    return b(x) * 2",
        "def b(x):\n    return x + 2",
        q("a(1)"),
    ),
    one(
        "recursive helper", 120, S, "def f(n):\n    return 1 if n < 2 else n * f(n - 1)", q("f(5)")
    ),
    one("constant", 7, S, "N = 7", q("N")),
    one("constant of now", 9, S, "N = 7", q("N"), "N = 9"),
    one(
        "constant that grew",
        [1, 2, 3],
        S,
        "L = []",
        "for i in range(1, 4):\n    L.append(i)",
        q("L"),
    ),
    one("counter", 3, S, "n = 1", "n += 2", q("n")),
    one("unpacked names", [1, 2], S, "a, (b, *c) = 1, (2, 3)", q("[a, b]")),
    one("walrus", 5, S, "(n := 5)", q("n")),
    one("annotated constant", 5, S, "n: int = 5", q("n")),
    one("lambda", 8, S, "double = lambda x: 2 * x", q("double(4)")),
    one(
        "partial",
        8,
        S,
        "from functools import partial\ndef add(a, b):\n    return a + b\nadd3 = partial(add, 3)",
        q("add3(5)"),
    ),
    one(
        "compiled pattern",
        ["1", "2"],
        S,
        "import re\nPART = r'\\d'\nNUM = re.compile(PART)",
        q("NUM.findall('a1b2')"),
    ),
    one(
        "pattern from a name that changed",
        ["1"],
        S,
        "import re\nPART = r'\\d'\nNUM = re.compile(PART)\nPART = 'x'",
        q("NUM.findall('1x')"),
    ),
    one("logger", "mine", S, "import logging\nlog = logging.getLogger('mine')", q("log.name")),
    one(
        "logger of the module",
        "__main__",
        S,
        "import logging\nlog = logging.getLogger(__name__)",
        q("log.name"),
    ),
    one("time zone", "UTC", S, "from zoneinfo import ZoneInfo\nTZ = ZoneInfo('UTC')", q("str(TZ)")),
    one("path", "a/b", S, "from pathlib import Path\nP = Path('a') / 'b'", q("P.as_posix()")),
    one(
        "decorated helper",
        4,
        S,
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(x):\n        return f(f(x))\n    return g",
        "@twice\ndef inc(x):\n    return x + 1",
        q("inc(2)"),
    ),
    one(
        "cached helper",
        2,
        S,
        "from functools import lru_cache\n@lru_cache\ndef f(x):\n    return x + 1",
        q("f(1)"),
    ),
    one("default argument", 3, S, "N = 3", "def f(x=N):\n    return x", q("f()"), "N = 4"),
    one(
        "default argument from what stays here",
        2,
        S,
        "g = (i for i in range(2))\nL = list(g)",
        "def f(x=len(L)):\n    return x",
        q("f()"),
    ),
    one(
        "registry filled by a decorator",
        2,
        S,
        "R = {}\ndef reg(f):\n    R[f.__name__] = f\n    return f",
        "@reg\ndef one():\n    return 1\n@reg\ndef two():\n    return 2",
        q("R['two']()"),
    ),
    one("list that was appended to", 5, S, "fs = [abs]\nfs.append(len)", q("fs[1]('hello')")),
    one(
        "cell run twice",
        "new",
        S,
        "def f():\n    return 'old'",
        "def f():\n    return 'new'",
        q("f()"),
    ),
    one(
        "older definition is current",
        "old",
        S,
        "def f():\n    return 'old'\nkeep = f",
        "def f():\n    return 'new'",
        "f = keep",
        q("f()"),
    ),
    one(
        "dates and decimals",
        ["2024-01-02", "1.50"],
        S,
        "import datetime, decimal\nD = datetime.date(2024, 1, 2)\nM = [decimal.Decimal('1.50')]",
        q("[str(D), str(M[0])]"),
    ),
    one(
        "sets and odd floats",
        [2, True],
        S,
        "A = {1, 2}\nI = float('inf')",
        q("[len(A), I > 1e300]"),
    ),
    one("text with every sign", "é\n'\"\\ ☃", S, "T = 'é\\n\\'\"\\\\ ☃'", q("T")),
    one(
        "match statement",
        "one",
        S,
        "match 1:\n    case 1:\n        WORD = 'one'\n    case _:\n        WORD = 'many'",
        q("WORD"),
    ),
    one(
        "with statement",
        3,
        S,
        "import contextlib\nwith contextlib.nullcontext(3) as N:\n    pass",
        q("N"),
    ),
    one(
        "comprehension over helpers",
        [2, 4],
        S,
        "def d(x):\n    return 2 * x\nL = [d(x) for x in (1, 2)]",
        q("L"),
    ),
    one("two statements on a line", 3, S, "a = 1; b = 2", q("a + b")),
    one(
        "helper with a nested class",
        4,
        S,
        "def f():\n    class A:\n        x = 4\n    return A.x",
        q("f()"),
    ),
    one(
        "module global written by a function",
        5,
        S,
        "def setup():\n    global LIMIT\n    LIMIT = 5\nsetup()",
        q("LIMIT"),
    ),
]
CLASSES = [
    one(
        "urls assigned after the cell",
        "data:,x",
        S,
        q("response.url"),
        "Q.start_urls = ['data:,x']",
    ),
    one(
        "urls of a table that stays here",
        "hello",
        S,
        "class Table:\n    def __init__(self):\n        self.url = iter(['data:,hello'])\ndf = (Table() for _ in 'a')\ntable = next(df)",
        q("response.text").replace('["data:,hello"]', "list(table.url)"),
    ),
    one(
        "function assigned later",
        "late",
        S,
        q("1"),
        "def p(self, response):\n    yield {'v': 'late'}",
        "Q.parse = p",
    ),
    one("lambda assigned later", 11, S, q("self.g()"), "Q.g = lambda self: 11"),
    one("attribute assigned later", 12, S, q("self.extra"), "Q.extra = 12"),
    one("setattr", 13, S, q("self.extra"), "setattr(Q, 'extra', 13)"),
    one(
        "settings changed later",
        14,
        S,
        "X = 14",
        q("self.settings.getint('MINE')", "custom_settings = {'MINE': 1}"),
        "Q.custom_settings['MINE'] = X",
    ),
    one(
        "base spider",
        "base",
        S,
        "class Base(scrapy.Spider):\n    def word(self):\n        return 'base'",
        q("self.word()", bases="Base"),
    ),
    one(
        "super",
        3,
        S,
        "class Base(scrapy.Spider):\n    def n(self):\n        return 1",
        "class Mid(Base):\n    def n(self):\n        return super().n() + 1",
        q("self.n()", "def n(self):\n    return super(Q, self).n() + 1", bases="Mid"),
    ),
    one(
        "mixin",
        "m",
        S,
        "class Mixin:\n    word = 'm'",
        q("self.word", bases="Mixin, scrapy.Spider"),
    ),
    one("class run twice", 2, S, q("1"), q("2")),
    one(
        "base redefined",
        2,
        S,
        "class B(scrapy.Spider):\n    n = 1",
        "class B(scrapy.Spider):\n    n = 2",
        q("self.n", bases="B"),
    ),
    one(
        "class made by a function",
        5,
        S,
        "def make(n):\n    class Made(scrapy.Spider):\n        name = 'q'\n        start_urls = ['data:,hello']\n        def parse(self, response):\n            yield {'v': n}\n    return Made\nQ = make(5)",
    ),
    one(
        "decorated class",
        6,
        S,
        "def tag(k):\n    k.tag = 6\n    return k",
        q("self.tag", head="@tag"),
    ),
    one("nested class", 7, S, q("self.Meta.n", "class Meta:\n    n = 7")),
    one(
        "class attribute from another",
        "data:,ab",
        S,
        "class Q(scrapy.Spider):\n    name = 'q'\n    base = 'data:,'\n    start_urls = [base + 'ab']\n    def parse(self, response):\n        yield {'v': response.url}",
    ),
    one(
        "property and class methods",
        [1, 2, 3],
        S,
        q(
            "[self.a, self.b(), self.c()]",
            "@property\ndef a(self):\n    return 1\n@classmethod\ndef b(cls):\n    return 2\n@staticmethod\ndef c():\n    return 3",
        ),
    ),
    one(
        "annotated methods",
        3,
        S,
        "from typing import Any",
        "class Thing: ...",
        q("self.f(3)", "def f(self, x: 'Any') -> 'Thing':\n    return x"),
    ),
    one(
        "start method",
        "s",
        S,
        "class Q(scrapy.Spider):\n    name = 'q'\n    async def start(self):\n        yield scrapy.Request('data:,s', cb_kwargs={'k': 1})\n    async def parse(self, response, k):\n        yield {'v': response.text}",
    ),
    one(
        "callback with a return value",
        "r",
        S,
        "class Q(scrapy.Spider):\n    name = 'q'\n    start_urls = ['data:,r']\n    def parse(self, response):\n        if not response.text:\n            return None\n        return [{'v': response.text}]",
    ),
    one(
        "generator callback that is looked at",
        "g",
        S,
        "class Q(scrapy.Spider):\n    name = 'q'\n    start_urls = ['data:,g']\n    def parse(self, response):\n        if not response.text:\n            return\n        yield {'v': response.text}",
    ),
    one(
        "type parameters of old",
        1,
        S,
        "from typing import Generic, TypeVar\nT = TypeVar('T')\nclass Box(Generic[T]):\n    def __init__(self, x: T):\n        self.x = x",
        q("Box[int](1).x"),
    ),
    one(
        "abstract base",
        4,
        S,
        "import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def n(self): ...\nclass B(A):\n    def n(self):\n        return 4",
        q("B().n()"),
    ),
    one(
        "metaclass",
        "M",
        S,
        "class Meta(type):\n    def word(cls):\n        return 'M'\nclass A(metaclass=Meta): ...",
        q("A.word()"),
    ),
    one(
        "exception of one's own",
        "caught",
        S,
        "class Oops(Exception): ...\ndef f():\n    raise Oops('caught')",
        q(
            "self.g()",
            "def g(self):\n    try:\n        f()\n    except Oops as exc:\n        return str(exc)",
        ),
    ),
]
ITEM_CELLS = [
    one(
        "scrapy item",
        1,
        S,
        "class It(scrapy.Item):\n    v = scrapy.Field()",
        q("1").replace('{"v": 1}', "It(v=1)"),
    ),
    one(
        "scrapy item from a base",
        1,
        S,
        "class Base(scrapy.Item):\n    v = scrapy.Field()\nclass It(Base): ...",
        q("1").replace('{"v": 1}', "It(v=1)"),
    ),
    one(
        "dataclass",
        2,
        S,
        "from dataclasses import dataclass, field\n@dataclass\nclass It:\n    v: int = 2",
        q("1").replace('{"v": 1}', "It()"),
    ),
    one(
        "dataclass with a default from a name",
        [3],
        S,
        "from dataclasses import dataclass, field\nN = 3\n@dataclass\nclass It:\n    v: list = field(default_factory=lambda: [N])",
        q("1").replace('{"v": 1}', "It()"),
    ),
    one(
        "attrs",
        4,
        S,
        "import attr\n@attr.s\nclass It:\n    v = attr.ib(default=4)",
        q("1").replace('{"v": 1}', "It()"),
    ),
    one(
        "attrs, new style",
        4,
        S,
        "from attrs import define, field\n@define\nclass It:\n    v: int = field(default=4)",
        q("1").replace('{"v": 1}', "It()"),
    ),
    one(
        "typed dict",
        5,
        S,
        "from typing import TypedDict\nclass It(TypedDict):\n    v: int",
        q("1").replace('{"v": 1}', "It(v=5)"),
    ),
    one(
        "named tuple",
        6,
        S,
        "from collections import namedtuple\nP = namedtuple('P', 'x y')",
        q("P(6, 7).x"),
    ),
    one(
        "typing's named tuple",
        7,
        S,
        "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int = 7",
        q("P().x"),
    ),
    one(
        "enum",
        "red",
        S,
        "import enum\nclass Colour(enum.Enum):\n    RED = 'red'",
        q("Colour.RED.value"),
    ),
    one("enum made by a call", 2, S, "from enum import Enum\nC = Enum('C', 'A B')", q("C.B.value")),
    one(
        "int enum and members by name",
        1,
        S,
        "from enum import IntEnum\nclass L(IntEnum):\n    LOW = 1\nLOW = L.LOW",
        q("int(LOW)"),
    ),
    one(
        "item loader",
        "HI",
        f"{S}\nfrom scrapy.loader import ItemLoader\nfrom itemloaders.processors import MapCompose, TakeFirst",
        "class It(scrapy.Item):\n    v = scrapy.Field()\ndef up(t):\n    return t.upper()\nclass L(ItemLoader):\n    default_item_class = It\n    v_in = MapCompose(up)\n    v_out = TakeFirst()",
        q("1")
        .replace('{"v": 1}', "self.load()")
        .replace(
            "    def parse",
            "    def load(self):\n        l = L()\n        l.add_value('v', 'hi')\n        return l.load_item()\n    def parse",
        ),
    ),
    one(
        "field with a processor",
        "x",
        f"{S}\nfrom itemloaders.processors import TakeFirst\nfrom scrapy.loader import ItemLoader",
        "first = TakeFirst()\nclass It(scrapy.Item):\n    v = scrapy.Field(output_processor=first)",
        q("1")
        .replace('{"v": 1}', "self.load()")
        .replace(
            "    def parse",
            "    def load(self):\n        l = ItemLoader(It())\n        l.add_value('v', ['x', 'y'])\n        return l.load_item()\n    def parse",
        ),
    ),
]
PIPE = "class Pipe:\n    def process_item(self, item, *_):\n        item['v'] = WORD\n        return item"
COMPONENTS = [
    one(
        "pipeline as a class",
        "piped",
        S,
        "WORD = 'piped'",
        PIPE,
        q("1", "custom_settings = {'ITEM_PIPELINES': {Pipe: 300}}"),
    ),
    one(
        "pipeline by name",
        "piped",
        S,
        "WORD = 'piped'",
        PIPE,
        q("1", "custom_settings = {'ITEM_PIPELINES': {'__main__.Pipe': 300}}"),
    ),
    one(
        "pipeline by a name that is made",
        "piped",
        S,
        "WORD = 'piped'",
        PIPE,
        "SET = {'ITEM_PIPELINES': {__name__ + '.Pipe': 300}}",
        q("1", "custom_settings = SET"),
    ),
    one(
        "downloader middleware",
        "changed",
        S,
        "class Mw:\n    def process_response(self, request, response, **_):\n        return response.replace(body=b'changed')",
        q("response.text", "custom_settings = {'DOWNLOADER_MIDDLEWARES': {Mw: 543}}"),
    ),
    one(
        "spider middleware",
        "seen",
        S,
        "class Mw:\n    async def process_spider_output(self, response, result, *_, **__):\n        async for each in result:\n            each['v'] = 'seen'\n            yield each",
        q("1", "custom_settings = {'SPIDER_MIDDLEWARES': {Mw: 543}}"),
    ),
    one(
        "settings of a class method",
        "piped",
        S,
        "WORD = 'piped'",
        PIPE,
        q(
            "1",
            "@classmethod\ndef update_settings(cls, settings):\n    super().update_settings(settings)\n    settings.set('ITEM_PIPELINES', {Pipe: 1})",
        ),
    ),
    one(
        "request class",
        "mine",
        S,
        "class Mine(scrapy.Request):\n    kind = 'mine'",
        "class Q(scrapy.Spider):\n    name = 'q'\n    async def start(self):\n        yield Mine('data:,a')\n    def parse(self, response):\n        yield {'v': response.request.kind}",
    ),
    one(
        "object of an own class in meta",
        3,
        S,
        "class Box:\n    def __init__(self, n):\n        self.n = n",
        "class Q(scrapy.Spider):\n    name = 'q'\n    async def start(self):\n        yield scrapy.Request('data:,a', meta={'box': Box(3)})\n    def parse(self, response):\n        yield {'v': response.meta['box'].n}",
    ),
]
RULES = [
    Snippet(
        "crawl spider",
        (
            f"{S}\nfrom scrapy.spiders import CrawlSpider, Rule\nfrom scrapy.linkextractors import LinkExtractor",
            "links = LinkExtractor(allow=r'/book/1$')\nRULES = [Rule(links, callback='parse_book')]",
            "class Q(CrawlSpider):\n    name = 'q'\n    rules = RULES\n    async def start(self):\n        yield scrapy.Request(f'{self.site}/catalogue?page=1')\n    def parse_book(self, response):\n        yield {'v': bool(response.css('h1::text').get())}",
        ),
        [{"v": True}],
    ),
    Snippet(
        "rules of a function",
        (
            f"{S}\nfrom scrapy.spiders import CrawlSpider, Rule\nfrom scrapy.linkextractors import LinkExtractor",
            "def less(links):\n    return links[:1]",
            "class Q(CrawlSpider):\n    name = 'q'\n    rules = (Rule(LinkExtractor(restrict_css='article h3'), callback='one', process_links=less),)\n    async def start(self):\n        yield scrapy.Request(f'{self.site}/catalogue?page=1')\n    def one(self, response):\n        yield {'v': 1}",
        ),
        [{"v": 1}],
    ),
]
FILES = [
    one(
        "module beside the notebook",
        3,
        S,
        "import mine_a",
        q("mine_a.f()"),
        mine_a="def f():\n    return 3\n",
    ),
    one(
        "module that imports another",
        4,
        S,
        "from mine_b import f",
        q("f()"),
        mine_b="import mine_c\ndef f():\n    return mine_c.N\n",
        mine_c="N = 4\n",
    ),
    one(
        "package with relative imports",
        5,
        S,
        "from mine_p.sub import f",
        q("f()"),
        mine_p____init__="",
        mine_p__sub="from .deep import N\nfrom . import other\ndef f():\n    return N + other.N\n",
        mine_p__deep="N = 2\n",
        mine_p__other="N = 3\n",
    ),
    one(
        "import of a module in a function",
        6,
        S,
        q("self.f()", "def f(self):\n    from mine_d import N\n    return N"),
        mine_d="N = 6\n",
    ),
    one(
        "pipeline in a module",
        "mod",
        S,
        q("1", "custom_settings = {'ITEM_PIPELINES': {'mine_e.Pipe': 1}}"),
        mine_e="class Pipe:\n    def process_item(self, item, *_):\n        item['v'] = 'mod'\n        return item\n",
    ),
    one("star import of a module", 7, S, "from mine_f import *", q("N"), mine_f="N = 7\n"),
    one("file that is read", "a,b", S, q("open('rows.csv').read()"), **{"rows.csv": "a,b"}),
    one(
        "file in a folder",
        "deep",
        S,
        "from pathlib import Path\nDATA = Path('data') / 'x.txt'",
        q("DATA.read_text()"),
        **{"data__x.txt": "deep"},
    ),
    one(
        "file that a module reads",
        "word",
        S,
        "import mine_g",
        q("mine_g.read()"),
        mine_g="from pathlib import Path\ndef read():\n    return (Path(__file__).parent / 'word.txt').read_text()\n",
        **{"word.txt": "word"},
    ),
    one(
        "urls from a file",
        "hello",
        S,
        "urls = [l.strip() for l in open('urls.txt')]",
        q("response.text").replace('["data:,hello"]', "urls"),
        **{"urls.txt": "data:,hello\n"},
    ),
]
# These run in IPython's own shell.
SHELL = [
    one("shell: magics around it", 3, f"%precision 3\n{S}\n!true", "N = 3\n%who", q("N")),
    one(
        "shell: await at the top",
        4,
        f"{S}, asyncio",
        "N = await asyncio.sleep(0, 4)",
        "async def half():\n    return N / 2\nh = await half()",
        q("int(h * 2)"),
    ),
    one("shell: last output", 5, S, "2 + 3", "N = _", q("N")),
    one("shell: display", 6, S, q("self.f()", "def f(self):\n    display(1)\n    return 6")),
    one(
        "shell: future annotations stay in force",
        7,
        "from __future__ import annotations",
        S,
        "def f(x: NotThere) -> NorThis:\n    return x",
        q("f(7)"),
    ),
    one(
        "shell: a cell run twice",
        2,
        S,
        "def f():\n    return 1",
        "def f():\n    return 2",
        q("f()"),
    ),
]
FAILING = [
    Snippet(
        "failure in a cell",
        (S, "x = 1\n\ndef f():\n    return 1 / 0", q("f()")),
        [],
        fails="Cell In[2], line 4, in f",
    ),
    Snippet(
        "failure in a module",
        (S, "import mine_z", q("mine_z.f()")),
        [],
        {"mine_z.py": "def f():\n    return 1 / 0\n"},
        fails="mine_z.py, line 2, in f",
    ),
]
SNIPPETS = [*FAILING, *IMPORTS, *NAMES, *CLASSES, *ITEM_CELLS, *COMPONENTS, *RULES, *FILES]
