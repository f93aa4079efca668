"""What the demo finds, as values: what ``--json`` prints, what table and picture show."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field, to_builtins


class Version(Struct, kw_only=True):
    """A model version; ``accuracy`` on the held-out images, before optimizing; sizes in bytes."""

    reference: str
    accuracy: float
    train_s: float
    variants: dict[str, int]


class DeviceFacts(Struct, kw_only=True):
    """A device and what it serves, as its own report says.

    Attributes:
        why: the device's reason for the variant.
        accuracy: on the held-out images, by version.
        p50_ms: of single images over HTTP; likewise ``p99_ms``.
        bytes_fetched: by version.
        process: its process id.
    """

    device: str
    target: str
    variant: str = ""
    why: str = ""
    execution_provider: str = ""
    accuracy: dict[str, float] = field(default_factory=dict)
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    bytes_fetched: dict[str, int] = field(default_factory=dict)
    process: int = 0


class Swap(Struct, kw_only=True):
    """A change of version under load. ``answered`` counts requests by the version that answered."""

    to: str
    attested_s: float
    bytes_fetched: int
    requests: int
    failed: int
    answered: dict[str, int]
    same_processes: bool


class Telemetry(Struct, kw_only=True):
    """Events read back; ``classes`` counts predicted digits by device."""

    requests_sent: int
    events: int
    by_device: dict[str, int]
    classes: dict[str, dict[str, int]]


class Facts(Struct, kw_only=True):
    """Everything."""

    edgefleet: str
    images_trained: int = 0
    images_held_out: int = 0
    versions: list[Version] = field(default_factory=list)
    devices: list[DeviceFacts] = field(default_factory=list)
    update: Swap | None = None
    rollback: Swap | None = None
    telemetry: Telemetry | None = None
    seconds: float = 0.0
    picture: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        built: dict[str, Any] = to_builtins(self)
        return built
