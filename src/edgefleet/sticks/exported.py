"""Put a group's release on a stick.

Rules kept here:

- What the new release needs comes first and whose it is, its pointer after, and only then goes what
  the old one needed: pulled out at any moment, the stick holds the old release or the new one.
- Whether there is room is known before anything is written.
- What is there is read again and checked: sticks wear out. The same again changes nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import InvalidInputError, NotFoundError, StorageFullError
from edgefleet.interfaces.pulling import fetch_blob
from edgefleet.interfaces.registry import RELEASE_MEDIA_TYPE
from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import blob_path
from edgefleet.protocol.documents import encode
from edgefleet.protocol.files import read_small
from edgefleet.protocol.release import EMPTY, read_release
from edgefleet.protocol.release import MAX_BYTES as MAX_RELEASE_BYTES
from edgefleet.protocol.stick import (
    MAX_MEMBERS_BYTES,
    MEMBERS,
    POINTER,
    RECEIPTS,
    Members,
    members_path,
)
from edgefleet.sticks.folder import (
    drop_unplain,
    fleet_of,
    flush,
    flush_folder,
    is_folder,
    make_folders,
    on_stick,
    replace,
    root_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from edgefleet.interfaces.blobs import BlobStore
    from edgefleet.protocol.pointer import Pointer

    Progress = Callable[[int], object]

BLOBS = "blobs/sha256"
SLACK_BYTES = 1 << 20  # that folders, the pointer and clusters take
_OURS = re.compile(r"[0-9a-f]{64}(\.partial)?|\.?[0-9a-f]{64}\.json(\.partial)?")


class Exported(NamedTuple):
    """What an export did.

    Attributes:
        group: whose release it is.
        pair: epoch and number of its pointer.
        releases: digests of those that its devices may take.
        blobs: how many files they need.
        size: their bytes.
        copied: how many of them weren't there.
        removed: how many files of older exports went.
    """

    group: str
    pair: tuple[int, int]
    releases: tuple[str, ...]
    blobs: int
    size: int
    copied: int
    removed: int

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return self._asdict()


def needed(
    blobs: BlobStore, pointer: Pointer, *, targets: Sequence[str] = ()
) -> tuple[b.Descriptor, ...]:
    """What the releases of a pointer need, each blob once.

    Args:
        blobs: where they lie.
        pointer: of the group.
        targets: leave out variants that are for others than these; none leaves out nothing.

    Raises:
        InvalidInputError: a bundle has no variant for any of the targets.
        NotFoundError: a blob is missing.
    """
    found: dict[str, b.Descriptor] = {}
    for digest in releases_of(pointer):
        encoded = _release(blobs, digest)
        found[digest] = b.Descriptor(
            media_type=RELEASE_MEDIA_TYPE, digest=digest, size=len(encoded)
        )
        for model in read_release(encoded).models:
            for one in _of_bundle(blobs, model.bundle, model.label, targets):
                found.setdefault(one.digest, one)
    return tuple(found.values())


def releases_of(pointer: Pointer) -> tuple[str, ...]:
    """The releases that devices of a pointer may take."""
    coming = () if pointer.next is None else (pointer.next.release,)
    return tuple(dict.fromkeys((pointer.current, *coming)))


def export(
    blobs: BlobStore,
    pointer: Pointer,
    wanted: Sequence[b.Descriptor],
    mount: Path,
    *,
    group: str,
    devices: Iterable[str],
    progress: Progress | None = None,
) -> Exported:
    """Put a pointer and what it needs on a stick.

    Args:
        blobs: where the blobs lie.
        pointer: of the group.
        wanted: what it needs; see `needed`.
        mount: where the stick is mounted.
        group: whose it is.
        devices: in it; no other takes it.
        progress: called with the bytes of each step.

    Raises:
        StorageFullError: the stick lacks room; nothing was written.
        UnavailableError: it was pulled out, or can't be written.
    """
    root = root_of(mount, make=True)
    _tell_of_others(root, pointer.fleet)
    folder, whose = root / BLOBS, root / MEMBERS
    make_folders(root, folder)
    make_folders(root, whose)
    _check_room(root, wanted)
    copied = 0
    for descriptor in wanted:
        target = root / blob_path(descriptor.digest)
        with on_stick(target):
            drop_unplain(target)
            drop_unplain(target.with_name(target.name + ".partial"))
            if _put(blobs, descriptor, root, progress):
                copied += 1
    flush_folder(folder)
    encoded = pointer.encoded()
    members = Members(group=group, devices=tuple(sorted(devices)))
    told = root / members_path(encoded)
    _write(told, encode(members, max_bytes=MAX_MEMBERS_BYTES))
    _write(root / POINTER, encoded)
    _prune(whose, {told.name})
    return Exported(
        group=group,
        pair=pointer.pair,
        releases=releases_of(pointer),
        blobs=len(wanted),
        size=sum(one.size for one in wanted),
        copied=copied,
        removed=_prune(folder, {one.digest.removeprefix("sha256:") for one in wanted}),
    )


def _tell_of_others(root: Path, fleet: str) -> None:
    """Warn of what another fleet's devices wrote: no fleet takes it from a stick of this one."""
    other = fleet_of(root)
    if other in (None, fleet) or not is_folder(root / RECEIPTS):
        return
    with on_stick(root):
        held = any(files for _, _, files in os.walk(root / RECEIPTS))
    if held:
        warnings.warn(
            f"the stick was written for another fleet, {other}, and holds what devices wrote for "
            "it: an import with this fleet's profile puts that aside as refused. To take it, "
            "export a group of that fleet there again, and import with that fleet's profile",
            RuntimeWarning,
            stacklevel=4,
        )


