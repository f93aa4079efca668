"""Where a loop gets drift and samples from: the two narrow seams to analysis.

`edgefleet.loop.fleet_sources` asks the fleet. Whoever has drift or labels elsewhere hands in
another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from edgefleet.loop.spec import DatasetSpec


class DriftSeen(NamedTuple):
    """Verdicts (``stable``, ``watch``, ``moved``, ``unknown``) by feature and by device.

    Attributes:
        features: over all devices together.
        devices: the worst of each.
    """

    features: Mapping[str, str]
    devices: Mapping[str, str]

    @property
    def moved(self) -> tuple[str, ...]:
        """Features that have moved."""
        return tuple(sorted(name for name, said in self.features.items() if said == "moved"))


class Labelled(NamedTuple):
    """Samples with a label.

    Attributes:
        version: digest of the dataset that they are of.
        reference: the dataset's ``model:number``.
        total: samples found, those without a label included.
        ids: of the samples, each once.
        inputs: by name; samples along the first axis.
        labels: one a sample: ``int64``, or texts.
    """

    version: str
    reference: str
    total: int
    ids: Sequence[str]
    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[Any]


class Sources(Protocol):
    """What a loop asks about its model's data."""

    def drift(self, version: str, groups: Sequence[str], since: datetime | None) -> DriftSeen:
        """What the devices' sketches since then say of a version, ``name:version``."""

    def new_labels(self, model: str, groups: Sequence[str], since: datetime | None) -> int:
        """How many samples were labelled since then, whenever they were captured."""

    def labelled(self, model: str, groups: Sequence[str], since: datetime | None) -> int:
        """How many samples that were captured since then have a label."""

    def samples(
        self,
        model: str,
        groups: Sequence[str],
        since: datetime | None,
        spec: DatasetSpec,
        *,
        remembered: bool,
    ) -> Labelled:
        """The samples since then, by the spec's strategy, balance and bound.

        ``remembered`` is what something is trained on: its version must be found again.
        """
