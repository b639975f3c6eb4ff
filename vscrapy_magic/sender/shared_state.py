"""Owns the question whether callbacks talk to each other through state of their process.

Runs in the sender's process; looks at trees only. A token kept on `self` at login, a `seen` set in
a pipeline, a module global: with several workers each would have its own, so such a crawl runs on
one. What is only written when a process begins, or only read for the log or at its end, is no such
state: each process may have its own.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vscrapy_magic.sender.bundle_access import Access, Does, Key, Scope, accesses, holds
from vscrapy_magic.sender.bundle_family import (
    INIT,
    ROLES,
    SPIDER,
    SPIDER_STATE,
    Family,
    Method,
    Source,
    assigned,
    is_plain_code,
    is_static,
    last_name,
    phases,
)
from vscrapy_magic.sender.bundle_names import immediate


@dataclass(frozen=True, slots=True)
class Seen:
    """An access and where it is.

    Attributes:
        in_start: only `start()` gets there.
    """

    access: Access
    method: Method
    in_start: bool = False

    def place(self) -> str:
        return self.method.source.place(self.access.line)


def shared_state(sources: Sequence[Source], spiders: frozenset[str] | None = None) -> str:
    """Why only one worker can run these sources as one process would; empty when any number can.

    The text names what is shared and the line that writes it:
    `state on self: Quotes.token, Cell In[3] line 12`.

    Args:
        spiders: names of the classes of the spider that will run; None for whichever there are.
    """
    return _Search(sources, spiders).reason()


class _Search:
    def __init__(self, sources: Sequence[Source], spiders: frozenset[str] | None) -> None:
        self._spiders = spiders
        self._classes: dict[str, tuple[ast.ClassDef, Source]] = {}
        self._functions: list[Method] = []
        self._globals: dict[str, list[ast.expr | None]] = defaultdict(list)
        self._made_once: set[str] = set()
        for source in sources:
            self._read(source)
        self._families = [*self._components()]
        self._families += self._helpers()

    def _read(self, source: Source) -> None:
        for node in source.tree.body:
            for part in immediate(node):
                if isinstance(part, ast.ClassDef):
                    self._classes[part.name] = (part, source)
                elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                    self._functions.append(Method("", part, source))
                elif isinstance(part, ast.Call):
                    self._made_once.add(ast.unparse(part.func))
                for decorator in getattr(part, "decorator_list", ()):
                    called = decorator.func if isinstance(decorator, ast.Call) else decorator
                    self._made_once.add(ast.unparse(called))
            for name, value in assigned(node):
                if isinstance(name, ast.Name):
                    self._globals[name.id].append(value)

    def reason(self) -> str:
        for name, (node, source) in self._classes.items():
            for child in node.body:
                if getattr(child, "name", "") == "request_seen" and not _says_false(child):
                    return f"request_seen of {name}, {source.place(child.lineno)}"
        seen: dict[Key, list[Seen]] = defaultdict(list)
        for family in self._families:
            for found in self._accesses_of(family):
                seen[found.access.key].append(found)
        for found in self._accesses_of_functions():
            seen[found.access.key].append(found)
        for key, accesses_of_key in seen.items():
            write = self._shared(key, _unique(accesses_of_key))
            if write is not None:
                owner, name = key
                what = f"state on self: {write.method.owner or owner}.{name}"
                return f"{what if owner else f'module global {name}'}, {write.place()}"
        return ""

    # -- families ---------------------------------------------------------------------------------

    def _family(self, name: str) -> Family:
        bodies, methods = [], []
        pending, known = [name], set()
        while pending:
            current = pending.pop(0)
            if current in known or current not in self._classes:
                continue
            known.add(current)
            node, source = self._classes[current]
            bodies.append(node)
            methods += [
                Method(current, child, source)
                for child in node.body
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            pending += [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        is_spider = any(
            last_name(base).endswith("Spider") for body in bodies for base in body.bases
        )
        family = Family(SPIDER if is_spider else name, name, methods, bodies)
        for body in bodies:
            for child in body.body:
                for target, value in assigned(child):
                    if isinstance(target, ast.Name):
                        family.values[target.id].append(value)
        for method in methods:
            for target, value in assigned(method.node):
                if isinstance(target, ast.Attribute):
                    family.values[target.attr].append(value)
        return family

    def _components(self) -> Iterator[Family]:
        for name in self._classes:
            family = self._family(name)
            roles = {method.node.name for method in family.methods} & ROLES
            is_meant = self._spiders is None or name in self._spiders
            if roles if family.owner != SPIDER else is_meant:
                yield family

    def _helpers(self) -> Iterator[Family]:
        """Classes of which components keep one object: made when the process begins."""
        made = set(self._made_once)
        for family in self._families:
            begin = [m.node for m in family.methods if m.node.name in INIT]
            for node in (*begin, *(c for b in family.bodies for c in b.body if is_plain_code(c))):
                made |= {ast.unparse(p.func) for p in ast.walk(node) if isinstance(p, ast.Call)}
        known = {family.name for family in self._families}
        for name in sorted((made & self._classes.keys()) - known):
            yield self._family(name)

    # -- when methods run -------------------------------------------------------------------------

    def _accesses_of(self, family: Family) -> Iterator[Seen]:
        quiet, starting = phases(family)
        owners = dict.fromkeys((body.name for body in family.bodies), family.owner)
        for method in family.methods:
            if method.node.name in quiet:
                continue
            own = dict(owners)
            arguments = [*method.node.args.posonlyargs, *method.node.args.args]
            if family.owner != SPIDER and any(a.arg == "spider" for a in arguments):
                own["spider"] = SPIDER
            own.setdefault("spider", SPIDER)
            if arguments and not is_static(method.node):
                own[arguments[0].arg] = family.owner
            names = {m.node.name for m in family.methods}
            scope = Scope(own, frozenset(self._globals))
            for access in accesses(method.node, scope):
                if access.key[1] not in names and self._counts(access, family.values):
                    yield Seen(access, method, method.node.name in starting)

    def _accesses_of_functions(self) -> Iterator[Seen]:
        quiet = self._quiet_functions()
        for function in self._functions:
            if function.node.name not in quiet:
                owners = {a.arg: SPIDER for a in function.node.args.args if a.arg == "spider"}
                for access in accesses(function.node, Scope(owners, frozenset(self._globals))):
                    if self._counts(access, {}):
                        yield Seen(access, function)

    def _quiet_functions(self) -> set[str]:
        """Functions that are called when a process begins or ends, and never between."""
        busy: set[str] = set()
        calm: set[str] = set(self._made_once)
        for family in self._families:
            quiet, _ = phases(family)
            for method in family.methods:
                names = {n.id for child in method.node.body for n in _names(child)}
                (calm if method.node.name in quiet else busy).update(names)
            for body in family.bodies:
                busy |= {n.id for c in body.body if is_plain_code(c) for n in _names(c)}
        for function in self._functions:
            busy |= {n.id for child in function.node.body for n in _names(child)}
        return calm - busy

    def _counts(self, access: Access, values: Mapping[str, Sequence[ast.expr | None]]) -> bool:
        """Whether a change is one of a container: other objects have an `add` of their own."""
        if access.does is not Does.CHANGE:
            return True
        owner, name = access.key
        known = [holds(v) for v in (values.get(name, ()) if owner else self._globals.get(name, ()))]
        if access.by == "next":
            return "counter" in known
        if owner == SPIDER and name == SPIDER_STATE:
            return True
        return "container" in known or (not access.by and not any(known) and not owner)

    # -- judgement --------------------------------------------------------------------------------

    def _shared(self, key: Key, found: Sequence[Seen]) -> Seen | None:
        """The first write of state that is read elsewhere, or later; None when it is not shared."""
        writes = [s for s in found if s.access.does not in {Does.READ, Does.SAY}]
        reads = [s for s in found if s.access.does is Does.READ]
        reads = [read for read in reads if not self._is_own(read, writes)]
        if not writes or not reads or _is_buffer(key, found):
            return None
        if all(s.in_start for s in (*writes, *reads)):
            return None  # `start()` runs once, on one worker
        return writes[0]

    def _is_own(self, read: Seen, writes: Sequence[Seen]) -> bool:
        """Whether the same call has surely assigned what is read: a note to itself."""
        sure = {
            (s.method.owner, s.method.node.name)
            for s in writes
            if s.access.is_sure and s.access.does in {Does.ASSIGN, Does.CLEAR}
        }
        if any(
            s.method.node is read.method.node
            and s.access.is_sure
            and s.access.line < read.access.line
            for s in writes
        ):
            return True
        callers = self._callers(read.method)
        return bool(callers) and callers <= sure

    def _callers(self, method: Method) -> set[tuple[str, str]]:
        """Methods that call a method at once; empty when it is also handed on as a callback."""
        found: set[tuple[str, str]] = set()
        for family in self._families:
            if method.owner not in {body.name for body in family.bodies}:
                continue
            for other in family.methods:
                called = {id(p.func) for p in ast.walk(other.node) if isinstance(p, ast.Call)}
                for part in ast.walk(other.node):
                    if isinstance(part, ast.Attribute) and part.attr == method.node.name:
                        if id(part) not in called:
                            return set()
                        found.add((other.owner, other.node.name))
        return found


def _unique(found: Sequence[Seen]) -> list[Seen]:
    """Two families share their bases: what is in these was found twice."""
    return list({(id(s.method.node), s.access): s for s in found}.values())


def _is_buffer(key: Key, found: Sequence[Seen]) -> bool:
    """Whether a pipeline gathers items to hand on many at once: each process may do that."""
    if not key[0] or key[0] == SPIDER:
        return False
    changes = [s for s in found if s.access.does is Does.CHANGE]
    return (
        any(s.access.does is Does.CLEAR for s in found)
        and all(s.access.by in {"append", "extend"} for s in changes)
        and not any(s.access.tests for s in found)
    )


def _says_false(node: ast.stmt) -> bool:
    body = [s for s in getattr(node, "body", []) if not isinstance(s, ast.Expr | ast.Pass)]
    return len(body) == 1 and ast.unparse(body[0]) == "return False"


def _names(node: ast.AST) -> Iterator[ast.Name]:
    return (part for part in ast.walk(node) if isinstance(part, ast.Name))
