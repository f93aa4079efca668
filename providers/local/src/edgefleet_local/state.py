"""The state store: one file a document.

Rules kept here:

- One lock for all documents: writers take turns, readers need none.
- A document appears and changes by a rename. At most one half-written file exists, out of the way,
  and the next writer overwrites it.
- The tag of a document is the digest of its content.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from edgefleet.errors import EdgeFleetError, InvalidInputError
from edgefleet.interfaces.state import MAX_BYTES, StateStore, Stored
from edgefleet.protocol.digest import digest_of
from edgefleet_local.errors import translate
from edgefleet_local.files import locked, read_small, replace_file, sync_folder
from edgefleet_local.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class DirectoryStateStore(StateStore):
    """Documents below a folder, for any number of processes on this machine.

    Args:
        home: the fleet's folder.
    """

    provider = "local"
    longest_pause_s = 0.01

    def __init__(self, home: Path) -> None:
        self._root = home / "state"
        self._lock = home / "locks" / "state"
        self._partial = home / "partial" / "state"
        self._journal = Journal(home)

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _read(self, key: str) -> Stored | None:
        data = read_small(self._root / key, MAX_BYTES)
        return None if data is None else Stored(data=data, tag=digest_of(data))

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        path = self._root / key
        with locked(self._lock):
            self._check(key, expect)
            try:
                replace_file(path, data, partial=self._partial)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                _refuse_nesting(key, error)
        self._journal.write("state.write", key)
        return digest_of(data)

    def _delete(self, key: str, expect: str) -> None:
        path = self._root / key
        with locked(self._lock):
            self._check(key, expect)
            path.unlink()
            sync_folder(path.parent)
            self._prune(path.parent)
        self._journal.write("state.delete", key)

    def _check(self, key: str, expect: str | None) -> None:
        there = self._read(key)
        if (None if there is None else there.tag) == expect:
            return
        if there is None:
            raise self._conflict(key, "is gone")
        what = "exists already" if expect is None else "was changed by somebody else"
        raise self._conflict(key, what)

    def _prune(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _keys(self, prefix: str) -> Iterator[str]:
        found = []
        for folder, _, names in os.walk(self._root / prefix):
            below = os.path.relpath(folder, self._root)
            found += [f"{below}/{name}" for name in names]
        yield from sorted(found)


def _refuse_nesting(key: str, error: OSError) -> NoReturn:
    raise InvalidInputError(
        f"state key {key!r} lies below another document, or another lies below it",
        cure="give documents and folders of documents different names",
    ) from error
