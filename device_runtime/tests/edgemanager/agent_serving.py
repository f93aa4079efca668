"""Edge Manager's API over a table, in a thread of its own, and a recorder that tests steer."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_runtime.tests.serving import WAIT_S, serving
from edgefleet_runtime.serve.edgemanager.models import FixedModels
from edgefleet_runtime.serve.edgemanager.server import EdgeManagerServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_runtime.serve.capture import Capture
    from edgefleet_runtime.serve.table import ModelTable

CURE = "ask whom it belongs to"


@contextmanager
def serving_agent(table: ModelTable, *, models: Any = None, **options: Any) -> Iterator[str]:
    """Serves until the block ends; gives the socket's address."""

    async def start(path: Path) -> EdgeManagerServer:
        decides = models or FixedModels(table, CURE)
        server = EdgeManagerServer(table, path, models=decides, **options)
        await server.start()
        return server

    with serving(table) as running, tempfile.TemporaryDirectory(prefix="ef") as folder:
        starting = asyncio.run_coroutine_threadsafe(start(Path(folder, "s")), running.loop)
        server = starting.result(WAIT_S)
        try:
            yield server.endpoint
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(5.0), running.loop).result(WAIT_S)


class MemoryRecorder:
    """Keeps captures in a list, or fails; waits for `go_on` first."""

    def __init__(self) -> None:
        self.kept: list[Capture] = []
        self.fails: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def record(self, capture: Capture, done: Callable[[bool], None]) -> None:
        assert self.go_on.wait(WAIT_S)
        if self.fails is not None:
            raise self.fails
        self.kept.append(capture)
        done(True)
