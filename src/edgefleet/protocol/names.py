"""Names that travel through every vendor, and references to model versions.

A model name is a legal OCI repository component, Kubernetes label value and file name at once. A
device or group name is given by its vendor, so those are wider: what is safe in a path, an address
and a label. A provider refuses what its vendor doesn't take (a Greengrass thing has no dots, a
Kubernetes node no capitals).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.digest import PATTERN as DIGEST_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterable

# OCI distribution-spec v1.1, "Pulling manifests": one component of <name>.
MODEL_PATTERN = r"\A[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z"
MAX_MODEL_CHARACTERS = 63  # a Kubernetes label value
VERSION_PATTERN = r"\A[a-z0-9](?:[a-z0-9._\-]{0,61}[a-z0-9])?\Z"
GROUP_PATTERN = r"\A[A-Za-z0-9](?:[A-Za-z0-9._\-]{0,61}[A-Za-z0-9])?\Z"
DEVICE_PATTERN = r"\A[A-Za-z0-9](?:[A-Za-z0-9._\-]{0,126}[A-Za-z0-9])?\Z"

ModelName = Annotated[str, msgspec.Meta(pattern=MODEL_PATTERN, max_length=MAX_MODEL_CHARACTERS)]
GroupName = Annotated[str, msgspec.Meta(pattern=GROUP_PATTERN)]
DeviceName = Annotated[str, msgspec.Meta(pattern=DEVICE_PATTERN)]

_ENDS = "with a letter or digit at both ends"
_JOINED = "join parts of a-z 0-9 by one of . _ __ or dashes, 63 characters"
_CURES = {
    "model": (MODEL_PATTERN, _JOINED),
    "run": (MODEL_PATTERN, _JOINED),
    "version": (VERSION_PATTERN, f"use 1-63 of a-z 0-9 . _ - {_ENDS}"),
    "alias": (VERSION_PATTERN, f"use 1-63 of a-z 0-9 . _ - {_ENDS}"),
    "group": (GROUP_PATTERN, f"use 1-63 letters, digits, . _ - {_ENDS}"),
    "device": (DEVICE_PATTERN, f"use 1-128 letters, digits, . _ - {_ENDS}"),
}
MAX_PATH_CHARACTERS = 1024
MAX_PART_BYTES = 255  # bytes of a file name on the file systems of Linux
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\:\ud800-\udfff]")


def check_name(kind: str, name: object) -> str:
    """Return ``name`` if it is a legal name of that kind.

    Args:
        kind: model, run, version, alias, group or device.
        name: as somebody gave it, such as a whole device where its name belongs.

    Raises:
        InvalidInputError: it is not; the message tells what is allowed.
    """
    pattern, cure = _CURES[kind]
    if not isinstance(name, str):
        msg = f"not a {kind} name: {repr(name)[:200]}"
        raise InvalidInputError(msg, cure=f"give the name itself, a text; {cure}")
    too_long = pattern == MODEL_PATTERN and len(name) > MAX_MODEL_CHARACTERS
    if too_long or not re.match(pattern, name):
        msg = f"not a {kind} name: {name[:200]!r}"
        raise InvalidInputError(msg, cure=cure)
    return name


def check_path(path: str, *, what: str = "file path") -> str:
    """Return ``path`` if it is a relative POSIX path that stays below its root on every system.

    Raises:
        InvalidInputError: it is absolute, empty, has ``..`` or empty parts, a backslash, a colon
            (a drive or a stream on Windows), control characters or what UTF-8 cannot write.
    """
    parts = path.split("/")
    bad = (
        not path
        or len(path) > MAX_PATH_CHARACTERS
        or _CONTROL.search(path)
        or any(part in ("", ".", "..") or part.endswith((" ", ".")) for part in parts)
        or any(len(part.encode()) > MAX_PART_BYTES for part in parts)
    )
    if bad:
        msg = f"unsafe {what}: {path[:200]!r}"
        raise InvalidInputError(
            msg, cure="use a relative path with forward slashes and without . or .. parts"
        )
    return path


def check_group(reference: object) -> str:
    """Return what names a group, ``group`` or ``deployer/group``, if it is a text at all.

    Raises:
        InvalidInputError: it is not, such as a list of devices.
    """
    if not isinstance(reference, str):
        msg = f"{repr(reference)[:200]} names no group"
        raise InvalidInputError(
            msg,
            cure="give one GROUP or DEPLOYER/GROUP as a text; fleet.roll_out takes several, and a "
            "device gets what its group gets",
        )
    return reference


def several(given: Iterable[str], what: str, example: str) -> tuple[str, ...]:
    """Texts, where a single one would be taken for its characters.

    Args:
        given: as somebody gave them.
        what: they are, for the message.
        example: of how to write them.

    Raises:
        InvalidInputError: one text is given.
    """
    if isinstance(given, str):
        msg = f"{what}: {given[:200]!r} is one text"
        raise InvalidInputError(msg, cure=f"give a list: {example}")
    return tuple(given)


class Reference(msgspec.Struct, frozen=True):
    """What a user typed to name a model version: a name alone, with a tag, or with a digest."""

    name: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        if self.digest is not None:
            return f"{self.name}@{self.digest}"
        return self.name if self.tag is None else f"{self.name}:{self.tag}"


def parse_reference(text: object) -> Reference:
    """Parse ``name``, ``name:version``, ``name:alias`` or ``name@sha256:…``.

    Raises:
        InvalidInputError: it has none of these forms.
    """
    if not isinstance(text, str):
        msg = f"not a model reference: {repr(text)[:200]}"
        raise InvalidInputError(msg, cure="give a text such as name:version")
    name, at, digest = text.partition("@")
    if at:
        if not re.match(DIGEST_PATTERN, digest):
            msg = f"not a model reference: {text[:200]!r}"
            raise InvalidInputError(msg, cure="after @ comes sha256: and 64 hexadecimal digits")
        return Reference(check_name("model", name), digest=digest)
    name, colon, tag = text.partition(":")
    return Reference(check_name("model", name), tag=check_name("version", tag) if colon else None)
