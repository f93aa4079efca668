"""What a device's report proves: attested, pending or failed. Pure functions over values.

"Deployed" means attested by the device, never "the cloud accepted it".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from edgefleet.interfaces.policy import RolloutProgress
from edgefleet.interfaces.tables import html_table, text_table
from edgefleet.interfaces.values import DeviceInfo, Value
from edgefleet.protocol.report import FASTER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgefleet.protocol.pointer import Pointer
    from edgefleet.protocol.report import ModelReport, Report


class Outcome(StrEnum):
    """What a device's own words prove about a pointer."""

    ATTESTED = "attested"
    PENDING = "pending"
    FAILED = "failed"


class DeviceStatus(Value):
    """One device against its group's pointer.

    Attributes:
        why: how we know, or what it waits for.
        running: ``model:version (variant on provider)`` of each model that serves.
        last_seen: when it was last heard of.
    """

    device: str
    outcome: Outcome
    why: str
    running: tuple[str, ...] = ()
    last_seen: datetime | None = None
    number: int = 0


class GroupStatus(Value):
    """A group at one moment.

    Attributes:
        group: ``deployer/name``.
        number: of the pointer in force; 0 before the first.
        release: digest of the release in force.
        models: ``name:version`` of each model that should run.
        candidate: digest of a release that a cohort tries.
        published: whether the channel carries the newest pointer.
        devices: one status a device.
        read_at: when this was read.
        freshness_s: how old it may be at worst for connected devices.
        rollout: how far the channel is with the pointer; None where it doesn't tell.
    """

    group: str
    number: int
    release: str | None
    models: tuple[str, ...]
    candidate: str | None = None
    published: bool = True
    devices: tuple[DeviceStatus, ...]
    read_at: datetime
    freshness_s: float
    rollout: RolloutProgress | None = None

    def count(self, outcome: Outcome) -> int:
        """How many devices have that outcome."""
        return sum(device.outcome is outcome for device in self.devices)

    @property
    def attested(self) -> int:
        """Devices that said they run what they should."""
        return self.count(Outcome.ATTESTED)

    @property
    def pending(self) -> int:
        """Devices not heard of yet, offline, or on the way."""
        return self.count(Outcome.PENDING)

    @property
    def failed(self) -> int:
        """Devices that rejected the release and run what they ran before."""
        return self.count(Outcome.FAILED)

    @property
    def headline(self) -> str:
        """One line that sums it up."""
        total = len(self.devices)
        wants = ", ".join(self.models) or "nothing"
        text = f"{self.group} #{self.number} wants {wants}: {self.attested}/{total} attested"
        if self.pending:
            text += f", {self.pending} pending"
        if self.failed:
            text += f", {self.failed} failed"
        if self.rollout is not None and self.rollout.deserves_a_look:
            text += f"; {self.rollout}"
        return text if self.published else text + " (pointer not yet on the channel)"

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                device.device,
                device.outcome.value,
                ", ".join(device.running) or "-",
                "never" if device.last_seen is None else f"{device.last_seen:%Y-%m-%d %H:%M:%S}",
                device.why,
            )
            for device in self.devices
        ]

    def __str__(self) -> str:
        return text_table(_COLUMNS, self._rows(), caption=self.headline)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(_COLUMNS, self._rows(), caption=self.headline)

    def facts(self) -> dict[str, Any]:
        """The status with its counts as JSON-ready data."""
        counts = {"attested": self.attested, "pending": self.pending, "failed": self.failed}
        return {**self.model_dump(mode="json"), **counts}


_COLUMNS = ("device", "outcome", "running", "last seen (UTC)", "why")


class FleetStatus(Value):
    """Every group at one moment."""

    groups: tuple[GroupStatus, ...]

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.groups)) or "no groups yet; enrol a device into one"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(group._repr_html_() for group in self.groups) or f"<p>{self}</p>"

    def facts(self) -> dict[str, Any]:
        """All groups as JSON-ready data."""
        return {"groups": [group.facts() for group in self.groups]}


def judge(
    device: DeviceInfo, pointer: Pointer | None, *, now: datetime, freshness_s: float
) -> DeviceStatus:
    """One device against its group's pointer.

    Args:
        device: as its deployer knows it.
        pointer: the group's newest; None before the first.
        now: the reader's clock.
        freshness_s: a device not heard of for longer than this and its heartbeat counts as silent.
    """
    report = device.report
    outcome, why = _outcome(device, pointer, now=now, freshness_s=freshness_s)
    return DeviceStatus(
        device=device.name,
        outcome=outcome,
        why=why,
        running=() if report is None else _running(report),
        last_seen=device.last_seen,
        number=0 if report is None else report.number,
    )


