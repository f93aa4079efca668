"""Drift, samples and labels as the fleet itself has them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import DocumentError, NotFoundError
from edgefleet.loop.sources import DriftSeen, Labelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from edgefleet.analysis.dataset import Dataset
    from edgefleet.analysis.drift_report import DriftReport
    from edgefleet.analysis.labelling import Opinion
    from edgefleet.fleet import Fleet
    from edgefleet.loop.spec import DatasetSpec

_WORSE = ("unknown", "stable", "watch", "moved")


class FleetSources:
    """What `Fleet.drift` and `Fleet.dataset` give.

    Args:
        fleet: whose devices.
        labels: a dataset's folder or a file of labels; None for samples without any.
    """

    def __init__(self, fleet: Fleet, labels: Path | None) -> None:
        self._fleet, self._labels = fleet, labels

    def drift(self, version: str, groups: Sequence[str], since: datetime | None) -> DriftSeen:
        """See `Sources`; of several groups a feature has the worst verdict of any."""
        features: dict[str, str] = {}
        devices: dict[str, str] = {}
        for group in groups:
            report: DriftReport = self._fleet.drift(version, since=since, group=group)
            _merge(
                features, ((r.feature, r.verdict) for r in report.features if r.level == "fleet")
            )
            told = [unit for unit in report.units if unit.level == "device"]
            # By what was merged of a device, and by what it said itself of its newest window.
            _merge(devices, ((unit.unit, unit.verdict) for unit in told))
            _merge(devices, ((unit.unit, unit.own) for unit in told))
        return DriftSeen(features, devices)

    def new_labels(self, model: str, groups: Sequence[str], since: datetime | None) -> int:
        """See `Sources`."""
        given = self._opinions(model).values()
        return sum(since is None or one.at > since for one in given)

    def labelled(self, model: str, groups: Sequence[str], since: datetime | None) -> int:
        """See `Sources`."""
        from edgefleet.analysis.dataset_rows import key_of  # noqa: PLC0415 - an extra
        from edgefleet.protocol.event import Sample  # noqa: PLC0415 - with it

        labels, devices = self._opinions(model), self._devices(groups)
        if not labels:
            return 0
        found = set[str]()
        for event in self._fleet.events(kind="sample", model=model, since=since):
            if event.device not in devices:
                continue
            try:
                data = event.payload()
            except DocumentError:
                continue  # one that says nonsense holds nobody up; the dataset counts them
            if isinstance(data, Sample) and data.inputs:
                found.add(key_of(data.inputs))
        return len(found & labels.keys())

    def samples(
        self,
        model: str,
        groups: Sequence[str],
        since: datetime | None,
        spec: DatasetSpec,
        *,
        remembered: bool,
    ) -> Labelled:
        """See `Sources`.

        Raises:
            InvalidInputError: the samples' shapes differ.
        """
        devices = self._devices(groups)
        there = self._labels if self._opinions(model) else None
        with tempfile.TemporaryDirectory(prefix="edgefleet-loop-") as folder:
            try:
                made = self._fleet.dataset(
                    model,
                    since=since,
                    strategy=spec.strategy,
                    max=spec.most,
                    balance=spec.balance,
                    labels=there,
                    labelled=True,
                    to=Path(folder) / "dataset",
                    numbered=remembered,
                    progress=False,
                )
            except NotFoundError:
                return Labelled("", "", 0, (), {}, _as_classes((), ()))
            known = made.part(row for row in made if row.device in devices)
            found = made.manifest.found
            return Labelled(
                version=made.manifest.digest,
                reference=made.reference,
                total=len(made) + found.unchosen + found.lost,
                ids=[row.sample for row in known],
                inputs=_inputs(known),
                labels=_as_classes([row.label for row in known], made.manifest.classes),
            )

    def _opinions(self, model: str) -> dict[str, Opinion]:
        """What holds of each sample that somebody labelled."""
        if self._labels is None or not self._labels.exists():
            return {}
        from edgefleet.analysis.labelling import labels_in, settled  # noqa: PLC0415 - an extra

        return settled(labels_in(self._labels, model))

    def _devices(self, groups: Sequence[str]) -> set[str]:
        return {device.name for group in groups for device in self._fleet.devices(group)}


def _merge(into: dict[str, str], said: Iterable[tuple[str, str]]) -> None:
    for name, verdict in said:
        into[name] = max(into.get(name, "unknown"), verdict, key=_WORSE.index)


def _inputs(known: Dataset) -> dict[str, NDArray[Any]]:
    names = sorted({name for row in known for name in row.inputs})
    return {name: known.arrays(name) for name in names}


def _as_classes(labels: Sequence[str], classes: Sequence[str]) -> NDArray[Any]:
    """Labels as models tell classes: by index where that is known, or else as texts."""
    import numpy as np  # noqa: PLC0415 - an extra

    if set(labels) <= set(classes):
        return np.array([classes.index(label) for label in labels], np.int64)
    if all(label.isdecimal() for label in labels):
        return np.array([int(label) for label in labels], np.int64)
    return np.array(labels, np.str_)
