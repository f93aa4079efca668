"""One request to the mock's API server: what it asks for, and what it is answered."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from edgefleet.testing.cloud.calls import Call
from edgefleet.testing.cloud.calls import Refused as TooLarge
from edgefleet_kubernetes.cloud.api_status import (
    NoPage,
    Refused,
    bad_request,
    method_not_allowed,
    nothing_there,
)
from edgefleet_kubernetes.cloud.api_users import ANONYMOUS, User
from edgefleet_kubernetes.cloud.api_writes import Write

if TYPE_CHECKING:
    from edgefleet_kubernetes.cloud.api_kinds import Kind, Kinds

MOST_BYTES = 3 << 20  # of a request's body: apiserver's ``MaxRequestBodyBytes``
_ADDRESS = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/(?!(?:status|finalize)/?$)))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>proxy(?=/)|[^/]+))?)?"
    r"(?P<rest>(?<=/proxy)/.*|/?)"
)
_ONE = re.compile(r"(?:^|,)metadata\.name==?([^,=!]+)(?:,|$)")
_VERBS = {
    ("GET", True): "get",
    ("GET", False): "list",
    ("POST", True): "create",
    ("POST", False): "create",
    ("PUT", True): "update",
    ("PATCH", True): "patch",
    ("DELETE", True): "delete",
    ("DELETE", False): "deletecollection",
}
_TRUE = ("1", "true", "True", "")


@dataclass
class ApiCall(Call):
    """One request, and whoever calls.

    Attributes:
        user: whoever calls; known once they are authenticated.
        warnings: to send along with the answer.
    """

    user: User = field(default_factory=lambda: User(ANONYMOUS, ("system:unauthenticated",)))
    warnings: list[str] = field(default_factory=list)

    def flag(self, name: str) -> bool:
        """Whether a parameter says yes."""
        return name in self.query and self.query[name] in _TRUE

    def document(self) -> Any:  # noqa: ANN401 - JSON
        """The body, which is JSON or YAML.

        Raises:
            Refused: it can't be read, or is too large.
        """
        try:
            data = self.body(MOST_BYTES)
        except TooLarge as error:
            told = f"Request entity too large: limit is {MOST_BYTES}"
            raise Refused(413, "RequestEntityTooLarge", told) from error
        if not data:
            return {}
        media = self.headers.get("content-type", "")
        if "protobuf" in media or "cbor" in media:
            told = f"the mock reads JSON and YAML, and the body of the request is {media}"
            raise Refused(415, "UnsupportedMediaType", told)
        try:
            if "json" in media or data[:1] in b"{[":
                return json.loads(data)
            return yaml.safe_load(data)
        except (ValueError, yaml.YAMLError) as error:
            raise bad_request(f"the object provided is unrecognized: {error}") from error

    def how(self, subresource: str = "") -> Write:
        """How the request wants something written.

        Raises:
            Refused: a parameter has no such value.
        """
        dry_run = self.query.get("dryRun", "")
        if dry_run not in {"", "All"}:
            raise bad_request(f'Invalid value: "{dry_run}": supported values: "All"')
        fields = self.query.get("fieldValidation") or "Warn"
        if fields not in {"Strict", "Warn", "Ignore"}:
            raise bad_request(f'fieldValidation: Unsupported value: "{fields}"')
        agent = self.headers.get("user-agent", "unknown").partition("/")[0]
        return Write(
            user=self.user,
            manager=self.query.get("fieldManager") or agent,
            subresource=subresource,
            dry_run=bool(dry_run),
            force=self.flag("force"),
            fields=fields,
            warn=self.warnings.append,
        )


@dataclass(frozen=True)
class Passed:
    """An answer of somebody else, as it came.

    Attributes:
        status: of HTTP.
        headers: of it.
        body: of it.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Target:
    """What a request is for.

    Attributes:
        verb: as roles name it, such as ``list`` or ``watch``.
        kind: of the objects.
        namespace: empty for all, or for objects of the whole cluster.
        name: empty for all.
        subresource: such as ``status``; empty for the object itself.
        rest: of the path, for what is passed on to a pod.
    """

    verb: str
    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""

    @property
    def resource(self) -> str:
        """As roles name it: ``pods/log``."""
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural

    @property
    def operation(self) -> str:
        """As the journal and rules name it: ``pods/log.get``."""
        return f"{self.resource}.{self.verb}"


def target_of(call: ApiCall, kinds: Kinds) -> Target:
    """What a request is for.

    Raises:
        Refused: there is nothing of the kind, or it takes no such request.
    """
    found = _ADDRESS.fullmatch(call.path)
    if found is None:
        raise NoPage
    part = found.groupdict()
    group, version = part["group"] or "", part["core"] or part["version"]
    kind = kinds.at(group, version, part["plural"])
    name, sub, namespace = part["name"] or "", part["sub"] or "", part["namespace"] or ""
    if sub and not (sub == "status" and kind.status) and sub not in dict(kind.others):
        raise nothing_there()
    if namespace and not kind.namespaced:
        raise nothing_there()
    verb = _VERBS.get((call.method, bool(name)))
    if verb is None or (verb == "create" and bool(name) != bool(sub)):
        raise method_not_allowed()
    if not kind.stored and verb != "create":
        raise method_not_allowed()
    if kind.namespaced and not namespace and (name or verb in {"create", "deletecollection"}):
        raise method_not_allowed()
    if verb == "list":
        if call.flag("watch"):
            verb = "watch"
        # A list of one object is authorized as one of that name: ``requestinfo.go`` of apiserver.
        one = _ONE.search(call.query.get("fieldSelector", ""))
        name = one.group(1) if one else ""
    return Target(verb, kind, namespace, name, sub, part["rest"])
