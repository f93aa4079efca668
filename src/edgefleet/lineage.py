"""Following lineage through a fleet: telemetry, registry, state store, group records, reports."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.analysis.lineage import (
    SHOWN,
    DatasetUse,
    ModelUse,
    PredictionLineage,
    ReleaseUse,
    RunUse,
    SampleLineage,
    SampleUse,
    Served,
)
from edgefleet.errors import DocumentError, IntegrityError, InvalidInputError, NotFoundError
from edgefleet.origins import FleetOrigins
from edgefleet.protocol.digest import check_digest
from edgefleet.protocol.event import Event, Prediction, Sample
from edgefleet.rollout.records import MAX_LOG

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from edgefleet.analysis.dataset_records import Version
    from edgefleet.analysis.dataset_rows import Row
    from edgefleet.analysis.lineage import How
    from edgefleet.analysis.run_records import RunRecord
    from edgefleet.groups import GroupEditor
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.services import Services

MAX_TABLE_BYTES = 1 << 30
_NO_RUN = "which run trained {}: push with fleet.push(…, run=run)"
_NO_DATA = "what run {} was trained on: train with a dataset of the fleet"


class Lineage:
    """Lineage of a fleet, both ways; nothing is read before it is asked.

    Args:
        services: of the fleet's profile.
        groups: reads group records and releases.
    """

    def __init__(self, services: Services, groups: GroupEditor) -> None:
        self._services, self._groups = services, groups

    def of_prediction(
        self,
        event: Event | str,
        *,
        device: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> PredictionLineage:
        """Where an answer came from: model version, training run, dataset, samples.

        Args:
            event: a prediction or a sample, or the id of one, which is then looked for.
            device: that recorded it, where only the id is given: spares reading others' segments.
            since: likewise, not before this time.
            until: likewise, before this time.

        Raises:
            NotFoundError: no such event.
            InvalidInputError: it is neither a prediction nor a sample.
        """
        found = event if isinstance(event, Event) else self._event(event, device, since, until)
        data = found.payload()
        if not isinstance(data, Prediction | Sample):
            msg = f"event {found.id} is of kind {found.kind}"
            raise InvalidInputError(msg, cure="give a prediction or a sample")
        gaps: list[str] = []
        model = self._model(data, gaps)
        origins = FleetOrigins(self._services, self._groups)
        bundle = model.bundle
        release = origins.release(found.device, bundle, found.time) if bundle else ""
        if not release:
            gaps.append(f"which release gave {found.device} that model")
        return PredictionLineage(
            event=found.id,
            kind=found.kind,
            device=found.device,
            time=found.time,
            release=release,
            group=origins.group(found.device),
            model=model,
            samples=self._first_samples(model, gaps),
            gaps=tuple(gaps),
        )

    def of_sample(self, sample: str, *, events: bool = False) -> SampleLineage:
        """What became of a sample: datasets, runs, models, releases, and the devices they served.

        Args:
            sample: the digest that stands for its inputs, `Row.sample`.
            events: read all telemetry, too: it tells of devices that have left their group since.
        """
        check_digest(sample)
        gaps: list[str] = []
        captured, datasets = [], []
        for model, version in self._versions():
            for row in self._rows(version, gaps):
                if row.sample == sample:
                    captured.append(_sample(row))
                    datasets.append(_dataset(model, version))
        digests = {one.digest: one for one in datasets}
        runs = [_run(record, digests[record.dataset]) for record in self._runs(digests.keys())]
        models = list(self._trained(runs, digests))
        bundles = {one.bundle: one for one in models}
        releases, devices = self._served(bundles.keys(), gaps)
        if events:
            devices |= self._told(models, devices, gaps)
        if not datasets:
            gaps.append("any dataset with that sample")
        return SampleLineage(
            sample=sample,
            captured=tuple(captured),
            datasets=tuple(datasets),
            runs=tuple(runs),
            models=tuple(models),
            releases=tuple(releases),
            devices=tuple(devices[name] for name in sorted(devices)),
            gaps=tuple(dict.fromkeys(gaps)),
        )

    # Back

    def _event(
        self, identity: str, device: str | None, since: datetime | None, until: datetime | None
    ) -> Event:
        for kind in ("prediction", "sample"):
            for one in self._services.telemetry.query(
                kind=kind, device=device, since=since, until=until
            ):
                if one.id == identity:
                    return one
        msg = f"no prediction or sample {identity!r}"
        raise NotFoundError(msg, cure="list them with: edgefleet events --kind prediction")

    def _model(self, data: Prediction | Sample, gaps: list[str]) -> ModelUse:
        name = (
            f"{data.model}@{data.bundle}" if data.bundle else f"{data.model}:{data.model_version}"
        )
        try:
            version = self._services.registry.get(name)
        except (NotFoundError, InvalidInputError):  # a device may write whatever it likes
            gaps.append(f"{name}: it isn't in the registry")
            return ModelUse(reference="", bundle=data.bundle)
        run = version.lineage.get("run")
        if run is None:
            gaps.append(_NO_RUN.format(version))
        return _model(version, None if run is None else self._run_of(version, run, gaps))

    def _run_of(self, version: ModelVersion, run: str, gaps: list[str]) -> RunUse:
        from edgefleet.analysis.run_records import read_run  # noqa: PLC0415

        record = read_run(self._services.state, run)
        if record is not None:
            known = {v.digest: (m, v) for m, v in self._versions(record.model)}
            held = known.get(record.dataset)
            of_record = DatasetUse(reference=record.reference, digest=record.dataset)
            return _run(record, of_record if held is None else _dataset(*held))
        digest = version.lineage.get("dataset")
        if digest is None:
            gaps.append(_NO_DATA.format(run))
            return RunUse(run=run)
        reference = version.lineage.get("dataset_version", digest)
        return RunUse(run=run, dataset=DatasetUse(reference=reference, digest=digest))

    def _first_samples(self, model: ModelUse, gaps: list[str]) -> tuple[SampleUse, ...]:
        if model.run is None or model.run.dataset is None:
            return ()
        for _, version in self._versions(model.run.dataset.reference.partition(":")[0]):
            if version.digest == model.run.dataset.digest:
                return tuple(map(_sample, islice(self._rows(version, gaps), SHOWN)))
        gaps.append(f"the samples of dataset {model.run.dataset.reference}")
        return ()

    # On

    def _versions(self, model: str | None = None) -> Iterator[tuple[str, Version]]:
        from edgefleet.analysis.dataset_versions import (  # noqa: PLC0415
            models_with_datasets,
            read_versions,
        )

        state = self._services.state
        for name in models_with_datasets(state) if model is None else (model,):
            for version in read_versions(state, name):
                yield name, version

    def _rows(self, version: Version, gaps: list[str]) -> Iterable[Row]:
        """Rows of a version's table, as the registry's blob store has it."""
        from edgefleet.analysis.dataset_rows import read_rows  # noqa: PLC0415

        blobs = self._services.registry.blobs
        try:
            data = blobs.read_bytes(version.table, max_bytes=MAX_TABLE_BYTES)
            with tempfile.TemporaryDirectory(prefix="edgefleet-lineage-") as scratch:
                table = Path(scratch) / "table"
                table.write_bytes(data)
                return read_rows(table)
        except (NotFoundError, IntegrityError, DocumentError) as error:
            gaps.append(f"the samples of dataset {version.digest}: {error.message}")
            return ()

    def _runs(self, datasets: Iterable[str]) -> list[RunRecord]:
        from edgefleet.analysis.run_records import read_runs  # noqa: PLC0415

        wanted = set(datasets)
        return [record for record in read_runs(self._services.state) if record.dataset in wanted]

    def _trained(self, runs: list[RunUse], datasets: dict[str, DatasetUse]) -> Iterator[ModelUse]:
        by_run = {run.run: run for run in runs}
        registry = self._services.registry
        for name in registry.list():
            for version in registry.versions(name):
                run = by_run.get(version.lineage.get("run", ""))
                digest = version.lineage.get("dataset")
                if run is None and digest in datasets:
                    told = version.lineage.get("run", "unknown")
                    run = RunUse(run=told, dataset=datasets[digest])
                if run is not None:
                    yield _model(version, run)

    def _served(
        self, bundles: Iterable[str], gaps: list[str]
    ) -> tuple[list[ReleaseUse], dict[str, Served]]:
        """Releases that brought one of the bundles to a group, and devices of these groups."""
        origins, wanted = FleetOrigins(self._services, self._groups), set(bundles)
        releases: list[ReleaseUse] = []
        devices: dict[str, Served] = {}
        for deployer in origins.deployers if wanted else ():
            for group in deployer.groups():
                record = self._groups.record(deployer, group.name)
                if len(record.log) == MAX_LOG:
                    gaps.append(f"what was done to {group.reference} before {record.log[0].at}")
                given: dict[str, ReleaseUse] = {}
                for entry in origins.entries_with(record, wanted):
                    given.setdefault(
                        entry.release,
                        ReleaseUse(
                            release=entry.release,
                            group=group.reference,
                            at=entry.at,
                            action=entry.action,
                        ),
                    )
                releases += given.values()
                for device in deployer.devices(group.name):
                    models = () if device.report is None else device.report.models
                    reports = any(model.bundle in wanted for model in models)
                    if reports or given:
                        how: How = "reports it" if reports else "was in its group"
                        devices[device.name] = Served(
                            device=device.name, group=group.reference, how=how
                        )
        return releases, devices

    def _told(
        self, models: list[ModelUse], known: dict[str, Served], gaps: list[str]
    ) -> dict[str, Served]:
        """Devices whose events tell of answers of one of the models, beside those known."""
        bundles = {model.bundle for model in models}
        found: dict[str, Served] = {}
        for name in sorted({model.reference.partition(":")[0] for model in models}):
            for kind in ("prediction", "sample"):
                for event in self._services.telemetry.query(kind=kind, model=name):
                    if event.device in known or event.device in found:
                        continue
                    try:
                        data = event.payload()
                    except DocumentError:
                        gaps.append(f"what malformed events of {event.device} tell")
                        continue
                    if isinstance(data, Prediction | Sample) and data.bundle in bundles:
                        found[event.device] = Served(
                            device=event.device, group="", how="told of its answers"
                        )
        return found


def _model(version: ModelVersion, run: RunUse | None) -> ModelUse:
    return ModelUse(
        reference=version.reference,
        bundle=version.digest,
        run=run,
        recorded={key: value[:200] for key, value in version.lineage.items()},
    )


def _run(record: RunRecord, dataset: DatasetUse) -> RunUse:
    return RunUse(run=record.run, dataset=dataset, at=record.at, by=record.by)


def _dataset(model: str, version: Version) -> DatasetUse:
    return DatasetUse(
        reference=f"{model}:{version.number}",
        digest=version.digest,
        samples=version.samples,
        made=version.made,
        by=version.by,
    )


def _sample(row: Row) -> SampleUse:
    return SampleUse(sample=row.sample, device=row.device, time=row.time, label=row.label)
