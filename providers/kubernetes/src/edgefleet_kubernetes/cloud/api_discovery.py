"""What an API server says of itself: groups, resources, version, and OpenAPI enough for kubectl.

kubectl asks OpenAPI's third version whether ``fieldValidation`` is known before it sends an object;
see ``query_param_verifier_v3.go`` of cli-runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.cloud.api_kinds import VERBS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_kubernetes.cloud.api_kinds import Kind, Kinds
    from edgefleet_kubernetes.cloud.api_schema import Schemas

AGGREGATED = "apidiscovery.k8s.io"
_SUB_VERBS = {
    "finalize": ["update"],
    "log": ["get"],
    "proxy": ["create", "delete", "get", "patch", "update"],
}
"""Of subresources that take other requests than ``create``."""


class Discovery:
    """Answers what is there.

    Args:
        kinds: that are served.
        schemas: of the version of Kubernetes.
    """

    def __init__(self, kinds: Kinds, schemas: Schemas) -> None:
        self._kinds, self._schemas = kinds, schemas

    def answer(self, path: str, headers: Mapping[str, str]) -> dict[str, Any] | str | None:
        """What lies at a path that names no objects; None for nothing."""
        first, *rest = path.strip("/").split("/")
        if first in {"healthz", "livez", "readyz"}:
            return "ok"
        if first == "version" and not rest:
            return self._version()
        if first == "openapi":
            return self._openapi("/".join(rest[1:])) if rest[:1] == ["v3"] else None
        if first in {"api", "apis"}:
            return self._apis(first, rest, headers.get("accept", ""))
        return None

    def _apis(self, first: str, rest: list[str], accept: str) -> dict[str, Any] | None:
        core = first == "api"
        if not rest:
            if AGGREGATED in accept and "v2beta1" not in accept:
                return self._aggregated(core=core)
            return self._versions() if core else self._groups()
        if len(rest) == 1 and not core:
            return self._group(rest[0]) if rest[0] in self._by_group() else None
        if len(rest) != (1 if core else 2):
            return None
        return self._resources("" if core else rest[0], rest[-1])

    def _by_group(self) -> dict[str, set[str]]:
        groups: dict[str, set[str]] = {}
        for kind in self._kinds:
            if self._schemas.knows(kind):
                groups.setdefault(kind.group, set()).add(kind.version)
        return groups

    def _version(self) -> dict[str, Any]:
        major, minor = self._schemas.version.split(".")
        return {
            "major": major,
            "minor": minor,
            "gitVersion": f"v{major}.{minor}.0+edgefleet-mock",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "none",
            "compiler": "none",
            "platform": "linux/amd64",
        }

    def _versions(self) -> dict[str, Any]:
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}

    def _groups(self) -> dict[str, Any]:
        groups = [self._group(name) for name in sorted(self._by_group()) if name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _group(self, name: str) -> dict[str, Any]:
        versions = [
            {"groupVersion": f"{name}/{version}", "version": version}
            for version in sorted(self._by_group()[name])
        ]
        return {
            "kind": "APIGroup",
            "apiVersion": "v1",
            "name": name,
            "versions": versions,
            "preferredVersion": versions[0],
        }

    def _of(self, group: str, version: str) -> list[Kind]:
        return [
            kind
            for kind in self._kinds
            if (kind.group, kind.version) == (group, version) and self._schemas.knows(kind)
        ]

    def _resources(self, group: str, version: str) -> dict[str, Any] | None:
        found = self._of(group, version)
        if not found:
            return None
        resources: list[dict[str, Any]] = []
        for kind in found:
            resources.append(
                {
                    "name": kind.plural,
                    "singularName": kind.singular,
                    "namespaced": kind.namespaced,
                    "kind": kind.kind,
                    "verbs": list(VERBS) if kind.stored else ["create"],
                    "shortNames": list(kind.short),
                }
            )
            resources += [
                {
                    "name": f"{kind.plural}/{sub}",
                    "singularName": "",
                    "namespaced": kind.namespaced,
                    "kind": made,
                    "verbs": verbs,
                }
                for sub, made, verbs in _subresources(kind)
            ]
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": resources,
        }

    def _aggregated(self, *, core: bool) -> dict[str, Any]:
        items = []
        for group, versions in sorted(self._by_group().items()):
            if bool(group) is core:
                continue
            told = [
                {
                    "version": version,
                    "freshness": "Current",
                    "resources": [_aggregated(kind) for kind in self._of(group, version)],
                }
                for version in sorted(versions)
            ]
            items.append({"metadata": {"name": group}, "versions": told})
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"{AGGREGATED}/v2",
            "metadata": {},
            "items": items,
        }

    def _openapi(self, rest: str) -> dict[str, Any] | None:
        if not rest:
            paths = {
                _root(group, version): {"serverRelativeURL": f"/openapi/v3/{_root(group, version)}"}
                for group, versions in self._by_group().items()
                for version in versions
            }
            return {"paths": paths}
        parts = rest.split("/")
        group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
        found = self._of(group, version)
        if not found:
            return None
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": f"v{self._schemas.version}.0"},
            "paths": {_path(kind): {"patch": _patching(kind)} for kind in found if kind.stored},
        }


def _subresources(kind: Kind) -> list[tuple[str, str, list[str]]]:
    found = [("status", kind.kind, ["get", "patch", "update"])] if kind.status else []
    for sub, made in kind.others:
        verbs = _SUB_VERBS.get(sub, ["create"])
        found.append((sub, made, verbs))
    return found


def _aggregated(kind: Kind) -> dict[str, Any]:
    response = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    return {
        "resource": kind.plural,
        "responseKind": response,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(VERBS) if kind.stored else ["create"],
        "shortNames": list(kind.short),
        "subresources": [
            {"subresource": sub, "responseKind": {**response, "kind": made}, "verbs": verbs}
            for sub, made, verbs in _subresources(kind)
        ],
    }


def _root(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _path(kind: Kind) -> str:
    below = "/namespaces/{namespace}" if kind.namespaced else ""
    return f"/{_root(kind.group, kind.version)}{below}/{kind.plural}/{{name}}"


def _patching(kind: Kind) -> dict[str, Any]:
    names = ("dryRun", "fieldManager", "fieldValidation", "force")
    return {
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string"}} for name in names
        ],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {
            "group": kind.group,
            "kind": kind.kind,
            "version": kind.version,
        },
    }
