"""Building an engine beside what serves: a process of its own, followed by a thread.

A build takes minutes and much memory, and may end badly: the process keeps that from what serves.
It ends with the runtime, and only an engine that is whole gets into the cache.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_runtime.engines.base import EngineOptions

MAX_REASON = 2000  # characters of what a builder said last


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a building process is told, on its standard input."""

    format: str
    entry: str
    cache: str
    providers: tuple[str, ...]
    threads: int


class Build:
    """One build in a process of its own.

    Args:
        model_format: of the model, which decides the engine.
        entry: the model file.
        options: with which the engine will be loaded.
        done: called when the process has ended, from another thread.
    """

    def __init__(
        self,
        model_format: str,
        entry: Path,
        options: EngineOptions,
        *,
        done: Callable[[], object] = lambda: None,
    ) -> None:
        self.progress: float | None = None
        """Share that is done, where the builder tells."""
        self._said = ""
        self._done = done
        self._ended = threading.Event()
        self._start = time.monotonic()
        request = Request(
            format=model_format,
            entry=str(entry),
            cache=str(options.engine_cache or ""),
            providers=options.providers,
            threads=options.threads,
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgefleet_runtime.engines.builder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._thread = threading.Thread(
            target=self._follow, args=(request,), name="engine build", daemon=True
        )
        self._thread.start()

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._start

    @property
    def running(self) -> bool:
        """Whether the process still works."""
        return not self._ended.is_set()

    @property
    def failure(self) -> str | None:
        """Why it failed, once it has ended; None when it built the engine."""
        code = self._process.returncode
        return None if code == 0 else self._said or f"the builder ended with code {code}"

    def stop(self) -> None:
        """End the process; nothing is left of what it began but for the next sweep."""
        self._process.kill()
        self._thread.join()

    def _follow(self, request: Request) -> None:
        with self._process as process:
            if process.stdin is not None and process.stdout is not None:
                self._talk(request, process.stdin, process.stdout)
            process.wait()  # before its standard input closes, which would end it at once
        self._ended.set()
        self._done()

    def _talk(self, request: Request, to: IO[bytes], of: IO[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it ended at once: `failure` tells
            to.write(msgspec.json.encode(request) + b"\n")
            to.flush()  # and it stays open: its end tells the builder that the runtime is gone
        for line in of:
            word, _, rest = line.decode(errors="replace").strip().partition(" ")
            if word == "progress":
                with contextlib.suppress(ValueError):
                    self.progress = min(1.0, max(0.0, float(rest)))
            elif word == "failed":
                self._said = rest[:MAX_REASON]
