"""Resources of Azure described once, and written in both of its languages: ARM's JSON and Bicep.

Pure: no call is made here. No Bicep compiler is needed to deploy, nor to read what is deployed.

- A description holds values, parameters and calls of template functions that both languages have;
  what only one of them can say can't be described.
- Order follows from ``needs`` alone, in both languages: no dependency is implied by a reference.
- Names are known when a description is made, so that what it made can be found again by name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Parameter:
    """The value of a parameter."""

    name: str


@dataclass(frozen=True)
class Call:
    """A template function's answer, or a member of it.

    Args:
        function: of those that both languages have, under the same name.
        arguments: strings, parameters and calls.
        member: of the answer, such as ``primaryKey``; empty for all of it.
    """

    function: str
    arguments: tuple[Any, ...] = ()
    member: str = ""


@dataclass(frozen=True)
class Joined:
    """Text with values in it."""

    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Resource:
    """One resource.

    Args:
        symbol: its name within the description.
        type: with its namespace, such as ``Microsoft.Storage/storageAccounts``.
        version: of its provider's API.
        name: whole, with the names of those it lies in, joined by ``/``.
        content: ``properties`` and whatever else stands beside them.
        parent: symbol of the resource that it lies in.
        scope: symbol of the resource that it is about, where it lies in none.
        condition: name of the parameter that says whether it is made.
        needs: symbols of those that must be there before; ``parent`` and ``scope`` are.
        existing: it is there, made by somebody else, and only referred to.
    """

    symbol: str
    type: str
    version: str
    name: str
    content: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    scope: str | None = None
    condition: str | None = None
    needs: tuple[str, ...] = ()
    existing: bool = False

    @property
    def identity(self) -> Call:
        """Its id, as a call of both languages."""
        return Call("resourceId", (self.type, *self.name.split("/")))


@dataclass(frozen=True)
class Description:
    """A template.

    Args:
        parameters: type and, by name, what each is for; with a default where there is one.
        resources: in any order.
    """

    parameters: Mapping[str, tuple[str, str, Any]]
    resources: tuple[Resource, ...]

    def __getitem__(self, symbol: str) -> Resource:
        return next(one for one in self.resources if one.symbol == symbol)


# ARM's JSON


def arm(described: Description) -> dict[str, Any]:
    """The template as Azure Resource Manager takes it."""
    parameters = {}
    for name, (kind, purpose, default) in described.parameters.items():
        parameters[name] = {"type": kind, "metadata": {"description": purpose}}
        if default is not None:
            parameters[name]["defaultValue"] = _json(default)
    resources = [_arm_resource(described, one) for one in described.resources if not one.existing]
    return {
        "$schema": SCHEMA,
        "contentVersion": "1.0.0.0",
        "parameters": parameters,
        "resources": resources,
    }


def _arm_resource(described: Description, one: Resource) -> dict[str, Any]:
    made: dict[str, Any] = {"type": one.type, "apiVersion": one.version, "name": one.name}
    if one.condition is not None:
        made["condition"] = _json(Parameter(one.condition))
    if one.scope is not None:
        made["scope"] = _json(described[one.scope].identity)
    made.update({key: _json(value) for key, value in one.content.items()})
    needed = [described[symbol] for symbol in _needed(one)]
    needs = [_json(other.identity) for other in needed if not other.existing]
    if needs:
        made["dependsOn"] = needs
    return made


def _needed(one: Resource) -> Iterable[str]:
    inherent = (symbol for symbol in (one.parent, one.scope) if symbol is not None)
    return dict.fromkeys((*inherent, *one.needs))


def _json(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, (Parameter, Call, Joined)):
        return f"[{_arm_expression(value)}]"
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, str) and value.startswith("["):
        return f"[{value}"  # a literal bracket; ARM takes the first one off
    return value


def _arm_expression(value: Any) -> str:  # noqa: ANN401 - of the kinds above
    if isinstance(value, Parameter):
        return f"parameters({_arm_string(value.name)})"
    if isinstance(value, Call):
        text = f"{value.function}({', '.join(map(_arm_expression, value.arguments))})"
        return f"{text}.{value.member}" if value.member else text
    if isinstance(value, Joined):
        return f"concat({', '.join(map(_arm_expression, value.parts))})"
    return _arm_string(str(value))


def _arm_string(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# Bicep


def bicep(described: Description) -> str:
    """The same template in Bicep."""
    lines: list[str] = []
    for name, (kind, purpose, default) in described.parameters.items():
        given = "" if default is None else f" = {_bicep(default, 0)}"
        lines += [f"@description({_bicep(purpose, 0)})", f"param {name} {kind}{given}", ""]
    for one in described.resources:
        lines += [*_bicep_resource(one), ""]
    return "\n".join(lines)


def _bicep_resource(one: Resource) -> Iterable[str]:
    condition = "" if one.condition is None else f"if ({one.condition}) "
    existing = " existing" if one.existing else ""
    yield f"resource {one.symbol} '{one.type}@{one.version}'{existing} = {condition}{{"
    if one.parent is not None:
        yield f"  parent: {one.parent}"
    if one.scope is not None:
        yield f"  scope: {one.scope}"
    own = one.name.rpartition("/")[2] if one.parent is not None else one.name
    yield f"  name: {_bicep(own, 1)}"
    for key, value in one.content.items():
        yield f"  {key}: {_bicep(value, 1)}"
    others = [symbol for symbol in _needed(one) if symbol not in (one.parent, one.scope)]
    if others:
        yield f"  dependsOn: {_bicep_list(others, 1)}"
    yield "}"


def _bicep(value: Any, depth: int) -> str:  # noqa: ANN401, PLR0911 - a case each kind
    if isinstance(value, Parameter):
        return value.name
    if isinstance(value, Call):
        inner = ", ".join(_bicep(item, depth) for item in value.arguments)
        text = f"{value.function}({inner})"
        return f"{text}.{value.member}" if value.member else text
    if isinstance(value, Joined):
        return "'" + "".join(_bicep_part(part, depth) for part in value.parts) + "'"
    if isinstance(value, str):
        return f"'{_bicep_text(value)}'"
    if isinstance(value, dict):
        if not value:
            return "{}"
        start = "\n" + "  " * (depth + 1)
        inner = "".join(
            f"{start}{_bicep_key(key)}: {_bicep(item, depth + 1)}" for key, item in value.items()
        )
        return "{" + inner + "\n" + "  " * depth + "}"
    if isinstance(value, (list, tuple)):
        return _bicep_list([_bicep(item, depth + 1) for item in value], depth)
    return json.dumps(value)  # numbers, true, false and null are the same


def _bicep_list(items: list[str], depth: int) -> str:
    if not items:
        return "[]"
    start = "\n" + "  " * (depth + 1)
    return "[" + "".join(f"{start}{item}" for item in items) + "\n" + "  " * depth + "]"


def _bicep_part(part: Any, depth: int) -> str:  # noqa: ANN401 - of the kinds above
    return _bicep_text(part) if isinstance(part, str) else f"${{{_bicep(part, depth)}}}"


def _bicep_text(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _bicep_key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else f"'{_bicep_text(key)}'"
