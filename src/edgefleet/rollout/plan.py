"""A plan: who would get which variant, how many bytes, what changes, what stands against it. Pure.

The same variant choice runs here and on the device, so a plan tells what will happen.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import NotFoundError
from edgefleet.interfaces.amounts import size_text
from edgefleet.interfaces.policy import RolloutPolicy
from edgefleet.interfaces.tables import html_table, text_table
from edgefleet.interfaces.values import DeviceInfo, Rendered, Value
from edgefleet.protocol.bundle import Variant
from edgefleet.protocol.target import ANY, TARGET_LABEL, choose_variant, target_of
from edgefleet.protocol.target_problems import Problem, target_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgefleet.protocol.release import Release
    from edgefleet.protocol.target import HardwareTarget
    from edgefleet.protocol.target_problems import Level


class BundleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What planning needs of a bundle: variants, and each one's blobs with sizes in bytes."""

    variants: tuple[Variant, ...]
    blobs: dict[str, dict[str, int]]


class Change(Value):
    """One model of the release, before and after; None where it isn't there."""

    model: str
    before: str | None
    after: str | None

    @property
    def what(self) -> str:
        """``add``, ``replace``, ``remove`` or ``keep``."""
        if self.before == self.after:
            return "keep"
        if self.before is None:
            return "add"
        return "remove" if self.after is None else "replace"

    def __str__(self) -> str:
        versions = "→".join(v for v in (self.before, self.after) if v is not None)
        return f"{self.what} {self.model} {versions}"


class PlannedDevice(Value):
    """One device's share.

    Attributes:
        target: hardware target that its labels name.
        variants: ``model: variant`` for each model; a shadow's name says so.
        bytes: to be fetched, as far as the device's last report tells what it has.
        problem: why it can't take the release; None when it can.
        note: why the variant was chosen, or what else should be known.
        warnings: what may fail on it.
    """

    device: str
    target: str
    variants: dict[str, str]
    bytes: int
    problem: str | None = None
    note: str = ""
    warnings: tuple[str, ...] = ()


class Plan(Value):
    """What a deployment would do. Nothing has been sent.

    Attributes:
        group: ``deployer/name``.
        before: digest of the release in force; None before the first.
        after: digest of the release planned.
        changes: model by model.
        devices: device by device.
        documents: all that would be in place: the releases, then what the deployer writes.
        warnings: what a person should know.
        problems: what will be refused.
        policy: how it would reach the devices; None for the channel's way.
    """

    group: str
    before: str | None
    after: str
    changes: tuple[Change, ...]
    devices: tuple[PlannedDevice, ...]
    documents: tuple[Rendered, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    policy: RolloutPolicy | None = None

    @property
    def bytes(self) -> int:
        """Bytes that all devices together would fetch."""
        return sum(device.bytes for device in self.devices)

    def _headline(self) -> str:
        changes = (
            ", ".join(str(change) for change in self.changes if change.what != "keep")
            or "nothing changes"
        )
        return f"{self.group}: {changes}; {len(self.devices)} devices, {size_text(self.bytes)}"

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                device.device,
                device.target,
                ", ".join(f"{m}: {v}" for m, v in device.variants.items()) or "-",
                size_text(device.bytes),
                device.problem or device.note,
            )
            for device in self.devices
        ]

    def __str__(self) -> str:
        lines = [text_table(_COLUMNS, self._rows(), caption=self._headline())]
        lines += [f"rollout: {self.policy}"] if self.policy is not None else []
        lines += [f"warning: {text}" for text in self.warnings]
        lines += [f"problem: {text}" for text in self.problems]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        policy = () if self.policy is None else (f"rollout: {self.policy}",)
        texts = (*policy, *self.warnings, *self.problems)
        notes = "".join(f"<p>{html.escape(text)}</p>" for text in texts)
        return html_table(_COLUMNS, self._rows(), caption=self._headline()) + notes

    def facts(self) -> dict[str, Any]:
        """The plan as JSON-ready data; documents without their content."""
        facts = self.model_dump(mode="json", exclude={"documents"})
        facts["bytes"] = self.bytes
        facts["documents"] = [{"path": d.path, "action": d.action.value} for d in self.documents]
        return facts


_COLUMNS = ("device", "target", "variant", "to fetch", "note")


def changes_between(before: Release, after: Release) -> tuple[Change, ...]:
    """Model by model, in order of their names; a shadow is a model of its own."""
    old = {model.label: model.version for model in before.models}
    new = {model.label: model.version for model in after.models}
    names = sorted(old.keys() | new.keys())
    return tuple(Change(model=n, before=old.get(n), after=new.get(n)) for n in names)


def plan_device(
    device: DeviceInfo,
    release: Release,
    bundles: Mapping[str, BundleFacts],
    targets: Iterable[HardwareTarget],
) -> PlannedDevice:
    """One device's share of a release.

    Args:
        device: as its deployer knows it.
        release: what it would run.
        bundles: facts by digest, of the release's bundles and of those the device reports.
        targets: hardware targets known.
    """
    labels = {**(device.report.labels if device.report else {}), **device.labels}
    target = target_of(labels, targets)
    stands: list[Problem] = []
    if ANY in target.kin:
        text = f"label {TARGET_LABEL}={target.name} names a target that is unknown here"
        stands.append(Problem(level="warn", text=text))
    have = _blobs_of(device, bundles)
    variants: dict[str, str] = {}
    notes: list[str] = []
    want: dict[str, int] = {}
    for model in release.models:
        facts = bundles[model.bundle]
        try:
            choice = choose_variant(facts.variants, target)
        except NotFoundError as error:
            return PlannedDevice(
                device=device.name, target=target.name, variants={}, bytes=0, problem=error.message
            )
        variants[model.label] = choice.variant.name
        notes.append(choice.why)
        stands += target_problems(choice.variant, target)
        want |= facts.blobs[choice.variant.name]
    missing = sum(size for digest, size in want.items() if digest not in have)
    return PlannedDevice(
        device=device.name,
        target=target.name,
        variants=variants,
        bytes=missing,
        problem="; ".join(_texts(stands, "refuse")) or None,
        note="; ".join(dict.fromkeys((*notes, *_texts(stands, "note")))),
        warnings=_texts(stands, "warn"),
    )


def _texts(problems: Iterable[Problem], level: Level) -> tuple[str, ...]:
    return tuple(dict.fromkeys(problem.text for problem in problems if problem.level == level))


def _blobs_of(device: DeviceInfo, bundles: Mapping[str, BundleFacts]) -> set[str]:
    if device.report is None:
        return set()
    have: set[str] = set()
    for model in device.report.models:
        facts = bundles.get(model.bundle)
        if facts is not None and model.variant in facts.blobs and model.state != "rejected":
            have |= facts.blobs[model.variant].keys()
    return have


def warnings_of(devices: Sequence[PlannedDevice], group: str) -> tuple[str, ...]:
    """What a person should know of a plan's devices."""
    if not devices:
        return (f"{group} has no devices yet; those that join will take the release",)
    unlabelled = [d.device for d in devices if d.target == ANY]
    found = []
    if unlabelled:
        count = len(unlabelled)
        found.append(
            f"{count} devices have no target label ({_some(unlabelled)}): they take the plainest"
        )
    warned: dict[str, list[str]] = {}
    for device in devices:
        for text in device.warnings:
            warned.setdefault(text, []).append(device.device)
    found += [f"{text} ({_some(names)})" for text, names in warned.items()]
    return tuple(found)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ("…" if len(names) > 3 else "")
