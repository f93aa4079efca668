"""Telemetry policies as people write them: a TOML file, or a profile's ``recorded`` table.

The fields are those of `edgefleet.protocol.policy.TelemetryPolicy`, and no others: what is unknown
is refused by its name, with the nearest one there is.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import InvalidInputError, NotFoundError
from edgefleet.protocol.documents import to_builtins
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.typed import convert

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from msgspec.inspect import Type

MAX_BYTES = 256 << 10  # of a file; a release holds no more


def read_policy(path: str | os.PathLike[str]) -> TelemetryPolicy:
    """The policy in a TOML file.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it is no TOML, or a field is unknown or wrong; the message says which.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        msg = f"no policy at {path}: {error.strerror or error}"
        raise NotFoundError(msg, cure="write one; see `edgefleet policy check --help`") from error
    if len(data) > MAX_BYTES:
        msg = f"{path} is over {MAX_BYTES} bytes, which no release can hold"
        raise InvalidInputError(msg, cure="name fewer rules")
    try:
        plain = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is no valid TOML: {error}"
        raise InvalidInputError(msg, cure="mend the line it names") from error
    return policy_of(plain, str(path))


def policy_of(plain: Mapping[str, Any], where: str) -> TelemetryPolicy:
    """A policy out of plain data.

    Args:
        plain: its fields.
        where: for the message.

    Raises:
        InvalidInputError: a field is unknown or wrong; the message says which.
    """
    from msgspec import inspect  # noqa: PLC0415 - only who writes policies needs it

    unknown = next(_unknown(plain, inspect.type_info(TelemetryPolicy), ""), None)
    if unknown is not None:
        place, key, known = unknown
        near = difflib.get_close_matches(key, known, n=1)
        cure = f"did you mean {near[0]!r}?" if near else f"fields are: {', '.join(known)}"
        raise InvalidInputError(f"{where}: there is no field {place + key!r}", cure=cure)
    try:
        return convert(plain, TelemetryPolicy)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        at = place.removesuffix("`").lstrip(".")
        msg = f"{where}: {at or 'the policy'}: {what}"
        raise InvalidInputError(msg, cure="see the table of the field in the protocol") from error


def written_policy(policy: TelemetryPolicy) -> str:
    """A policy as TOML that `read_policy` reads back the same; defaults are left out."""
    plain = to_builtins(policy)
    lines = [f"{key} = {_value(each)}" for key, each in plain.items() if not _is_table(each)]
    for key, each in plain.items():
        if isinstance(each, dict) and each:
            lines += ["", f"[{key}]", *(f"{_key(k)} = {_value(v)}" for k, v in each.items())]
        elif _is_table(each) and each:
            for item in each:
                lines += ["", f"[[{key}]]", *(f"{k} = {_value(v)}" for k, v in item.items())]
    return "\n".join(lines).strip() + "\n"


def _unknown(plain: object, kind: Type, place: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Place, name and neighbours of each field that a type doesn't have."""
    from msgspec import inspect  # noqa: PLC0415 - as above

    if isinstance(kind, inspect.Metadata):
        yield from _unknown(plain, kind.type, place)
    elif isinstance(kind, inspect.UnionType):
        for each in kind.types:
            if isinstance(each, inspect.StructType):
                yield from _unknown(plain, each, place)
    elif isinstance(kind, inspect.VarTupleType) and isinstance(plain, list):
        for number, item in enumerate(plain):
            yield from _unknown(item, kind.item_type, f"{place.removesuffix('.')}[{number}].")
    elif isinstance(kind, inspect.StructType) and isinstance(plain, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        for key, value in plain.items():
            if key not in fields:
                yield place, key, tuple(fields)
            else:
                yield from _unknown(value, fields[key], f"{place}{key}.")


def _is_table(value: object) -> bool:
    tables = isinstance(value, list | tuple) and any(isinstance(each, dict) for each in value)
    return tables or isinstance(value, dict)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    # JSON's texts and numbers are TOML's, but for one character that TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return _value(key)
