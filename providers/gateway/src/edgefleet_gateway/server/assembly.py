"""A gateway's parts from a profile: its stores, its authority, what signs and what serves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from pydantic import ValidationError

from edgefleet.capabilities import require
from edgefleet.errors import ProfileError
from edgefleet.identity import fleet_id
from edgefleet.interfaces.receiving import CanReceive
from edgefleet.interfaces.wanted import Wanted
from edgefleet.profile import first_problem
from edgefleet.protocol.documents import decode, encode
from edgefleet_gateway.archives import store_archives
from edgefleet_gateway.authority import Authority, open_authority
from edgefleet_gateway.joining import Joining
from edgefleet_gateway.records import Keys, RuntimeRecord
from edgefleet_gateway.roster import Roster
from edgefleet_gateway.server.credentials import GivenCertificate, OwnCertificate
from edgefleet_gateway.server.gateway import Backends
from edgefleet_gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from edgefleet.interfaces.state import StateStore
    from edgefleet.profile import Profile
    from edgefleet.protocol.gateway import RuntimeOffer
    from edgefleet.services import Services
    from edgefleet_gateway.server.gateway import Forwards
    from edgefleet_gateway.server.tls import Material


class Parts(NamedTuple):
    """What `server.running` needs.

    Attributes:
        backends: what the gateway stands before.
        settings: of the profile.
        authority: of the fleet.
    """

    backends: Backends
    settings: GatewaySettings
    authority: Authority


def settings_in(profile: Profile) -> GatewaySettings:
    """The settings of a profile's gateway deployer.

    Raises:
        ProfileError: it has none, or they are wrong.
    """
    if "gateway" not in profile.deployer_names():
        raise ProfileError(
            f"profile {profile.name!r} has no deployer 'gateway'",
            cure='add  deployers = ["gateway"]  to it, or name another with --profile',
        )
    try:
        return GatewaySettings.model_validate(profile.settings.get("gateway", {}))
    except ValidationError as error:
        where = f"[profiles.{profile.name}.gateway]"
        cure = "mend that key in the profile; its keys: edgefleet providers gateway"
        raise ProfileError(f"{where}: {first_problem(error)}", cure=cure) from error


def assemble(services: Services, *, forwards: Forwards | None = None) -> Parts:
    """The parts of a gateway for a profile. Makes the fleet and its authority where there is none.

    Raises:
        UnsupportedError: the profile's telemetry takes nothing from gateways.
        EdgeFleetError: a store can't be reached, or the authority's folder isn't the fleet's.
    """
    settings = settings_in(services.profile)
    state, keys = services.state, Keys(settings.prefix)
    fleet = fleet_id(state, seen=lambda: _fleets(state, keys))
    authority = open_authority(
        settings.authority_in(services.profile.base), state=state, keys=keys, fleet=fleet
    )
    receiver = require(services.telemetry, CanReceive)
    joining = Joining(
        authority,
        roster=Roster(lambda: state, keys),
        state=state,
        keys=keys,
        settings=settings,
    )
    backends = Backends(
        state=state,
        blobs=services.registry.blobs,
        receiver=receiver,
        forwards=forwards,
        fleet=fleet,
        joining=joining,
    )
    return Parts(backends, settings, authority)


def own_certificate(parts: Parts, host: str) -> Callable[[], Material]:
    """A certificate of the fleet's authority for every name that devices know a gateway by."""
    named = [urlsplit(address).hostname or "" for address in parts.settings.addresses]
    hosts = dict.fromkeys([*named, "localhost", "127.0.0.1", host])
    unusable = {"", "0.0.0.0", "::"}  # noqa: S104 - which are no names
    return OwnCertificate(parts.authority, [name for name in hosts if name not in unusable])


def given_certificate(parts: Parts, certificate: Path, key: Path) -> Callable[[], Material]:
    """Somebody else's certificate; devices are told what they verify it against."""
    given = GivenCertificate(parts.authority, certificate, key)
    given.publish()
    return given


def give_runtime(parts: Parts, archives: Sequence[Path]) -> RuntimeOffer:
    """Have devices that only come install this runtime. The same again changes nothing.

    Raises:
        InvalidInputError: the archives aren't of one version, or two are of one platform.
        IntegrityError: one is no archive of the runtime.
    """
    state, keys = parts.backends.state, Keys(parts.settings.prefix)
    offer = store_archives(archives, parts.backends.blobs)

    def change(data: bytes | None) -> bytes:
        if data is not None and decode(RuntimeRecord, data).offer == offer:
            return data
        return encode(RuntimeRecord(offer=offer, ordered=datetime.now(UTC)))

    state.update(keys.first_runtime, change)
    Roster(lambda: state, keys).ring("runtime/")
    return offer


def _fleets(state: StateStore, keys: Keys) -> Iterator[str]:
    """Fleets of the pointers that are there: for a lost document of the fleet's identity only."""
    for key in state.keys(keys.groups):
        stored = state.read(key)
        if stored is not None:
            yield decode(Wanted, stored.data).pointer.fleet
