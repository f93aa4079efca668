"""Faults on demand: calls of an operation are throttled, refused, held, or cut off.

A fault is an exception of the vendor's mock, which knows how its vendor says no: it is raised where
the call would have been answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


@dataclass
class Rule:
    """What happens to some calls.

    Attributes:
        operation: ``service.Operation``, such as ``s3.PutObject``.
        times: for how many calls; None for all.
        skip: how many calls go through before.
        caller: only calls of somebody whose name begins so.
        fault: raise this.
        cut_request_at: drop the connection when so many bytes of the request's body were read.
        cut_answer_at: drop the connection after so many bytes of the answer's body; at 0 the
            call is done, and nothing of its answer arrives.
        hold: wait for this before the call is answered.
    """

    operation: str
    times: int | None = 1
    skip: int = 0
    caller: str = ""
    fault: Exception | None = None
    cut_request_at: int | None = None
    cut_answer_at: int | None = None
    hold: threading.Event | None = None

    def answer(
        self, environ: WSGIEnvironment, start: StartResponse, app: WSGIApplication
    ) -> Iterable[bytes]:
        """Do it to one call; ``app`` would have answered it.

        Raises:
            Exception: `fault`.
        """
        if self.fault is not None:
            raise self.fault
        if self.cut_request_at is not None:
            environ["wsgi.input"].read(self.cut_request_at)
            raise ConnectionResetError("cut by a rule")
        if self.hold is not None:
            self.hold.wait()
            return app(environ, start)
        return _cut(app(environ, start), self.cut_answer_at or 0)


@dataclass
class Rate:
    """How often an operation may be called before it is throttled: a bucket of tokens.

    Attributes:
        operation: ``service.Operation``.
        per_second: tokens that come in a second.
        burst: tokens that the bucket holds.
    """

    operation: str
    per_second: float
    burst: int
    _left: float | None = None
    _at: float = 0.0

    def allows(self, now: float) -> bool:
        """Whether a call at that time, in seconds, finds a token, which it takes."""
        left = self.burst if self._left is None else self._left
        left = min(self.burst, left + (now - self._at) * self.per_second)
        allowed = left >= 1
        self._left, self._at = left - allowed, now
        return allowed


class Rules:
    """Rules in force; each call takes the first that fits.

    Args:
        throttled: makes the fault of a call that comes too often.
        clock: gives the time, in seconds.
    """

    def __init__(
        self, throttled: Callable[[], Exception], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._throttled = throttled
        self._clock = clock
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._rates: dict[str, Rate] = {}

    def add(self, rule: Rule) -> None:
        """Have a rule in force from now on."""
        with self._lock:
            self._rules.append(rule)

    def limit(self, rate: Rate) -> None:
        """Throttle an operation from now on."""
        with self._lock:
            self._rates[rate.operation] = rate

    def clear(self) -> None:
        """Have none in force."""
        with self._lock:
            self._rules.clear()
            self._rates.clear()

    def take(self, name: str, caller: str = "") -> Rule | None:
        """The rule for a call, which counts it; None when it goes through.

        Args:
            name: ``service.Operation``.
            caller: whoever calls, as the vendor's requests name them.
        """
        with self._lock:
            for rule in self._rules:
                if rule.operation != name or rule.times == 0 or not caller.startswith(rule.caller):
                    continue
                if rule.skip:
                    rule.skip -= 1
                    continue
                if rule.times is not None:
                    rule.times -= 1
                return rule
            rate = self._rates.get(name)
            if rate is not None and not rate.allows(self._clock()):
                return Rule(name, fault=self._throttled())
        return None


def _cut(answer: Iterable[bytes], left: int) -> Iterator[bytes]:
    for data in answer:
        if left > 0:
            yield data[:left]
        left -= len(data)
        if left <= 0:
            break
    if left <= 0:  # also where the answer has no body
        raise ConnectionResetError("cut by a rule")
