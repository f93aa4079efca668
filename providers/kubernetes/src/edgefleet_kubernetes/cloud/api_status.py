"""How an API server says no: ``Status`` objects with the words that Kubernetes uses.

Words are those of apimachinery's ``pkg/api/errors/errors.go`` and ``pkg/util/validation/field``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

STALE = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


class Kind(Protocol):
    """What messages say of a kind."""

    @property
    def group(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def plural(self) -> str: ...
    @property
    def resource(self) -> str: ...


@dataclass(frozen=True)
class Cause:
    """What is wrong with one field.

    Attributes:
        reason: such as ``FieldValueRequired``.
        message: for people, without the field.
        field: such as ``spec.selector``.
    """

    reason: str
    message: str
    field: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    @property
    def document(self) -> dict[str, str]:
        """As a Status has it."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


class Refused(Exception):  # noqa: N818 - it is the answer to a call, not an error of the mock
    """An answer that says no.

    Args:
        code: status of HTTP.
        reason: as Kubernetes writes it.
        message: for people.
        details: of the Status.
        retry_after_s: how long to wait before another try; None for no word of it.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message
        self.details = dict(details or {})
        self.retry_after_s = retry_after_s
        if retry_after_s is not None:
            self.details["retryAfterSeconds"] = retry_after_s

    @property
    def document(self) -> dict[str, Any]:
        """The Status object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


def _about(kind: Kind, name: str) -> dict[str, Any]:
    group = {"group": kind.group} if kind.group else {}
    return {"name": name, **group, "kind": kind.plural}


def not_found(kind: Kind, name: str) -> Refused:
    """There is no such object."""
    message = f'{kind.resource} "{name}" not found'
    return Refused(404, "NotFound", message, details=_about(kind, name))


def already_exists(kind: Kind, name: str) -> Refused:
    """There is one of that name."""
    message = f'{kind.resource} "{name}" already exists'
    return Refused(409, "AlreadyExists", message, details=_about(kind, name))


def conflict(kind: Kind, name: str, why: str = STALE) -> Refused:
    """The object is another than the caller takes it for."""
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return Refused(409, "Conflict", message, details=_about(kind, name))


def forbidden(
    kind: Kind, name: str, why: str, causes: Sequence[Cause] = (), code: int = 403
) -> Refused:
    """The object may not be as it is, or the caller may not do that."""
    named = f' "{name}"' if name else ""
    details = _about(kind, name)
    if causes:
        details["causes"] = [cause.document for cause in causes]
    return Refused(
        code, "Forbidden", f"{kind.resource}{named} is forbidden: {why}", details=details
    )


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> Refused:
    """Fields of the object are wrong."""
    words = [str(cause) for cause in causes]
    told = words[0] if len(words) == 1 else f"[{', '.join(words)}]"
    whole = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details = {**_about(kind, name), "kind": kind.kind}
    details["causes"] = [cause.document for cause in causes]
    return Refused(422, "Invalid", f'{whole} "{name}" is invalid: {told}', details=details)


def bad_request(message: str) -> Refused:
    """The request can't be read."""
    return Refused(400, "BadRequest", message)


def expired(version: int, oldest: int) -> Refused:
    """What happened since is no longer known."""
    return Refused(410, "Expired", f"too old resource version: {version} ({oldest})")


def throttled(retry_after_s: int = 1) -> Refused:
    """Calls come too often."""
    message = "the server has received too many requests and has asked us to try again later"
    return Refused(429, "TooManyRequests", message, retry_after_s=retry_after_s)


def unauthorized() -> Refused:
    """Nobody known calls."""
    return Refused(401, "Unauthorized", "Unauthorized")


def method_not_allowed() -> Refused:
    """The resource has no such verb."""
    message = "the server does not allow this method on the requested resource"
    return Refused(405, "MethodNotAllowed", message)


class NoPage(Refused):
    """No API of that group and version, which is answered in plain text."""

    TEXT = b"404 page not found\n"

    def __init__(self) -> None:
        super().__init__(404, "NotFound", self.TEXT.decode().strip())


def nothing_there() -> Refused:
    """No such resource in an API that there is."""
    return Refused(404, "NotFound", "the server could not find the requested resource")


# -------------------------------------------------------------------------------- wrong fields


def required(field: str, why: str = "") -> Cause:
    """A field is missing."""
    return Cause("FieldValueRequired", "Required value" + (f": {why}" if why else ""), field)


def wrong(field: str, value: object, why: str) -> Cause:
    """A field's value is none that it may have."""
    return Cause("FieldValueInvalid", f"Invalid value: {_shown(value)}: {why}", field)


def unsupported(field: str, value: object, known: Sequence[str]) -> Cause:
    """A field's value is none of those there are."""
    told = ", ".join(f'"{one}"' for one in sorted(known))
    message = f"Unsupported value: {_shown(value)}: supported values: {told}"
    return Cause("FieldValueNotSupported", message, field)


def immutable(field: str, value: object) -> Cause:
    """A field may not change."""
    return wrong(field, value, "field is immutable")


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
"""What is said of a name that is no label of DNS."""
