"""Real kernels for tests: started, asked, interrupted, killed as a front end does it."""

import json
import os
import queue
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager
from jupyter_core.utils import ensure_event_loop

READY_S = 60.0


@dataclass
class Reply:
    """What running one cell brought."""

    status: str
    ename: str = ""
    evalue: str = ""
    text: str = ""
    data: list[dict[str, Any]] = field(default_factory=list)


class Kernel:
    """One kernel and a client of it; used from one thread."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(cwd=str(folder), env={**os.environ, **environment})
        self._client: BlockingKernelClient = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=READY_S)

    @property
    def pid(self) -> int:
        return int(self._manager.provisioner.pid)

    def send(self, code: str) -> str:
        """Begin to run a cell; the id to ask `result` for."""
        return str(self._client.execute(code, store_history=True))

    def run(self, code: str, timeout_s: float = 60.0) -> Reply:
        """Run a cell to its end."""
        return self.result(self.send(code), timeout_s)

    def value(self, expression: str, timeout_s: float = 60.0) -> Any:
        """The value of an expression that JSON can hold."""
        reply = self.run(f"import json; print('@' + json.dumps({expression}))", timeout_s)
        assert reply.status == "ok", f"{reply.ename}: {reply.evalue}\n{reply.text}"
        line = next(line for line in reply.text.splitlines() if line.startswith("@"))
        return json.loads(line[1:])

    def result(self, message_id: str, timeout_s: float = 60.0) -> Reply:
        """Wait for the end of a cell."""
        reply, deadline = Reply(status=""), time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                message = self.message(0.2)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != message_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                reply.text += content["text"]
            elif kind in {"display_data", "execute_result", "update_display_data"}:
                reply.data.append(content["data"])
                reply.text += content["data"].get("text/plain", "") + "\n"
            elif kind == "error":
                reply.ename, reply.evalue = content["ename"], content["evalue"]
                reply.text += "\n".join(content["traceback"]) + "\n"
            elif kind == "status" and content["execution_state"] == "idle":
                reply.status = "error" if reply.ename else "ok"
                return reply
        raise AssertionError(f"the cell has not ended within {timeout_s} s; so far:\n{reply.text}")

    def message(self, timeout_s: float) -> dict[str, Any]:
        """What the kernel tells its front ends next, of any cell; raises `queue.Empty`."""
        found: dict[str, Any] = self._client.get_iopub_msg(timeout=timeout_s)
        return found

    def prompt(self, timeout_s: float = 60.0) -> str:
        """What the cell that runs asks for in an input box, once it does."""
        message = self._client.get_stdin_msg(timeout=timeout_s)
        return str(message["content"]["prompt"])

    def type(self, line: str) -> None:
        """Answer the input box."""
        self._client.input(line)

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """As a front end: asked to end, given a moment, started anew."""
        self._manager.restart_kernel(now=False)
        self._client.wait_for_ready(timeout=READY_S)

    def kill(self) -> None:
        """SIGKILL; nothing of the kernel's own runs any more."""
        os.kill(self.pid, signal.SIGKILL)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=False)
        self._manager.cleanup_resources()
        self._client.context.destroy(linger=0)
        ensure_event_loop().close()  # jupyter_client's own, for blocking calls: it would keep it


@contextmanager
def kernel(folder: Path, environment: dict[str, str]) -> Iterator[Kernel]:
    """A kernel with the extension loaded."""
    running = Kernel(folder, environment)
    try:
        assert running.run("%load_ext vscrapy_magic").status == "ok"
        yield running
    finally:
        running.close()
