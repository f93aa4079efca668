"""Invitations: what an operator pastes on a machine, once, to make it a device of the fleet.

Rules kept here:

- The token is nowhere but in what is printed: the state store holds its SHA-256.
- On the machine it goes by standard input, so that no list of processes shows it.
- The script comes over a connection that is verified by the gateway's public key, for nobody there
  knows the fleet's authority yet; into a file that no other user of the machine can replace.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import AlreadyExistsError, UnavailableError
from edgefleet.interfaces.inviting import CanInvite, Invitation
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import INSTALL
from edgefleet_gateway.records import AuthorityRecord, DeviceRecord, TokenRecord
from edgefleet_gateway.roster import delete

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from edgefleet.interfaces.state import StateStore
    from edgefleet_gateway.records import Keys
    from edgefleet_gateway.roster import Roster
    from edgefleet_gateway.settings import GatewaySettings

TOKEN_BYTES = 32


class Invites(CanInvite):
    """The part of the deployer that invites devices and revokes them."""

    _settings: GatewaySettings
    _keys: Keys
    _state: Callable[[], StateStore]
    _roster: Roster
    _clock: Callable[[], datetime]

    def _invite(
        self,
        device: str,
        group: str,
        labels: dict[str, str],
        lasts: timedelta,
        replace: bool,  # noqa: FBT001 - as the interface has it
    ) -> Invitation:
        authority = self._authority()
        there = self._roster.find(device)
        if there is not None:
            _check_free(device, there, replace=replace)
        self._roster.enroll(device, group, labels)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        digest = hashlib.sha256(token.encode()).hexdigest()
        ends = (self._clock() + lasts).replace(microsecond=0)
        ticket = TokenRecord(device=device, ends=ends)
        self._state().write(self._keys.token(digest), encode(ticket), expect=None)
        before = ""

        def edit(there: DeviceRecord) -> DeviceRecord:
            nonlocal before
            _check_free(device, there, replace=replace)
            if there.token != digest:  # else it is ours already, and the answer was lost
                before = there.token
            return msgspec.structs.replace(there, token=digest, invited=True)

        self._roster.change(device, edit)
        if before:
            delete(self._state(), self._keys.token(before))
        return Invitation(
            device=device,
            group=group,
            command=command(self._settings.addresses[0], authority.pins, token),
            token=token,
            ends=ends,
        )

    def _revoke(self, device: str) -> None:
        self._roster.change(
            device, lambda there: msgspec.structs.replace(there, revoked=True, invited=False)
        )

    def _authority(self) -> AuthorityRecord:
        stored = self._state().read(self._keys.authority)
        if stored is None:
            raise UnavailableError(
                "this fleet has no authority yet, so no device could join",
                cure="start its gateway first, which makes one: edgefleet gateway serve",
                retryable=False,
            )
        return decode(AuthorityRecord, stored.data)


def command(gateway: str, pins: Sequence[str], token: str) -> str:
    """What to paste on a machine; it asks for the password of ``sudo`` there.

    Args:
        gateway: ``https://HOST:PORT``.
        pins: of gateways' public keys; none where the system's certificates verify them.
        token: of the invitation.
    """
    pinned = ";".join(f"sha256//{pin}" for pin in pins)
    fetched, told = "curl -fsS", ""
    if pins:
        # -k leaves the authority unverified; the public key is compared all the same.
        fetched = f"curl -fsSk --pinnedpubkey {shlex.quote(pinned)}"
        told = f" --pin {shlex.quote(pinned)}"
    script = shlex.quote(gateway + INSTALL)
    return (
        f'f=$(mktemp) && {fetched} {script} -o "$f" && '
        f"printf %s {shlex.quote(token)} | "
        f'sudo sh "$f" --gateway {shlex.quote(gateway)}{told}'
    )


def _check_free(device: str, there: DeviceRecord, *, replace: bool) -> None:
    """Refuse to invite a second machine by a name, unless that is meant."""
    if there.certificates and not replace:
        raise AlreadyExistsError(
            f"a machine is device {device!r} already",
            cure="to have another take its place: edgefleet device enroll "
            f"{device} --group {there.group} --replace",
        )
