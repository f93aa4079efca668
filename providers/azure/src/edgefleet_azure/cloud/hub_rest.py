"""IoT Hub's service REST API, api-version 2021-04-12, for the unmodified azure-iot-hub client.

A request comes as values and goes as values, so that any server can carry it. What the mock has
not is answered with 501 and said so, never made up.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from edgefleet_azure.cloud.hub_configurations import Configurations
from edgefleet_azure.cloud.hub_identities import Identities, shown_twin
from edgefleet_azure.cloud.hub_query import Counted, QueryError, parse_query
from edgefleet_azure.cloud.hub_throttle import Throttle
from edgefleet_azure.cloud.hub_values import HubError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet_azure.cloud.hub_state import HubState

    Handler = Callable[["Request"], "Answer"]

VERSION = "2021-04-12"
PAGE, MAX_PAGE = 100, 1000  # rows of a query's answer
_METHOD_S = (5, 300)  # how long a direct method may take


class Request(NamedTuple):
    """A call.

    Attributes:
        headers: names in lower case.
        at: what the path's places hold.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    at: tuple[str, ...] = ()

    def json(self) -> Any:  # noqa: ANN401 - JSON
        try:
            return json.loads(self.body or b"null")
        except ValueError as error:
            raise HubError(400, "IotHubFormatError", f"the body is no JSON: {error}") from error

    def object(self) -> dict[str, Any]:
        found = self.json()
        if not isinstance(found, dict):
            raise HubError(400, "IotHubFormatError", "the body is no object")
        return found

    @property
    def if_match(self) -> str | None:
        return self.headers.get("if-match")

    def number(self, name: str) -> int | None:
        value = self.query.get(name)
        if value is None:
            return None
        if not value.isdecimal():
            raise HubError(400, "ArgumentInvalid", f"{name} is no number")
        return int(value)


class Answer(NamedTuple):
    """What goes back.

    Attributes:
        document: JSON; None for no body.
    """

    status: int
    document: Any = None
    headers: Mapping[str, str] = {}

    @property
    def body(self) -> bytes:
        return b"" if self.document is None else json.dumps(self.document).encode()


