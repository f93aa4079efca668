"""How a device comes into the fleet and goes on being known: its first certificate, and each next.

Rules kept here:

- A token is for one device and one key, and works once: whoever has it later, and another key, is
  refused. The same key may ask again, for its answer may have been lost.
- Only a device's newest invitation counts, and only until the device has moved on: no old request,
  played again, takes a name back.
- A certificate counts when the device's record names it. That record is changed by
  compare-and-swap, so of two that race each is seen by the other.
- The certificate before the newest counts until the newest was shown: see `Joining.settle`.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from cryptography import x509

from edgefleet.errors import AccessDeniedError, InvalidInputError, NotFoundError
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import (
    EXPIRED,
    REVOKED,
    TOKEN_EXPIRED,
    TOKEN_UNKNOWN,
    TOKEN_USED,
    UNKNOWN,
    Enrolment,
    Identity,
    Problem,
    Renewal,
)
from edgefleet.protocol.labels import check_given
from edgefleet_gateway.certificates import fingerprint, key_asked_for, serial_of
from edgefleet_gateway.records import Certificate, DeviceRecord, TokenRecord
from edgefleet_gateway.roster import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from edgefleet.interfaces.state import StateStore
    from edgefleet_gateway.authority import Authority
    from edgefleet_gateway.certificates import DeviceKey
    from edgefleet_gateway.records import Keys
    from edgefleet_gateway.roster import Roster
    from edgefleet_gateway.settings import GatewaySettings

KEPT_CERTIFICATES = 4  # of a device that loses answer after answer
_INVITE = "ask whoever operates the fleet for: edgefleet device enroll NAME --group G"


class RefusedError(AccessDeniedError):
    """A device was refused, for good.

    Args:
        problem: what to answer it.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.title, cure=problem.detail or None)
        self.problem = problem


