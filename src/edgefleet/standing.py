"""How a group and a device stand now: read from record, channel and reports, judged elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgefleet.interfaces.abilities import CanPace
from edgefleet.releases import names_of
from edgefleet.rollout.explain import Explanation, explain
from edgefleet.rollout.judgement import GroupStatus, judge, judge_all

if TYPE_CHECKING:
    from edgefleet.groups import GroupEditor
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.values import DeviceInfo


def group_status(deployer: Deployer, name: str, groups: GroupEditor) -> GroupStatus:
    """A group now: each device judged by its own report against the newest pointer."""
    record = groups.record(deployer, name)
    now = datetime.now(UTC)
    freshness = deployer.limits.freshness_s
    release = groups.release(record.current) if record.pointer is not None else None
    return GroupStatus(
        group=f"{deployer.name}/{name}",
        number=record.pointer.number if record.pointer is not None else 0,
        release=record.current if record.pointer is not None else None,
        models=() if release is None else names_of(release),
        candidate=record.candidate,
        published=deployer.pointer(name) == record.pointer,
        rollout=deployer.progress(name) if isinstance(deployer, CanPace) else None,
        devices=judge_all(deployer.devices(name), record.pointer, now=now, freshness_s=freshness),
        read_at=now,
        freshness_s=freshness,
    )


def explained(deployer: Deployer, device: DeviceInfo, groups: GroupEditor) -> Explanation:
    """One page on a device: wanted and actual release, where it stopped, evidence, cure."""
    pointer = groups.record(deployer, device.group).pointer
    wanted = None if pointer is None else groups.release(pointer.release_for(device.name))
    status = judge(device, pointer, now=datetime.now(UTC), freshness_s=deployer.limits.freshness_s)
    return explain(
        device,
        status,
        group=f"{deployer.name}/{device.group}",
        wanted=wanted,
        pointer=pointer,
        on_channel=deployer.pointer(device.group),
    )
