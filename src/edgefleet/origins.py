"""Where things of a fleet came from, as its registry, its group records and its devices tell."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.actor import current_actor
from edgefleet.errors import DocumentError, InvalidInputError, NotFoundError
from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import digest_of_file

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgefleet.analysis.dataset_records import Version
    from edgefleet.groups import GroupEditor
    from edgefleet.interfaces.blobs import BlobStore
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.training import TrainingJob
    from edgefleet.interfaces.training_run import TrainingRun
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.protocol.bundle import Details
    from edgefleet.rollout.records import Entry, GroupRecord
    from edgefleet.services import Services

_LOG = logging.getLogger(__name__)


class FleetOrigins:
    """Origins in one fleet. What it has read, it takes to stay so: make one a call.

    Args:
        services: of the fleet's profile.
        groups: reads group records and releases.
    """

    def __init__(self, services: Services, groups: GroupEditor) -> None:
        self._services, self._groups = services, groups
        self._classes: dict[str, tuple[str, ...]] = {}
        self._bundle_of: dict[str, str] = {}
        self._places: dict[str, tuple[Deployer, str] | None] = {}
        self._records: dict[tuple[Deployer, str], GroupRecord] = {}
        self._given: dict[tuple[str, str], list[Entry]] = {}
        self._bundles: dict[str, frozenset[str]] = {}

    def classes(self, bundle: str) -> tuple[str, ...]:
        """Class names by index of a bundle; none where it names none or is gone."""
        if bundle not in self._classes:
            try:
                self._classes[bundle] = details_of(self._services.registry.blobs, bundle).labels
            except NotFoundError:
                self._classes[bundle] = ()
        return self._classes[bundle]

    @property
    def deployers(self) -> tuple[Deployer, ...]:
        """The profile's; none where it only reads what others' devices recorded."""
        named = self._services.profile.deployer_names()
        return tuple(self._services.deployers.values()) if named else ()

    def bundle(self, model: str, version: str) -> str:
        """Digest of the bundle that a version is; empty where the registry has it no more."""
        key = f"{model}:{version}"
        if key not in self._bundle_of:
            try:
                self._bundle_of[key] = self._services.registry.get(key).digest
            except (NotFoundError, InvalidInputError):
                self._bundle_of[key] = ""
        return self._bundle_of[key]

    def release(self, device: str, bundle: str, at: datetime) -> str:
        """Digest of the release that gave a device that bundle then; empty where none is known.

        It is the newest one before that time which its group was given and which holds the bundle;
        where the clocks disagree so that there is none, the first one.
        """
        holding = self._entries(device, bundle)
        before = [entry for entry in holding if entry.at <= at]
        chosen = before[-1:] or holding[:1]
        return chosen[0].release if chosen else ""

    def _entries(self, device: str, bundle: str) -> list[Entry]:
        """What gave the device's group that bundle, in order."""
        if (device, bundle) not in self._given:
            found = self._group_of(device)
            if found is not None and found not in self._records:
                self._records[found] = self._groups.record(*found)
            self._given[device, bundle] = (
                [] if found is None else self.entries_with(self._records[found], {bundle})
            )
        return self._given[device, bundle]

    def entries_with(self, record: GroupRecord, bundles: Collection[str]) -> list[Entry]:
        """What was done to a group that gave it a release with one of those bundles, in order."""
        return [entry for entry in record.log if self.bundles_of(entry.release) & {*bundles}]

    def group(self, device: str) -> str:
        """Reference of the group that a device is in now; empty for a stranger."""
        found = self._group_of(device)
        return "" if found is None else f"{found[0].name}/{found[1]}"

    def _group_of(self, device: str) -> tuple[Deployer, str] | None:
        if device not in self._places:
            self._places[device] = None
            for deployer in self.deployers:
                try:
                    self._places[device] = (deployer, deployer.device(device).group)
                except NotFoundError:
                    continue
                break
        return self._places[device]

    def bundles_of(self, release: str) -> frozenset[str]:
        """Bundles that a release holds; none where it is gone."""
        if release not in self._bundles:
            try:
                models = self._groups.release(release).models
            except NotFoundError:
                models = ()
            self._bundles[release] = frozenset(model.bundle for model in models)
        return self._bundles[release]


def details_of(blobs: BlobStore, bundle: str) -> Details:
    """Details of a bundle's first variant.

    Raises:
        NotFoundError: the bundle is not in the registry.
    """
    index = b.read_index(blobs.read_bytes(bundle, max_bytes=b.MAX_INDEX_BYTES))
    first = b.variants_of(index)[0].manifest
    manifest = b.read_manifest(blobs.read_bytes(first.digest, max_bytes=b.MAX_MANIFEST_BYTES))
    descriptor = b.details_descriptor(manifest)
    return b.read_details(blobs.read_bytes(descriptor.digest, max_bytes=b.MAX_DETAILS_BYTES))


def dataset_in(services: Services, folder: Path) -> Version | None:
    """The dataset that a folder of training data is, as the fleet remembers it; None for none.

    One that no fleet has numbered yet, such as a part that was saved, is numbered now.
    """
    from edgefleet.analysis.dataset_records import MANIFEST, read_manifest  # noqa: PLC0415
    from edgefleet.analysis.dataset_versions import remember  # noqa: PLC0415

    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(folder)
    except DocumentError as error:
        _LOG.warning("%s holds no dataset of a fleet: %s", folder, error.message)
        return None
    blobs = services.registry.blobs
    return remember(services.state, blobs, folder, manifest, by=current_actor())


def remember_run(services: Services, run: str, job: TrainingJob, version: Version) -> None:
    """Keep which dataset went into a run."""
    from edgefleet.analysis.dataset_records import read_manifest  # noqa: PLC0415
    from edgefleet.analysis.labelling import labels_path  # noqa: PLC0415
    from edgefleet.analysis.run_records import RunRecord, write_run  # noqa: PLC0415

    assert isinstance(job.data, Path)  # noqa: S101 - only a folder is a dataset
    model = read_manifest(job.data).model
    labels = labels_path(job.data, model)
    record = RunRecord(
        run=run,
        model=model,
        dataset=version.digest,
        number=version.number,
        labels=digest_of_file(labels)[0] if labels.is_file() else None,
        script=digest_of_file(job.script)[0],
        params=dict(job.params),
        at=datetime.now(UTC),
        by=current_actor(),
    )
    write_run(services.state, record)


def trained_by(services: Services, version: ModelVersion, run: TrainingRun | str) -> ModelVersion:
    """The version with the run that trained it, and what went into that, in its lineage.

    What the lineage says already stays: the same bytes may come out of several runs.
    """
    from edgefleet.analysis.run_records import read_run  # noqa: PLC0415

    identity = run if isinstance(run, str) else run.id
    record = read_run(services.state, identity)
    told = {"run": identity} if record is None else record.lineage
    if version.lineage.get("run", identity) != identity:
        _LOG.info("%s came out of run %s before", version, version.lineage["run"])
        return version
    new = {key: value for key, value in told.items() if key not in version.lineage}
    return services.registry.record_lineage(version.reference, new) if new else version
