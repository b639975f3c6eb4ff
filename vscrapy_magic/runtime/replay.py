"""Owns how a failed call is run again in this process, on what was captured of it.

Runs in the sender's process, with the spider's source as a guest there. The spider is made anew
with the settings and arguments of the crawl, so what it had gathered in its attributes is gone. No
engine runs: responses that the call awaited itself are those that it got on its worker.
"""

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final

import msgspec
from itemadapter import is_item
from scrapy import Request, Spider
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.utils.misc import build_from_crawler, load_object
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from vscrapy_magic.errors import VscrapyError
from vscrapy_magic.runtime.captured import response_of
from vscrapy_magic.runtime.codec import SpiderCodec
from vscrapy_magic.runtime.frames import own_entries, place_in, type_name
from vscrapy_magic.runtime.guest import Guest
from vscrapy_magic.store.coroutines import run_in_thread
from vscrapy_magic.store.failures import CapturedResponse, Cause, FailureKind, FailureRecord
from vscrapy_magic.store.values import CannotCrossError, Codec, resolve_path

_OUTPUT_HOOK: Final = "process_spider_output"
_SCRAPYS: Final = "scrapy."  # a component of it that fails does so on what the spider gave it
OUTPUTS_MAX: Final = 10_000  # of one call; an endless one is ended there
_WHY_NOT: Final = {
    FailureKind.DOWNLOAD: "it failed in the download, not in code of yours",
    FailureKind.REQUEST: "the request could not be made from what was sent",
    FailureKind.SERIALIZATION: "the item arrived, a part of it as text",
    FailureKind.LOAD: "the crawl ended before it began: load the spider here to see it",
    FailureKind.TASK: "nobody knows what started the task",
    FailureKind.CRASH: "the process died of it, and this one would, too",
    FailureKind.MEMORY: "the process was ended for its memory, and this one would be, too",
    FailureKind.BURIED: "three processes died of it, and this one would, too",
}


class NotReplayableError(VscrapyError):
    """The call cannot be run again here; the message says why."""


@dataclass(frozen=True)
class Rerun:
    """What came of a call that was run again.

    Attributes:
        outputs: items and requests that it brought before it ended or failed.
        error: what it raised; None when it ended well.
        place: the user's innermost line, as in a failure.
    """

    outputs: tuple[Any, ...]
    error: BaseException | None = None
    place: str = ""

    def is_as(self, record: FailureRecord) -> bool:
        """Whether it failed with the same exception at the same line."""
        error = self.error
        return error is not None and (type_name(error), self.place) == (record.type, record.place)


