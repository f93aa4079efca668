"""What a core device of the mock and its cloud tell each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet_aws.cloud.components import Component
    from edgefleet_aws.cloud.deployments import Deployment

    Cancel = Callable[[], None]


class Cloud(Protocol):
    """What a device reaches with its certificate."""

    region: str

    def online(self, thing: str) -> bool:
        """Whether the device has a network now."""

    def wanted(self, thing: str) -> list[Deployment]:
        """Deployments to carry out."""

    def report(self, thing: str, deployment: Deployment, status: str, reason: str = "") -> None:
        """Tell how far one is."""

    def component(self, name: str, version: str) -> Component | None:
        """A component's version."""

    def artifact(self, address: str) -> bytes | None:
        """The bytes at an ``s3://`` address, read with the device's role."""

    def publish(self, thing: str, topic: str, payload: bytes) -> None:
        """Publish as the device."""

    def subscribe(
        self, thing: str, topic_filter: str, received: Callable[[str, bytes], None]
    ) -> Cancel:
        """Receive as the device."""

    def keys(self, thing: str) -> Mapping[str, str]:
        """Credentials of the role behind the device's role alias."""

    def is_up(self, thing: str, facts: CoreFacts) -> None:
        """Hear of the device."""


class CoreFacts(NamedTuple):
    """What a nucleus tells of its device.

    Attributes:
        components: name -> version and lifecycle state.
    """

    version: str
    runtime: str
    architecture: str
    healthy: bool
    components: Mapping[str, tuple[str, str]]
