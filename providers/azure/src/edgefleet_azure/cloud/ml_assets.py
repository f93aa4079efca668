"""Assets of a workspace or shared registry: models and more, in numbered or named versions.

Rules as in ``mock_rules.md``: where an asset's bytes lie never changes, tags, description and stage
do; an archived version stays and is left out of listings; a model's version is a whole number.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_azure.cloud.ml_calls import members_of, missing, now, page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_azure.cloud.calls import Call

PAGE = 30
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}")
_VERSION = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}")
_WHOLE = re.compile(r"[1-9][0-9]{0,9}")
# What of a version never changes: its place, or what it is made of.
_FIXED = {
    "models": ("modelUri", "modelType"),
    "environments": ("image", "build", "condaFile"),
    "components": ("componentSpec",),
    "data": ("dataUri", "dataType"),
}
KINDS = tuple(_FIXED)


class Assets:
    """All assets of a workspace, or of a shared registry.

    Args:
        scope: resource id of it.
        caller: who is said to have changed what.
        ids: what ids of assets begin with, where it isn't the scope.
    """

    def __init__(self, scope: str, caller: str, *, ids: str = "") -> None:
        self._ids, self._caller = ids or scope, caller
        self._type = "/".join(scope.split("/")[-3:-1])  # with its namespace
        self._lock = threading.Lock()
        self._kept: dict[str, dict[str, dict[str, dict[str, Any]]]] = {kind: {} for kind in KINDS}

    def kept(self) -> dict[str, Any]:
        """What there is, as JSON."""
        with self._lock:
            return {kind: {**names} for kind, names in self._kept.items()}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on with what an earlier run of the mock kept."""
        with self._lock:
            for kind, names in kept.items():
                self._kept[kind] = {name: dict(versions) for name, versions in names.items()}

    def put(self, kind: str, name: str, version: str, properties: Mapping[str, Any]) -> None:
        """Have a version there from the start, such as a curated environment."""
        with self._lock:
            self._write(kind, name, version, dict(properties))

    def decide(self, name: str, version: str, *, stage: str, by: str) -> None:
        """Change a model's stage as a person does in the studio.

        Raises:
            KeyError: there is no such version.
        """
        with self._lock:
            there = self._kept["models"][name][version]
            there["properties"] = {**there["properties"], "stage": stage}
            there["systemData"] |= {"lastModifiedBy": by, "lastModifiedAt": now()}

    def has(self, kind: str, name: str, version: str) -> bool:
        """Whether a version exists."""
        with self._lock:
            return version in self._kept[kind].get(name, {})

    def read(self, kind: str, name: str, version: str) -> dict[str, Any]:
        """A version's properties; `KeyError` when there is none."""
        with self._lock:
            found: dict[str, Any] = self._kept[kind][name][version]["properties"]
            return found

    def answer(self, call: Call, kind: str, name: str | None, version: str | None) -> Reply:
        """Reply a call about a container (no version) or a version of it.

        Raises:
            Refused: the answer is no.
        """
        with self._lock:
            if name is None:
                return page([self._container(kind, name) for name in self._kept[kind]], call, PAGE)
            if version is None:
                if name not in self._kept[kind]:
                    raise missing(f"{kind} container {name}")
                return Reply(200, self._container(kind, name))
            if version == "":
                return self._versions(call, kind, name)
            if call.method == "GET":
                there = self._kept[kind].get(name, {}).get(version)
                if there is None:
                    raise missing(f"{kind} {name}:{version}")
                return Reply(200, there)
            if call.method in {"PUT", "POST"}:
                return self._create(kind, name, version, members_of(call))
        raise Refused(405, "MethodNotAllowed", f"{call.method} isn't answered here.")

    def _versions(self, call: Call, kind: str, name: str) -> Reply:
        view = call.query.get("listviewtype", "ActiveOnly")
        hidden = {"ActiveOnly": {True}, "ArchivedOnly": {False}}.get(view, set())
        found = [
            there
            for there in self._kept[kind].get(name, {}).values()
            if bool(there["properties"].get("isArchived")) not in hidden
        ]
        found.sort(key=lambda there: str(there["systemData"]["createdAt"]), reverse=True)
        return page(found, call, int(call.query.get("$top") or PAGE))

    def _create(self, kind: str, name: str, version: str, properties: dict[str, Any]) -> Reply:
        if not _NAME.fullmatch(name):
            raise Refused(400, "UserError", f"{name!r} is no name of an asset.")
        if not (_WHOLE if kind == "models" else _VERSION).fullmatch(version):
            why = "Model version must be a positive integer" if kind == "models" else "bad version"
            raise Refused(400, "UserError", f"{why}: {version!r}.")
        there = self._kept[kind].get(name, {}).get(version)
        if there is None:
            fixed = _FIXED[kind][0]
            if not any(key in properties for key in _FIXED[kind]):
                raise Refused(400, "UserError", f"A version of {kind} needs {fixed}.")
            return Reply(201, self._write(kind, name, version, properties))
        before = there["properties"]
        for key in _FIXED[kind]:
            if properties.get(key, before.get(key)) != before.get(key):
                raise Refused(400, "UserError", "Asset paths cannot be updated.")
        gone = set(before.get("properties", {})) - set(properties.get("properties", {}))
        if gone:
            raise Refused(400, "UserError", f"Properties can't be removed: {sorted(gone)}.")
        there["properties"] = {**before, **properties}
        there["systemData"] |= {"lastModifiedBy": self._caller, "lastModifiedAt": now()}
        return Reply(200, there)

    def _write(
        self, kind: str, name: str, version: str, properties: dict[str, Any]
    ) -> dict[str, Any]:
        at = now()
        usual = {"tags": {}, "properties": {}, "isArchived": False, "isAnonymous": False}
        if kind == "models":
            usual["flavors"] = {}
        there = {
            "id": f"{self._ids}/{kind}/{name}/versions/{version}",
            "name": version,
            "type": f"{self._type}/{kind}/versions",
            "properties": {**usual, **properties},
            "systemData": {
                "createdAt": at,
                "createdBy": self._caller,
                "createdByType": "User",
                "lastModifiedAt": at,
                "lastModifiedBy": self._caller,
            },
        }
        self._kept[kind].setdefault(name, {})[version] = there
        return there

    def _container(self, kind: str, name: str) -> dict[str, Any]:
        versions = self._kept[kind][name]
        whole = [int(version) for version in versions if version.isdecimal()]
        newest = max(versions.values(), key=lambda there: str(there["systemData"]["createdAt"]))
        return {
            "id": f"{self._ids}/{kind}/{name}",
            "name": name,
            "type": f"{self._type}/{kind}",
            "properties": {
                "latestVersion": newest["name"],
                "nextVersion": str(max(whole, default=0) + 1),
                "isArchived": False,
                "tags": {},
                "properties": {},
            },
            "systemData": newest["systemData"],
        }