def _put(blobs: BlobStore, descriptor: b.Descriptor, root: Path, progress: Progress | None) -> bool:
    """Whether it had to be written."""
    target = root / blob_path(descriptor.digest)
    if descriptor.digest == EMPTY.digest:  # where every group starts, and no registry needs it
        return _write(target, EMPTY.encoded())
    if not fetch_blob(blobs, descriptor, root, progress):
        return False
    flush(target)
    return True


def _release(blobs: BlobStore, digest: str) -> bytes:
    if digest == EMPTY.digest:
        return EMPTY.encoded()
    return blobs.read_bytes(digest, max_bytes=MAX_RELEASE_BYTES)


def _of_bundle(
    blobs: BlobStore, digest: str, model: str, targets: Sequence[str]
) -> Iterator[b.Descriptor]:
    index = blobs.read_bytes(digest, max_bytes=b.MAX_INDEX_BYTES)
    variants = b.variants_of(b.read_index(index))
    chosen = [
        one for one in variants if not (targets and one.targets) or set(targets) & set(one.targets)
    ]
    if not chosen:
        there = sorted({target for one in variants for target in one.targets})
        raise InvalidInputError(
            f"no variant of {model} is for {', '.join(targets)}",
            cure=f"targets that it has: {', '.join(there)}",
        )
    for one in chosen:
        read = blobs.read_bytes(one.manifest.digest, max_bytes=b.MAX_MANIFEST_BYTES)
        yield from b.blobs_of(b.read_manifest(read))
        yield one.manifest
    yield b.Descriptor(media_type=b.INDEX_MEDIA_TYPE, digest=digest, size=len(index))


def _check_room(root: Path, wanted: Sequence[b.Descriptor]) -> None:
    missing = 0
    for one in wanted:
        target = root / blob_path(one.digest)
        there = _size(target) or _size(target.with_name(target.name + ".partial"))
        missing += max(0, one.size - there)
    with on_stick(root):
        free = shutil.disk_usage(root).free
    if missing and missing + SLACK_BYTES > free:
        raise StorageFullError(
            f"the stick at {root.parent} has {free} bytes free, {missing + SLACK_BYTES} are due",
            cure="free that much there, take a larger one, or export for one --target",
        )


def _size(path: Path) -> int:
    try:
        info = path.lstat()
    except OSError:
        return 0
    return info.st_size if stat.S_ISREG(info.st_mode) else 0


def _write(path: Path, content: bytes) -> bool:
    """Whether it had to be written."""
    try:
        if read_small(path, len(content)) == content:
            return False
    except (OSError, InvalidInputError):
        pass  # it isn't there, or is something else
    replace(path, content)
    return True


def _prune(folder: Path, wanted: set[str]) -> int:
    removed = 0
    with on_stick(folder):
        for path in sorted(folder.iterdir()):
            if path.name not in wanted and _OURS.fullmatch(path.name):
                path.unlink()
                removed += 1
    return removed


def pointer_of(pointer: Pointer | None, group: str) -> Pointer:
    """The pointer, where there is one.

    Raises:
        NotFoundError: nothing was ever deployed to the group.
    """
    if pointer is None:
        raise NotFoundError(
            f"nothing was deployed to {group!r} yet",
            cure=f"deploy a model first: edgefleet deploy MODEL --to {group}",
        )
    return pointer
