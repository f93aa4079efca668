"""The API server over HTTPS: what every request goes through, and the verbs.

A request goes through, in this order: the journal; the rules that a test has set; who calls;
whether they may; the verb. See https://kubernetes.io/docs/concepts/security/controlling-access/.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_calls import ApiCall, Passed, target_of
from edgefleet_kubernetes.cloud.api_discovery import AGGREGATED, Discovery
from edgefleet_kubernetes.cloud.api_objects import meta
from edgefleet_kubernetes.cloud.api_patch import TYPES
from edgefleet_kubernetes.cloud.api_reading import Reading
from edgefleet_kubernetes.cloud.api_status import (
    NoPage,
    Refused,
    bad_request,
    method_not_allowed,
)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from edgefleet.testing.cloud.front import Journal
    from edgefleet.testing.cloud.rules import Rules
    from edgefleet_kubernetes.cloud.api_calls import Target
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_store import Store
    from edgefleet_kubernetes.cloud.api_users import User

Answer = dict[str, Any] | bytes | Iterator[bytes] | Passed
Handle = Callable[[ApiCall, "Target"], Answer]
_log = logging.getLogger(__name__)


class ApiServer:
    """A WSGI application that answers as an API server.

    Args:
        store: of objects.
        rules: faults to inject.
        journal: where each call is written.
        authenticate: tells who calls; raises `Refused` for credentials that don't hold.
        authorize: raises `Refused` for what a user may not do: user, what, and the path of an
            address that is for no objects.

    Attributes:
        reading: lists and watches.
        others: what answers requests for a subresource or for what isn't stored, by what roles
            name it with the verb: ``pods/log.get``, ``selfsubjectaccessreviews.create``.
    """

    def __init__(
        self,
        store: Store,
        *,
        rules: Rules,
        journal: Journal,
        authenticate: Callable[[ApiCall], User],
        authorize: Callable[[User, Target | None, str], None],
    ) -> None:
        self._store, self._rules, self._journal = store, rules, journal
        self._authenticate, self._authorize = authenticate, authorize
        self._discovery = Discovery(store.kinds, store.schemas)
        self.reading = Reading(store)
        self.others: dict[str, Handle] = {}

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer a request: the WSGI application."""
        call = ApiCall.read(environ)
        target, refused = None, None
        try:
            target = target_of(call, self._store.kinds)
        except Refused as error:
            refused = error
        name = target.operation if target else f"server.{call.method.lower()}"
        noting = self._journal.noting(start, name, call.path)

        def app(_environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            return self._answer(call, target, refused, start)

        try:
            rule = self._rules.take(name, call.headers.get("authorization", ""))
            if rule is None:
                return app(environ, noting)
            if rule.fault is None:
                self._journal.note(datetime.now(UTC), name, call.path, "cut")
            return rule.answer(environ, noting, app)
        except Refused as error:
            return _refuse(call, error, noting)

    def _answer(
        self, call: ApiCall, target: Target | None, refused: Refused | None, start: StartResponse
    ) -> Iterable[bytes]:
        try:
            call.user = self._authenticate(call)
            self._authorize(call.user, target, call.path)
            if target is not None:
                status, answer = self._serve(call, target)
            else:
                status, answer = 200, self._discover(call, refused)
        except Refused as error:
            return _refuse(call, error, start)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 - the mock is at fault, and the server goes on
            _log.exception("%s %s", call.method, call.path)
            told = Refused(500, "InternalError", "Internal error occurred: see the mock's log")
            return _refuse(call, told, start)
        return _send(call, status, answer, start)

    def _discover(self, call: ApiCall, refused: Refused | None) -> Answer:
        found = self._discovery.answer(call.path, call.headers)
        if found is None or call.method != "GET":
            raise refused or NoPage()
        return found.encode() if isinstance(found, str) else found

    def _serve(self, call: ApiCall, target: Target) -> tuple[int, Answer]:
        other = self.others.get(target.operation)
        if other is not None:
            answer = other(call, target)
            if isinstance(answer, Passed):
                return answer.status, answer
            return (201 if target.verb == "create" else 200), answer
        if not target.kind.stored or target.subresource not in {"", "status", "finalize"}:
            raise method_not_allowed()
        verbs: dict[str, Callable[[ApiCall, Target], tuple[int, Answer]]] = {
            "create": self._create,
            "get": self._get,
            "list": lambda call, target: (200, self.reading.list(call, target)),
            "patch": self._patch,
            "update": self._update,
            "watch": lambda call, target: (200, self.reading.watch(call, target)),
        }
        return verbs.get(target.verb, self._delete)(call, target)

    def _get(self, _call: ApiCall, target: Target) -> tuple[int, Answer]:
        return 200, self._store.get(target.kind, target.name, target.namespace)

    def _create(self, call: ApiCall, target: Target) -> tuple[int, Answer]:
        document = _object(call, target)
        return 201, self._store.create(document, namespace=target.namespace, how=call.how())

    def _update(self, call: ApiCall, target: Target) -> tuple[int, Answer]:
        document = _object(call, target)
        if (document.get("metadata") or {}).get("name") != target.name:
            raise bad_request("the name of the object does not match the name on the URL")
        how = call.how(target.subresource)
        return 200, self._store.update(document, namespace=target.namespace, how=how)

    def _patch(self, call: ApiCall, target: Target) -> tuple[int, Answer]:
        media = call.headers.get("content-type", "").partition(";")[0]
        type_ = TYPES.get(media)
        if type_ is None:
            told = f"the body of the request was in an unknown format: {media}"
            raise Refused(415, "UnsupportedMediaType", told)
        how = call.how(target.subresource)
        if type_ == "apply":
            if "fieldManager" not in call.query:
                told = 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is'
                raise Refused(422, "Invalid", f"{told} required for apply patch")
        elif how.force:
            told = 'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified'
            raise Refused(422, "Invalid", f"{told} for non-apply patch")
        there = self._store.find(target.kind, target.name, target.namespace)
        patch = call.document()
        if type_ == "apply":
            _object(call, target)
            if there is None:  # `createAuthorizerAttributes` in apiserver's ``patch.go``
                self._authorize(call.user, replace(target, verb="create"), call.path)
        changed = self._store.patch(
            target.kind, target.name, patch, target.namespace, type=type_, how=how
        )
        return (201 if there is None else 200), changed

    def _delete(self, call: ApiCall, target: Target) -> tuple[int, Answer]:
        options = call.document()
        grace = options.get("gracePeriodSeconds", call.query.get("gracePeriodSeconds"))
        conditions = options.get("preconditions") or {}
        if options.get("dryRun"):
            call.query["dryRun"] = options["dryRun"][0]
        how = call.how()
        given: dict[str, Any] = {
            "grace_s": None if grace is None else int(grace),
            "propagation": options.get("propagationPolicy")
            or call.query.get("propagationPolicy")
            or "Background",
            "how": how,
        }
        store, kind = self._store, target.kind
        if target.verb == "deletecollection":
            listed = self.reading.list(call, target)
            for one in listed["items"]:
                store.delete(kind, meta(one)["name"], target.namespace, **given)
            return 200, listed
        last = store.delete(
            kind,
            target.name,
            target.namespace,
            uid=conditions.get("uid", ""),
            version=conditions.get("resourceVersion", ""),
            **given,
        )
        if how.dry_run or store.find(kind, target.name, target.namespace) is not None:
            return 200, last
        if kind.kind == "Pod":
            return 200, last
        group = {"group": kind.group} if kind.group else {}
        details = {"name": target.name, **group, "kind": kind.plural, "uid": meta(last)["uid"]}
        answer = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return 200, {**answer, "details": details}


def _object(call: ApiCall, target: Target) -> Object:
    """The body, an object of the kind that the address is for.

    Raises:
        Refused: it is of another.
    """
    document = call.document()
    if not isinstance(document, dict):
        raise bad_request("the body of the request is no object")
    kind = target.kind
    document.setdefault("kind", kind.kind)
    document.setdefault("apiVersion", kind.api_version)
    if (document["apiVersion"], document["kind"]) != (kind.api_version, kind.kind):
        raise bad_request(
            f"the object in the data, {document['apiVersion']} {document['kind']}, does not match "
            f"the expected {kind.api_version} {kind.kind}"
        )
    return document


def _refuse(call: ApiCall, refused: Refused, start: StartResponse) -> Iterable[bytes]:
    answer = refused.TEXT if isinstance(refused, NoPage) else refused.document
    return _send(call, refused.code, answer, start, refused.retry_after_s)


def _send(
    call: ApiCall,
    status: int,
    answer: Answer,
    start: StartResponse,
    retry_after_s: int | None = None,
) -> Iterable[bytes]:
    headers = [("Cache-Control", "no-cache, private")]
    headers += [("Warning", f"299 - {json.dumps(told)}") for told in call.warnings]
    if retry_after_s is not None:
        headers.append(("Retry-After", str(retry_after_s)))
    line = f"{status} {HTTPStatus(status).phrase}"
    if isinstance(answer, Passed):
        start(line, [*answer.headers, ("Content-Length", str(len(answer.body)))])
        return [answer.body]
    if isinstance(answer, dict):
        media = "application/json"
        if answer.get("kind") == "APIGroupDiscoveryList":
            media += f";g={AGGREGATED};v=v2;as=APIGroupDiscoveryList"
        data = json.dumps(answer).encode()
    elif isinstance(answer, bytes):
        media, data = "text/plain; charset=utf-8", answer
    else:
        streamed = "text/plain" if call.path.endswith("/log") else "application/json"
        start(line, [*headers, ("Content-Type", streamed)])
        return answer
    start(line, [*headers, ("Content-Type", media), ("Content-Length", str(len(data)))])
    return [data]
