"""A fleet's side in a folder, and parts of a device that tests put in place of heavy ones.

`Repository` publishes bundles, releases and pointers as an operator would. `FakeEngine` opens small
JSON files in place of models: ``y = factor * x``, with faults on request.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import InferenceError, InvalidModelError, UnsupportedError
from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Event
from edgefleet.protocol.layout import BundleLayout, BundleWriter
from edgefleet.protocol.pointer import Cohort, Next, Pointer
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.release import Release, ReleaseModel, RuntimeSettings
from edgefleet.protocol.report import AccessReport, Report, read_report
from edgefleet.protocol.tensors import to_bytes
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.engines.base import Engine, EngineOptions, LoadedModel

FLEET = "11111111-2222-4333-8444-555555555555"
OTHER_FLEET = "99999999-2222-4333-8444-555555555555"
ISSUED = datetime(2026, 11, 21, tzinfo=UTC)
INTERFACE = b.Interface(
    inputs=(b.TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
    outputs=(b.TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),),
)
X = np.array([[1.0, 2.0, 3.0, 4.0]], dtype=np.float32)


def tensor(name: str, array: NDArray[Any]) -> b.Tensor:
    return b.Tensor(
        name=name, datatype="FP32", shape=array.shape, data=bytes(to_bytes(array, name=name))
    )


def details(factor: float, *, entry: str, variant: str, vectors: int = 1, **more: Any) -> b.Details:
    """Details of ``y = factor * x`` with its self-test."""
    vector = b.Vector(inputs=(tensor("x", X),), outputs=(tensor("y", X * np.float32(factor)),))
    return b.Details(
        variant=variant,
        entry=entry,
        interface=INTERFACE,
        self_test=(vector,) * vectors,
        **more,
    )


class Repository:
    """What an operator publishes: blobs in ``source``, a pointer in ``pointer.json``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = root / "source"
        self.pointer_path = root / "pointer.json"
        self.number = 0
        self._bundles = 0
        (self.source / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        return self.source.as_uri()

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        (self.source / blob_path(digest)).write_bytes(data)
        return digest

    def blob(self, digest: str) -> Path:
        return self.source / blob_path(digest)

    def bundle(
        self,
        files: Mapping[str, bytes],
        about: b.Details,
        *,
        model_format: str = "onnx",
        targets: tuple[str, ...] = (),
        precision: str = "fp32",
    ) -> BundleLayout:
        """Publish a bundle of one variant."""
        return self.bundle_of([(files, about, precision, targets)], model_format=model_format)

    def bundle_of(
        self,
        variants: Sequence[tuple[Mapping[str, bytes], b.Details, str, tuple[str, ...]]],
        *,
        model_format: str = "onnx",
    ) -> BundleLayout:
        """Publish a bundle of several variants."""
        self._bundles += 1
        work = self.root / f"bundle-{self._bundles}"
        with BundleWriter(work) as writer:
            for number, (files, about, precision, targets) in enumerate(variants):
                places = {}
                for name, data in files.items():
                    place = self.root / f"files-{self._bundles}-{number}" / name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(data)
                    places[name] = place
                writer.add_variant(
                    about,
                    places,
                    model_name="model",
                    model_format=model_format,
                    precision=precision,
                    targets=targets,
                )
            layout = writer.finish()
        for descriptor in layout.blobs():
            shutil.copyfile(layout.path_of(descriptor), self.blob(descriptor.digest))
        return layout

    def fake(self, factor: float = 2.0, *, vectors: int = 1, **faults: Any) -> BundleLayout:
        """Publish a bundle that `FakeEngine` opens; see there for the faults."""
        content = {"factor": factor, **faults}
        return self.bundle(
            {"model.json": json.dumps(content).encode()},
            details(
                faults.get("recorded", factor), entry="model.json", variant="fp32", vectors=vectors
            ),
        )

    def choice(self, *variants: dict[str, Any]) -> BundleLayout:
        """Publish a bundle of such variants; each says its ``precision``."""
        made = []
        for content in variants:
            about = details(
                content.get("recorded", content["factor"]),
                entry="model.json",
                variant=content["precision"],
                vectors=content.get("vectors", 1),
            )
            files = {"model.json": json.dumps(content).encode()}
            made.append((files, about, content["precision"], ()))
        return self.bundle_of(made)

    def release(
        self,
        models: Mapping[str, BundleLayout],
        *,
        version: str = "1",
        settings: RuntimeSettings | None = None,
        telemetry: TelemetryPolicy | None = None,
    ) -> str:
        """Publish a release of these models; returns its digest."""
        release = Release(
            models=tuple(
                ReleaseModel(name=name, version=version, bundle=layout.digest)
                for name, layout in models.items()
            ),
            settings=settings or RuntimeSettings(),
            telemetry=telemetry or TelemetryPolicy(segment_max_age_s=0.2),
        )
        return self.put(release.encoded())

    def pointer(
        self,
        current: str,
        *,
        number: int | None = None,
        fleet: str = FLEET,
        sources: Sequence[str] | None = None,
        ahead: tuple[str, int] | None = None,
        expires: datetime | None = None,
    ) -> Pointer:
        """A pointer to a release, with the next number unless told otherwise."""
        self.number = self.number + 1 if number is None else number
        return Pointer(
            fleet=fleet,
            epoch=0,
            number=self.number,
            current=current,
            sources=tuple([self.address] if sources is None else sources),
            issued=ISSUED,
            next=ahead and Next(release=ahead[0], cohort=Cohort(salt="wave", permille=ahead[1])),
            expires=expires,
        )

    def point(self, current: str, **options: Any) -> Pointer:
        """Write a pointer where a file channel watches for it."""
        pointer = self.pointer(current, **options)
        partial = self.pointer_path.with_suffix(".partial")
        partial.write_bytes(pointer.encoded())
        partial.replace(self.pointer_path)
        return pointer


class FakeModel(LoadedModel):
    interface = INTERFACE
    engine = "fake 1"
    platform = "fake_json"

    def __init__(self, content: dict[str, Any], providers: tuple[str, ...]) -> None:
        self.content = content
        self.providers = providers
        self.closed = False

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        if self.closed:
            raise InferenceError("the model is closed")
        if self.content.get("fails"):
            raise InferenceError("the model fails")
        for _ in range(self.content.get("work", 0)):
            pass
        return {"y": inputs["x"] * np.float32(self.content["factor"])}

    def close(self) -> None:
        self.closed = True


class FakeEngine(Engine):
    """Opens ``{"factor": 2, "broken": …, "fails": …, "raises": …, "work": …}``."""

    formats = frozenset({"onnx"})

    def __init__(self) -> None:
        self.opened: list[FakeModel] = []

    @classmethod
    def available(cls) -> tuple[str, ...]:
        return ("FakeExecutionProvider",)

    def load(self, entry: Path, options: EngineOptions) -> LoadedModel:
        content = json.loads(entry.read_bytes())
        if content.get("broken"):
            raise InvalidModelError("the file is broken")
        if content.get("raises"):
            raise RuntimeError("the engine's own trouble")
        if options.strict and "FakeExecutionProvider" not in options.providers[:1]:
            raise UnsupportedError(f"{options.providers[0]} is not in use")
        self.opened.append(FakeModel(content, self.available()))
        return self.opened[-1]


class MemoryChannel(Channel):
    """A channel without files: what came and what was sent, as plain attributes."""

    def __init__(self) -> None:
        self.latest: bytes | None = None
        self.says = AccessReport(state="ok")
        self.reports: list[Report] = []
        self.hot: list[Event] = []
        self.segments: dict[str, bytes] = {}
        self.fails: Exception | None = None
        self.changed = False

    @classmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> MemoryChannel:
        return cls()

    def offer(self, pointer: Pointer | bytes) -> None:
        self.latest = pointer if isinstance(pointer, bytes) else encode(pointer)

    def pointer(self) -> bytes | None:
        self.changed = False
        return self.latest

    def access(self) -> AccessReport:
        return self.says

    def wait(self, timeout_s: float) -> bool:
        return self.changed

    def wake(self) -> None:
        self.changed = True

    def send_report(self, report: bytes) -> None:
        self._may_fail()
        self.reports.append(read_report(report))

    def send_hot(self, events: Sequence[Event]) -> None:
        self._may_fail()
        self.hot.extend(events)

    def upload(self, name: str, path: Path) -> None:
        self._may_fail()
        self.segments[name] = path.read_bytes()

    def close(self) -> None:
        pass

    def _may_fail(self) -> None:
        if self.fails is not None:
            raise self.fails


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
