"""A host of the mock cloud: routes by method and path, and what every call goes through.

A request goes through, in this order: the journal; the rules that a test has set; whether its
caller may; the route's handler. A service's faults leave in that service's own format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.client import responses
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from edgefleet.testing.cloud.calls import Call, Refused, Reply

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from wsgiref.types import StartResponse, WSGIEnvironment

    from edgefleet.testing.cloud.front import Journal
    from edgefleet.testing.cloud.rules import Rules

AnyCall = TypeVar("AnyCall", bound=Call)
_NAME = re.compile(r"\{([a-z_]+)(\*?)\}")


@dataclass(frozen=True)
class Route(Generic[AnyCall]):
    """What answers some calls.

    Attributes:
        operation: ``service.Operation``, for the journal and rules.
        method: of HTTP.
        path: of the address; ``{name}`` is one level, ``{name*}`` several.
        handle: answers.
        open: without a token.
        query: parameters that the address must have, with their values; empty for none.
    """

    operation: str
    method: str
    path: str
    handle: Callable[[AnyCall], Reply]
    open: bool = False
    query: Mapping[str, str] = field(default_factory=dict)

    def fits(self, call: AnyCall) -> bool:
        """Whether method and parameters of a call are these."""
        return self.method == call.method and all(
            call.query.get(name, "") == value for name, value in self.query.items()
        )


class Mount(Protocol[AnyCall]):
    """A service that stands on a host."""

    @property
    def routes(self) -> Sequence[Route[AnyCall]]:
        """What it answers."""


class App(Generic[AnyCall]):
    """A host: a WSGI application made of mounts.

    Args:
        name: of what is called where no route fits, in the journal.
        kind: of its calls.
        rules: faults to inject.
        journal: where each call is written.
        admit: finds out who calls, and notes it in the call; raises `Refused` for nobody.
        refuse: how this host says no.
        caller: names whoever calls, for rules.
        stamped: gives headers that every answer has.
        any_case: whether the case of letters in a path doesn't count.
    """

    def __init__(
        self,
        name: str,
        kind: type[AnyCall],
        *,
        rules: Rules,
        journal: Journal,
        admit: Callable[[AnyCall], None],
        refuse: Callable[[Refused], Reply],
        caller: Callable[[AnyCall], str],
        stamped: Callable[[], Mapping[str, str]] = dict,
        any_case: bool = False,
    ) -> None:
        self._name, self._kind, self._rules, self._journal = name, kind, rules, journal
        self._admit, self._refuse, self._caller = admit, refuse, caller
        self._stamped, self._flags = stamped, re.IGNORECASE if any_case else re.NOFLAG
        self._routes: list[tuple[re.Pattern[str], Route[AnyCall]]] = []

    def mount(self, mount: Mount[AnyCall]) -> None:
        """Have a service answered here from now on; of two routes that fit, the first mounted."""
        self._routes += [(_pattern(route.path, self._flags), route) for route in mount.routes]

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer a request: the WSGI application."""
        call = self._kind.read(environ)
        route = self._find(call)
        name = route.operation if route else f"{self._name}.{call.method}"
        noting = self._journal.noting(start, name, call.path)

        def app(_environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            return self._send(self._answer(call, route), start)

        try:
            rule = self._rules.take(name, self._caller(call))
            if rule is None:
                return app(environ, noting)
            if rule.fault is None:
                self._journal.note(datetime.now(UTC), name, call.path, "cut")
            return rule.answer(environ, noting, app)
        except Refused as refused:
            return self._send(self._refuse(refused), noting)

    def _find(self, call: AnyCall) -> Route[AnyCall] | None:
        for pattern, route in self._routes:
            if route.fits(call) and (found := pattern.fullmatch(call.path)):
                call.parts = found.groupdict()
                return route
        return None

    def _answer(self, call: AnyCall, route: Route[AnyCall] | None) -> Reply:
        if route is None or not route.open:
            self._admit(call)
        if route is None:
            if any(pattern.fullmatch(call.path) for pattern, _ in self._routes):
                raise Refused(405, "MethodNotAllowed", f"{call.method} is not allowed here.")
            raise Refused(404, "ResourceNotFound", f"The mock has nothing at {call.path}.")
        return route.handle(call)

    def _send(self, reply: Reply, start: StartResponse) -> Iterable[bytes]:
        headers = {"Date": formatdate(usegmt=True), **self._stamped(), **reply.headers}
        body: Iterable[bytes]
        if isinstance(reply.body, dict | list):
            headers.setdefault("Content-Type", "application/json; charset=utf-8")
            body = [json.dumps(reply.body).encode()]
        elif reply.body is None or isinstance(reply.body, bytes):
            body = [reply.body or b""]
        else:
            body = reply.body
        if isinstance(body, list):
            headers.setdefault("Content-Length", str(len(body[0])))
        start(f"{reply.status} {responses.get(reply.status, '')}", list(headers.items()))
        return body


def _pattern(path: str, flags: re.RegexFlag) -> re.Pattern[str]:
    """What fits a route's path; a slash at the end doesn't count."""
    built, at = "", 0
    for name in _NAME.finditer(path):
        built += re.escape(path[at : name.start()])
        built += f"(?P<{name.group(1)}>{'.+' if name.group(2) else '[^/]+'})"
        at = name.end()
    return re.compile(built + re.escape(path[at:]) + "/?", flags)
