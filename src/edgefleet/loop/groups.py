"""What a loop's groups run of its model, and how they are changed. Reads the fleet each time.

Nothing here trusts what a turn did before: whether a group already has the candidate is read from
the group, so that doing it again changes nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import ConflictError, EdgeFleetError, NotFoundError
from edgefleet.interfaces.abilities import CanInvoke
from edgefleet.loop.record import ShadowSeen
from edgefleet.protocol.release import EMPTY, ReleaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.values import DeviceInfo
    from edgefleet.protocol.release import Role
    from edgefleet.protocol.report import ModelReport, Report
    from edgefleet.rollout.judgement import GroupStatus

ASKED_AT_ONCE = 8  # devices
MAX_ASKED = 200  # devices that are asked themselves; of others the last report counts
ASK_S = 10.0


class Standing(NamedTuple):
    """A group and the model.

    Attributes:
        active: what answers.
        shadow: what sees copies.
        tried: what a cohort has as active.
    """

    status: GroupStatus
    active: ReleaseModel | None
    shadow: ReleaseModel | None
    tried: ReleaseModel | None


def standing(fleet: Fleet, group: str, model: str) -> Standing:
    """How a group stands."""
    status = fleet.group_status(group)

    def find(release: str | None, role: Role) -> ReleaseModel | None:
        if release is None or release == EMPTY.digest:
            return None
        models = fleet.registry.get_release(release).models
        return next((m for m in models if (m.name, m.role) == (model, role)), None)

    return Standing(
        status=status,
        active=find(status.release, "active"),
        shadow=find(status.release, "shadow"),
        tried=find(status.candidate, "active"),
    )


def active_model(fleet: Fleet, groups: Sequence[str], model: str) -> ReleaseModel:
    """The one version that answers in all the groups.

    Raises:
        NotFoundError: a group doesn't have the model.
        ConflictError: they have several.
    """
    found = dict[str, ReleaseModel]()
    for group in groups:
        active = standing(fleet, group, model).active
        if active is None:
            msg = f"{group} has no active model {model!r}"
            cure = f"a loop goes on from a model that serves: edgefleet deploy {model}:… {group}"
            raise NotFoundError(msg, cure=cure)
        found[group] = active
    if len({entry.bundle for entry in found.values()}) > 1:
        told = ", ".join(f"{group}: {model}:{entry.version}" for group, entry in found.items())
        msg = f"the loop's groups run several versions: {told}"
        cure = "deploy one of them to all, or write a loop for each group"
        raise ConflictError(msg, cure=cure, retryable=False)
    return next(iter(found.values()))


def restore(fleet: Fleet, group: str, model: str, *, bundle: str, parent: str) -> None:
    """Take a candidate out of a group, whatever it has become there."""
    stands = standing(fleet, group, model)
    if stands.tried is not None and stands.tried.bundle == bundle:
        fleet.cancel(group)
        stands = standing(fleet, group, model)
    if stands.active is not None and stands.active.bundle == bundle:
        fleet.deploy(parent, to=group)
        stands = standing(fleet, group, model)
    if stands.shadow is not None and stands.shadow.bundle == bundle:
        fleet.remove(model, to=group, role="shadow")


def shadow_seen(fleet: Fleet, groups: Sequence[str], model: str, bundle: str) -> ShadowSeen:
    """What all devices of the groups say of a shadow.

    Where devices can be asked they are, because a report tells a shadow's figures at 1, 10, 100, …
    answers only.
    """
    devices = [device for group in groups for device in fleet.devices(group)]
    found = list(_models(fleet, devices, model, bundle))
    serving = [m for m in found if m.state != "rejected"]
    shadows = [m.shadow for m in serving if m.shadow is not None]
    judged = [(s.compared, s.agreement) for s in shadows if s.agreement is not None and s.compared]
    answers = sum(count for count, _ in judged)
    return ShadowSeen(
        devices=len(devices),
        telling=len(shadows),
        rejected=len(found) - len(serving),
        compared=sum(s.compared for s in shadows),
        dropped=sum(s.dropped for s in shadows),
        agreement=sum(n * share for n, share in judged) / answers if answers else None,
    )


def _models(
    fleet: Fleet, devices: list[DeviceInfo], model: str, bundle: str
) -> Iterator[ModelReport]:
    """What each device says of the shadow, where it says anything."""
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        asked = pool.map(lambda device: _newest(fleet, device), devices[:MAX_ASKED])
        reports = [*asked, *(device.report for device in devices[MAX_ASKED:])]
    for report in reports:
        for entry in () if report is None else report.models:
            if (entry.name, entry.role, entry.bundle) == (model, "shadow", bundle):
                yield entry


def _newest(fleet: Fleet, info: DeviceInfo) -> Report | None:
    """From the device itself where it answers, or else what it said last."""
    if info.connected is False or info.report is None:
        return info.report
    device = fleet.device(info.name)
    if not isinstance(device.deployer, CanInvoke):
        return info.report
    try:
        return device.status(timeout_s=ASK_S)
    except EdgeFleetError:
        return info.report
