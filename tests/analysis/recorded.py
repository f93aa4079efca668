"""A fleet's folder on the local provider, and events in it as its devices write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from edgefleet.fleet import Fleet, connect
from edgefleet.interfaces.values import ModelVersion
from edgefleet.protocol import bundle as b
from edgefleet.protocol.documents import to_builtins
from edgefleet.protocol.drift import Drift, Verdict
from edgefleet.protocol.event import Event, SketchWindow, new_event
from edgefleet.protocol.layout import BundleWriter
from edgefleet.protocol.segment import NO_MODEL, SegmentName, write_segment
from edgefleet.protocol.sketch import sketch_classes, sketch_numbers

START = datetime(2026, 11, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
Array = np.ndarray[Any, Any]


def fleet_in(folder: Path) -> Fleet:
    """A fleet whose folder is ``folder/home``; no process of a device runs."""
    config = folder / "edgefleet.toml"
    config.write_text(
        '[profiles.here]\nregistry = "local"\ntelemetry = "local"\nstate = "local"\n'
        'deployers = ["local"]\n'
        f'[profiles.here.local]\nroot = "{folder}"\nprefix = "home"\nsupervise = false\n'
    )
    return connect("here", config=config)


def home_of(folder: Path) -> Path:
    """Where the fleet of `fleet_in` lies."""
    return folder / "home"


def write(home: Path, device: str, events: Iterable[Event], *, name: str = "0") -> Path:
    """A segment of events of one day and model, below a device's folder."""
    listed = list(events)
    first = listed[0]
    path = (
        home
        / SegmentName(
            day=first.time.date(), device=device, model=first.subject or NO_MODEL, id=name
        ).path
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        write_segment(listed, stream)
    return path


def drawn(seed: int, shift: float = 0.0, count: int = 400) -> Array:
    """Numbers of a normal distribution."""
    return np.random.default_rng(seed).normal(shift, 1.0, size=count)


def push(fleet: Fleet, folder: Path, sketches: Mapping[str, Any], *, seed: int = 0) -> ModelVersion:
    """A version of ``digits`` whose bundle carries these reference sketches."""
    file = folder / f"{seed}.onnx"
    file.write_bytes(np.random.default_rng(seed).bytes(64))
    with BundleWriter(folder / f"bundle-{seed}") as writer:
        details = b.Details(
            variant="fp32",
            entry="model.onnx",
            interface=b.Interface(inputs=(), outputs=()),
            sketches={name: to_builtins(sketch) for name, sketch in sketches.items()},
        )
        writer.add_variant(
            details,
            {"model.onnx": file},
            model_name="digits",
            model_format="onnx",
            precision="fp32",
            opset=17,
        )
        bundle = writer.finish()
    return fleet.push(bundle, "digits", progress=False)


def reference() -> dict[str, Any]:
    """What the tests' models were calibrated with: two numbers and a class."""
    classes = np.random.default_rng(7).integers(0, 4, size=4_000)
    return {
        "x[0]": sketch_numbers(drawn(1, count=4_000)),
        "x[1]": sketch_numbers(drawn(2, count=4_000)),
        "y:top": sketch_classes(classes.tolist()),
    }


def window(
    version: ModelVersion | str,
    hour: int,
    *,
    first: Array,
    second: Array | None = None,
    own: Verdict = "stable",
    **fields: Any,
) -> Event:
    """An hour's window of sketches as a device writes it."""
    start = START + hour * HOUR
    second = drawn(1000 + hour) if second is None else second
    top = np.random.default_rng(hour).integers(0, 4, size=len(first))
    features = {
        "x[0]": sketch_numbers(first),
        "x[1]": sketch_numbers(second),
        "y:top": sketch_classes(top.tolist()),
    }
    data = SketchWindow(
        model="digits",
        start=start,
        end=start + HOUR,
        bundle=version if isinstance(version, str) else version.digest,
        requests=len(first),
        verdict=own,
        drift={"x[0]": Drift(verdict=own, why="as the device says", count=len(first))},
        features={name: to_builtins(sketch) for name, sketch in features.items()} | fields,
    )
    return new_event(data, time=start + HOUR)