@dataclass(frozen=True)
class Call:
    """One call of user code, ready to be made.

    Attributes:
        code: of the function, to stop at its first line; None where it has none of Python's.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def code(self) -> CodeType | None:
        function = inspect.unwrap(getattr(self.function, "func", self.function))
        return getattr(getattr(function, "__func__", function), "__code__", None)

    @property
    def is_async(self) -> bool:
        """Whether it runs in an event loop, and so in a thread of its own."""
        code = self.code
        flags = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
        return code is not None and bool(code.co_flags & flags)

    def run(self, outputs: list[Any]) -> None:
        """Make the call and take all that it brings.

        Raises:
            Exception: whatever it raises.
        """
        _take(self.function(*self.args, **self.kwargs), outputs)


def rerun(guest: Guest, record: FailureRecord, crawler: Crawler | None = None) -> Rerun:
    """Run a call again, with a spider that is made for it.

    Args:
        crawler: of the guest, to make the spider with; None: one that is made for it, too. That
            takes 4 ms, because its settings are copied.

    Raises:
        NotReplayableError: this failure is of a kind that cannot be run again.
    """
    outputs: list[Any] = []
    call = prepare_call(guest, record, crawler)
    try:
        call.run(outputs)
    except NotReplayableError:
        raise
    except Exception as exc:  # noqa: BLE001 - it is what was asked for
        return Rerun(tuple(outputs), exc, place_in(own_entries(exc)))
    return Rerun(tuple(outputs))


def prepare_call(guest: Guest, record: FailureRecord, crawler: Crawler | None = None) -> Call:
    """The call, on what was captured of it.

    Args:
        crawler: as `rerun`.

    Raises:
        NotReplayableError: this failure is of a kind that cannot be run again, or of code that is
            not in this source any more.
    """
    if record.kind in _WHY_NOT:
        raise NotReplayableError(
            f"it cannot be run again here: {_WHY_NOT[FailureKind(record.kind)]}"
        )
    return _Maker(guest, record, crawler or crawler_of(guest)).call()


class _Engine:
    """Stands for the engine: what the call awaits is what it got before."""

    def __init__(self, responses: Sequence[Response]) -> None:
        self._responses = list(responses)

    def _answer(self, request: Request) -> Response:
        for place, response in enumerate(self._responses):
            asked = response.request
            if asked is None or asked.url == request.url:
                return self._responses.pop(place)
        raise NotReplayableError(f"{request.url} is downloaded by this call, and was not captured")

    async def download_async(self, request: Request) -> Response:
        return self._answer(request)

    def download(self, request: Request) -> "Deferred[Response]":
        return succeed(self._answer(request))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"engine.{name}: no engine runs here, this is one call run again")


class _Maker:
    """Makes the objects of one call."""

    def __init__(self, guest: Guest, record: FailureRecord, crawler: Crawler) -> None:
        self._guest = guest
        self._record = record
        self._crawler = crawler
        if crawler.stats is not None:
            crawler.stats.clear_stats()  # of the call before this one
        self._spider: Spider = guest.kind.from_crawler(self._crawler, **guest.spec.args)
        self._crawler.spider = self._spider
        self._codec = SpiderCodec(self._spider)
        self._crawler.engine = _Engine([self._answer(each) for each in record.inline])  # type: ignore[assignment]

    def call(self) -> Call:
        record, spider = self._record, self._spider
        if record.component and not record.component.startswith(_SCRAPYS):
            return self._of_component()
        if record.kind == FailureKind.START:
            return Call(spider.start, (), {})
        request = self._request()
        if record.kind == FailureKind.ERRBACK:
            failure: Any = Failure(self._cause())  # type: ignore[no-untyped-call]
            failure.request = request  # as Scrapy does
            return Call(self._named(request.errback), (failure,), {})
        response = self._response(request)
        if response is None:
            raise NotReplayableError(
                "its response was not kept: only the first failures of a place keep theirs"
            )
        # Scrapy's DepthMiddleware sets it before a generator runs, and so after a page is recorded.
        request.meta.setdefault("depth", 0)
        return Call(
            self._named(request.callback or spider._parse), (response,), dict(request.cb_kwargs)
        )

    def _named(self, function: Any) -> Callable[..., Any]:
        if function is None:
            raise NotReplayableError(f"the request has no {self._record.kind}")
        found: Callable[..., Any] = function
        return found

    def _request(self) -> Request:
        if not self._record.request:
            raise NotReplayableError("its request could not be sent along")
        try:
            return self._codec.decode_request(self._record.request)
        except (CannotCrossError, AttributeError) as exc:
            raise NotReplayableError(
                f"its request needs what is not in this source: {exc}"
            ) from exc

    def _response(self, request: Request | None) -> Response | None:
        captured = self._record.response
        return response_of(captured, request) if captured is not None else None

    def _answer(self, captured: CapturedResponse) -> Response:
        request = self._codec.decode_request(captured.request) if captured.request else None
        return response_of(captured, request)

    def _cause(self) -> Exception:
        """The error that an errback was called with, as good as it can be made again."""
        cause = self._record.cause or Cause("Exception", "not captured")
        request = self._request() if self._record.request else None
        response = response_of(cause.response, request) if cause.response is not None else None
        module, _, name = cause.type.rpartition(".")
        try:
            kind = resolve_path(f"{module or 'builtins'}:{name}")
        except CannotCrossError:
            kind = Exception
        for arguments in ((response, cause.message), (cause.message,), ()):
            try:
                made = kind(*arguments)
            except TypeError:
                continue
            if isinstance(made, Exception):
                return made
        return Exception(f"{cause.type}: {cause.message}")

    def _of_component(self) -> Call:
        record = self._record
        try:
            kind = resolve_path(record.component)
        except CannotCrossError as exc:
            raise NotReplayableError(f"{record.component} is not in this source: {exc}") from exc
        made = build_from_crawler(kind, self._crawler)
        opens = getattr(made, "open_spider", None)
        if (
            record.kind == FailureKind.ITEM
            and record.callback != "open_spider"
            and opens is not None
        ):
            _take(opens(*[self._spider] * _places(opens)), [])
        method = getattr(made, record.callback, None)
        if method is None:
            raise NotReplayableError(f"{record.component} has no {record.callback} any more")
        if record.callback == "process_item":
            return Call(method, (self._item(), self._spider)[: _places(method)], {})
        return Call(method, (), self._named_arguments(method))

    def _item(self) -> Any:
        if not self._record.item:
            raise NotReplayableError("its item was not kept: only the first of a place are")
        made = msgspec.msgpack.decode(self._record.item)
        data = Codec().decode(msgspec.msgpack.encode(made["data"]))
        if made["type"] in {"dict", "object"}:
            return data
        return resolve_path(made["type"])(**data)

    def _named_arguments(self, method: Callable[..., Any]) -> dict[str, Any]:
        """What Scrapy gives by name, of what was captured, as far as the method takes it."""
        record = self._record
        request = self._request() if record.request else None
        response = self._response(request)
        known: dict[str, Any] = {"spider": self._spider, "request": request, "response": response}
        if record.item:
            known["item"] = self._item()
        if record.cause is not None:
            known["exception"] = self._cause()
        if record.callback.startswith(_OUTPUT_HOOK) and request and response is not None:
            callback = request.callback or self._spider._parse
            made = callback(response, **request.cb_kwargs)
            known["result"] = made if record.callback == _OUTPUT_HOOK else _iterated(made)
        if record.callback == "process_start":
            known["start"] = self._spider.start()
        named = inspect.signature(method).parameters
        # As Scrapy does: who can do without a spider gets none.
        if "spider" in named and named["spider"].default is not inspect.Parameter.empty:
            del known["spider"]
        return {name: known[name] for name in named if name in known}


def _places(method: Callable[..., Any]) -> int:
    """How many arguments it takes by place."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in kinds for each in inspect.signature(method).parameters.values())


