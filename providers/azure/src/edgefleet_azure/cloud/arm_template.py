"""Templates of Azure Resource Manager: read, checked, and resolved. Pure, but for what it is lent.

Rules kept here, each in ``mock_rules.md``:

- Whatever is unknown is refused: a key, a function, a parameter, a resource that is depended on.
- A resource's name has as many parts as its type says; no resource stands there twice.
- Resources come in the order of what they depend on; a circle is refused. A resource whose
  condition is false isn't made, and nobody waits for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SCHEMA = re.compile(
    r"^https?://schema\.management\.azure\.com/schemas/\d{4}-\d\d-\d\d/deploymentTemplate\.json#?$"
)
_TEMPLATE_KEYS = {"$schema", "contentVersion", "metadata", "parameters", "resources"}
_OWN_KEYS = {"type", "apiVersion", "name", "condition", "scope", "dependsOn", "comments"}
_CONTENT_KEYS = {"location", "tags", "sku", "kind", "identity", "properties"}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "bool": bool,
    "int": int,
    "object": dict,
    "array": list,
}
_TOKEN = re.compile(r"\s*(?:'((?:[^']|'')*)'|(\d+)|([A-Za-z_]\w*)|([(),.]))")


class TemplateError(ValueError):
    """The template, or what it is given, is refused.

    Attributes:
        code: as Azure names it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Declared(NamedTuple):
    """One resource of a template, resolved.

    Attributes:
        id: its resource id.
        type: with its namespace.
        version: of its provider's API.
        name: its own, behind those that it lies in.
        content: all else that it has.
    """

    id: str
    type: str
    version: str
    name: str
    content: dict[str, Any]


