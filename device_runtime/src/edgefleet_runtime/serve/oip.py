"""Open Inference Protocol v2 over REST: paths to answers, errors to statuses.

Rules kept here:

- A request leases its model once and names that model's version in its answer.
- A model whose runs are short runs on the event loop's thread, the others in a pool. Handing a
  request to another thread and back costs about 200 µs on a small device; what runs longer than
  `INLINE_RUN_US` would hold up every other connection, liveness probes among them. So would parsing
  a large body, whatever the model does with it.
- What can't be taken in now is refused with 503 and Retry-After; nothing queues without a bound.
- Errors are ``{"error": …}``; what failed inside is logged, a caller's mistake is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from edgefleet.errors import (
    EdgeFleetError,
    InvalidInputError,
    NotFoundError,
)
from edgefleet.protocol.inference import (
    BINARY,
    HEADER_LENGTH,
    JSON,
    decode_request,
    encode_response,
)
from edgefleet_runtime import __version__
from edgefleet_runtime.serve.extensions.service import Extensions
from edgefleet_runtime.serve.failures import failed, failure
from edgefleet_runtime.serve.lane import too_late
from edgefleet_runtime.serve.lanes import INLINE_BODY_BYTES, INLINE_RUN_US, Lanes, Memo
from edgefleet_runtime.serve.messages import (
    Limits,
    Pending,
    Prepared,
    Request,
    Response,
    decompressed,
    json_response,
    overloaded,
    refusal,
)
from edgefleet_runtime.serve.plan import is_late
from edgefleet_runtime.serve.runs import Door
from edgefleet_runtime.serve.trace import trace_of, traced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import ThreadPoolExecutor
    from typing import Any

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.metrics import Metrics
    from edgefleet_runtime.serve.table import ModelTable, ServedModel

_log = logging.getLogger(__name__)

_READING = ("GET", "HEAD")
_SERVER = ("/v2", "/v2/")
_MODEL_PATH = re.compile(
    r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>ready|infer))?"
)


class OipService:
    """Answers requests from a table of models.

    Args:
        table: where the models are.
        ready: whether the owner wants requests sent here.
        limits: how much is taken in.
        pool: threads for what runs long.
        width: how many threads those are.
        metrics: answers scrapes.
        extensions: answers what goes beyond the protocol.
    """

    def __init__(
        self,
        table: ModelTable,
        *,
        ready: Callable[[], bool],
        limits: Limits,
        pool: ThreadPoolExecutor,
        metrics: Metrics,
        width: int = 1,
        extensions: Extensions | None = None,
    ) -> None:
        self._extensions = extensions or Extensions(table)
        self._limits = limits
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._table = table
        self._ready = ready
        self._lanes = Lanes(
            Door(
                table=table,
                loop=self._loop,
                pool=pool,
                width=width,
                limits=limits,
                again=self._answer,
                failed=failed,
                observe=self._observe,
            )
        )
        self._pooled = 0  # requests in the pool, running or waiting
        self._fixed: dict[str, Callable[[], Response | asyncio.Future[Response]]] = {
            "/metrics": metrics.answer,
            "/v2/health/live": partial(json_response, 200, {"live": True}),
            "/v2/health/ready": self._is_ready,
        }

    def __call__(
        self, request: Request
    ) -> Response | Prepared | Pending | asyncio.Future[Response]:
        """Answer one request, or promise to; never raises an `EdgeFleetError`."""
        head = request.head
        if head is not None and head.memo is not None:
            try:
                answer = self._lanes.take(request, head.memo)
            except NotFoundError as error:
                return failure(error)
            if answer is not None:
                return answer
        return self._routed(request)

    def _routed(  # noqa: PLR0911 - one a kind of request
        self, request: Request
    ) -> Response | Prepared | Pending | asyncio.Future[Response]:
        target = request.target.partition(b"?")[0]
        path = (unquote_to_bytes(target) if b"%" in target else target).decode(errors="replace")
        route = _MODEL_PATH.fullmatch(path)
        if route is not None and route["verb"] == "infer":
            if request.method == "POST":
                return self._infer(request, route["name"], route["version"])
            return _wrong_method(request, "POST")
        extra = self._for(request).answer(request, path)
        if extra is not None:
            return extra
        about = self._fixed.get(path) if route is None else self._about_model(route)
        if path in _SERVER:
            about = partial(self._server, self._for(request))
        if about is None:
            return refusal(404, f"there is nothing at {path[:200]}")
        if request.method not in _READING:
            return _wrong_method(request, ", ".join(_READING))
        try:
            return about()
        except EdgeFleetError as error:
            return failure(error)

    def _about_model(self, route: re.Match[str]) -> Callable[[], Response]:
        about = self._model if route["verb"] is None else self._model_ready
        return partial(about, route["name"], route["version"])

    def _for(self, request: Request) -> Extensions:
        """What whoever sent the request may use."""
        return self._extensions if request.local else self._extensions.afar

    @staticmethod
    def _server(extensions: Extensions) -> Response:
        return json_response(
            200,
            {
                "name": "edgefleet-runtime",
                "version": __version__,
                "extensions": extensions.names,
            },
        )

    def _is_ready(self) -> Response:
        if self._ready():
            return json_response(200, {"ready": True})
        return refusal(503, "not ready")

    def _model_ready(self, name: str, version: str | None) -> Response:
        model = self._table.get(name, version)
        return json_response(200, {"name": model.name, "ready": True})

    def _model(self, name: str, version: str | None) -> Response:
        served = self._table.get(name, version)
        model = served.model
        tensors = {
            kind: [
                {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}
                for spec in getattr(model.interface, kind)
            ]
            for kind in ("inputs", "outputs")
        }
        return json_response(
            200,
            {
                "name": served.name,
                "versions": [served.version],
                "platform": model.platform or model.engine.partition(" ")[0],
                **tensors,
                "properties": {
                    "bundle": served.bundle,
                    "variant": served.variant,
                    "engine": model.engine,
                    "providers": ",".join(model.providers),
                },
            },
        )

    def _infer(
        self, request: Request, name: str, version: str | None
    ) -> Response | Prepared | Pending | asyncio.Future[Response]:
        began = time.perf_counter()
        headers, body = request.headers, request.body
        plain = b"content-encoding" not in headers
        try:
            served = self._table.get(name, version)
        except NotFoundError as error:
            return failure(error)
        try:
            header_length = _header_length(headers)
            # An answer that may be compressed is made the long way, as every other extension is.
            if plain and header_length is not None and b"accept-encoding" not in headers:
                memo = Memo(name, version, header_length)
                answer = self._lanes.take(request, memo)
                if request.head is not None:
                    request.head.memo = memo
                if answer is not None:
                    return answer
        except EdgeFleetError as error:
            served.requests.failed()
            return traced(failure(error), trace_of(headers))
        run_us = served.recent_p50_us
        if (
            run_us is not None
            and run_us < INLINE_RUN_US
            and len(body) <= INLINE_BODY_BYTES
            and plain
        ):
            return self._answer(request, name, version, began)
        if self._pooled >= self._limits.max_requests:
            served.requests.failed()
            return traced(
                overloaded(f"{self._pooled} requests are being answered", self._limits),
                trace_of(headers),
            )
        future = self._loop.run_in_executor(self._pool, self._answer, request, name, version, began)
        self._pooled += 1
        future.add_done_callback(self._left_pool)
        return future

    def _left_pool(self, _: asyncio.Future[Response]) -> None:
        self._pooled -= 1

    def _answer(self, request: Request, name: str, version: str | None, began: float) -> Response:
        """Decode, run, encode; on whichever thread.

        Args:
            request: the request.
            name: of the model.
            version: likewise.
            began: when it came, on the clock of `time.perf_counter`.
        """
        headers, body = request.headers, request.body
        trace = trace_of(headers)
        try:
            encoding = headers.get(b"content-encoding")
            if encoding is not None:
                limit = self._limits.max_body_bytes
                body = decompressed(body, encoding.decode("latin-1"), max_bytes=limit)
            length = _header_length(headers)
            wire = self._for(request).wire_for(request, body, length, name)
            asked = (wire.decode if wire else decode_request)(body, length)
            with self._table.lease(name, version) as served:
                if is_late(asked.parameters, served.recent_p50_us, began):
                    served.requests.failed()
                    return traced(too_late(served.recent_p50_us), trace)
                if wire is None:
                    wanted = tuple(asked.outputs or ()) or None
                    outputs, run_us = served.infer(asked.inputs, wanted)
                    encoded = encode_response(served.name, served.version, outputs, request=asked)
                else:
                    watched = bool(self._table.observers)
                    outputs, run_us = wire.run(served, asked, watched=watched)
                    encoded = wire.encode(served.name, served.version, outputs, asked)
        except Exception as error:  # noqa: BLE001 - an answer is due, whatever failed
            with contextlib.suppress(NotFoundError):  # it left meanwhile, and its figures with it
                self._table.get(name, version).requests.failed()
            return traced(failed(name, error), trace)
        served.requests.answered((time.perf_counter() - began) * 1e6)
        if length is not None and encoding is None and wire is None:
            learn = self._lanes.learn
            self._loop.call_soon_threadsafe(learn, served, asked, body, length)
        after = None
        if self._table.observers:
            after = partial(self._observe, served, outputs, run_us, asked.id, trace)
        if encoded.header_length is None:
            response = Response(200, encoded.parts, content_type=JSON, after=after)
        else:
            told = ((HEADER_LENGTH, str(encoded.header_length)),)
            response = Response(200, encoded.parts, content_type=BINARY, headers=told, after=after)
        return traced(wire.finish(response) if wire else response, trace)

    def _observe(
        self,
        served: ServedModel,
        outputs: Mapping[str, NDArray[Any]],
        run_us: float,
        request_id: str | None,
        trace: str | None,
    ) -> None:
        """Tell those who watch what was answered."""
        for observer in tuple(self._table.observers):
            try:
                observer(served, outputs, run_us, request_id, trace)
            except Exception:  # noqa: BLE001 - the answer is given, and others watch too
                _log.exception("an observer of inferences failed")


def _header_length(headers: Mapping[bytes, bytes]) -> int | None:
    given = headers.get(b"inference-header-content-length")
    if given is None:
        return None
    if not (given.isdigit() and len(given) < 20):
        msg = f"{HEADER_LENGTH} is no whole number: {given[:40].decode('latin-1')!r}"
        raise InvalidInputError(msg)
    return int(given)


def _wrong_method(request: Request, allowed: str) -> Response:
    message = f"{request.method} is not allowed here, use {allowed}"
    return refusal(405, message, headers=(("Allow", allowed),))
