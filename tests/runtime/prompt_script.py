"""Types at the child's prompt in a bare Python of any version; what happens is printed as JSON.

Run as `python prompt_script.py PATH_OF_PROMPT_PY`; needs nothing that is installed.
"""

import asyncio
import importlib.util
import json
import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE = """
def parse(x):
    y = x + 1
    breakpoint()
    z = y * 2
    w = helper(z)
    return w
def helper(q):
    r = q + 1
    return r
def generates(x):
    breakpoint()
    yield x
    b = 2
    yield b
async def waits():
    breakpoint()
    await asyncio.sleep(0.01)
    return 3
def ends():
    breakpoint()
def fails():
    k = {}
    return k["x"]
async def cancelled():
    breakpoint()
    await asyncio.sleep(60)
async def cancels():
    task = asyncio.ensure_future(cancelled())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
"""
FILE = "Cell In[3]"


def typed(prompts: Any, run: Callable[[], object], *lines: str) -> dict[str, Any]:
    """What is shown for lines that are typed at the first breakpoint of a call."""
    left, shown, ends = list(lines), [], []

    def hear() -> str:
        return f"{left.pop(0)}\n" if left else ""

    terminal = prompts.Terminal(lambda text, prompt: shown.append(text + (prompt or "")), hear)
    prompt = prompts.Prompt(
        terminal,
        lambda _frame, _trace: True,
        ends.append,
        lambda: ends.append("returned"),
    )
    sys.breakpointhook = lambda: prompt.stop_at(sys._getframe(1))
    try:
        value = run()
    except KeyError as exc:
        prompt.stop_after(exc.__traceback__)
        value = "KeyError"
    traced = sys.gettrace() is not None
    sys.settrace(None)
    prompt.clear_all_breaks()
    text = "".join(shown) + terminal.take()
    return {
        "value": value,
        "shown": text,
        "ends": ends,
        "left": len(left),
        "traced": traced,
        "is_left": prompt.is_left,
    }


def main() -> None:
    spec = importlib.util.spec_from_file_location("prompts", sys.argv[1])
    assert spec is not None
    assert spec.loader is not None
    prompts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prompts)
    linecache.cache[FILE] = (len(SOURCE), None, SOURCE.splitlines(keepends=True), FILE)
    names: dict[str, Any] = {"asyncio": asyncio, "__file__": f"{Path.cwd()}/cells.py"}
    exec(compile(SOURCE, FILE, "exec"), names)

    def parse() -> object:
        return names["parse"](1)

    def run(name: str) -> Callable[[], object]:
        return lambda: asyncio.run(names[name]())

    n = ["n"] * 9
    print(
        json.dumps(
            {
                "steps": typed(prompts, parse, "p x, y", "n", "n", "s", "n", "w", "up", "p z", *n),
                "generator": typed(prompts, lambda: list(names["generates"](1)), *n),
                "await": typed(prompts, run("waits"), *n),
                "last line": typed(prompts, names["ends"], *n),
                "cancelled": typed(prompts, run("cancels"), *n),
                "return": typed(prompts, parse, "r", "n"),
                "until": typed(prompts, parse, "unt 6", "c"),
                "assigned": typed(prompts, parse, "!y = 50", "n", "n", "p z", "c"),
                "jump": typed(prompts, parse, "n", "j 3", "n", "c", "c"),
                "break": typed(prompts, parse, "b 9", "c", "p q", "c"),
                "failed": typed(prompts, names["fails"], "p k", "n"),
                "quit": typed(prompts, parse, "b 9", "q"),
                "end of input": typed(prompts, parse),
                "raised": typed(prompts, parse, "raise SystemExit", "run", "debug helper(3)", "c"),
                "interact": typed(prompts, parse, "interact", "x + 40", "1/0", "exit()", "c"),
            }
        )
    )


if __name__ == "__main__":
    main()
