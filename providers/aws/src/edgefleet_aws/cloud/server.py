"""One loopback HTTP port for all of the mock cloud.

A request goes through, in this order: the journal; the rules that a test has set; the service that
is mounted under its name, which may leave an operation to moto; moto.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from edgefleet_aws.cloud import principals
from edgefleet_aws.cloud.calls import Call, Fault, answer_fault, answer_json, read_call
from edgefleet_aws.cloud.strictness import (
    ModelError,
    check_answer,
    check_request,
    service_model,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    from edgefleet_aws.cloud.rules import Rules

MAX_LINES = 100_000  # of the journal


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


class _Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # answers leave in one piece: otherwise each call costs some 40 ms
    disable_nagle_algorithm = True

    def handle_expect_100(self) -> bool:
        return True  # werkzeug's own answer, below, is enough

    def run_wsgi(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            # It must leave at once: botocore waits a second for it.
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
            del self.headers["Expect"]
        super().run_wsgi()

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's name
        """Nothing: the journal tells what was called."""

    def finish(self) -> None:
        """Close both ways, also when the client went before it had its answer."""
        try:
            super().finish()
        except OSError:
            self.rfile.close()

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:  # noqa: ANN401
        self.close_connection = True


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return socket.create_server(("127.0.0.1", 0))


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
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._conditional = threading.Lock()
        self._journal: deque[str] = deque(maxlen=MAX_LINES)
        self._server: Any = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    @property
    def url(self) -> str:
        """Address of the running server."""
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}"

    def start(self, port: int = 0) -> None:
        """Listen on loopback; no error when it does already.

        Args:
            port: the one to listen on where it is free; where it isn't, and for 0, any.
        """
        if self._server is not None:
            return
        with _listening(port) as listener:
            host, port = listener.getsockname()
            self._server = make_server(
                host,
                port,
                self,
                threaded=True,
                request_handler=_Handler,
                fd=listener.fileno(),
            )
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="mock-aws", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; may be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def seen(self) -> Iterator[str]:
        """A line a call, oldest first."""
        yield from tuple(self._journal)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer a request: the WSGI application."""
        call = read_call(environ)
        came = datetime.now(UTC)

        def noting(status: str, headers: Any, info: Any = None) -> Any:  # noqa: ANN401
            self._note(came, call, status.split(" ", 1)[0])
            return start(status, headers) if info is None else start(status, headers, info)

        rule = self._rules.take(call)
        if rule is not None:
            if rule.fault is None:
                self._note(came, call, "cut")
            return rule.answer(call, noting, self._dispatch)
        return self._dispatch(environ, noting, call)

    def _note(self, came: datetime, call: Call, status: str) -> None:
        name = f"{call.service or 'unsigned'}.{call.operation or call.environ['REQUEST_METHOD']}"
        self._journal.append(f"{came:%H:%M:%S.%f} {name} {call.path} {status}")

    def _dispatch(
        self, environ: WSGIEnvironment, start: StartResponse, call: Call | None = None
    ) -> Iterable[bytes]:
        call = call or read_call(environ)
        mount = self.mounts.get(call.service)
        try:
            principals.check(call)
            answer = None if mount is None else mount.answer(call, start)
        except Fault as fault:
            return answer_fault(call, start, fault)
        if answer is not None:
            return answer
        # moto looks at a condition and writes in two steps, between which another may write.
        conditional = "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ
        with self._conditional if conditional else nullcontext():
            answered: Iterable[bytes] = self._moto(environ, start)
        return answered