def judge_all(
    devices: Iterable[DeviceInfo], pointer: Pointer | None, *, now: datetime, freshness_s: float
) -> tuple[DeviceStatus, ...]:
    """Every device of a group."""
    return tuple(judge(device, pointer, now=now, freshness_s=freshness_s) for device in devices)


def _outcome(  # noqa: PLR0911 - a table of rules, each with its answer
    device: DeviceInfo, pointer: Pointer | None, *, now: datetime, freshness_s: float
) -> tuple[Outcome, str]:
    report = device.report
    if pointer is None:
        return Outcome.PENDING, "nothing has been deployed to its group"
    if report is None:
        why = device.blocked or _silent(device, now, freshness_s)
        return Outcome.PENDING, why or "has never reported"
    wanted = pointer.release_for(device.name)
    if report.attests(wanted, pair=pointer.pair):
        offline = _silent(device, now, freshness_s)
        return Outcome.ATTESTED, _attested(report) + (f"; {offline}" if offline else "")
    if report.pair >= pointer.pair and report.state == "rejected":
        return Outcome.FAILED, reason_of(report)
    held_up = device.blocked if report.pair < pointer.pair else None
    offline = _silent(device, now, freshness_s)
    if offline is not None:
        return Outcome.PENDING, held_up or offline
    if report.fleet not in (None, pointer.fleet):
        return Outcome.FAILED, f"belongs to another fleet: {report.fleet}"
    if held_up is not None:
        return Outcome.PENDING, held_up
    if report.pair < pointer.pair:
        taken = f"took pointer #{report.number} last" if report.number else "has taken no pointer"
        return Outcome.PENDING, f"{taken}, #{pointer.number} is on its way"
    if report.state == "waiting":
        return Outcome.PENDING, reason_of(report)
    return Outcome.PENDING, step_of(report)


def _silent(device: DeviceInfo, now: datetime, freshness_s: float) -> str | None:
    if device.connected is True:
        return None
    if device.connected is False:
        if device.last_seen is None:
            return "offline, never heard of"
        return f"offline since {device.last_seen:%Y-%m-%d %H:%M:%S} UTC"
    if device.last_seen is not None and now - device.last_seen > timedelta(seconds=freshness_s):
        return f"not heard of since {device.last_seen:%Y-%m-%d %H:%M:%S} UTC"
    return None


def _running(report: Report) -> tuple[str, ...]:
    return tuple(
        f"{model.name}:{model.version} "
        f"({model.variant} on {_short(model.providers)}{_building(model)}{_shadow(model)})"
        for model in report.models
        if model.state == "active"
    )


def _short(providers: tuple[str, ...]) -> str:
    return providers[0].removesuffix("ExecutionProvider") if providers else "?"


def _building(model: ModelReport) -> str:
    """For what an engine is being built while another provider serves; empty when none is."""
    build = model.building
    if build is None:
        return ""
    done = f"{build.elapsed_s} s" if build.progress is None else f"{build.progress:.0%}"
    return f", builds for {_short((build.provider,))}: {done}"


def _shadow(model: ModelReport) -> str:
    """How a shadow compares with the active model of its name; empty for an active one."""
    if model.role == "active":
        return ""
    figures = model.shadow
    if figures is None or not figures.compared:
        return ", shadow: nothing compared yet"
    told = f", shadow: {figures.compared} compared"
    if figures.agreement is not None:
        told += f", {figures.agreement:.1%} agree"
    apart = "not finite" if figures.max_abs_diff is None else f"{figures.max_abs_diff:.3g}"
    return f"{told}, largest difference {apart}"


def _attested(report: Report) -> str:
    active = [model for model in report.models if model.state == "active"]
    parts = [
        f"{model.name}: self-test of {model.self_test.cases} passed"
        for model in active
        if model.self_test is not None and model.self_test.cases
    ]
    # A choice that the device made by its own figures isn't the one that a plan told.
    parts += [f"{m.variant} {m.why}" for m in active if m.why and m.why.startswith(FASTER)]
    return "; ".join(parts) or "serves the release"


def reason_of(report: Report) -> str:
    """Why a device rejected or waits, in its own words."""
    reasons = [
        f"{model.name}:{model.version}: {model.reason}" for model in report.models if model.reason
    ]
    if report.rolled_back is not None:
        return f"the release {report.rolled_back}"
    if report.access.state in ("expired", "denied"):
        detail = f" ({report.access.detail})" if report.access.detail else ""
        reasons.append(f"access {report.access.state}{detail}")
    return "; ".join(reasons) or "; ".join(report.errors[:1]) or report.state


def step_of(report: Report) -> str:
    """The step that a working device has reached."""
    steps = [
        f"{model.name}:{model.version} {model.state}"
        for model in report.models
        if model.state not in ("active", "rejected")
    ]
    return "; ".join(steps) or report.state
