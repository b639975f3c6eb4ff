"""Files and images that pipelines download."""

import scrapy
from scrapy.pipelines.files import FilesPipeline
from scrapy.pipelines.images import ImagesPipeline


class ByName(FilesPipeline):
    def file_path(self, request, response=None, info=None, *, item=None):
        return f"{item['kind']}/{request.url.rpartition('/')[2]}"


class Gallery(scrapy.Spider):
    """No feature: a gallery, in several pages."""

    async def start(self):
        for n in range(6):
            yield scrapy.Request(f"{self.site}/gallery?n={n}", cb_kwargs={"n": n})


class FilesSpider(Gallery):
    """FilesPipeline: files are written once each and come back."""

    name = "files"
    custom_settings = {"ITEM_PIPELINES": {FilesPipeline: 1}, "FILES_STORE": "store"}

    def parse(self, response, n):
        yield {"file_urls": [response.urljoin(f"/file/{n}.pdf"), response.urljoin("/file/99.pdf")]}


class OwnFilesSpider(Gallery):
    """A FilesPipeline with names of its own, in two folders."""

    name = "own_files"
    custom_settings = {"ITEM_PIPELINES": {ByName: 1}, "FILES_STORE": "store"}

    def parse(self, response, n):
        yield {"kind": f"k{n % 2}", "file_urls": [response.urljoin(f"/file/{n}.pdf")]}


class WritesSpider(Gallery):
    """Files that a callback writes into the working folder."""

    name = "writes"

    def parse(self, response, n):
        with open(f"page-{n}.html", "wb") as file:
            file.write(response.body)
        yield {"n": n}


class ImagesSpider(Gallery):
    """ImagesPipeline with thumbnails and a minimum size."""

    name = "images"
    custom_settings = {
        "ITEM_PIPELINES": {ImagesPipeline: 1},
        "IMAGES_STORE": "images",
        "IMAGES_THUMBS": {"small": (10, 10)},
        "IMAGES_MIN_WIDTH": 22,
    }

    def parse(self, response, n):
        yield {"image_urls": [response.urljoin(f"/image/{n}.png")]}
