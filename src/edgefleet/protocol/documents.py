"""Rules that every wire document keeps: canonical bytes, versions, required features, size limits.

- Canonical JSON: UTF-8, keys sorted, no spaces, defaults left out (so that a field added later
  does not change the digest of an older document), ``version`` and ``requires`` always written.
- A writer refuses what a reader would refuse: every document is read back before it is sent.
- ``version`` tells which fields the writer knew. A reader never refuses by it.
- ``requires`` names features without which the document must not be acted on. A reader that lacks
  one refuses the whole document and says which.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from edgefleet.errors import (
    DocumentError,
    EdgeFleetError,
    LimitExceededError,
    UnknownFeatureError,
)
from edgefleet.protocol.typed import decoder

if TYPE_CHECKING:
    from collections.abc import Collection

VERSION = 1
"""The version that this library writes."""

KNOWN_FEATURES: frozenset[str] = frozenset({"steps"})
"""Features of ``requires`` that this library honours; `edgefleet.protocol.steps` has the one."""

MAX_DOCUMENT_BYTES = 1 << 20  # bytes; the default limit of a document read from outside

Feature = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9.\-]{0,62}\Z")]


def _written_version() -> int:
    return VERSION


def _no_requirements() -> tuple[str, ...]:
    return ()


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The two fields that every document carries."""

    version: Annotated[int, msgspec.Meta(ge=1)]
    requires: tuple[Feature, ...]


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every wire document.

    ``version`` and ``requires`` come from factories because msgspec leaves plain defaults out of
    the encoded form and these two must always be there.
    """

    version: Annotated[int, msgspec.Meta(ge=1)] = msgspec.field(default_factory=_written_version)
    requires: tuple[Feature, ...] = msgspec.field(default_factory=_no_requirements)


D = TypeVar("D", bound=Document)


def encode(document: msgspec.Struct, *, max_bytes: int | None = None) -> bytes:
    """The canonical bytes of a document, the ones its digest is taken from.

    Raises:
        DocumentError: a field holds what no reader would accept, such as NaN where a number is due.
        LimitExceededError: the document would be larger than ``max_bytes``.
    """
    kind = type(document)
    what = f"{kind.__name__.lower()} to be written"
    try:
        written = msgspec.json.encode(document)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"malformed {what}: {error}"
        raise DocumentError(msg) from error
    data = msgspec.json.encode(_settled(_parse(kind, written, what)), order="sorted")
    if max_bytes is not None and len(data) > max_bytes:
        msg = f"{type(document).__name__} takes {len(data)} bytes, {max_bytes} are allowed"
        raise LimitExceededError(msg, cure="shorten names, or list fewer sources or models")
    return data


def decode(
    kind: type[D],
    data: bytes | str | memoryview,
    *,
    known: Collection[str] = KNOWN_FEATURES,
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> D:
    """Read a document from outside.

    Args:
        kind: the document's type.
        data: its JSON bytes.
        known: the features of ``requires`` that the caller honours.
        max_bytes: refuse anything longer before parsing it.

    Raises:
        UnknownFeatureError: the document requires a feature that is not in ``known``.
        LimitExceededError: it is longer than ``max_bytes``.
        DocumentError: it isn't JSON, or a field is missing or of the wrong type.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    what, size = kind.__name__.lower(), memoryview(data).nbytes
    if size > max_bytes:
        msg = f"a {what} of {size} bytes is over the limit of {max_bytes}"
        raise LimitExceededError(msg)
    header = _parse(Header, data, what)
    refuse_unknown(header.requires, what, known=known)
    return _parse(kind, data, what)


def refuse_unknown(
    requires: Collection[str], what: str, *, known: Collection[str] = KNOWN_FEATURES
) -> None:
    """Raise `UnknownFeatureError` when ``requires`` names a feature that is not in ``known``."""
    unknown = tuple(name for name in requires if name not in known)
    if unknown:
        names = ", ".join(unknown)
        msg = f"this {what} requires features unknown here: {names}"
        raise UnknownFeatureError(msg, features=unknown, cure="upgrade the receiving side")


S = TypeVar("S")


def parse(kind: type[S], data: bytes | str | memoryview, what: str) -> S:
    """Decode JSON that has no header of ours (OCI documents), with the same kind of error."""
    return _parse(kind, data, what)


def _parse(kind: type[S], data: bytes | str | memoryview, what: str) -> S:
    try:
        return decoder(kind).decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        refusal = error.__cause__  # ours, when a document's own check refused
        if isinstance(refusal, EdgeFleetError):
            msg = f"malformed {what}: {refusal.message}"
            raise DocumentError(msg, cure=refusal.cure) from error
        msg = f"malformed {what}: {error}"
        raise DocumentError(msg) from error


def _settled(value: Any) -> Any:  # noqa: ANN401 - any field of any document
    """The same value with each field that equals its default holding the default itself.

    msgspec leaves a default out by identity, so without this a ``60.0`` that was read or computed
    would be written and the constant would not: two digests for one content.
    """
    if isinstance(value, msgspec.Struct):
        changed = {}
        for name, default in _defaults(type(value)):
            held = getattr(value, name)
            kept = _settled(held)
            if type(kept) is type(default) and kept == default:
                kept = default
            if kept is not held:
                changed[name] = kept
        return msgspec.structs.replace(value, **changed) if changed else value
    if type(value) is tuple:
        return tuple(map(_settled, value))
    if type(value) is dict:
        return {key: _settled(held) for key, held in value.items()}
    return value


@cache
def _defaults(kind: type[msgspec.Struct]) -> tuple[tuple[str, object], ...]:
    return tuple((field.name, field.default) for field in msgspec.structs.fields(kind))


def to_builtins(document: msgspec.Struct) -> dict[str, Any]:
    """The document as plain dicts, lists and scalars, for printing and templating."""
    built: dict[str, Any] = msgspec.to_builtins(document, str_keys=True)
    return built
