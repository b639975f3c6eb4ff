"""A small Scrapy project, written where a test wants it."""

from pathlib import Path

FILES = {
    "scrapy.cfg": "[settings]\ndefault = shop.settings\n",
    "shop/__init__.py": "",
    "shop/settings.py": (
        'BOT_NAME = "shop"\n'
        'SPIDER_MODULES = ["shop.spiders"]\n'
        'ITEM_PIPELINES = {"shop.pipelines.Loud": 300}\n'
        'FEEDS = {"out/%(name)s.csv": {"format": "csv", "overwrite": True}}\n'
        'FEED_EXPORT_ENCODING = "utf-8"\n'
    ),
    "shop/items.py": (
        "import scrapy\n"
        "class Book(scrapy.Item):\n"
        "    title = scrapy.Field()\n"
        '    price = scrapy.Field(serializer=lambda value: f"GBP {value}")\n'
        "    never_set = scrapy.Field()\n"
    ),
    "shop/pipelines.py": (
        "from pathlib import Path\n"
        "from words.loud import loud\n"
        'SIGN = (Path(__file__).parent / "data" / "sign.txt").read_text().strip()\n'
        "class Loud:\n"
        "    def process_item(self, item):\n"
        '        item["title"] = loud(item["title"]) + SIGN\n'
        "        return item\n"
    ),
    "shop/data/sign.txt": "!\n",
    "words/__init__.py": "",
    "words/loud.py": "def loud(text):\n    return text.upper()\n",
    "shop/spiders/__init__.py": "",
    "shop/spiders/books.py": (
        "import scrapy\n"
        "from shop.items import Book\n"
        "class BooksSpider(scrapy.Spider):\n"
        '    name = "books"\n'
        '    custom_settings = {"CLOSESPIDER_ITEMCOUNT": 1000}\n'
        "    async def start(self):\n"
        '        yield scrapy.Request(f"{self.site}/catalogue?page=1")\n'
        "    def parse(self, response):\n"
        '        yield from response.follow_all(css="h3 a", callback=self.book)\n'
        '        yield from response.follow_all(css="li.next a")\n'
        "    def book(self, response):\n"
        '        price = response.css("p.price_color::text").get()[1:]\n'
        '        yield Book(title=response.css("h1::text").get(), price=price)\n'
    ),
    "shop/spiders/quotes.py": (
        'import scrapy\nclass QuotesSpider(scrapy.Spider):\n    name = "quotes"\n'
    ),
}


def write_project(folder: Path) -> Path:
    """The project's root."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
