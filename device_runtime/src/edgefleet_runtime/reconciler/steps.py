"""What the reconciler may do and what may happen to it: the words of `machine`, values only."""

from __future__ import annotations

import enum

import msgspec

from edgefleet.protocol.release import Role
from edgefleet.protocol.report import RolledBack

Key = tuple[str, Role]
"""Name and role: what tells a release's models apart."""


class Stage(enum.IntEnum):
    """How far a model got; each stage follows the one before."""

    FETCHED = 1
    VERIFIED = 2
    LOADED = 3
    WARMED = 4
    TESTED = 5


# ---- actions


class Fetch(msgspec.Struct, frozen=True):
    """Get the release, its bundles' indexes, and the chosen variants' blobs into the store."""

    release: str


class Advance(msgspec.Struct, frozen=True):
    """Bring one model to the next stage: verify, load, warm up or self-test it."""

    release: str
    model: Key
    to: Stage


class Swap(msgspec.Struct, frozen=True):
    """Let the release answer requests from now on, as a whole."""

    release: str


class Reject(msgspec.Struct, frozen=True):
    """Give the release up and free what was loaded of it."""

    release: str
    reason: str


class Unload(msgspec.Struct, frozen=True):
    """Free what runs, to make room for the release: both don't fit, and its settings allow it."""

    release: str


class Reload(msgspec.Struct, frozen=True):
    """Load the release again that made room, and let it answer requests."""

    release: str


class GoBack(msgspec.Struct, frozen=True):
    """Let the release before answer requests again: the one that does must go."""

    release: str
    reason: str


class Wait(msgspec.Struct, frozen=True):
    """Nothing can be done until something outside changes."""

    reason: str


class Rest(msgspec.Struct, frozen=True):
    """Nothing is left to do."""


Action = Fetch | Advance | Swap | Reject | Unload | Reload | GoBack | Wait | Rest


# ---- events


class Fetched(msgspec.Struct, frozen=True):
    """The release's blobs are in the store; these are its models.

    ``alone`` tells that they fit into memory only when nothing else is loaded.
    """

    release: str
    models: tuple[Key, ...]
    alone: bool = False


class Reached(msgspec.Struct, frozen=True):
    """A model got to a stage."""

    release: str
    model: Key
    stage: Stage


class Damaged(msgspec.Struct, frozen=True):
    """A blob in the store is not what it was; it was removed."""

    release: str
    reason: str


class Failed(msgspec.Struct, frozen=True):
    """A step failed. ``waits`` tells that it may succeed when something outside changes."""

    release: str
    reason: str
    waits: bool = False


class Swapped(msgspec.Struct, frozen=True):
    """The release answers requests; ``kept`` is still loaded."""

    release: str
    kept: str | None = None


class Rejected(msgspec.Struct, frozen=True):
    """The release was given up."""

    release: str
    reason: str


class Broke(msgspec.Struct, frozen=True):
    """The release that answers requests broke its budget."""

    release: str
    reason: str


class Ordered(msgspec.Struct, frozen=True):
    """An operator ordered the wanted release back; nothing changes where it was refused already."""

    order: RolledBack


class WentBack(msgspec.Struct, frozen=True):
    """The release was taken back, and ``to`` serves; None when there was none to go back to."""

    release: str
    reason: str
    to: str | None


class Unloaded(msgspec.Struct, frozen=True):
    """What ran made room for the release; nothing answers requests."""

    release: str


class Reloaded(msgspec.Struct, frozen=True):
    """The release that made room was to be loaded again; ``running`` serves, None if none could."""

    release: str
    running: str | None


class Unkept(msgspec.Struct, frozen=True):
    """The release that could come back at once was given up, to make room."""


class Retry(msgspec.Struct, frozen=True):
    """Something outside may have changed: time passed, or access was renewed."""


Event = (
    Fetched
    | Reached
    | Damaged
    | Failed
    | Swapped
    | Rejected
    | Broke
    | Ordered
    | WentBack
    | Unloaded
    | Reloaded
    | Unkept
    | Retry
)
