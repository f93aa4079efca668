"""One loopback HTTP port for all of the mock cloud.

A request goes through, in this order: the journal; the rules that a test has set; the service that
is mounted under its name, which may leave an operation to moto; moto.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)

from edgefleet.testing.cloud.front import Front, Handler, Journal
from edgefleet_aws.cloud import principals
from edgefleet_aws.cloud.calls import (
    Call,
    Fault,
    answer_fault,
    answer_json,
    key_of,
    read_call,
)
from edgefleet_aws.cloud.strictness import (
    ModelError,
    check_answer,
    check_request,
    service_model,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    from edgefleet.testing.cloud.rules import Rules


class Mount(Protocol):
    """A service of our own, or what mends one of moto's."""

    def answer(self, call: Call, start: StartResponse) -> Iterable[bytes] | None:
        """Answer a call; None leaves it to moto.

        Raises:
            Fault: the answer is no.
        """
        ...


class JsonMount:
    """Some operations of a service of the JSON protocol, held to botocore's model both ways.

    Args:
        operations: operation -> what answers it, from the request's members to the answer's.
    """

    def __init__(self, operations: Mapping[str, Callable[[Call, Any], Any]]) -> None:
        self._operations = operations

    def answer(self, call: Call, start: StartResponse) -> Iterable[bytes] | None:
        """Check, do, check, answer; operations that moto serves are checked on their way."""
        model = service_model(call.service)
        if call.operation not in model.operation_names:
            raise Fault("UnknownOperationException", f"no operation {call.operation!r}")
        operation = model.operation_model(call.operation)
        request = call.json()
        try:
            check_request(operation, request)
        except ModelError as error:
            raise Fault("ValidationException", str(error)) from error
        handler = self._operations.get(call.operation)
        if handler is None:
            return None
        answer = handler(call, request)
        check_answer(operation, answer)
        return answer_json(start, 200, answer)


class _Handler(Handler, MotoRequestHandler):
    """Hands headers on as moto wants them."""


class _Moto(DomainDispatcherApplication):
    """moto, which otherwise lists its own folder at every request: a tenth of the mock's time."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)
        self._backends: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:  # noqa: ANN401 - moto's own
        if host not in self._backends:
            self._backends[host] = super().get_backend_for_host(host)
        return self._backends[host]


class CloudServer:
    """The mock cloud's front door; runs from `start` to `stop`.

    Args:
        rules: faults to inject.

    Attributes:
        mounts: service by boto3's name -> what answers for it before moto does.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.mounts: dict[str, Mount] = {}
        self._moto = _Moto()
        self._conditional = threading.Lock()
        self._journal = Journal()
        self._front = Front("mock-aws", self, handler=_Handler)

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._front.running

    @property
    def url(self) -> str:
        """Address of the running server."""
        return self._front.url

    def start(self, port: int = 0) -> None:
        """Listen on loopback; no error when it does already.

        Args:
            port: the one to listen on where it is free; where it isn't, and for 0, any.
        """
        self._front.start(port)

    def stop(self) -> None:
        """Stop listening; may be called twice."""
        self._front.stop()

    def seen(self) -> Iterator[str]:
        """A line a call, oldest first."""
        return self._journal.lines()

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer a request: the WSGI application."""
        call = read_call(environ)
        name = f"{call.service or 'unsigned'}.{call.operation or environ['REQUEST_METHOD']}"
        noting = self._journal.noting(start, name, call.path)
        rule = self._rules.take(f"{call.service}.{call.operation}", key_of(call))
        try:
            if rule is None:
                return self._dispatch(environ, noting, call)
            if rule.fault is None:
                self._journal.note(datetime.now(UTC), name, call.path, "cut")
            return rule.answer(environ, noting, self._dispatch)
        except Fault as fault:
            return answer_fault(call, noting, fault)

    def _dispatch(
        self, environ: WSGIEnvironment, start: StartResponse, call: Call | None = None
    ) -> Iterable[bytes]:
        call = call or read_call(environ)
        mount = self.mounts.get(call.service)
        principals.check(call)
        answer = None if mount is None else mount.answer(call, start)
        if answer is not None:
            return answer
        # moto looks at a condition and writes in two steps, between which another may write.
        conditional = "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ
        with self._conditional if conditional else nullcontext():
            answered: Iterable[bytes] = self._moto(environ, start)
        return answered
