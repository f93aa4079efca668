"""Why a device runs what it runs: wanted, actual, where it stopped, evidence, cure. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.values import DeviceInfo, Value
from edgefleet.rollout.judgement import DeviceStatus, Outcome, reason_of, step_of

if TYPE_CHECKING:
    from edgefleet.protocol.pointer import Pointer
    from edgefleet.protocol.release import Release


class Explanation(Value):
    """One page on one device."""

    device: str
    group: str
    outcome: Outcome
    wanted: str
    actual: str
    step: str
    evidence: tuple[str, ...]
    cure: str

    def __str__(self) -> str:
        lines = [
            f"{self.device} in {self.group}: {self.outcome.value}",
            f"  wanted    {self.wanted}",
            f"  actual    {self.actual}",
            f"  step      {self.step}",
            *(f"  evidence  {line}" for line in self.evidence),
            f"  cure      {self.cure}",
        ]
        return "\n".join(lines)

    __repr__ = __str__


def explain(
    device: DeviceInfo,
    status: DeviceStatus,
    *,
    group: str,
    wanted: Release | None,
    pointer: Pointer | None,
    on_channel: Pointer | None,
) -> Explanation:
    """Put together what is known of a device.

    Args:
        device: as its deployer knows it.
        status: its judgement against ``pointer``.
        group: reference of its group.
        wanted: the release that the pointer gives this device; None before the first.
        pointer: the newest in the group's record.
        on_channel: the one that the channel carries.
    """
    models = () if wanted is None else wanted.models
    names = ", ".join(f"{m.name}:{m.version}" for m in models) or "nothing"
    number = f" by pointer #{pointer.number}" if pointer is not None else ""
    return Explanation(
        device=device.name,
        group=group,
        outcome=status.outcome,
        wanted=names + number,
        actual=_actual(device, status),
        step=_step(device, status),
        evidence=_evidence(device, pointer, on_channel),
        cure=_cure(device, status, pointer, on_channel),
    )


def _actual(device: DeviceInfo, status: DeviceStatus) -> str:
    if device.report is None:
        return "unknown: it has never reported"
    running = ", ".join(status.running) or "nothing"
    return f"{running} (pointer #{device.report.number} taken, state {device.report.state})"


def _step(device: DeviceInfo, status: DeviceStatus) -> str:
    report = device.report
    if status.outcome is Outcome.ATTESTED:
        done = "done: it serves what it should"
        return done if device.blocked is None else f"{done}, by its last report; {device.blocked}"
    if device.blocked is not None and (report is None or report.state != "rejected"):
        return device.blocked
    if report is None:
        return "before its first report"
    if report.state == "rejected":
        return f"rejected: {reason_of(report)}"
    return status.why if report.state != "working" else step_of(report)


def _evidence(
    device: DeviceInfo, pointer: Pointer | None, on_channel: Pointer | None
) -> tuple[str, ...]:
    lines = []
    if pointer is None:
        lines.append("operator: no pointer has been written for this group")
    elif on_channel is None or on_channel.pair < pointer.pair:
        there = "none" if on_channel is None else f"#{on_channel.number}"
        lines.append(f"channel: carries {there}, the record has #{pointer.number}")
    else:
        lines.append(f"channel: carries pointer #{on_channel.number}")
    lines += [f"cloud: {key}: {value}" for key, value in device.evidence.items()]
    if device.connected is not None:
        lines.append(f"cloud: {'connected' if device.connected else 'not connected'}")
    seen = "never" if device.last_seen is None else f"{device.last_seen:%Y-%m-%d %H:%M:%S} UTC"
    lines.append(f"cloud: last heard of {seen}")
    report = device.report
    if report is not None:
        lines += [
            f"device: {m.name}:{m.version} {m.state}" + (f": {m.reason}" if m.reason else "")
            for m in report.models
        ]
        access = report.access
        said = "" if access.detail is None else f": {access.detail}"
        lines.append(f"device: access {access.state}{said}")
        lines += [f"device: {error}" for error in report.errors]
    return tuple(lines)


def _cure(  # noqa: PLR0911 - a table of rules, each with its answer
    device: DeviceInfo,
    status: DeviceStatus,
    pointer: Pointer | None,
    on_channel: Pointer | None,
) -> str:
    report = device.report
    if status.outcome is Outcome.ATTESTED:  # yet it may be unable to take what comes next
        return device.cure or "none needed"
    if pointer is None:
        return "deploy a model to its group: edgefleet deploy NAME --to GROUP"
    if on_channel is None or on_channel.pair < pointer.pair:
        return "an operator was interrupted before publishing: repeat the deploy, it is safe"
    if report is not None and report.access.state in ("expired", "denied"):
        return "renew the device's access, or do what its evidence says; it goes on by itself"
    if report is not None and report.rolled_back is not None:
        return "deploy a mended model to its group: any newer pointer ends the rollback"
    if status.outcome is Outcome.FAILED:
        return "mend the model and push a new version, or go back: edgefleet rollback GROUP"
    if device.blocked is not None:
        again = "mend what its agent names, then deploy again: its newest pointer was taken back"
        return device.cure or again
    return _while_it_lasts(device)


def _while_it_lasts(device: DeviceInfo) -> str:
    """What to do about a device that hasn't come to an end, and that nothing is known to hold."""
    report = device.report
    if device.connected is False or (report is None and not device.connected):
        return "start the device or its runtime and check its network; it converges by itself"
    if report is None:
        return "wait; it asks for news, and its first report follows within minutes"
    if report.errors:
        return "mend what it names; it tries again by itself"
    return "wait; it is on its way"
