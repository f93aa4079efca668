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
    LimitExceededError,
    NotFoundError,
    UnsupportedError,
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
from edgefleet_runtime.serve.messages import (
    Limits,
    Request,
    Response,
    decompressed,
    json_response,
    overloaded,
    refusal,
)
from edgefleet_runtime.serve.trace import trace_of, traced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor
    from typing import Any

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.metrics import Metrics
    from edgefleet_runtime.serve.table import ModelTable, ServedModel

_log = logging.getLogger(__name__)

INLINE_RUN_US = 1000.0  # µs; five times a hand-over, and still short to other connections
INLINE_BODY_BYTES = 256 * 1024  # parsing more takes as long as a run that isn't short
_READING = ("GET", "HEAD")
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
        metrics: answers scrapes.
        extensions: answers what goes beyond the protocol.
    """

    def __init__(
        self,
        table: ModelTable,
        *,
        ready: Callable[[], bool],
        limits: Limits,
        pool: Executor,
        metrics: Metrics,
        extensions: Extensions | None = None,
    ) -> None:
        self._table = table
        self._extensions = extensions or Extensions(table)
        self._ready = ready
        self._limits = limits
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._pooled = 0  # requests in the pool, running or waiting
        self._fixed: dict[str, Callable[[], Response | asyncio.Future[Response]]] = {
            "/metrics": metrics.answer,
            "/v2": self._server,
            "/v2/": self._server,
            "/v2/health/live": partial(json_response, 200, {"live": True}),
            "/v2/health/ready": self._is_ready,
        }

    def __call__(self, request: Request) -> Response | asyncio.Future[Response]:
        """Answer one request, or promise to; never raises an `EdgeFleetError`."""
        target = request.target.partition(b"?")[0]
        path = (unquote_to_bytes(target) if b"%" in target else target).decode(errors="replace")
        route = _MODEL_PATH.fullmatch(path)
        if route is not None and route["verb"] == "infer":
            if request.method == "POST":
                return self._infer(request, route["name"], route["version"])
            return _wrong_method(request, "POST")
        extra = self._extensions.answer(request, path)
        if extra is not None:
            return extra
        answer = self._fixed.get(path) if route is None else self._about_model(route)
        if answer is None:
            return refusal(404, f"there is nothing at {path[:200]}")
        if request.method not in _READING:
            return _wrong_method(request, ", ".join(_READING))
        return _told(answer)

    def _about_model(self, route: re.Match[str]) -> Callable[[], Response]:
        about = self._model if route["verb"] is None else self._model_ready
        return partial(about, route["name"], route["version"])

    def _server(self) -> Response:
        names = self._extensions.names
        return json_response(
            200, {"name": "edgefleet-runtime", "version": __version__, "extensions": names}
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
    ) -> Response | asyncio.Future[Response]:
        began = time.perf_counter()
        try:
            served = self._table.get(name, version)
        except NotFoundError as error:
            return _failure(error)
        run_us = served.recent_p50_us
        if (
            run_us is not None
            and run_us < INLINE_RUN_US
            and len(request.body) <= INLINE_BODY_BYTES
            and b"content-encoding" not in request.headers
        ):
            return self._answer(request, name, version, began)
        if self._pooled >= self._limits.max_requests:
            served.requests.failed()
            return overloaded(f"{self._pooled} requests are being answered", self._limits)
        future = self._loop.run_in_executor(self._pool, self._answer, request, name, version, began)
        self._pooled += 1
        future.add_done_callback(self._left_pool)
        return future

    def _left_pool(self, _: asyncio.Future[Response]) -> None:
        self._pooled -= 1

    def _answer(self, request: Request, name: str, version: str | None, began: float) -> Response:
        """Decode, run, encode; on whichever thread."""
        headers = request.headers
        trace = trace_of(headers)
        try:
            body = request.body
            encoding = headers.get(b"content-encoding")
            if encoding is not None:
                limit = self._limits.max_body_bytes
                body = decompressed(body, encoding.decode("latin-1"), max_bytes=limit)
            length = _header_length(headers)
            wire = self._extensions.wire_for(request, body, length, name)
            asked = (wire.decode if wire else decode_request)(body, length)
            with self._table.lease(name, version) as served:
                outputs, run_us = served.infer(asked.inputs, tuple(asked.outputs or ()) or None)
                if wire is None:
                    encoded = encode_response(served.name, served.version, outputs, request=asked)
                else:
                    encoded = wire.encode(served.name, served.version, outputs, asked)
        except Exception as error:  # noqa: BLE001 - an answer is due, whatever failed
            with contextlib.suppress(NotFoundError):  # it left meanwhile, and its figures with it
                self._table.get(name, version).requests.failed()
            if isinstance(error, EdgeFleetError):
                return traced(_failure(error), trace)
            _log.exception("inference of %s failed", name)
            return traced(refusal(500, "internal error"), trace)
        served.requests.answered((time.perf_counter() - began) * 1e6)
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
        for observer in tuple(self._table.observers):
            try:
                observer(served, outputs, run_us, request_id, trace)
            except Exception:  # noqa: BLE001 - the answer is given, and others watch too
                _log.exception("an observer of inferences failed")


def _told(
    answer: Callable[[], Response | asyncio.Future[Response]],
) -> Response | asyncio.Future[Response]:
    try:
        return answer()
    except EdgeFleetError as error:
        return _failure(error)


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


def _failure(error: EdgeFleetError) -> Response:
    """An error as an answer; the cure goes along."""
    message = error.message if error.cure is None else f"{error.message}; {error.cure}"
    if isinstance(error, LimitExceededError):
        return refusal(413, message)
    if isinstance(error, InvalidInputError):
        return refusal(400, message)
    if isinstance(error, NotFoundError):
        return refusal(404, message)
    if isinstance(error, UnsupportedError):
        return refusal(415, message)
    _log.warning("a request failed: %s", message)
    return refusal(500, message)
