"""Lineage as values: from an answer back to the data, and from a sample on to the devices.

What isn't recorded is said, never guessed: `gaps` of each lineage tells which link is missing, and
what would have recorded it.
"""

from __future__ import annotations

import html
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from edgefleet.interfaces.values import Value
from edgefleet.protocol.digest import short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHOWN = 5  # samples of a dataset, and devices of a group, that a tree lists

How = Literal["reports it", "was in its group", "told of its answers"]


class Node(NamedTuple):
    """A line of a tree, and what hangs below it."""

    text: str
    below: tuple[Node, ...] = ()


class DatasetUse(Value):
    """A version of a dataset.

    Attributes:
        reference: ``model:number``.
        digest: of its content.
        samples: how many it holds.
        made: when; None where only a run tells of it.
        by: who made it.
    """

    reference: str
    digest: str
    samples: int | None = None
    made: datetime | None = None
    by: str = ""


class RunUse(Value):
    """A training run.

    Attributes:
        run: its id.
        dataset: what it was given; None where that isn't recorded.
        at: when it was submitted.
        by: who submitted it.
    """

    run: str
    dataset: DatasetUse | None = None
    at: datetime | None = None
    by: str = ""


class ModelUse(Value):
    """A model version.

    Attributes:
        reference: ``name:version``; empty where the registry has none for the bundle.
        bundle: its digest.
        run: that trained it; None where that isn't recorded.
        recorded: all that the registry holds of its origin.
    """

    reference: str
    bundle: str
    run: RunUse | None = None
    recorded: dict[str, str] = Field(default_factory=dict)


class SampleUse(Value):
    """A sample as a dataset tells of it."""

    sample: str
    device: str
    time: datetime
    label: str = ""


class Served(Value):
    """A device that was served by a model.

    Attributes:
        device: its name.
        group: it is in now; empty for one that has left.
        how: what tells: its report of now, that its group was given the release, or events.
    """

    device: str
    group: str
    how: How


class ReleaseUse(Value):
    """A release that brought a model to a group.

    Attributes:
        release: its digest.
        group: ``deployer/name``.
        at: when the group was given it first.
        action: how: ``deploy``, ``canary``, …
    """

    release: str
    group: str
    at: datetime
    action: str


class _Told(Value):
    """What each lineage shows of itself."""

    gaps: tuple[str, ...] = ()

    def tree(self) -> Node:
        """The lineage as a tree."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """The lineage as JSON-ready data."""
        return self.model_dump(mode="json")

    def __str__(self) -> str:
        return "\n".join([*_drawn(self.tree()), *(f"not recorded: {gap}" for gap in self.gaps)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        gaps = "".join(f"<p>not recorded: {html.escape(gap)}</p>" for gap in self.gaps)
        return f"<ul>{_listed(self.tree())}</ul>{gaps}"


class PredictionLineage(_Told):
    """Where an answer came from.

    Attributes:
        event: id of its event.
        kind: ``prediction`` or ``sample``.
        device: that answered.
        time: when, by its clock.
        release: that gave the device the model then; empty where none is known.
        group: the device is in now; empty for one that has left.
        model: the version that answered.
        samples: first ones of the dataset that it was trained on.
    """

    event: str
    kind: str
    device: str
    time: datetime
    release: str
    group: str
    model: ModelUse
    samples: tuple[SampleUse, ...] = ()

    def tree(self) -> Node:
        """From the answer down to the samples."""
        below = tuple(
            Node(f"sample {short(one.sample)} of {one.device}, {one.time:%Y-%m-%d %H:%M}")
            for one in self.samples
        )
        run = self.model.run
        if run is not None and run.dataset is not None:
            rest = (run.dataset.samples or 0) - len(below)
            more = (Node(f"… and {rest} more"),) if rest > 0 else ()
            below = (Node(_dataset(run.dataset), (*below, *more)),)
        if run is not None:
            below = (Node(f"training run {run.run}", below),)
        release = f"by release {short(self.release)}" if self.release else "by a release unknown"
        model = Node(f"model {self.model.reference or '?'} ({short(self.model.bundle)})", below)
        at = f"{self.time:%Y-%m-%d %H:%M:%S}"
        where = f" in {self.group}" if self.group else ""
        text = f"{self.kind} {self.event}: {self.device}{where}, {at}"
        return Node(text, (Node(release), model))


class SampleLineage(_Told):
    """What became of a sample.

    Attributes:
        sample: its digest.
        captured: how each dataset tells of it.
        datasets: that hold it.
        runs: that were given one of these.
        models: that came out of these.
        releases: that brought these to groups.
        devices: that were served by them.
    """

    sample: str
    captured: tuple[SampleUse, ...] = ()
    datasets: tuple[DatasetUse, ...] = ()
    runs: tuple[RunUse, ...] = ()
    models: tuple[ModelUse, ...] = ()
    releases: tuple[ReleaseUse, ...] = ()
    devices: tuple[Served, ...] = ()

    def tree(self) -> Node:
        """From the sample on to datasets, runs and models, and to groups and devices."""
        origins = ", ".join(sorted({f"{one.device}" for one in self.captured})) or "nobody"
        datasets = [Node(_dataset(one), tuple(self._of_dataset(one))) for one in self.datasets]
        groups = [
            Node(
                f"{one.group} was given release {short(one.release)} by {one.action}, "
                f"{one.at:%Y-%m-%d %H:%M}"
            )
            for one in self.releases
        ]
        hows = sorted({(one.how, one.group) for one in self.devices})
        devices = [
            Node(f"{len(names)} in {group or 'no group now'}: {how}", tuple(_some(names)))
            for how, group in hows
            if (names := [d.device for d in self.devices if (d.how, d.group) == (how, group)])
        ]
        return Node(
            f"sample {short(self.sample)}, captured by {origins}",
            (
                *datasets,
                *([Node("groups", tuple(groups))] if groups else ()),
                *([Node(f"{len(self.devices)} devices", tuple(devices))] if devices else ()),
            ),
        )

    def _of_dataset(self, dataset: DatasetUse) -> Iterator[Node]:
        for run in self.runs:
            if run.dataset is not None and run.dataset.digest == dataset.digest:
                models = (m for m in self.models if m.run is not None and m.run.run == run.run)
                yield Node(
                    f"training run {run.run}",
                    tuple(Node(f"model {m.reference} ({short(m.bundle)})") for m in models),
                )


def _dataset(one: DatasetUse) -> str:
    held = "" if one.samples is None else f", {one.samples} samples"
    return f"dataset {one.reference} ({short(one.digest)}){held}"


def _some(names: Sequence[str]) -> Iterator[Node]:
    yield from map(Node, names[:SHOWN])
    if len(names) > SHOWN:
        yield Node(f"… and {len(names) - SHOWN} more")


def _drawn(node: Node) -> Iterator[str]:
    yield node.text
    for number, child in enumerate(node.below):
        last = number == len(node.below) - 1
        first, *rest = _drawn(child)
        yield f"{'└' if last else '├'}─ {first}"
        yield from (f"{' ' if last else '│'}  {line}" for line in rest)


def _listed(node: Node) -> str:
    below = "".join(map(_listed, node.below))
    return f"<li>{html.escape(node.text)}{f'<ul>{below}</ul>' if below else ''}</li>"
