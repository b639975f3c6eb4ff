"""Feeds: formats, options and exporters; written where the user is."""

import scrapy
from itemadapter import ItemAdapter
from scrapy.exporters import BaseItemExporter


class Row(scrapy.Item):
    n = scrapy.Field()
    name = scrapy.Field(serializer=str.upper)
    tags = scrapy.Field()


class Lines(BaseItemExporter):
    """An exporter of one's own."""

    def __init__(self, file, **kwargs):
        super().__init__(dont_fail=True, **kwargs)
        self.file = file

    def start_exporting(self):
        self.file.write(b"begin\n")

    def export_item(self, item):
        self.file.write(f"{ItemAdapter(item).asdict()}\n".encode())

    def finish_exporting(self):
        self.file.write(b"end\n")


class OnlyEven:
    """An item filter."""

    def __init__(self, feed_options):
        self.options = feed_options

    def accepts(self, item):
        return item["n"] % 2 == 0


def shout(params, spider):
    return {**params, "loud": spider.name.upper()}


class Rows(scrapy.Spider):
    """No feature: twenty rows."""

    async def start(self):
        for n in range(20):
            yield scrapy.Request(f"{self.site}/page/{n}", cb_kwargs={"n": n})

    def parse(self, response, n):
        yield Row(n=n, name=f"näme {n}", tags=["a", "b"])


class FormatsSpider(Rows):
    """FEEDS in JSON, JSON lines, CSV, XML, pickle and marshal, with indent, encoding, fields."""

    name = "formats"
    custom_settings = {
        "FEEDS": {
            "f-all.json": {"format": "json", "indent": 2, "encoding": "utf-8"},
            "f-all.jl": {"format": "jsonlines"},
            "f-all.pickle": {"format": "pickle"},
            "f-all.marshal": {"format": "marshal"},
            "f-some.csv": {"format": "csv", "fields": {"name": "Name", "n": "Number"}},
            "f-all.csv": {"format": "csv", "item_export_kwargs": {"join_multivalued": "|"}},
            "f-all.xml": {"format": "xml", "item_export_kwargs": {"item_element": "row"}},
        }
    }


class FeedOptionsSpider(Rows):
    """FEEDS options: item_classes, item_filter, overwrite, store_empty, batches, URI parameters."""

    name = "feed_options"
    custom_settings = {
        "FEEDS": {
            "o-even.jl": {"format": "jsonlines", "item_filter": OnlyEven},
            "o-rows.jl": {"format": "jsonlines", "item_classes": [Row], "overwrite": True},
            "o-none.jl": {"format": "jsonlines", "item_classes": [dict], "store_empty": False},
            "o-%(loud)s.jl": {"format": "jsonlines", "uri_params": shout},
            "o-%(name)s-%(word)s.csv": {"format": "csv"},
        }
    }


class OwnExporterSpider(Rows):
    """FEED_EXPORTERS of one's own, and FEED_EXPORT_FIELDS."""

    name = "own_exporter"
    custom_settings = {
        "FEED_EXPORTERS": {"lines": Lines},
        "FEED_EXPORT_FIELDS": ["name", "n"],
        "FEEDS": {"e-own.txt": {"format": "lines"}, "e-own.csv": {"format": "csv"}},
    }


class PostProcessedSpider(Rows):
    """Post-processing: gzip."""

    name = "gzip_feed"
    custom_settings = {
        "FEEDS": {
            "g-all.jl.gz": {
                "format": "jsonlines",
                "postprocessing": ["scrapy.extensions.postprocessing.GzipPlugin"],
            }
        }
    }
