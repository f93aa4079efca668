"""From a model version to a release: approval, veto, telemetry policy; and plans of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgefleet.errors import (
    ApprovalRequiredError,
    EdgeFleetError,
    InvalidInputError,
    NotFoundError,
    PolicyError,
    UnsupportedError,
    VetoedError,
)
from edgefleet.interfaces.values import (
    Action,
    ApprovalState,
    DeviceInfo,
    ModelVersion,
    Rendered,
)
from edgefleet.plugins import discovery
from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import hex_of
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.policy_problems import check_policy
from edgefleet.protocol.release import Release, ReleaseModel, Role
from edgefleet.rollout import plan as planning
from edgefleet.rollout import records

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.groups import GroupEditor
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.policy import RolloutPolicy
    from edgefleet.interfaces.registry import Registry
    from edgefleet.profile import Profile
    from edgefleet.rollout.records import GroupRecord, Stamp

Model = ModelVersion | str
"""A version, or a reference to one."""


def names_of(release: Release) -> tuple[str, ...]:
    """``name:version`` of each model, with its role where that isn't ``active``."""
    return tuple(
        f"{model.name}:{model.version}" + ("" if model.role == "active" else f" ({model.role})")
        for model in release.models
    )


def release_with(
    model: Model | Release,
    *,
    registry: Registry,
    profile: Profile,
    checked: bool = True,
    role: Role = "active",
) -> Callable[[Release], Release]:
    """What adds a version to a release, in place of another of its name and role. Pure.

    A whole release is given as it is. What becomes active is no shadow any more.

    Args:
        model: what to add.
        registry: where the version is looked up, now.
        profile: the telemetry policy that it sets, if any, and whether it requires approval.
        checked: refuse versions that may not deploy.
        role: ``shadow`` for one that sees copies of the active one's requests and answers none.

    Raises:
        InvalidInputError: what isn't pushed yet; a whole release as a shadow, or with a telemetry
            policy in which something is wrong; and from what is given back, a shadow without an
            active model of its name.
        ApprovalRequiredError: the profile requires approval and the version has none.
        PolicyError: the version was rejected.
    """
    if isinstance(model, Release):
        if role != "active":
            msg = "a whole release says itself which of its models are shadows"
            raise InvalidInputError(msg, cure="leave role out, or deploy one model")
        check_policy(model.telemetry, {each.name for each in model.models})
        return lambda _before, whole=model: whole  # type: ignore[misc]
    version = registry.get(model.reference if isinstance(model, ModelVersion) else _named(model))
    if checked:
        _check_approval(version, profile)
    entry = ReleaseModel(
        name=version.name, version=version.version, bundle=version.digest, role=role
    )

    def with_entry(before: Release) -> Release:
        if role == "active":
            before = before.without_shadow(entry.name, entry.bundle)
        elif (entry.name, "active") not in {(m.name, m.role) for m in before.models}:
            msg = f"there is no active model {entry.name!r} whose requests a shadow could see"
            raise InvalidInputError(msg, cure=f"deploy a version of {entry.name} first")
        after = before.with_model(entry)
        # A policy that the group has by now stays: somebody may have given it to this very group.
        if profile.recorded is None or before.telemetry != TelemetryPolicy():
            return after
        return after.with_telemetry(profile.recorded)

    return with_entry


def _named(model: object) -> str:
    if not isinstance(model, str):
        msg = f"{type(model).__name__} is no version of a model"
        raise InvalidInputError(msg, cure="push it first, and deploy what fleet.push gives")
    return model


def release_recording(policy: TelemetryPolicy) -> Callable[[Release], Release]:
    """What puts a telemetry policy in place of a release's. Pure.

    Raises:
        InvalidInputError: from what is given back, something is wrong in the policy.
        MissingExtraError: likewise, the policy has conditions and the library isn't installed.
    """

    def recording(before: Release) -> Release:
        check_policy(policy, {model.name for model in before.models})
        return before.with_telemetry(policy)

    return recording


def _check_approval(version: ModelVersion, profile: Profile) -> None:
    approval = version.approval
    if approval.state is ApprovalState.REJECTED:
        msg = f"{version} was rejected by {approval.by}: {approval.reason or 'no reason given'}"
        raise PolicyError(msg, cure="push a mended version")
    if profile.require_approval and approval.state is not ApprovalState.APPROVED:
        msg = f"{version} isn't approved, and profile {profile.name!r} requires it"
        raise ApprovalRequiredError(msg, cure=f"edgefleet model approve {version}")


def ask_plugins(profile: Profile, release: Release, group: str, actor: str) -> None:
    """Let every plugin of the profile veto a deployment.

    Raises:
        VetoedError: one did.
    """
    hook = discovery.manager_of(profile.listeners()).hook
    try:
        hook.edgefleet_before_deploy(release=release, groups=[group], actor=actor)
    except EdgeFleetError:
        raise
    except Exception as error:  # whatever a plugin raises is its veto
        msg = f"a plugin refused the deployment to {group}: {error}"
        raise VetoedError(msg, cure="ask whoever runs that policy") from error


def next_record(
    record: GroupRecord,
    release: Release,
    stamp: Stamp,
    *,
    cohort_permille: int | None,
    action: records.Action,
    policy: RolloutPolicy | None = None,
) -> GroupRecord:
    """The record after giving a release to every device, or to a cohort."""
    names, digest = names_of(release), release.digest
    if cohort_permille is None:
        after = records.with_release(record, digest, stamp, action=action, models=names)
    else:
        after = records.with_candidate(record, digest, cohort_permille, stamp, models=names)
    return records.under(after, policy)


