"""Documented code that is not compared, and why: so that new code is seen."""

Reason = str
_SCRIPT: Reason = "a script that runs Scrapy itself; what it runs are spiders like the others"
_PART: Reason = "not runnable as it stands: it shows a part of what another example has"
_WRONG: Reason = "an example of what not to do; it fails in plain Scrapy, too"
_COMMAND: Reason = "of another command than crawl; such commands go to scrapy unchanged"
_PILLOW: Reason = "needs Pillow and images"
_FORM: Reason = "needs form2request; the login of the oldest release is run"
_MODELS: Reason = "needs pydantic, or add-ons that need it"

# Document, a pattern that is in one of its blocks alone, and the reason.
LEFT_OUT: tuple[tuple[str, str, Reason], ...] = (
    ("faq", "class MultiplyItemsMiddleware", "fails in plain Scrapy 2.19: no async output"),
    ("topics/asyncio", r"\Afrom twisted\.internet import reactor", _WRONG),
    ("topics/asyncio", r"\Adef my_function\(\):", _PART),
    ("topics/commands", "class MyCustomCommand", _COMMAND),
    ("topics/contracts", "class HasHeaderContract", _COMMAND),
    ("topics/contracts", "@returns items 1 16", _COMMAND),
    ("topics/coroutines", "class MySpiderDeferred", "needs treq and another site"),
    ("topics/debug", r"def parse_details(?s:.*)inspect_response", "asks at a terminal"),
    ("topics/downloader-middleware", "myproject.middlewares.AllowedRedirect", _PART),
    ("topics/dynamic-content", "class PlaywrightSpider", "needs a browser of Playwright's"),
    ("topics/item-pipeline", "class MongoPipeline", "needs MongoDB"),
    ("topics/item-pipeline", r"yield BookItem\(\*\*fields\)", _PART),
    ("topics/item-pipeline", "# Bug: returns None", _WRONG),
    ("topics/items", r"class CustomItem\(BaseModel\)", _MODELS),
    ("topics/loaders", r"def parse_length\(", _PART),
    ("topics/logging", "class ContentFilter", _PART),
    (
        "topics/logging",
        r"handler\.addFilter\(ContentFilter",
        "fails in plain Scrapy: no record.message",
    ),
    ("topics/logging", r"logger\.addFilter\(ContentFilter", _PART),
    ("topics/media-pipeline", r"class MyImagesPipeline(?s:.*)PurePosixPath", _PILLOW),
    ("topics/media-pipeline", "Item contains no images", _PILLOW),
    ("topics/media-pipeline", "class ImageClassifierPipeline", _PILLOW),
    ("topics/request-response", "class LoginSpider", _FORM),
    ("topics/request-response", "parse_results", _FORM),
    ("topics/request-response", "form#checkout", _FORM),
    ("topics/settings", r"\Aimport scrapy\nfrom twisted\.internet import reactor", _WRONG),
    ("topics/shell", r"class Command\(ShellCommand\)", _COMMAND),
    ("topics/shell", r"inspect_response\(response, self\)", "asks at a terminal"),
    ("topics/signals", "class SignalSpider", "needs treq and another site"),
    (
        "topics/spider-middleware",
        "def process_start_requests",
        "of releases that are not supported",
    ),
    ("topics/spiders", "custom_feed = ", "plain Scrapy 2.19 writes no feed of it, either"),
    ("topics/spiders", r"class BookSpider\(Args", _MODELS),
)
# Documents of which no example is a spider to ship.
SCRIPTS = {"topics/practices": _SCRIPT}