class Joining:
    """Gives certificates to devices. Threads may share it; any number of gateways may have one.

    Args:
        authority: of the fleet.
        roster: its devices.
        state: the profile's state store.
        keys: where its documents lie.
        settings: of the profile.
        clock: tells the time.
    """

    def __init__(
        self,
        authority: Authority,
        *,
        roster: Roster,
        state: StateStore,
        keys: Keys,
        settings: GatewaySettings,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._authority, self._roster, self._state = authority, roster, state
        self._keys, self._settings, self._clock = keys, settings, clock

    def enroll(self, asked: Enrolment) -> Identity:
        """Give a device that was invited its first certificate.

        Raises:
            RefusedError: the token is unknown, used or expired, or the request is unusable.
        """
        key = _key(asked.request)
        said = _labels(asked.labels)
        digest = hashlib.sha256(asked.token.encode()).hexdigest()
        token = self._token(digest)
        there = self._roster.find(token.device)
        if there is None or there.token != digest:
            raise _not_its_token(token)
        used = self._use(digest, key)
        entry = _entry_of(used)

        def edit(there: DeviceRecord) -> DeviceRecord:
            if there.token == digest and there.allows(entry.serial):
                return there
            if there.token != digest or not there.invited:
                raise _not_its_token(used)
            # What the machine before ran, this one doesn't: it has reported nothing yet.
            return msgspec.structs.replace(
                there,
                certificates=(entry,),
                revoked=False,
                said=said,
                invited=False,
                machine=entry.serial,
            )

        try:
            record = self._roster.change(used.device, edit)
        except NotFoundError as error:
            raise _not_its_token(used) from error
        return self._identity(used.device, record, used.certificate or "")

    def renew(self, device: str, serial: str, asked: Renewal) -> Identity:
        """Give a device its next certificate.

        Args:
            device: the name in the certificate that it showed.
            serial: of that certificate, in hexadecimal.
            asked: its request.

        Raises:
            RefusedError: it was revoked or is unknown, its certificate ended too long ago, or the
                request is unusable.
        """
        key, now = _key(asked.request), self._clock()
        days = self._settings.renew_days
        pem = ""

        def edit(there: DeviceRecord) -> DeviceRecord:
            nonlocal pem
            if not there.allows(serial):
                raise refused_of(device, there)
            first, *others = _from(there.certificates, serial)
            if now > first.ends + timedelta(days=days):
                raise _refused(
                    f"the certificate of {device} ended on {first.ends:%Y-%m-%d}",
                    f"it could be renewed for {days} days; by this gateway's clock it is "
                    f"{now:%Y-%m-%d}. {_INVITE} --replace",
                    EXPIRED,
                )
            issued = self._authority.issue(device, key, lasts=self._settings.device_lasts)
            pem = issued.pem
            kept = (first, *others[-(KEPT_CERTIFICATES - 2) :])
            return msgspec.structs.replace(there, certificates=(*kept, issued.certificate))

        try:
            record = self._roster.change(device, edit)
        except NotFoundError as error:
            raise refused_of(device, None) from error
        return self._identity(device, record, pem)

    def settle(self, device: str, serial: str) -> None:
        """Have what a device held before count no longer, because it has shown a newer certificate.

        Call it when a record has several and the device shows one that isn't the first.
        """

        def edit(there: DeviceRecord) -> DeviceRecord:
            if not there.allows(serial):
                return there
            return msgspec.structs.replace(there, certificates=_from(there.certificates, serial))

        try:
            self._roster.change(device, edit)
        except NotFoundError:
            return  # retired meanwhile

    def _token(self, digest: str) -> TokenRecord:
        stored = self._state.read(self._keys.token(digest))
        if stored is None:
            raise _unknown_token()
        return decode(TokenRecord, stored.data)

    def _use(self, digest: str, key: DeviceKey) -> TokenRecord:
        """The token as this key used it; whoever used it first has it."""
        mark = fingerprint(key)

        def change(data: bytes | None) -> bytes:
            if data is None:
                raise _unknown_token()
            token, now = decode(TokenRecord, data), self._clock()
            if token.used is not None:
                if token.key != mark:
                    raise _not_its_token(token)
                return data
            if now > token.ends:
                raise _refused(
                    f"the token for {token.device} ended at {token.ends:%Y-%m-%d %H:%M} UTC",
                    f"by this gateway's clock it is {now:%Y-%m-%d %H:%M} UTC. {_INVITE}",
                    TOKEN_EXPIRED,
                )
            issued = self._authority.issue(token.device, key, lasts=self._settings.device_lasts)
            return encode(
                msgspec.structs.replace(token, used=now, key=mark, certificate=issued.pem)
            )

        return decode(TokenRecord, self._state.update(self._keys.token(digest), change))

    def _identity(self, device: str, record: DeviceRecord, certificate: str) -> Identity:
        return Identity(
            device=device,
            group=record.group,
            fleet=self._authority.fleet,
            certificate=certificate,
            authorities=self._authority.gateways_by,
            gateways=self._settings.addresses,
        )


def refused_of(device: str, record: DeviceRecord | None) -> RefusedError:
    """Why a certificate of this fleet's authority doesn't count, given its device's record."""
    if record is None:
        return _refused(f"{device} is no device of this fleet", _INVITE, UNKNOWN)
    return _refused(
        f"the certificate of {device} was revoked",
        f"this machine was told to sync no more, or another has its name. {_INVITE} --replace",
        REVOKED,
    )


def _from(certificates: tuple[Certificate, ...], serial: str) -> tuple[Certificate, ...]:
    """A certificate and those that came after it."""
    at = next(i for i, one in enumerate(certificates) if one.serial == serial)
    return certificates[at:]


def _entry_of(token: TokenRecord) -> Certificate:
    """What a record holds of the certificate that a token was used for."""
    given = x509.load_pem_x509_certificate((token.certificate or "").encode())
    return Certificate(serial=serial_of(given), ends=given.not_valid_after_utc)


def _key(request: str) -> DeviceKey:
    try:
        return key_asked_for(request)
    except InvalidInputError as error:
        raise _refused(error.message, error.cure or "", "", status=400) from error


def _labels(given: dict[str, str]) -> dict[str, str]:
    """Labels as a device gave them, if they are fit to be kept."""
    try:
        check_given(given)
    except InvalidInputError as error:
        raise _refused(error.message, error.cure or "", "", status=400) from error
    return given


def _not_its_token(token: TokenRecord) -> RefusedError:
    if token.used is None:
        return _unknown_token()
    return _refused(
        f"the token for {token.device} was used at {token.used:%Y-%m-%d %H:%M} UTC",
        f"a token makes one machine a device, once. {_INVITE} --replace",
        TOKEN_USED,
    )


def _unknown_token() -> RefusedError:
    return _refused(
        "this token is unknown here, or a newer invitation took its place", _INVITE, TOKEN_UNKNOWN
    )


def _refused(title: str, detail: str, code: str, *, status: int = 403) -> RefusedError:
    return RefusedError(Problem(title=title, status=status, detail=detail, code=code))