class Surroundings(NamedTuple):
    """What a template's functions ask for.

    Attributes:
        subscription: its id.
        group: name of the resource group that is deployed to.
        location: of that group.
        list_keys: gives a resource's keys, by its id; raises TemplateError.
    """

    subscription: str
    group: str
    location: str
    list_keys: Callable[[str], Mapping[str, Any]]

    @property
    def group_id(self) -> str:
        """The resource id of the group."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"


def read(
    template: Any,  # noqa: ANN401 - JSON of anybody's
    given: Mapping[str, Any],
    surroundings: Surroundings,
) -> Iterator[Declared]:
    """The resources that a template makes, each behind those that it depends on.

    One after the other is resolved when it is asked for, so that what one needs is there.

    Args:
        template: the whole document.
        given: parameters as requests have them: ``{"name": {"value": …}}``.
        surroundings: what its functions ask for.

    Raises:
        TemplateError: before the first, whatever is wrong with the template itself.
    """
    if not isinstance(template, dict):
        raise TemplateError("InvalidTemplate", "the template is no object")
    if not SCHEMA.match(str(template.get("$schema", ""))):
        raise TemplateError("InvalidTemplate", "the template's $schema is not one of ARM's")
    if "contentVersion" not in template or not isinstance(template.get("resources"), list):
        raise TemplateError("InvalidTemplate", "contentVersion and resources are needed")
    unknown = template.keys() - _TEMPLATE_KEYS
    if unknown:
        raise TemplateError("InvalidTemplate", f"the template has unknown keys: {sorted(unknown)}")
    context = _Context(_values(template.get("parameters", {}), given, surroundings), surroundings)
    return context.resolved(_ordered([_Stub.of(one, context) for one in template["resources"]]))


def _values(
    declared: Mapping[str, Any], given: Mapping[str, Any], surroundings: Surroundings
) -> dict[str, Any]:
    unknown = given.keys() - declared.keys()
    if unknown:
        raise TemplateError(
            "InvalidTemplate",
            "Deployment template validation failed: 'The template parameters "
            f"'{', '.join(sorted(unknown))}' in the parameters file are not valid; they are not "
            "present in the original template and can therefore not be provided at deployment "
            "time.'.",
        )
    values: dict[str, Any] = {}
    for name, one in declared.items():
        if name in given:
            value = given[name]["value"]
        elif "defaultValue" in one:
            value = _Context(values, surroundings).value(one["defaultValue"])
        else:
            raise TemplateError(
                "InvalidTemplate",
                "Deployment template validation failed: 'The value for the template parameter "
                f"'{name}' is not provided.'.",
            )
        wanted = _TYPES.get(str(one.get("type")).lower())
        if wanted is None or not isinstance(value, wanted):
            raise TemplateError(
                "InvalidTemplate",
                "Deployment template validation failed: 'The provided value for the template "
                f"parameter '{name}' is not valid. Expected a value of type '{one.get('type')}'.'.",
            )
        values[name] = value
    return values


class _Stub(NamedTuple):
    """A resource as far as it is known before any is made."""

    raw: dict[str, Any]
    id: str
    needs: tuple[str, ...]
    made: bool

    @classmethod
    def of(cls, raw: Any, context: _Context) -> _Stub:  # noqa: ANN401 - JSON
        if not isinstance(raw, dict) or not {"type", "apiVersion", "name"} <= raw.keys():
            raise TemplateError("InvalidTemplate", "a resource needs type, apiVersion and name")
        unknown = raw.keys() - _OWN_KEYS - _CONTENT_KEYS
        if unknown:
            raise TemplateError(
                "InvalidTemplate", f"resource {raw['name']!r} has unknown keys: {sorted(unknown)}"
            )
        name = context.value(raw["name"])
        scope = context.value(raw["scope"]) if "scope" in raw else context.surroundings.group_id
        identity = _resource_id(str(scope), raw["type"], name.split("/"))
        needs = tuple(str(context.value(one)).lower() for one in raw.get("dependsOn", ()))
        return cls(raw, identity, needs, bool(context.value(raw.get("condition", True))))


def _resource_id(scope: str, type_: str, names: list[str]) -> str:
    namespace, *kinds = type_.split("/")
    if len(kinds) != len(names):
        raise TemplateError(
            "InvalidTemplate",
            f"Deployment template validation failed: 'The template resource '{'/'.join(names)}' "
            f"for type '{type_}' has incorrect segment lengths. A nested resource type must have "
            "identical number of segments as its resource name.'.",
        )
    path = "/".join(f"{kind}/{name}" for kind, name in zip(kinds, names, strict=True))
    return f"{scope}/providers/{namespace}/{path}"


def _ordered(stubs: list[_Stub]) -> list[_Stub]:
    known: dict[str, _Stub] = {}
    for stub in stubs:
        if stub.id.lower() in known:
            raise TemplateError(
                "InvalidTemplate",
                f"Deployment template validation failed: 'The resource '{stub.id}' is defined "
                "multiple times in a template.'.",
            )
        known[stub.id.lower()] = stub
    done: dict[str, None] = {}

    def visit(identity: str, behind: tuple[str, ...]) -> None:
        if identity in done:
            return
        if identity in behind:
            raise TemplateError(
                "InvalidTemplate",
                "Deployment template validation failed: 'Circular dependency detected on "
                f"resource: '{known[identity].id}'.'.",
            )
        for needed in known[identity].needs:
            if needed not in known:
                raise TemplateError(
                    "InvalidTemplate",
                    f"Deployment template validation failed: 'The resource '{needed}' is not "
                    "defined in the template.'.",
                )
            visit(needed, (*behind, identity))
        done[identity] = None

    for identity in known:
        visit(identity, ())
    return [known[identity] for identity in done if known[identity].made]


class _Context:
    """What expressions are evaluated in."""

    def __init__(self, parameters: Mapping[str, Any], surroundings: Surroundings) -> None:
        self._parameters = parameters
        self.surroundings = surroundings

    def resolved(self, stubs: list[_Stub]) -> Iterator[Declared]:
        for stub in stubs:
            content = {key: stub.raw[key] for key in _CONTENT_KEYS if key in stub.raw}
            name = stub.id.rpartition("/")[2]
            version = str(stub.raw["apiVersion"])
            yield Declared(stub.id, stub.raw["type"], version, name, self.value(content))

    def value(self, raw: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(raw, dict):
            return {key: self.value(item) for key, item in raw.items()}
        if isinstance(raw, list):
            return [self.value(item) for item in raw]
        if isinstance(raw, str) and raw.startswith("[["):
            return raw[1:]
        if isinstance(raw, str) and raw.startswith("[") and raw.endswith("]"):
            tokens = list(_tokens(raw[1:-1]))
            value, left = self._term(tokens)
            if left:
                raise TemplateError("InvalidTemplate", f"can't read the expression {raw!r}")
            return value
        return raw

    def _term(self, tokens: list[tuple[str, Any]]) -> tuple[Any, list[tuple[str, Any]]]:
        (kind, found), *rest = tokens or [("end", None)]
        if kind == "literal":
            return found, rest
        if kind != "name" or not rest or rest[0] != ("sign", "("):
            raise TemplateError("InvalidTemplate", f"can't read an expression at {found!r}")
        arguments: list[Any] = []
        rest = rest[1:]
        while rest and rest[0] != ("sign", ")"):
            value, rest = self._term(rest)
            arguments.append(value)
            if rest and rest[0] == ("sign", ","):
                rest = rest[1:]
        if not rest:
            raise TemplateError("InvalidTemplate", f"{found}( is never closed")
        value = self._call(found, arguments)
        rest = rest[1:]
        while len(rest) > 1 and rest[0] == ("sign", "."):
            member = rest[1][1]
            if not isinstance(value, dict) or member not in value:
                raise TemplateError("InvalidTemplate", f"{found}() has no property {member!r}")
            value, rest = value[member], rest[2:]
        return value, rest

    def _call(self, name: str, arguments: list[Any]) -> Any:  # noqa: ANN401 - whatever it gives
        around = self.surroundings
        if name == "parameters":
            if arguments[0] not in self._parameters:
                raise TemplateError(
                    "InvalidTemplate", f"The template parameter '{arguments[0]}' is not found."
                )
            return self._parameters[arguments[0]]
        if name == "resourceId":
            return _resource_id(around.group_id, arguments[0], arguments[1:])
        if name == "subscriptionResourceId":
            scope = f"/subscriptions/{around.subscription}"
            return _resource_id(scope, arguments[0], arguments[1:])
        if name == "resourceGroup":
            return {"id": around.group_id, "name": around.group, "location": around.location}
        if name == "concat":
            return "".join(map(str, arguments))
        if name == "listKeys":
            return around.list_keys(arguments[0])
        raise TemplateError("InvalidTemplate", f"The template function '{name}' is not valid.")


def _tokens(text: str) -> Iterator[tuple[str, Any]]:
    at = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if found is None:
            raise TemplateError("InvalidTemplate", f"can't read the expression [{text}]")
        at = found.end()
        string, number, name, sign = found.groups()
        if string is not None:
            yield "literal", string.replace("''", "'")
        elif number is not None:
            yield "literal", int(number)
        elif name is not None:
            yield "name", name
        else:
            yield "sign", sign