def crawler_of(guest: Guest) -> Crawler:
    """A crawler that is good for making a spider and its components; nothing of it runs."""
    crawler = Crawler(guest.kind, guest.settings)
    settings = crawler.settings
    crawler.addons.load_settings(settings)
    crawler.stats = load_object(settings["STATS_CLASS"])(crawler)
    crawler.logformatter = build_from_crawler(load_object(settings["LOG_FORMATTER"]), crawler)
    crawler.request_fingerprinter = build_from_crawler(
        load_object(settings["REQUEST_FINGERPRINTER_CLASS"]), crawler
    )
    return crawler


def _take(made: Any, outputs: list[Any]) -> None:
    """Take what a call brings, as Scrapy does."""
    if isinstance(made, Deferred):
        made = made.result if made.called else None
        if isinstance(made, Failure):
            made.raiseException()
    if isinstance(made, Awaitable | AsyncIterable):
        run_in_thread(_take_async(made, outputs), "vscrapy-replay")
    elif made is None or isinstance(made, Request | str | bytes) or is_item(made):
        outputs += [] if made is None else [made]
    elif isinstance(made, Iterable):
        for output in made:
            outputs.append(output)
            if len(outputs) >= OUTPUTS_MAX:
                return
    else:
        outputs.append(made)


async def _take_async(made: Any, outputs: list[Any]) -> None:
    if isinstance(made, Awaitable):
        _take(await made, outputs)
        return
    async for output in made:
        outputs.append(output)
        if len(outputs) >= OUTPUTS_MAX:
            return


async def _iterated(made: Any) -> AsyncIterator[Any]:
    """What a callback brings, for who iterates it in a loop."""
    if isinstance(made, AsyncIterable):
        async for output in made:
            yield output
        return
    outputs: list[Any] = []
    _take(await made if isinstance(made, Awaitable) else made, outputs)
    for output in outputs:
        yield output
