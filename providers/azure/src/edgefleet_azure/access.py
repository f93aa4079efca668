"""Access of devices to storage: service SAS under stored access policies; see ADR 0019.

Rules kept here:

- Reading is one value a group, which ends by itself and travels in the group's layer. Writing is
  one value a device, in its own module twin, which ends with its policy: extending that renews all
  of them at once.
- A policy's name carries a number that is never used again, so that what was revoked stays so.
- The account's key comes from Azure Resource Manager, stays in memory for `KEPT_S`, and is neither
  written nor shown; nor is any value made with it.
- Values end at midnight, UTC: whoever makes one on the same day, makes the same.

``docs``: https://learn.microsoft.com/rest/api/storageservices/create-service-sas and
https://learn.microsoft.com/rest/api/storageservices/define-stored-access-policy
"""

from __future__ import annotations

import logging
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import msgspec

from edgefleet.errors import LimitExceededError
from edgefleet.interfaces.access import AccessKind, AccessTerm
from edgefleet.interfaces.answers import read_answer
from edgefleet_azure.manifests import MODULE, WANTED, Grant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from azure.storage.blob import AccessPolicy, ContainerClient

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.manifests import Layer
    from edgefleet_azure.settings import AzureSettings

_log = logging.getLogger(__name__)

API = "2023-05-01"  # of Microsoft.Storage
MAX_POLICIES = 5  # of a container
WRITE_LASTS = timedelta(days=365)
KEPT_S = 60.0
"""How long key and policies are taken for what they were: less than a policy takes to work."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS = 1_000_000  # more days than a clock has: what a policy's number counts above
_CONTAINERS = {AccessKind.READ: "models", AccessKind.WRITE: "devices"}
_LETTERS = {AccessKind.READ: "r", AccessKind.WRITE: "c"}
# "c" creates blobs and changes none: no overwriting, reading, listing, deleting.


class _Listed(msgspec.Struct, frozen=True):
    """What is read of each key that ``listKeys`` gives."""

    value: str

    def __repr__(self) -> str:
        return "<key>"


class _Keys(msgspec.Struct, frozen=True):
    keys: Annotated[tuple[_Listed, ...], msgspec.Meta(min_length=1)]


class _Key(str):
    """An account's key, which doesn't show itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<key>"


class _Policy(NamedTuple):
    """One of our stored access policies, as it is in place."""

    number: int
    ends: datetime | None

    def name(self, kind: AccessKind) -> str:
        return f"edgefleet-{kind.value}-{self.number}"


