"""Open Inference Protocol v2 over REST: paths to answers, errors to statuses.

Rules kept here:

- Inference goes through `edgefleet_runtime.serve.rest` into the lanes, all else is answered here.
- Ready is the protocol's word for models that answer. Whoever replaces runtimes one by one asks
  whether one has settled, which it has without a model, too, where its group has no release.
- Errors are ``{"error": …}``; what failed inside is logged, a caller's mistake is not.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from edgefleet.errors import EdgeFleetError, NotFoundError
from edgefleet_runtime import __version__
from edgefleet_runtime.serve.failures import failure
from edgefleet_runtime.serve.messages import (
    Pending,
    Prepared,
    Request,
    Response,
    json_response,
    refusal,
)
from edgefleet_runtime.serve.rest import RestRequests

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from edgefleet_runtime.serve.extensions.service import Extensions
    from edgefleet_runtime.serve.metrics import Metrics

    Answer = Response | Prepared

_READING = ("GET", "HEAD")
_SERVER = ("/v2", "/v2/")
_MODEL_PATH = re.compile(
    r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>ready|infer))?"
)


class OipService:
    """Answers requests from a table of models.

    Args:
        extensions: with the models; answers what goes beyond the protocol.
        ready: whether the owner wants requests sent here.
        settled: whether nothing is left for the owner to wait for.
        metrics: answers scrapes.
    """

    def __init__(
        self,
        extensions: Extensions,
        *,
        ready: Callable[[], bool],
        settled: Callable[[], bool],
        metrics: Metrics,
    ) -> None:
        self._extensions = extensions
        self._table = extensions.table
        self._ready, self._settled = ready, settled
        self._near = RestRequests(extensions)
        self._afar = RestRequests(extensions.afar)
        self._fixed: dict[str, Callable[[], Response | asyncio.Future[Response]]] = {
            "/metrics": metrics.answer,
            "/v2/health/live": partial(json_response, 200, {"live": True}),
            "/v2/health/ready": self._is_ready,
            "/v2/health/settled": self._is_settled,
        }

    def __call__(
        self, request: Request
    ) -> Response | Prepared | Pending[Answer] | asyncio.Future[Response]:
        """Answer one request, or promise to; never raises an `EdgeFleetError`."""
        head = request.head
        if head is not None and head.memo is not None:
            try:
                requests = self._near if request.local else self._afar
                answer = requests.known(request, head.memo)
            except NotFoundError as error:
                return failure(error)
            if answer is not None:
                return answer
        return self._routed(request)

    def _routed(  # noqa: PLR0911 - one a kind of request
        self, request: Request
    ) -> Response | Prepared | Pending[Answer] | asyncio.Future[Response]:
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
        names = extensions.names
        return json_response(
            200, {"name": "edgefleet-runtime", "version": __version__, "extensions": names}
        )

    def _is_ready(self) -> Response:
        if self._ready():
            return json_response(200, {"ready": True})
        return refusal(503, "not ready")

    def _is_settled(self) -> Response:
        if self._settled():
            return json_response(200, {"settled": True})
        return refusal(503, "not settled")

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
    ) -> Response | Prepared | Pending[Answer]:
        try:
            requests = self._near if request.local else self._afar
            return requests.take(request, name, version)
        except NotFoundError as error:
            return failure(error)


def _wrong_method(request: Request, allowed: str) -> Response:
    message = f"{request.method} is not allowed here, use {allowed}"
    return refusal(405, message, headers=(("Allow", allowed),))
