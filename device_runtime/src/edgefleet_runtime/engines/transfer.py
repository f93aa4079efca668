"""A built engine as one file, so that a fleet can share what one device built.

The file is an uncompressed tar: the entry's list first, then its files. Rules kept here:

- Only what was built for just such a machine is taken: any part that differs is named.
- Only regular files that the list names, in its order, with its sizes and digests, get onto the
  disk, in a folder of the import's own; the entry appears whole, by a rename.
"""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from edgefleet.errors import (
    ConflictError,
    DocumentError,
    EdgeFleetError,
    IntegrityError,
    LimitExceededError,
    NotFoundError,
    UnsupportedError,
)
from edgefleet.protocol.documents import encode
from edgefleet.protocol.files import translate_full
from edgefleet.protocol.tar_members import unpack_member
from edgefleet_runtime.engines.cache import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    EngineCache,
    facts_of,
    read_entry,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgefleet_runtime.engines.cache import Entry

    MachineOf = Callable[[str], Mapping[str, str] | None]
    """What engines of a builder depend on here, by name; None when that can't be told."""


MAX_OVERHEAD_BYTES = 2 << 20  # of the file beside the engine: the list, headers, padding
_RAISE = "raise the cap with --max-bytes"


def export_engine(cache: EngineCache, key: str, to: Path) -> Entry:
    """Write an entry as one file.

    Args:
        cache: holds it.
        key: of the entry.
        to: the file; replaced when it is whole.

    Raises:
        NotFoundError: there is no such entry, or it is damaged.
    """
    folder, entry = cache.folder_of(key)
    partial = to.with_name(f".{to.name}.partial")
    try:
        with translate_full(to), tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
            data = encode(entry)
            tar.addfile(_member(MANIFEST, len(data)), io.BytesIO(data))
            for name, file in entry.files.items():
                with (folder / name).open("rb") as content:
                    tar.addfile(_member(name, file.bytes), content)
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
    return entry


def import_engine(
    cache: EngineCache, source: Path, machine_of: MachineOf, *, max_bytes: int
) -> Entry:
    """Take an entry from a file that `export_engine` wrote; does nothing when it is here.

    Args:
        cache: where it goes.
        source: the file.
        machine_of: tells what this machine is.
        max_bytes: most that its files may take.

    Raises:
        ConflictError: it was built for another machine; the message names what differs.
        UnsupportedError: nothing here builds such engines, or can tell what this machine is.
        DocumentError: the file is none, or malformed.
        IntegrityError: a file isn't what the list says.
        LimitExceededError: it is too large.
        NotFoundError: there is no such file.
    """
    limit = max_bytes + MAX_OVERHEAD_BYTES
    try:
        if source.stat().st_size > limit:  # before a header may ask for as much memory
            raise LimitExceededError(f"{source.name} has more than {limit} bytes", cure=_RAISE)
        with tarfile.open(source, mode="r:") as tar:
            return _import(cache, tar, machine_of, max_bytes)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {source}") from error
    except EdgeFleetError:
        raise
    except (tarfile.TarError, ValueError, EOFError) as error:  # headers may hold anything
        raise DocumentError(
            f"{source.name} is no exported engine: {error}", cure="export it again"
        ) from error


def _import(
    cache: EngineCache, tar: tarfile.TarFile, machine_of: MachineOf, max_bytes: int
) -> Entry:
    first = _next(tar, MANIFEST)
    if first.size > MAX_MANIFEST_BYTES:
        raise LimitExceededError(f"the engine's list has {first.size} bytes")
    stream = tar.extractfile(first)
    entry = read_entry(b"" if stream is None else stream.read())
    if entry.bytes > max_bytes:
        raise LimitExceededError(
            f"the engine has {entry.bytes} bytes, {max_bytes} are allowed",
            cure=_RAISE,
        )
    check_machine(entry, machine_of(entry.parts.builder))
    if cache.find(entry.parts.key) is not None:
        return entry
    with cache.building(entry.parts) as folder, translate_full(folder):
        for name, due in entry.files.items():
            member = _next(tar, name)
            if member.size != due.bytes:
                raise IntegrityError(f"{name} has {member.size} bytes, its list says {due.bytes}")
            unpack_member(tar, member, folder)
            if facts_of(folder / name) != due:
                raise IntegrityError(f"{name} is damaged", cure="export it again")
        if tar.next() is not None:
            raise DocumentError("the file holds more than the engine's list says")
    return entry


def check_machine(entry: Entry, here: Mapping[str, str] | None) -> None:
    """Refuse an entry that was built for another machine than this.

    Raises:
        ConflictError: names what differs.
        UnsupportedError: this machine can't be told.
    """
    if here is None:
        raise UnsupportedError(
            f"nothing here can load engines of {entry.parts.builder}, or tell its versions",
            cure="see 'edgefleet-runtime doctor'",
        )
    there = entry.parts.machine
    differs = [
        f"{name}: built with {there.get(name, 'none')}, here is {here.get(name, 'none')}"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    if differs:
        raise ConflictError(
            f"the engine was built for another machine ({'; '.join(differs)})",
            cure="let this device build its own, or export one from a device like it",
            retryable=False,
        )


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member


def _next(tar: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    member = tar.next()
    if member is None or member.name != name or not member.isreg() or member.issparse():
        found = "nothing" if member is None else repr(member.name[:200])
        raise DocumentError(f"an exported engine has a file {name!r} here, this has {found}")
    return member