def already_so(
    record: GroupRecord,
    release: Release,
    cohort_permille: int | None,
    policy: RolloutPolicy | None = None,
) -> bool:
    """Whether a record says already what deploying this release would make it say.

    Another policy is a new edit, because the channel begins anew; none is satisfied by any.
    """
    if record.pointer is None or (policy is not None and records.policy_of(record) != policy):
        return False
    if cohort_permille is None:
        return record.candidate is None and record.current == release.digest
    held = record.pointer.next
    return (
        record.candidate == release.digest
        and held is not None
        and held.cohort.permille == cohort_permille
    )


def make_plan(
    deployer: Deployer,
    group: str,
    *,
    groups: GroupEditor,
    registry: Registry,
    profile: Profile,
    actor: str,
    choose: Callable[[bool], Callable[[Release], Release]],
    cohort_permille: int | None,
    policy: RolloutPolicy | None = None,
) -> planning.Plan:
    """A plan of what ``choose(checked)`` makes of the release in force. Nothing is sent."""
    record = groups.record(deployer, group)
    before = groups.release(record.current)
    problems = []
    try:
        after = choose(True)(before)
    except PolicyError as error:
        problems.append(str(error))
        after = choose(False)(before)
    if policy is not None:
        try:
            deployer.honouring(policy)
        except UnsupportedError as error:
            problems.append(str(error))
            policy = None
    devices = list(deployer.devices(group))
    bundles = _bundles(registry, after, devices)
    targets = discovery.hardware_targets(profile.listeners())
    planned = tuple(planning.plan_device(d, after, bundles, targets) for d in devices)
    problems += [f"{d.device}: {d.problem}" for d in planned if d.problem]
    preview = previewed(
        record,
        after,
        groups=groups,
        registry=registry,
        actor=actor,
        cohort_permille=cohort_permille,
        policy=policy,
    )
    reference = f"{deployer.name}/{group}"
    of_channel = () if preview.pointer is None else deployer.warnings(group, preview.pointer)
    return planning.Plan(
        group=reference,
        before=record.current if record.stack else None,
        after=after.digest,
        changes=planning.changes_between(before, after),
        devices=planned,
        documents=documents_of(registry, deployer, group, preview, (before, after)),
        warnings=(*planning.warnings_of(planned, reference), *of_channel),
        problems=tuple(problems),
        policy=policy,
    )


def previewed(
    record: GroupRecord,
    after: Release,
    *,
    groups: GroupEditor,
    registry: Registry,
    actor: str,
    cohort_permille: int | None,
    policy: RolloutPolicy | None,
) -> GroupRecord:
    """The record as an edit would leave it, with a number that stands for the one to be taken."""
    if already_so(record, after, cohort_permille, policy):
        return record
    epoch, number = (0, 0) if record.pointer is None else record.pointer.pair
    stamp = records.Stamp(
        fleet=groups.fleet_id(write=False),
        epoch=epoch,
        number=number + 1,
        at=datetime.now(UTC),
        actor=actor,
        sources=registry.blobs.sources,
    )
    return next_record(
        record, after, stamp, cohort_permille=cohort_permille, action="deploy", policy=policy
    )


def documents_of(
    registry: Registry,
    deployer: Deployer,
    group: str,
    record: GroupRecord,
    releases: tuple[Release, ...],
) -> tuple[Rendered, ...]:
    """All that a record's pointer needs in place: its releases, then the channel's documents."""
    if record.pointer is None:
        return ()
    named = {record.current, record.candidate}
    contents = {r.digest: r.encoded() for r in releases if r.digest in named}
    stored = tuple(
        Rendered(
            path=f"releases/{hex_of(digest)}.json",
            content=content,
            action=Action.CREATE if registry.blobs.size(digest) is None else Action.UNCHANGED,
        )
        for digest, content in contents.items()
    )
    policy = records.policy_of(record)
    return (*stored, *deployer.render(group, record.pointer, policy=policy))


def _bundles(
    registry: Registry, release: Release, devices: list[DeviceInfo]
) -> dict[str, planning.BundleFacts]:
    reported = {m.bundle for d in devices if d.report is not None for m in d.report.models}
    wanted = {model.bundle for model in release.models}
    facts = {digest: _bundle_facts(registry, digest) for digest in wanted}
    for digest in reported - wanted:
        try:
            facts[digest] = _bundle_facts(registry, digest)
        except NotFoundError:
            continue  # deleted since; the device's copy then counts for nothing
    return facts


def _bundle_facts(registry: Registry, digest: str) -> planning.BundleFacts:
    blobs = registry.blobs
    index = b.read_index(blobs.read_bytes(digest, max_bytes=b.MAX_INDEX_BYTES))
    found = {}
    for variant in b.variants_of(index):
        descriptor = variant.manifest
        data = blobs.read_bytes(descriptor.digest, max_bytes=b.MAX_MANIFEST_BYTES)
        sizes = {d.digest: d.size for d in b.blobs_of(b.read_manifest(data))}
        found[variant.name] = {**sizes, descriptor.digest: descriptor.size}
    return planning.BundleFacts(variants=b.variants_of(index), blobs=found)
