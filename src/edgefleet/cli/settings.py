"""A provider's settings: names, types and defaults from the model, meanings from its docstring."""

from __future__ import annotations

import inspect
import json
import re
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel

if TYPE_CHECKING:
    from edgefleet.plugins.provider import ProviderSettings

_FIELD = re.compile(r"^    (?P<name>\w+): (?P<about>.*)$")
_NAMES = {"Path": "path", "str": "text", "int": "number", "float": "number", "bool": "true/false"}


class Setting(NamedTuple):
    """One key of ``[profiles.<name>.<provider>]``; ``default`` is JSON-ready, None for none."""

    name: str
    type: str
    required: bool
    default: Any
    about: str


def settings_of(model: type[ProviderSettings]) -> tuple[Setting, ...]:
    """The settings in the order of the model's fields."""
    schema = model.model_json_schema()["properties"]
    abouts = _abouts(model)
    return tuple(
        Setting(
            name=name,
            type=_type_text(field.annotation),
            required=field.is_required(),
            default=schema[name].get("default"),
            about=field.description or abouts.get(name, ""),
        )
        for name, field in model.model_fields.items()
    )


def _type_text(annotation: object) -> str:
    """What a value is in TOML, for people: what bounds it is told by its meaning."""
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _type_text(inner[0])
    if kind is Literal:
        return " or ".join(json.dumps(one) for one in inner)
    if kind in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type_text(one) for one in inner if one is not NoneType))
    if kind is tuple:
        one = _type_text(inner[0])
        return f"list of {one}" if one == "text" else f"list of {one}s"
    if kind is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    name = getattr(annotation, "__name__", str(annotation))
    return _NAMES.get(name, name)


def _abouts(model: type) -> dict[str, str]:
    """Meanings by name out of the ``Attributes`` sections, the most derived class's first."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        found |= _attributes(inspect.cleandoc(kind.__dict__.get("__doc__") or ""))
    return found


def _attributes(docstring: str) -> dict[str, str]:
    _, _, section = docstring.partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if match := _FIELD.match(line):
            name = match["name"]
            found[name] = match["about"]
        elif name and line.startswith(" " * 8):
            found[name] += " " + line.strip()
        else:
            name = ""
    return {key: about.replace("``", "") for key, about in found.items()}
