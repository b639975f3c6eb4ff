"""Examples that are an item, a loader of items or a feed of them, with a spider around each."""

from tests.others.example import Example
from tests.others.parts import part

_LOADERS, _MEDIA, _PIPELINES = "topics/loaders", "topics/media-pipeline", "topics/item-pipeline"
_LOADED = '(lambda x: x.add_value("{1}", "{2}") and None or x.load_item())({0}(item={{}}))'


def _feed(
    name: str, document: str, pattern: str, feed: str, settings: str, **fields: str
) -> Example:
    return part(
        name, document, pattern, settings, feed=feed, in_cells=False, as_file=True, **fields
    )


ITEMS = (
    *(
        part(f"item as {name}", "topics/items", pattern, item=f"{kind}(**{fields})")
        for name, pattern, kind, fields in (
            (
                "Item",
                r"class CustomItem\(Item\)",
                "CustomItem",
                "{'one_field': 'a', 'another_field': number}",
            ),
            (
                "dataclass",
                r"@dataclass\nclass CustomItem",
                "CustomItem",
                "{'one_field': 'a', 'another_field': number}",
            ),
            (
                "attrs",
                r"@attr\.s\nclass CustomItem",
                "CustomItem",
                "{'one_field': 'a', 'another_field': number}",
            ),
            (
                "Item with a serializer",
                r"stock = scrapy\.Field",
                "Product",
                "{'name': 'a', 'last_updated': '1'}",
            ),
        )
    ),
    part(
        "item that extends",
        "topics/items",
        "class DiscountedProduct",
        item='DiscountedProduct(name="a", discount_percent="5")',
        head="\n\nclass Product(scrapy.Item):\n    name = scrapy.Field()\n",
    ),
    part(
        "item that changes a field",
        "topics/items",
        "class SpecificProduct",
        item='SpecificProduct(name="a")',
        head="\n\ndef my_serializer(value):\n    return value\n\n\n"
        "class Product(scrapy.Item):\n    name = scrapy.Field()\n",
    ),
    part(
        "item of a pipeline", _PIPELINES, r"\A(?s:.*)class BookItem", item='BookItem("a", number)'
    ),
    part("item of feeds", "topics/spiders", r"@dataclass\nclass TestItem", item="TestItem(number)"),
    part("item of files", _MEDIA, "class MyItem", item='MyItem(["a"], [{"number": number}])'),
    part(
        "item of a loader",
        _LOADERS,
        "class InventoryItem",
        item='InventoryItem(name="a", stock=number)',
    ),
    part(
        "loader",
        _LOADERS,
        r"default_output_processor = TakeFirst\(\)\n\n    name_in",
        item='(lambda x: (x.add_value("name", ["a b", "c"]), x.add_value("price", " 1 ")) and '
        "x.load_item())(ProductLoader(item={}))",
        as_file=True,
    ),
    part(
        "loader of fields",
        _LOADERS,
        "def filter_price",
        item='(lambda x: (x.add_value("name", "<b>a</b>"), x.add_value("price", ["&", "1"])) '
        "and x.load_item())(ItemLoader(item=Product()))",
        head="from scrapy.loader import ItemLoader",
    ),
    *(
        part(
            name,
            _LOADERS,
            pattern,
            item=_LOADED.format(kind, "name", "-a-"),
        )
        for name, pattern, kind in (
            ("loader of a site", "class SiteSpecificLoader", "SiteSpecificLoader"),
            ("loader of XML", "class XmlProductLoader", "XmlProductLoader"),
        )
    ),
    part(
        "loader with a unit",
        _LOADERS,
        "length_out = MapCompose",
        item=_LOADED.format("ProductLoader", "length", "5"),
        head="from itemloaders.processors import MapCompose\nfrom scrapy.loader import ItemLoader\n"
        '\n\ndef parse_length(text, unit="m"):\n    return text + unit\n',
    ),
)
FEEDS = (
    _feed(
        "feed with a serializer",
        "topics/exporters",
        r"class Product:\n",
        "served.jsonl",
        '{"FEEDS": {"served.jsonl": {"format": "jsonlines", "overwrite": True}}}',
        item='Product("a", number)',
    ),
    _feed(
        "feed of an exporter",
        "topics/exporters",
        "class ProductXmlExporter",
        "product.xml",
        '{"FEED_EXPORTERS": {"product": ProductXmlExporter}, '
        '"FEEDS": {"product.xml": {"format": "product", "overwrite": True}}}',
        item='{"price": number}',
    ),
    _feed(
        "feed of text",
        "topics/exporters",
        "class TextItemExporter",
        "items.text",
        '{"FEED_EXPORTERS": {"text": TextItemExporter}, '
        '"FEEDS": {"items.text": {"format": "text", "overwrite": True}}}',
        item='{"price": number}',
    ),
    _feed(
        "feed with a filter",
        "topics/feed-exports",
        "class MyCustomFilter",
        "some.jsonl",
        '{"FEEDS": {"some.jsonl": {"format": "jsonlines", "overwrite": True, '
        '"item_filter": MyCustomFilter}}}',
        item='{"number": number, "field1": "expected_data" if number % 2 else "another"}',
    ),
    _feed(
        "feed with a name of its own",
        "topics/feed-exports",
        r"def uri_params\(params, spider\)",
        "of-frame.jsonl",
        '{"FEED_URI_PARAMS": uri_params, '
        '"FEEDS": {"of-%(spider_name)s.jsonl": {"format": "jsonlines", "overwrite": True}}}',
    ),
)
