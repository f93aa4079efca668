"""A sound channel without a network, to build flaws on, and the operator's end of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from edgefleet.errors import ConfigurationError, UnavailableError
from edgefleet.protocol.event import Event
from edgefleet.protocol.report import AccessReport
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.store.sources import Source


class Line:
    """What lies between the two ends, and what the operator has.

    Attributes:
        changed: counts what was published; notified then, and when the link comes or goes.
        up: whether the link is there.
    """

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.changed, self.up = 0, True
        self.pointer: bytes | None = None
        self.reports: list[bytes] = []
        self.hot: list[Event] = []
        self.files: dict[str, bytes] = {}

    def publish(self, pointer: bytes) -> None:
        with self.news:
            if pointer != self.pointer:
                self.pointer = pointer
                self.changed += 1
            self.news.notify_all()

    def report(self) -> bytes | None:
        return self.reports[-1] if self.reports else None

    def events(self) -> Sequence[Event]:
        return self.hot

    def file(self, name: str) -> bytes | None:
        return self.files.get(name)

    def cut(self) -> None:
        self._set(up=False)

    def restore(self) -> None:
        self._set(up=True)

    def _set(self, *, up: bool) -> None:
        with self.news:
            self.changed += up and not self.up
            self.up = up
            self.news.notify_all()


class SoundChannel(Channel):
    """Keeps each rule."""

    hot_max_bytes = 8 << 10

    def __init__(self, line: Line) -> None:
        self.line = line
        self.seen = 0
        self.woken = False
        self.started: threading.Thread | None = None
        self.closing = threading.Event()

    @classmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> Self:
        del device
        if options:
            raise ConfigurationError(f"unknown options {sorted(options)}", cure="give it none")
        return cls(Line())

    def pointer(self) -> bytes | None:
        self.check()
        with self.line.news:
            self.seen = self.line.changed
            return self.line.pointer

    def access(self) -> AccessReport:
        return AccessReport(state="ok" if self.line.up else "unknown")

    def is_news(self) -> bool:
        return self.woken or (self.line.up and self.seen != self.line.changed)

    def wait(self, timeout_s: float) -> bool:
        with self.line.news:
            found = self.line.news.wait_for(self.is_news, timeout_s)
            self.woken = False
            return found

    def wake(self) -> None:
        with self.line.news:
            self.woken = True
            self.line.news.notify_all()

    def send_report(self, report: bytes) -> None:
        self.check()
        self.line.reports.append(report)

    def send_hot(self, events: Sequence[Event]) -> None:
        self.check()
        self.line.hot += events

    def upload(self, name: str, path: Path) -> None:
        self.check()
        self.line.files[name] = self.content(path)

    def content(self, path: Path) -> bytes:
        with self.opened(path) as stream:
            return b"".join(iter(lambda: stream.read(64 << 10), b""))

    def source(self, address: str) -> Source | None:
        return None

    def serve(self, ask: Callable[[Any], Any]) -> None:
        self.started = threading.Thread(target=self.closing.wait, name="served", daemon=True)
        self.started.start()

    def close(self) -> None:
        self.closing.set()
        self.wake()

    def check(self) -> None:
        if not self.line.up:
            raise UnavailableError("the link is cut")
