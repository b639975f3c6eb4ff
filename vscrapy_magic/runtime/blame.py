"""Owns which component an exception came from, and what that had been called with.

Runs in the event loop of a child, and only once something has failed: nothing is wrapped, so pages
that do not fail pay nothing. A traceback says it all: the innermost method of a component that
Scrapy calls by its name, or, where a decorator or a C function hides it, the variable `method` of
the manager that called. What is read of Scrapy's frames is listed in `engine.py`.
"""

from collections.abc import Collection, Iterable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, NamedTuple

from itemadapter import is_item

from vscrapy_magic.store.values import CannotCrossError, path_of

DOWNLOADER_HOOKS: Final = frozenset({"process_request", "process_response", "process_exception"})
SPIDER_HOOKS: Final = frozenset(
    {
        *("process_spider_input", "process_spider_output", "process_spider_output_async"),
        *("process_spider_exception", "process_start", "process_start_requests"),
    }
)
PIPELINE_HOOKS: Final = frozenset({"process_item", "open_spider", "close_spider"})
_EXCEPTION_HOOKS: Final = frozenset({"process_exception", "process_spider_exception"})
_MANAGERS: Final = ("scrapy.core.", "scrapy.middleware", "scrapy.pipelines")
_MAKER: Final = "build_from_crawler"
_ARGUMENTS: Final = ("request", "response", "exception")
_SCRAPY: Final = "scrapy."


class Called(NamedTuple):
    """The call that let an exception go.

    Attributes:
        component: the object whose method it was.
        item: what a pipeline got, or an output that a spider middleware worked on; None for none.
    """

    component: Any
    name: str
    request: Any = None
    response: Any = None
    exception: Any = None
    item: Any = None

    @property
    def is_scrapys(self) -> bool:
        """Whether it is a component of Scrapy itself."""
        return type(self.component).__module__.startswith(_SCRAPY)


def blamed(
    exc: BaseException,
    components: Iterable[Any],
    hooks: Collection[str],
    others: Collection[CodeType] = (),
) -> Called | None:
    """The innermost call of a component that an exception came out of; None when none is to blame.

    Args:
        components: of one kind: downloader middlewares, spider middlewares or pipelines.
        hooks: methods that Scrapy calls on them.
        others: code of the spider: an exception that came out of it went only through components.
    """
    # What it was called with is read of the innermost only: an exception goes through all of them.
    found: tuple[Any, str, FrameType | None, FrameType | None] | None = None
    known = {id(component) for component in components}
    before: FrameType | None = None
    for trace in _traces(exc):
        frame, code = trace.tb_frame, trace.tb_frame.f_code
        if code in others:
            found = None
        elif code.co_name in hooks and id(own := first_argument(frame)) in known:
            if not _passes_on(exc, frame, code.co_name):
                found = own, code.co_name, frame, before
        elif _is_manager(frame) and not _is_scrapys(trace.tb_next):
            method = frame.f_locals.get("method") if "method" in code.co_varnames else None
            own = getattr(method, "__self__", None)
            if id(own) in known:
                found = own, getattr(method, "__name__", ""), None, frame
        before = frame
    return None if found is None else _called(*found)


def made(exc: BaseException) -> tuple[Any, str]:
    """The class that could not be made, and the method of it that failed; (None, "") for none."""
    kind, name, below = None, "", False
    for trace in _traces(exc):
        code = trace.tb_frame.f_code
        if below:
            name, below = code.co_name, False
        if code.co_name == _MAKER and code.co_argcount:
            kind, name, below = first_argument(trace.tb_frame), "", True
    return kind, name


def path_name(component: Any) -> str:
    """Where the class of a component is found: `module:Qualname`."""
    kind = component if isinstance(component, type) else type(component)
    try:
        return path_of(kind)
    except CannotCrossError:
        return f"{kind.__module__}:{kind.__qualname__}"


def function_name(function: Any, otherwise: str = "") -> str:
    """The name of what was called, whatever it is wrapped in."""
    while (inner := getattr(function, "func", None)) is not None:  # a partial
        function = inner
    return str(getattr(function, "__name__", otherwise))


def code_of(function: Any) -> CodeType | None:
    """The code that runs when something is called; None when no Python code is found."""
    while (inner := getattr(function, "func", None)) is not None:
        function = inner
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def arguments(frame: FrameType) -> list[Any]:
    """What a function was called with, as its variables are now."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return [frame.f_locals[name] for name in names if name in frame.f_locals]


def frames_of(exc: BaseException, code: CodeType | None) -> list[FrameType]:
    """Frames of one function in the traceback of an exception, outermost first."""
    return [trace.tb_frame for trace in _traces(exc) if trace.tb_frame.f_code is code]


def _traces(exc: BaseException) -> Iterator[TracebackType]:
    trace = exc.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def first_argument(frame: FrameType) -> Any:
    """The first argument of a frame's function: `self` of a method."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None


def _is_manager(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(_MANAGERS)


def _is_scrapys(trace: TracebackType | None) -> bool:
    if trace is None:
        return False
    return str(trace.tb_frame.f_globals.get("__name__", "")).startswith(_SCRAPY)


def _passes_on(exc: BaseException, frame: FrameType, name: str) -> bool:
    """Whether a handler of exceptions only raised again what it was asked about."""
    return name in _EXCEPTION_HOOKS and any(each is exc for each in arguments(frame))


def _called(
    component: Any, name: str, frame: FrameType | None, manager: FrameType | None
) -> Called:
    """The call, by what its manager holds; what that does not, by the method's own variables."""
    own = {} if frame is None else frame.f_locals
    theirs = manager.f_locals if manager is not None and _is_manager(manager) else {}
    known = {key: theirs.get(key, own.get(key)) for key in _ARGUMENTS}
    return Called(component, name, **known, item=_item(name, frame, theirs))


def _item(name: str, frame: FrameType | None, manager: dict[str, Any]) -> Any:
    if name == "process_item":
        given = arguments(frame)[1:2] if frame is not None else []
        return manager.get("obj", given[0] if given else None)
    if name.startswith("process_spider_output") and frame is not None:
        # What it took last from the callback is in a variable of any name.
        of_call = {id(each) for each in arguments(frame)}
        for value in frame.f_locals.values():
            if id(value) not in of_call and is_item(value):
                return value
    return None
