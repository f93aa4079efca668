"""The record of a group in the state store, and the edits that deploying makes to it. Pure.

Rules kept here:

- ``stack`` holds the releases in force, oldest first; the last one is current. Deploying pushes,
  rolling back pops: a second rollback goes further back,
  at last to the empty release, where every group starts.
- Every edit makes a new pointer with a pair above all pointers of the fleet; none re-uses an old
  one.
- A candidate rides in the pointer's ``next`` for a cohort, until it is promoted or cancelled.
- A policy belongs to one pointer: the edit after it starts without.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from edgefleet.errors import NotFoundError, PolicyError
from edgefleet.interfaces.policy import RolloutPolicy
from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document, decode, encode
from edgefleet.protocol.pointer import Cohort, Next, Pointer
from edgefleet.protocol.release import EMPTY

MAX_BYTES = 256 << 10
MAX_STACK = 100  # releases kept to roll back to
MAX_LOG = 100  # entries kept for people
SALT_CHARACTERS = 12

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
Action = Literal["deploy", "remove", "replace", "record", "rollback", "canary", "promote", "cancel"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done to a group."""

    action: Action
    release: Digest
    epoch: int
    number: int
    at: Timestamp
    actor: str
    models: tuple[str, ...]


class GroupRecord(Document, frozen=True, kw_only=True):
    """What a group should run and how it came to that.

    Attributes:
        pointer: the newest one; None before the first deployment.
        stack: releases in force, oldest first.
        candidate: the release in the pointer's ``next``.
        log: newest last.
        policy: how the pointer is to reach devices, as JSON; None for the channel's way.
    """

    pointer: Pointer | None = None
    stack: tuple[Digest, ...] = ()
    candidate: Digest | None = None
    log: tuple[Entry, ...] = ()
    policy: dict[str, Any] | None = None

    @property
    def current(self) -> str:
        """Digest of the release in force; of the empty one before the first deployment."""
        return self.stack[-1] if self.stack else EMPTY.digest


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What an edit needs from outside: numbers taken, time, who, sources."""

    fleet: str
    epoch: int
    number: int
    at: datetime
    actor: str
    sources: tuple[str, ...]


def read_record(data: bytes | None) -> GroupRecord:
    """Decode a record; an empty one for None."""
    return GroupRecord() if data is None else decode(GroupRecord, data, max_bytes=MAX_BYTES)


def encode_record(record: GroupRecord) -> bytes:
    """Canonical bytes."""
    return encode(record, max_bytes=MAX_BYTES)


def recovered(pointer: Pointer) -> GroupRecord:
    """The record that a group's pointer tells, where the record itself was lost."""
    ahead = pointer.next
    trying = ahead is not None and ahead.cohort.permille > 0
    return GroupRecord(
        pointer=pointer,
        stack=() if pointer.current == EMPTY.digest else (pointer.current,),
        candidate=ahead.release if ahead is not None and trying else None,
    )


def with_release(
    record: GroupRecord, release: str, stamp: Stamp, *, action: Action, models: tuple[str, ...]
) -> GroupRecord:
    """The record after making ``release`` current."""
    stack = (*record.stack, release)[-MAX_STACK:]
    return _edited(record, stamp, stack=stack, action=action, models=models)


def with_candidate(
    record: GroupRecord, release: str, permille: int, stamp: Stamp, *, models: tuple[str, ...]
) -> GroupRecord:
    """The record after giving ``release`` to a cohort.

    A wider cohort of the same release keeps its salt,
    so that devices which have it keep it.
    """
    held = record.pointer.next if record.pointer is not None else None
    same = held is not None and record.candidate == release
    salt = held.cohort.salt if held is not None and same else release[7 : 7 + SALT_CHARACTERS]
    ahead = Next(release=release, cohort=Cohort(salt=salt, permille=permille))
    return _edited(
        record,
        stamp,
        stack=record.stack,
        action="canary",
        models=models,
        candidate=release,
        ahead=ahead,
    )


def promoted(record: GroupRecord, stamp: Stamp, *, models: tuple[str, ...]) -> GroupRecord:
    """The record after giving the candidate to every device.

    Raises:
        NotFoundError: there is no candidate.
    """
    if record.candidate is None:
        msg = "no candidate is being tried in this group"
        raise NotFoundError(msg, cure="deploy one with cohort_permille=…")
    return with_release(record, record.candidate, stamp, action="promote", models=models)


def cancelled(record: GroupRecord, stamp: Stamp, *, models: tuple[str, ...]) -> GroupRecord:
    """The record after taking the candidate from its cohort; without one, after rolling back."""
    if record.candidate is None or record.pointer is None or record.pointer.next is None:
        return rolled_back(record, stamp, models=models)
    cohort = msgspec.structs.replace(record.pointer.next.cohort, permille=0)
    ahead = msgspec.structs.replace(record.pointer.next, cohort=cohort)
    return _edited(record, stamp, stack=record.stack, action="cancel", models=models, ahead=ahead)


def under(record: GroupRecord, policy: RolloutPolicy | None) -> GroupRecord:
    """The record of an edit that goes to devices under a policy."""
    facts = None if policy is None else policy.model_dump(mode="json", exclude_none=True)
    return msgspec.structs.replace(record, policy=facts)


def policy_of(record: GroupRecord) -> RolloutPolicy | None:
    """The policy that a record's pointer goes to devices under."""
    return None if record.policy is None else RolloutPolicy.model_validate(record.policy)


def rolled_back(record: GroupRecord, stamp: Stamp, *, models: tuple[str, ...]) -> GroupRecord:
    """The record after going back to the release before the current one, by a new pointer.

    Raises:
        PolicyError: there is nothing to go back to.
    """
    return _edited(record, stamp, stack=earlier(record), action="rollback", models=models)


def earlier(record: GroupRecord) -> tuple[str, ...]:
    """The stack without the current release; empty, which stands for the empty release, at its end.

    Raises:
        PolicyError: there is nothing to go back to.
    """
    stack = record.stack[:-1]
    while stack and stack[-1] == record.current:
        stack = stack[:-1]
    if not stack and record.current == EMPTY.digest:
        msg = "this group has run no other release to roll back to"
        raise PolicyError(msg, cure="deploy the version you want")
    return stack


def earlier_release(record: GroupRecord) -> str:
    """Digest of the release that rolling back would make current.

    Raises:
        PolicyError: there is nothing to go back to.
    """
    stack = earlier(record)
    return stack[-1] if stack else EMPTY.digest


def _edited(
    record: GroupRecord,
    stamp: Stamp,
    *,
    stack: tuple[str, ...],
    action: Action,
    models: tuple[str, ...],
    candidate: str | None = None,
    ahead: Next | None = None,
) -> GroupRecord:
    current = stack[-1] if stack else EMPTY.digest
    pointer = Pointer(
        fleet=stamp.fleet,
        epoch=stamp.epoch,
        number=stamp.number,
        current=current,
        next=ahead,
        sources=stamp.sources,
        issued=stamp.at,
    )
    entry = Entry(
        action=action,
        release=candidate or current,
        epoch=stamp.epoch,
        number=stamp.number,
        at=stamp.at,
        actor=stamp.actor,
        models=models,
    )
    return msgspec.structs.replace(
        record,
        pointer=pointer,
        stack=stack,
        candidate=candidate,
        policy=None,
        log=(*record.log, entry)[-MAX_LOG:],
    )
