"""Schemas of Kubernetes' kinds: what an object may hold, and how its lists and maps merge.

They are those of kubernetes-validate, in its strict form, for one version of Kubernetes; each is
compiled once. Custom kinds bring their own.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import jsonschema
import kubernetes_validate
import referencing
import referencing.jsonschema
from kubernetes_validate import utils

from edgefleet_kubernetes.cloud.api_status import Cause, required, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet_kubernetes.cloud.api_kinds import Kind

Node = dict[str, Any]
"""A schema, or a part of one."""

ANY: Final[Node] = {}
_KINDS = "x-kubernetes-group-version-kind"
_KEEPS = "x-kubernetes-preserve-unknown-fields"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def newest() -> str:
    """The newest version of Kubernetes that there are schemas of, such as ``1.37``."""
    found: str = utils.major_minor(kubernetes_validate.latest_version())
    return found


@cache
def schemas(version: str) -> Schemas:
    """Schemas of a version such as ``1.31``; read once a process."""
    return Schemas(version)


class Schemas:
    """Schemas of one version of Kubernetes.

    Args:
        version: such as ``1.31``.

    Raises:
        ValueError: kubernetes-validate has none of that version.
    """

    def __init__(self, version: str) -> None:
        known = {utils.major_minor(one): one for one in utils.all_versions()}
        if version not in known:
            raise ValueError(f"no schemas of Kubernetes {version}; there are {', '.join(known)}")
        self.version = version
        folder = f"kubernetes-json-schema/v{known[version]}-local-strict"
        document = utils.schema_contents(f"{folder}/_definitions.json", version)
        self._parts: dict[str, Node] = document["$defs"]
        self._registry = referencing.Registry().with_resource(
            "defs",
            referencing.jsonschema.DRAFT202012.create_resource(document),
        )
        self._names = {
            (one["group"], one["version"], one["kind"]): name
            for name, part in self._parts.items()
            for one in part.get(_KINDS, ())
        }
        self._validators: dict[Kind, Any] = {}

    def knows(self, kind: Kind) -> bool:
        """Whether this version has that kind."""
        return kind.schema is not None or self._key(kind) in self._names

    def of(self, kind: Kind) -> Node:
        """The schema of a kind."""
        if kind.schema is not None:
            return {**kind.schema, "properties": self._with_meta(kind.schema)}
        name = self._names.get(self._key(kind))
        return ANY if name is None else self._parts[name]

    def child(self, node: Node, name: str) -> Node | None:
        """The schema of a member; None where there may be no such member."""
        node = self.whole(node)
        found = (node.get("properties") or {}).get(name)
        if found is None:
            more = node.get("additionalProperties")
            if more is False or (more is None and "properties" in node and not node.get(_KEEPS)):
                return None
            found = more if isinstance(more, dict) else ANY
        return self.whole(found)

    def items(self, node: Node) -> Node:
        """The schema of a list's items."""
        return self.whole(self.whole(node).get("items") or ANY)

    def whole(self, node: Node) -> Node:
        """A schema with what it refers to."""
        reference = node.get("$ref")
        if reference is None:
            return node
        part = self._parts[reference.rpartition("/")[2]]
        return self.whole({**part, **{key: one for key, one in node.items() if key != "$ref"}})

    def unknown(self, kind: Kind, document: Mapping[str, Any]) -> list[str]:
        """Fields of an object that its kind doesn't have, such as ``spec.replicas``."""
        return [path for path, _, _ in self._unknown(self.of(kind), document, "")]

    def prune(self, kind: Kind, document: dict[str, Any]) -> list[str]:
        """Take the fields out of an object that its kind doesn't have, and tell which."""
        found = list(self._unknown(self.of(kind), document, ""))
        for _, holder, name in found:
            del holder[name]
        return [path for path, _, _ in found]

    def wrong(self, kind: Kind, document: Mapping[str, Any]) -> list[Cause]:
        """What an object has against its schema."""
        validator = self._validators.get(kind)
        if validator is None:
            validator = self._validators[kind] = jsonschema.Draft202012Validator(
                self._rooted(kind), registry=self._registry
            )
        return [_cause(error) for error in validator.iter_errors(document)]

    def _key(self, kind: Kind) -> tuple[str, str, str]:
        return (kind.group, kind.version, kind.kind)

    def _rooted(self, kind: Kind) -> Node:
        if kind.schema is None:
            name = self._names.get(self._key(kind))
            return ANY if name is None else {"$ref": f"defs#/$defs/{name}"}
        schema: Node = _as_json_schema(dict(kind.schema))
        schema["properties"] = {
            **schema.get("properties", {}),
            "metadata": {"$ref": f"defs#/$defs/{_META}"},
        }
        return schema

    def _with_meta(self, schema: Mapping[str, Any]) -> Node:
        text = {"type": "string"}
        return {
            **(schema.get("properties") or {}),
            "apiVersion": text,
            "kind": text,
            "metadata": self._parts[_META],
        }

    def _unknown(
        self,
        node: Node,
        value: Any,  # noqa: ANN401 - JSON
        path: str,
    ) -> Iterator[tuple[str, dict[str, Any], str]]:
        if isinstance(value, dict):
            for name, one in value.items():
                where = f"{path}.{name}" if path else name
                child = self.child(node, name)
                if child is None:
                    yield where, value, name
                else:
                    yield from self._unknown(child, one, where)
        elif isinstance(value, list):
            child = self.items(node)
            for number, one in enumerate(value):
                yield from self._unknown(child, one, f"{path}[{number}]")


def _as_json_schema(node: Any) -> Any:  # noqa: ANN401 - JSON
    """A structural schema as JSON Schema: null where it may be, integers or strings."""
    if isinstance(node, list):
        return [_as_json_schema(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {key: _as_json_schema(one) for key, one in node.items() if key != "nullable"}
    if node.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    elif node.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made


def _cause(error: jsonschema.ValidationError) -> Cause:
    path = ""
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    path = path.removeprefix(".")
    if error.validator == "required":
        needed: Any = error.validator_value
        there: Any = error.instance
        missing = next(name for name in needed if name not in there)
        return required(f"{path}.{missing}".removeprefix("."))
    if error.validator == "type" and error.instance is None:
        return required(path)
    return wrong(path, error.instance, error.message)
