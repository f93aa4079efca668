"""Values that the SDK's public operations take and give: frozen pydantic models."""

from __future__ import annotations

import html
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from edgefleet.protocol.report import Report


class Value(BaseModel):
    """Base of the SDK's values: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def facts(self) -> dict[str, Any]:
        """The value as JSON-ready data."""
        return self.model_dump(mode="json")

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(key)}</th>"
            f"<td style='text-align:left'>{html.escape(_brief(value))}</td></tr>"
            for key, value in self.facts().items()
            if value not in (None, {}, [], ())
        )
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"


def _brief(value: object, limit: int = 300) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class ApprovalState(StrEnum):
    """Whether a person or a gate let a version go to devices."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


class Approval(Value):
    """A decision on a version: who, when, why."""

    state: ApprovalState = ApprovalState.PENDING
    by: str | None = None
    at: datetime | None = None
    reason: str | None = None


class VariantInfo(Value):
    """One variant of a version; ``size_bytes`` of its files together."""

    name: str
    format: str
    precision: str
    targets: tuple[str, ...] = ()
    size_bytes: int
    opset: int | None = None


class ModelVersion(Value):
    """One version of a model in a registry.

    Attributes:
        name: of the model.
        version: unique within the model; whole numbers from 1 unless somebody chose otherwise.
        digest: of the bundle's index.
        created: when it was pushed.
        variants: what the bundle offers.
        approval: whether it may go to devices.
        aliases: names that point to it, such as ``production``.
        labels: free text by key.
        metrics: figures such as ``accuracy``.
        lineage: where it came from.
    """

    name: str
    version: str
    digest: str
    created: datetime
    variants: tuple[VariantInfo, ...]
    approval: Approval = Approval()
    aliases: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    metrics: dict[str, float] = {}
    lineage: dict[str, str] = {}

    @property
    def reference(self) -> str:
        """``name:version``, which every operation takes."""
        return f"{self.name}:{self.version}"

    @property
    def size_bytes(self) -> int:
        """Size of all variants together."""
        return sum(variant.size_bytes for variant in self.variants)

    def __str__(self) -> str:
        return self.reference


class Group(Value):
    """A group of devices: the unit of delivery.

    Attributes:
        name: unique within its deployer.
        deployer: name of the deployer in the profile.
        devices: how many devices it has; None where counting would cost a call a device.
        labels: free text by key.
    """

    name: str
    deployer: str
    devices: int | None = None
    labels: dict[str, str] = {}

    @property
    def reference(self) -> str:
        """``deployer/name``, which every operation takes."""
        return f"{self.deployer}/{self.name}"

    def __str__(self) -> str:
        return self.reference


class DeviceInfo(Value):
    """A device as its deployer knows it.

    Attributes:
        name: unique in the fleet.
        group: the one group it is in.
        labels: hardware facts and whatever else was set.
        connected: whether it is reachable now; None where the channel cannot tell.
        last_seen: when it was last heard of; None for never.
        report: its last report, already attributed by the channel; None for none.
        evidence: what the cloud itself says of it, for `why`.
        blocked: why the vendor's agent on it didn't take the newest delivery; None for taken, on
            its way, or not looked at, as in listings where that would cost a call a device.
        cure: what to do about ``blocked``; None where delivering again does it.
    """

    name: str
    group: str
    labels: dict[str, str] = {}
    connected: bool | None = None
    last_seen: datetime | None = None
    report: Report | None = None
    evidence: dict[str, str] = {}
    blocked: str | None = None
    cure: str | None = None

    def facts(self) -> dict[str, Any]:
        """The device as JSON-ready data, its report included."""
        from edgefleet.protocol.documents import to_builtins  # noqa: PLC0415

        facts = self.model_dump(mode="json", exclude={"report"})
        facts["report"] = None if self.report is None else to_builtins(self.report)
        return facts


class Action(StrEnum):
    """What writing a rendered document would do."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"


class Rendered(Value):
    """A document that a deployer would put in place.

    Attributes:
        path: relative file name under which a dry run writes it.
        content: its bytes.
        action: against what is in place now.
    """

    path: str
    content: bytes
    action: Action
