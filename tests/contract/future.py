"""Documents that a newer EdgeFleet might write, made from today's: what old receivers must survive.

``future-X.json`` has a higher version and fields unknown here, at the top and further in: it is
accepted and means what ``X.json`` means. ``future-requires-X.json`` requires features unknown here:
it is refused, and the error names them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from edgefleet.protocol import bundle as b
from edgefleet.protocol.documents import decode
from edgefleet.protocol.event import read_event
from edgefleet.protocol.pointer import read_pointer
from edgefleet.protocol.release import read_release
from edgefleet.protocol.report import read_report
from edgefleet.protocol.sketch import ClassSketch, NumberSketch
from edgefleet.protocol.target import HardwareTarget

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 7
FEATURES = ("delta-layers", "holograms")
UNKNOWN = {"hologram": {"depth": [1, 2], "of": None}}

READERS: dict[str, Callable[[bytes], Any]] = {
    "release.json": read_release,
    "pointer.json": read_pointer,
    "report.json": read_report,
    "event-prediction.json": lambda data: read_event(data).payload(),
    "event-alarm.json": lambda data: read_event(data).payload(),
    "sketch-numbers.json": partial(decode, NumberSketch),
    "sketch-classes.json": partial(decode, ClassSketch),
    "target.json": partial(decode, HardwareTarget),
    "details.json": b.read_details,
    "index.json": b.read_index,
    "manifest.json": b.read_manifest,
}

# Where else, beside the top, a newer writer adds a field: paths of objects inside.
INSIDE: dict[str, tuple[tuple[str | int, ...], ...]] = {
    "release.json": (("models", 0), ("settings",), ("telemetry",)),
    "pointer.json": (("next",), ("next", "cohort")),
    "report.json": (("models", 0), ("models", 0, "self_test"), ("health",), ("access",)),
    "event-prediction.json": (("data",), ("data", "outputs", 0)),
    "event-alarm.json": (("data",),),
    "details.json": (("interface",), ("interface", "inputs", 0), ("self_test", 0), ("tolerance",)),
    "index.json": (("manifests", 0),),
    "manifest.json": (("config",), ("layers", 0)),
}


def accepted(name: str, plain: dict[str, Any]) -> dict[str, Any]:
    """Give the document ``plain`` as a newer library might write it."""
    plain.update(UNKNOWN)
    for path in INSIDE.get(name, ()):
        _at(plain, path).update(UNKNOWN)
    header = _header(name, plain)
    if header is None:
        plain.setdefault("annotations", {})["org.example.hologram"] = "yes"
    else:
        header["version"] = VERSION
    return plain


def refused(name: str, plain: dict[str, Any]) -> dict[str, Any]:
    """Give ``plain`` with requirements that no receiver of today can meet."""
    header = _header(name, plain)
    if header is None:
        plain.setdefault("annotations", {})[b.REQUIRES_KEY] = ",".join(FEATURES)
    else:
        header["requires"] = list(FEATURES)
    return plain


def _header(name: str, plain: dict[str, Any]) -> dict[str, Any] | None:
    """The object that carries ``version`` and ``requires``; None for OCI's own documents."""
    if name in {"index.json", "manifest.json"}:
        return None
    return _at(plain, ("data",)) if name.startswith("event-") else plain


def _at(plain: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
    for step in path:
        plain = plain[step]
    found: dict[str, Any] = plain
    return found