class HubRest:
    """The service API of one hub.

    Args:
        state: of the hub.
        throttle: how often it may be asked what.
    """

    def __init__(self, state: HubState, throttle: Throttle) -> None:
        self._state = state
        self._throttle = throttle
        self._identities = Identities(state)
        self._configurations = Configurations(state, self._count)
        self._routes = [
            (method, _pattern(path), operation, kind, handler)
            for method, path, operation, kind, handler in self._table()
        ]
        self.paths = [(method, path, operation) for method, path, operation, *_ in self._table()]
        """Method, path and operation of all that is answered."""

    def answer(self, request: Request) -> Answer:
        """The answer to a call; faults too."""
        try:
            return self._answered(request)
        except HubError as error:
            headers = {"iothub-errorcode": error.code}
            if error.retry_after_s is not None:
                headers["Retry-After"] = str(error.retry_after_s)
            document = {
                "Message": f"ErrorCode:{error.code};{error.message}",
                "ExceptionMessage": "Tracking ID:mock",
            }
            return Answer(error.status, document, headers)

    def operation(self, method: str, path: str) -> str | None:
        """Name of the operation that a path is of, as in the contract; None for none."""
        found = self._find(method, path)
        return None if found is None else found[0]

    def _find(
        self, method: str, path: str
    ) -> tuple[str, str | None, Handler, tuple[str, ...]] | None:
        for wanted, pattern, operation, kind, handler in self._routes:
            found = pattern.fullmatch(path) if wanted == method else None
            if found is not None:
                return operation, kind, handler, tuple(map(unquote, found.groups()))
        return None

    def _answered(self, request: Request) -> Answer:
        if request.query.get("api-version") != VERSION:
            raise HubError(400, "InvalidProtocolVersion", f"the mock speaks {VERSION}")
        found = self._find(request.method, request.path)
        if found is None:
            raise HubError(
                501, "InvalidOperation", f"the mock has no {request.method} {request.path}"
            )
        _, kind, handler, at = found
        if kind is not None:
            self._throttle.take(kind)
        return handler(request._replace(at=at))

    def _table(self) -> Iterator[tuple[str, str, str, str | None, Handler]]:
        config, identity, query = "configuration", "identity", "query"
        at = "/configurations/{id}"
        yield "GET", at, "Configuration_Get", config, self._get
        yield "PUT", at, "Configuration_CreateOrUpdate", config, self._put
        yield "DELETE", at, "Configuration_Delete", config, self._delete
        at = "/configurations"
        yield "GET", at, "Configuration_GetConfigurations", config, self._list
        yield "POST", f"{at}/testQueries", "Configuration_TestQueries", config, self._test
        at = "/statistics"
        yield "GET", f"{at}/devices", "Statistics_GetDeviceStatistics", None, self._statistics
        yield "GET", f"{at}/service", "Statistics_GetServiceStatistics", None, self._connected
        yield "POST", "/devices/query", "Query_GetTwins", query, self._query
        yield "GET", "/devices", "Devices_GetDevices", identity, self._devices
        yield "POST", "/devices", "BulkRegistry_UpdateRegistry", identity, self._bulk
        at = "/devices/{id}/applyConfigurationContent"
        yield "POST", at, "Configuration_ApplyOnEdgeDevice", config, self._apply
        at = "/devices/{id}/modules"
        yield "GET", at, "Modules_GetModulesOnDevice", identity, self._modules
        for at, kind in (("/devices/{id}", "Devices"), ("/devices/{id}/modules/{mid}", "Modules")):
            yield "GET", at, f"{kind}_GetIdentity", identity, self._get_identity
            yield "PUT", at, f"{kind}_CreateOrUpdateIdentity", identity, self._put_identity
            yield "DELETE", at, f"{kind}_DeleteIdentity", identity, self._delete_identity
        for at, kind in (("/twins/{id}", "Devices"), ("/twins/{id}/modules/{mid}", "Modules")):
            yield "GET", at, f"{kind}_GetTwin", "twin read", self._twin
            yield "PATCH", at, f"{kind}_UpdateTwin", "twin update", self._change_twin
            yield "PUT", at, f"{kind}_ReplaceTwin", "twin update", self._change_twin
            yield "POST", f"{at}/methods", f"{kind}_InvokeMethod", None, self._invoke

    # Configurations

    def _get(self, request: Request) -> Answer:
        return Answer(200, self._configurations.get(request.at[0]))

    def _list(self, request: Request) -> Answer:
        return Answer(200, self._configurations.listed(request.number("top")))

    def _put(self, request: Request) -> Answer:
        return Answer(*self._configurations.put(request.at[0], request.object(), request.if_match))

    def _delete(self, request: Request) -> Answer:
        self._configurations.delete(request.at[0], request.if_match)
        return Answer(204)

    def _test(self, request: Request) -> Answer:
        return Answer(200, self._configurations.test(request.object()))

    def _apply(self, request: Request) -> Answer:
        self._configurations.apply(request.at[0], request.object())
        return Answer(204)

    # Identities and twins

    def _devices(self, request: Request) -> Answer:
        return Answer(200, self._identities.listed(request.number("top")))

    def _modules(self, request: Request) -> Answer:
        return Answer(200, self._identities.modules(request.at[0]))

    def _get_identity(self, request: Request) -> Answer:
        return Answer(200, self._identities.get(*_at(request)))

    def _put_identity(self, request: Request) -> Answer:
        return Answer(200, self._identities.put(*_at(request), request.object(), request.if_match))

    def _delete_identity(self, request: Request) -> Answer:
        self._identities.delete(*_at(request), request.if_match)
        return Answer(204)

    def _bulk(self, request: Request) -> Answer:
        documents = request.json()
        if not isinstance(documents, list) or len(documents) > 100:
            raise HubError(400, "TooManyDevices", "a list of 100 identities at most is taken")
        return Answer(*self._identities.bulk(documents))

    def _twin(self, request: Request) -> Answer:
        return Answer(200, self._identities.twin(*_at(request)))

    def _change_twin(self, request: Request) -> Answer:
        device, module = _at(request)
        replace = request.method == "PUT"
        return Answer(
            200,
            self._identities.change_twin(
                device, module, request.object(), request.if_match, replace=replace
            ),
        )

    def _statistics(self, _request: Request) -> Answer:
        return Answer(200, self._identities.statistics())

    def _connected(self, _request: Request) -> Answer:
        return Answer(200, self._identities.connected())

    # Direct methods

    def _invoke(self, request: Request) -> Answer:
        device, module = _at(request)
        asked = request.object()
        if not isinstance(asked.get("methodName"), str):
            raise HubError(400, "ArgumentInvalid", "methodName is missing")
        least, most = _METHOD_S
        timeout_s = asked.get("responseTimeoutInSeconds") or 30
        if not least <= timeout_s <= most:
            raise HubError(400, "ArgumentInvalid", f"a method has {least} to {most} s")
        reply = self._state.invoke(
            device, module, asked["methodName"], asked.get("payload"), float(timeout_s)
        )
        return Answer(200, {"status": reply.status, "payload": reply.payload})

    # Queries

    def _rows(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        try:
            query = parse_query(text)
        except QueryError as error:
            raise HubError(400, "ArgumentInvalid", str(error)) from error
        rows = query.over(self._documents(query.source))
        if query.whole:
            return "twin", [shown_twin(row) | _deployed(row) for row in rows]
        return "raw", rows

    def _documents(self, source: str) -> list[Counted]:
        if source == "devices.jobs":
            return []  # the mock has no jobs
        with self._state.changing():
            found = sorted(
                (
                    one
                    for one in self._state.identities.values()
                    if (one.module is None) == (source == "devices")
                ),
                key=lambda one: (one.device, one.module or ""),
            )
            return [Counted(self._state.seen(one), one.count) for one in found]

    def _count(self, text: str) -> int:
        """Rows of a query; a crowd counts as many."""
        query = parse_query(text)
        return sum(one.count for one in self._documents(query.source) if query.where(one) is True)

    def _query(self, request: Request) -> Answer:
        text = request.object().get("query")
        if not isinstance(text, str):
            raise HubError(400, "ArgumentInvalid", "query is missing")
        size = request.headers.get("x-ms-max-item-count", "")
        page = min(int(size), MAX_PAGE) if size.isdecimal() and int(size) else PAGE
        mark = hashlib.sha256(text.encode()).hexdigest()[:16]
        start = _start(request.headers.get("x-ms-continuation"), mark)
        kind, rows = self._rows(text)
        headers = {"x-ms-item-type": kind}
        if start + page < len(rows):
            token = json.dumps([mark, start + page]).encode()
            headers["x-ms-continuation"] = base64.urlsafe_b64encode(token).decode()
        return Answer(200, rows[start : start + page], headers)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{m?id\}", "([^/]+)", path))


def _at(request: Request) -> tuple[str, str | None]:
    device, *module = request.at
    return device, module[0] if module else None


def _deployed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"configurations": row["configurations"]} if row.get("configurations") else {}


def _start(token: str | None, mark: str) -> int:
    """Where a continuation token goes on.

    Raises:
        HubError: 400: it is of another query.
    """
    if not token:
        return 0
    try:
        of, start = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError) as error:
        raise HubError(400, "ArgumentInvalid", "the continuation token is none") from error
    if of != mark or not isinstance(start, int):
        raise HubError(400, "ArgumentInvalid", "the continuation token is another query's")
    return start