class AccessGrants:
    """What devices are given.

    Args:
        clients: to reach storage and Azure Resource Manager with.
        settings: storage account and prefix.
        clock: gives the time, in seconds of the epoch.
    """

    def __init__(
        self, clients: Clients, settings: AzureSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._clients, self._settings, self._clock = clients, settings, clock
        self._read_lasts = timedelta(days=settings.access_days)
        self._account = account_of(settings.storage_url)
        self._lock = threading.RLock()
        self._known: dict[str, tuple[float, Any]] = {}

    def current(self, group: str) -> Grant:
        """What a group's devices are given to read with.

        Args:
            group: whose; every group's is for the same blobs.

        Raises:
            LimitExceededError: the container has no room for another policy.
            azure.core.exceptions.HttpResponseError: storage or Azure Resource Manager refuse.
        """
        from azure.storage.blob import generate_container_sas  # noqa: PLC0415 - lazy

        policy, ends = self._policy(AccessKind.READ), self.read_ends
        value = generate_container_sas(
            self._account,
            self._settings.container("models"),
            account_key=self._key(),
            policy_id=policy.name(AccessKind.READ),
            expiry=ends,
            **self._way,
        )
        _log.debug("group %s may read until %s", group, ends)
        content = {"read": value, "expires": _text(ends), "at": self._settings.models_url}
        return Grant(content, policy.number * _DAYS + (ends - _EPOCH).days)

    def upload(self, device: str) -> dict[str, str]:
        """Where a device writes, and with what; it ends with the policy, which only we know.

        Raises:
            As for `current`.
        """
        from azure.storage.blob import generate_blob_sas  # noqa: PLC0415 - lazy

        value = generate_blob_sas(
            self._account,
            self._settings.container("devices"),
            device,
            account_key=self._key(),
            policy_id=self._policy(AccessKind.WRITE).name(AccessKind.WRITE),
            is_directory=True,
            **self._way,
        )
        where = f"{self._settings.storage_url}/{self._settings.container('devices')}/{device}"
        return {"address": where, "write": value}

    @property
    def read_ends(self) -> datetime:
        """When access ends that is given now."""
        today = self._now().replace(hour=0, minute=0, second=0, microsecond=0)
        return today + self._read_lasts

    @property
    def _way(self) -> dict[str, Any]:
        return {"protocol": "https"}

    def terms(self, given: Mapping[str, Mapping[str, Any] | None]) -> Iterator[AccessTerm]:
        """When access ends.

        Args:
            given: what a group's layer gives to its devices, by the group's name.
        """
        policy = self._find(AccessKind.READ)
        held = None if policy is None else policy.name(AccessKind.READ)
        for group, content in given.items():
            ends = _ends_under(content, held)
            yield AccessTerm(AccessKind.READ, group, ends, self._read_lasts)
        yield self._write_term(renewed=False)

    def read_term(self, group: str) -> AccessTerm:
        """What a group was given just now."""
        ends, lasts = self.read_ends, self._read_lasts
        return AccessTerm(AccessKind.READ, group, ends, lasts, renewed=True)

    def extend_writing(self) -> AccessTerm:
        """Have every device's value last longer, by its policy."""
        now = self._find(AccessKind.WRITE) or _Policy(1, None)
        self._put(AccessKind.WRITE, now.number)
        return self._write_term(renewed=True)

    def revoke(self, kind: AccessKind) -> None:
        """End every value of a kind within half a minute; later ones stand under another policy."""
        found = self._find(kind)
        self._put(kind, 1 if found is None else found.number + 1)

    def _write_term(self, *, renewed: bool) -> AccessTerm:
        policy = self._find(AccessKind.WRITE)
        ends = None if policy is None else policy.ends
        return AccessTerm(AccessKind.WRITE, None, ends, WRITE_LASTS, renewed)

    # Policies

    def _policy(self, kind: AccessKind) -> _Policy:
        """The policy that values are made under, put in place if need be."""

        def ready() -> _Policy:
            found = self._find(kind)
            return self._put(kind, 1) if found is None else found

        found: _Policy = self._for_a_while(f"policy {kind}", ready)
        return found

    def _find(self, kind: AccessKind) -> _Policy | None:
        return _newest(kind, _policies(self._container(kind))[0])

    def _put(self, kind: AccessKind, number: int) -> _Policy:
        """Have the policy of that number, and no other of that kind; those of others stay.

        Whoever does the same at the same time, writes the same.
        """
        from azure.storage.blob import AccessPolicy  # noqa: PLC0415 - lazy

        container = self._container(kind)
        there, public = _policies(container)
        kept = {name: policy for name, policy in there.items() if _number(kind, name) is None}
        if len(kept) >= MAX_POLICIES:
            raise LimitExceededError(
                f"container {container.container_name} has {len(kept)} stored access policies of "
                f"others, and takes {MAX_POLICIES}",
                cure="take away one that nobody needs: az storage container policy delete",
            )
        ends = None
        if kind is AccessKind.WRITE:
            midnight = self._now().replace(hour=0, minute=0, second=0, microsecond=0)
            ends = midnight + WRITE_LASTS
        ours = _Policy(number, ends)
        terms = AccessPolicy(
            permission=_LETTERS[kind], expiry=None if ends is None else _text(ends)
        )
        container.set_container_access_policy(
            {**kept, ours.name(kind): terms}, public_access=public
        )
        with self._lock:
            self._known.pop(f"policy {kind}", None)
        return ours

    def _container(self, kind: AccessKind) -> ContainerClient:
        return self._clients.container(_CONTAINERS[kind])

    # The key

    def _key(self) -> str:
        """A key of the storage account, asked of Azure Resource Manager."""
        path = f"{self._settings.group_path}/providers/Microsoft.Storage/storageAccounts"

        def ask() -> _Key:
            asked = self._clients.arm("POST", f"{path}/{self._account}/listKeys", api_version=API)
            return _Key(read_answer(asked, _Keys).keys[0].value)

        key: _Key = self._for_a_while("key", ask)
        return str(key)

    def _for_a_while(self, name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - any of them
        with self._lock:
            made, value = self._known.get(name, (float("-inf"), None))
            if time.monotonic() - made > KEPT_S:
                value = make()
                self._known[name] = (time.monotonic(), value)
            return value

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def content_of(layer: Layer) -> Mapping[str, Any] | None:
    """What a layer gives its group's devices to read with; None for nothing."""
    modules = (layer.document.get("content") or {}).get("modulesContent") or {}
    wanted = (modules.get(MODULE) or {}).get(f"properties.desired.{WANTED}") or {}
    found = wanted.get("access")
    return found if isinstance(found, dict) else None


def account_of(storage_url: str) -> str:
    """The account's name: the path of an emulator's address, else the first part of the host."""
    parts = urlsplit(storage_url)
    return parts.path.strip("/") or (parts.hostname or "").partition(".")[0]


def _ends_under(content: Mapping[str, Any] | None, policy: str | None) -> datetime | None:
    """When a value ends; None for none, and for one that stands under another policy."""
    if content is None or policy is None:
        return None
    if parse_qs(str(content.get("read", ""))).get("si") != [policy]:
        return None
    return _moment(str(content.get("expires", "")))


def _policies(container: ContainerClient) -> tuple[dict[str, AccessPolicy], Any]:
    found: dict[str, Any] = container.get_container_access_policy()
    named = {one.id: one.access_policy for one in found["signed_identifiers"]}
    return named, found["public_access"]


def _newest(kind: AccessKind, there: Mapping[str, AccessPolicy]) -> _Policy | None:
    numbers = [number for name in there if (number := _number(kind, name)) is not None]
    if not numbers:
        return None
    newest = _Policy(max(numbers), None)
    policy = there[newest.name(kind)]
    return newest._replace(ends=_moment(str(policy.expiry)) if policy.expiry else None)


def _number(kind: AccessKind, name: str) -> int | None:
    match = re.fullmatch(rf"edgefleet-{kind.value}-([1-9][0-9]{{0,8}})", name)
    return None if match is None else int(match[1])


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(re.sub(r"\.(\d{6})\d+", r".\1", text))  # storage says seven
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
