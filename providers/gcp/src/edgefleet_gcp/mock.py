"""The mock of Google Cloud: Cloud Storage, Pub/Sub, and where google-auth gets tokens.

Loopback only, Cloud Storage and tokens over HTTPS with a throw-away authority. See
``mock_rules.md`` for each rule. What the cloud holds is kept in the mock's folder when it stops in
order, and a mock that starts there goes on with it. It has no devices of its own: they belong to
the clouds that deploy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from edgefleet.errors import UnsupportedError
from edgefleet.plugins.provider import Role
from edgefleet.testing.cloud.keeping import Keeper, Place
from edgefleet.testing.cloud.refusals import made_of_extra, not_running
from edgefleet.testing.cloud.rules import Rules
from edgefleet.testing.mock import MockCloud, without_proxy
from edgefleet_gcp.permissions import BUCKET, DEVICE, SUBSCRIPTION, below
from edgefleet_gcp.settings import GcpSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from edgefleet.testing.cloud.authority import Authority
    from edgefleet.testing.cloud.keeping import Part
    from edgefleet_gcp.cloud.stage import Stage

VENDOR = "Google Cloud"
PROJECT = "edgefleet-mock"
BUCKET_NAME = "edgefleet-mock-fleet"
TOPIC = "edgefleet-hot"
SUBSCRIPTION_NAME = "edgefleet-hot-read"
PREFIX: str = GcpSettings.model_fields["prefix"].default
DEVICES = "edgefleet-devices"
"""The account that devices of other clouds have."""


class GcpMock(MockCloud):
    """Google Cloud on this machine.

    Args:
        state: folder for what it keeps.

    Attributes:
        rules: faults to inject.
    """

    name: ClassVar[str] = "gcp"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.REGISTRY, Role.STATE, Role.TELEMETRY})

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self._keeper = Keeper(state / "cloud.json")
        self._stage: Stage | None = None
        self.rules = Rules(_throttled)

    def start(self) -> None:
        """Listen on loopback; no error when it does already.

        Raises:
            MissingExtraError: what the mock is made of isn't installed.
        """
        if self._stage is not None:
            return
        with made_of_extra(VENDOR, "edgefleet-gcp"):
            from edgefleet_gcp.cloud.stage import Stage  # noqa: PLC0415 - an extra may be missing
        self.state.mkdir(parents=True, exist_ok=True)
        place = Place({})
        self._keeper.restore({"place": place})
        stage = Stage(self.rules, self.state, PROJECT)
        self._keeper.restore(stage.parts)
        stage.open(place.told)
        stage.emulator.create_bucket(BUCKET_NAME)
        self._stage = stage
        self.add_topic(TOPIC, SUBSCRIPTION_NAME)
        stage.key_file()

    def stop(self) -> None:
        """Keep what there is, and stop listening."""
        self.rules.clear()
        stage, self._stage = self._stage, None
        if stage is None:
            return
        parts: dict[str, Part] = {"place": Place(stage.ports), **stage.parts}
        try:
            self._keeper.save(parts)
        finally:
            stage.close()

    @property
    def stage(self) -> Stage:
        """What it is made of.

        Raises:
            ConfigurationError: the mock isn't running.
        """
        if self._stage is None:
            raise not_running(VENDOR)
        return self._stage

    @property
    def environment(self) -> dict[str, str]:
        """What Google's libraries read: who we are, whom to trust, where the cloud is."""
        return self.environment_of(None)

    def environment_of(self, name: str | None) -> dict[str, str]:
        """What somebody's libraries read.

        Args:
            name: of an account, from `add_account`; None for the operator, who may everything.
        """
        from edgefleet_gcp.cloud import stage as hosts  # noqa: PLC0415 - an extra may be missing

        stage = self.stage
        bundle = str(stage.authority.bundle.absolute())
        key = stage.key_file() if name is None else stage.key_file(name)
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(key.absolute()),
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "STORAGE_EMULATOR_HOST": stage.url(hosts.STORAGE),
            "PUBSUB_EMULATOR_HOST": stage.url(hosts.PUBSUB).partition("://")[2],
            "GCE_METADATA_HOST": stage.url(hosts.METADATA).partition("://")[2],
            "GCE_METADATA_IP": stage.url(hosts.METADATA).partition("://")[2],
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
            **without_proxy(),
        }

    @property
    def settings(self) -> dict[str, Any]:
        """Bucket, project, and where hot events are published."""
        return {
            "bucket": BUCKET_NAME,
            "project": PROJECT,
            "topic": TOPIC,
            "subscription": SUBSCRIPTION_NAME,
            "cache": str((self.state / "cache").absolute()),
        }

    @property
    def authority(self) -> Authority:
        """What certifies Cloud Storage and tokens."""
        return self.stage.authority

    @property
    def lent(self) -> dict[str, str]:
        """A key that reads what the fleet keeps, writes below devices' folders, and publishes.

        All devices share it; those of a real fleet have accounts of their own.
        """
        if self.stage.identities.get(DEVICES) is None:
            self.add_account(DEVICES, {BUCKET: DEVICE["read"]}, folder=PREFIX)
            own = {BUCKET: DEVICE["write"], "topic": DEVICE["publish"]}
            self.add_account(DEVICES, own, folder=f"{PREFIX}/devices")
        return self.environment_of(DEVICES)

    @property
    def segments(self) -> str:
        """Where devices' folders are."""
        return f"gs://{BUCKET_NAME}/{PREFIX}"

    def add_topic(self, topic: str, subscription: str) -> None:
        """Have a topic and a subscription of it."""
        root = f"projects/{PROJECT}"
        self.stage.pubsub.create(f"{root}/topics/{topic}", f"{root}/subscriptions/{subscription}")

    def add_account(
        self,
        name: str,
        permissions: Mapping[str, Iterable[str]],
        *,
        folder: str | None = None,
        subscription: str = SUBSCRIPTION_NAME,
        topic: str = TOPIC,
    ) -> str:
        """Add a service account that has permissions, and no more; one that is there gets more.

        Args:
            name: of it.
            permissions: by place: ``bucket``, ``subscription`` or ``topic``.
            folder: in the bucket, that those on the bucket are for; None for all of it.
            subscription: that those on a subscription are for.
            topic: that those on a topic are for.

        Returns:
            Its address.
        """
        from edgefleet_gcp.cloud.accounts import Binding  # noqa: PLC0415 - likewise

        resources = {
            BUCKET: f"projects/_/buckets/{BUCKET_NAME}",
            SUBSCRIPTION: f"projects/{PROJECT}/subscriptions/{subscription}",
            "topic": f"projects/{PROJECT}/topics/{topic}",
        }
        start = None
        if folder is not None:
            start = below(BUCKET_NAME, folder)["expression"].split('"')[1]
        bindings = [
            Binding(resources[place], tuple(given), start if place == BUCKET else None)
            for place, given in permissions.items()
        ]
        return self.stage.identities.add(name, bindings).email

    def add_device(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        """Refuse: there are no devices in this cloud."""
        raise _no_devices()

    def kill_device(self, name: str) -> None:
        """Refuse: there are no devices in this cloud."""
        raise _no_devices()

    def start_device(self, name: str) -> None:
        """Refuse: there are no devices in this cloud."""
        raise _no_devices()

    def seen(self) -> Iterator[str]:
        """Every request: when, service and operation, path, status."""
        if self._stage is not None:
            yield from self._stage.seen()


def _no_devices() -> UnsupportedError:
    return UnsupportedError(
        "the mock of Google Cloud has no devices",
        cure="add a cloud that deploys: edgefleet mock kubernetes,gcp",
    )


def _throttled() -> Exception:
    from edgefleet_gcp.cloud.calls import throttled  # noqa: PLC0415 - an extra may be missing

    return throttled()
