"""Owns what is known of a class whose source travels: its bases, its methods, when they run.

Runs in the sender's process; looks at trees only.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from vscrapy_magic.sender.bundle_names import Function

SPIDER: Final = "spider"  # owner of a spider's attributes, also when others reach for them
INIT: Final = frozenset(
    {
        *(
            "__init__",
            "__new__",
            "__post_init__",
            "from_crawler",
            "from_settings",
            "_from_settings",
        ),
        *("_set_crawler", "set_crawler", "open_spider", "spider_opened", "update_settings", "open"),
    }
)
END: Final = frozenset({"closed", "close_spider", "spider_closed", "close", "engine_stopped"})
START: Final = frozenset({"start", "start_requests"})
ROLES: Final = frozenset(
    {
        *("process_item", "process_request", "process_response", "process_exception"),
        *("process_spider_input", "process_spider_output", "process_spider_output_async"),
        *("process_spider_exception", "process_start", "process_start_requests"),
    }
)
_OPENS: Final = re.compile(r"(spider_opened|engine_started)$")
_ENDS: Final = re.compile(r"(spider_closed|engine_stopped)$")
SPIDER_STATE: Final = "state"  # Scrapy gives every spider this dictionary


@dataclass(frozen=True, slots=True)
class Source:
    """A tree, and how its lines are named to users."""

    label: str
    first_line: int
    tree: ast.Module

    def place(self, line: int) -> str:
        """`Cell In[3] line 12`."""
        return f"{self.label} line {self.first_line + line - 1}"


@dataclass(frozen=True, slots=True)
class Method:
    """A method, or a function of a module."""

    owner: str
    node: Function
    source: Source


@dataclass(slots=True)
class Family:
    """A class with those of its bases whose source travels.

    Attributes:
        owner: of its attributes in keys of accesses.
        values: what is assigned to its attributes, anywhere.
    """

    owner: str
    name: str
    methods: list[Method]
    bodies: list[ast.ClassDef]
    values: dict[str, list[ast.expr | None]] = field(default_factory=lambda: defaultdict(list))


def phases(family: Family) -> tuple[set[str], set[str]]:
    """Methods that run only when a process begins or ends, and those that only `start()` runs."""
    names = {method.node.name for method in family.methods}
    quiet = (names & (INIT | END)) | (_connected(family) & names)
    starting = names & START
    users = _users(family, names)
    return _grown(quiet, family, users), _grown(starting, family, users)


def _grown(group: set[str], family: Family, users: dict[str, set[str]]) -> set[str]:
    """A group of methods with those that only they call."""
    group = set(group)
    while True:
        more = {
            name
            for name in users.keys() - group - ROLES - {"parse"}
            if users[name] <= group | {name} and _only_called(family, name)
        }
        if not more:
            return group
        group |= more


def _users(family: Family, names: set[str]) -> dict[str, set[str]]:
    """Which methods, or class bodies (""), speak of which method."""
    users: dict[str, set[str]] = defaultdict(set)
    for method in family.methods:
        for part in ast.walk(method.node):
            if isinstance(part, ast.Attribute) and part.attr in names:
                users[part.attr].add(method.node.name)
    for body in family.bodies:
        for part in (p for child in body.body if is_plain_code(child) for p in ast.walk(child)):
            if isinstance(part, ast.Constant) and part.value in names:
                users[str(part.value)].add("")
    return users


def _only_called(family: Family, name: str) -> bool:
    for method in family.methods:
        called = {id(p.func) for p in ast.walk(method.node) if isinstance(p, ast.Call)}
        for part in ast.walk(method.node):
            if isinstance(part, ast.Attribute) and part.attr == name and id(part) not in called:
                return False
    return True


def _connected(family: Family) -> set[str]:
    """Methods that are connected to the signals of a process's beginning and end, and no others."""
    found: set[str] = set()
    for method in family.methods:
        for part in ast.walk(method.node):
            if isinstance(part, ast.Call) and ast.unparse(part.func).endswith("connect"):
                given = [*part.args, *(keyword.value for keyword in part.keywords)]
                texts = [ast.unparse(each) for each in given]
                if any(_OPENS.search(text) or _ENDS.search(text) for text in texts[1:]):
                    found.add(texts[0].rpartition(".")[2])
    return found


def assigned(node: ast.stmt) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """Targets and values of the assignments in a statement."""
    parts = ast.walk(node) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else [node]
    for part in parts:
        if isinstance(part, ast.Assign):
            for target in part.targets:
                yield target, part.value
        elif isinstance(part, ast.AnnAssign):
            yield part.target, part.value


def is_plain_code(node: ast.stmt) -> bool:
    return not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def last_name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def is_static(node: Function) -> bool:
    return any(ast.unparse(d) == "staticmethod" for d in node.decorator_list)
