"""Sketches of what models see and answer, a window each, held against the bundle's reference.

Rules kept here:

- A verdict needs no network: the reference is in the bundle, the comparison is
  `edgefleet.protocol.drift`'s, which the SDK uses too.
- Windows start at multiples of their length since 1970, so those of many devices merge. A clock
  that is set anew closes a window, and so does another bundle.
- A feature of which a window saw too little is judged together with those before it, up to
  `MAX_MERGED` windows long; what is sent of each window is its own.
- An end of the process in order keeps the open windows; a crash loses at most `CHECKPOINT_S` of
  them. A window that was closed goes out exactly once, by its event's id.
- Closed windows are judged some features at a time: an alarm must not wait for it.
- Of a model that a release takes away, its last window is sent, and nothing else is left: its alarm
  ends, and names that come and go fill neither memory nor checkpoint.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.documents import encode, to_builtins
from edgefleet.protocol.drift import Drift, Limits, compare, worst
from edgefleet.protocol.event import Alarm, HealthEvent, SketchWindow, new_event, read_event
from edgefleet.protocol.sketch import (
    ClassSketch,
    NumberSketch,
    merge_classes,
    merge_numbers,
    read_sketch,
)
from edgefleet_runtime.watch.checkpoint import Carried, Checkpoint, CheckpointFile
from edgefleet_runtime.watch.window import SketchingWindow
from edgefleet_runtime.watch.windows import LATEST_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from edgefleet.protocol.event import Event, EventData
    from edgefleet.protocol.policy import DriftPolicy
    from edgefleet.protocol.release import Release
    from edgefleet_runtime.watch.seen import Heard, Seen
    from edgefleet_runtime.watch.window import Sketch

    References = Callable[[str, str], Mapping[str, Any]]
    """Gives the reference sketches of a variant, by the bundle's digest and the variant's name."""

_log = logging.getLogger(__name__)

CHECKPOINT_S = 60.0
MAX_MERGED = 24  # windows
AT_ONCE = 4  # features that are compared in one go: some 5 ms
MAX_NAMED = 8  # features in an alarm
RULE = "drift"
_EVENT_BYTES = 512 << 10  # of sketches in one event


class Out(Protocol):
    """Where events go; a spool is one."""

    def tell(self, data: EventData) -> None:
        """Send a hot event soon."""

    def keep(self, event: Event, done: Callable[[bool], None]) -> None:
        """Record an event; ``done`` is called when it outlives the process, or can't be kept."""


class Sketcher:
    """A part of the watch: sketches, verdicts and their alarms.

    Args:
        out: takes the events.
        references: of what serves here.
        root: folder for what must survive.
        clock: monotonic seconds.
        now: seconds since 1970.
    """

    def __init__(
        self,
        out: Out,
        references: References,
        root: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._out = out
        self._references = references
        self._file = CheckpointFile(root)
        self._clock = clock
        self._now = now
        self._policy: DriftPolicy | None = None
        self._restored = False
        self._open: dict[str, SketchingWindow] = {}
        self._closed: deque[tuple[SketchingWindow, Iterator[None]]] = deque()
        self._carried: dict[str, Carried] = {}
        self._moved: dict[str, tuple[str, ...]] = {}
        self._unkept: dict[str, Event] = {}
        self._known: dict[tuple[str, str], dict[str, Sketch]] = {}
        self._bundles: dict[str, str] = {}
        self._serving: frozenset[str] = frozenset()
        self._changed = False
        self._saved_at = clock()
        self._lock = threading.Lock()  # of ``_unkept``: events are kept by another thread

    def drifted(self, model: str) -> tuple[str, ...]:
        """Features of a model that have moved, by its last verdict."""
        return self._moved.get(model, ())

    # -------------------------------------------------------------------------- as a part of watch

    def follow(self, release: Release) -> None:
        """Go by this release's policy from now on."""
        policy = release.telemetry.drift
        if policy is not None and find_spec("datasketches") is None:
            message = (
                "no drift is looked for: install it with: pip install 'edgefleet-runtime[drift]'"
            )
            self._out.tell(HealthEvent(what="drift-unavailable", message=message))
            policy = None
        if policy is not None or self._file.exists:
            self._restore()
        length = policy.window_s if policy is not None else 0.0
        other = [m for m, window in self._open.items() if window.end - window.start != length]
        self._close_windows(other)
        self._policy = policy
        self._serving = frozenset(model.name for model in release.models)
        self._forget_others()

    def _forget_others(self) -> None:
        """Forget models that are served no more, but for windows that are to be judged."""
        known = self._open.keys() | self._carried.keys() | self._moved.keys() | self._bundles.keys()
        for model in known - self._serving:
            if model in self._open:
                self._close_windows([model])
            self._carried.pop(model, None)
            self._bundles.pop(model, None)
            if self._moved.pop(model, ()):
                self._alarm(model, f"{model} is served no more", ended=True)
            self._changed = True

    def see(self, seen: Seen) -> None:
        """Take a request into its model's window."""
        policy = self._policy
        if policy is None or not seen.sampled:
            return
        window = self._open.get(seen.model)
        if window is not None and (
            window.bundle != seen.bundle
            or window.variant != seen.variant
            or not window.holds(time=seen.time, at=seen.at)
        ):
            self._close_windows([seen.model])
            window = None
        if window is None:
            window = SketchingWindow.of(seen, size_s=policy.window_s)
            self._open[seen.model] = window
            self._serves(seen)
        window.add(seen)
        self._changed = True

    def hear(self, heard: Heard) -> None:
        """Readings aren't sketched."""

    def turn(self, at: float, time: float) -> None:
        """Close what is over, and save now and then."""
        over = [m for m, window in self._open.items() if not window.holds(time=time, at=at)]
        self._close_windows(over)
        if self._changed and at - self._saved_at >= CHECKPOINT_S:
            self.save()

    def close(self) -> None:
        """Judge what is closed; what is open goes on with the next process."""
        while self.go_on():
            pass
        self.settle()

    def settle(self) -> None:
        """Save what has changed since it was saved last, if anything has."""
        if self._changed:
            self.save()

    # ----------------------------------------------------------------------------------- judging

    def _close_windows(self, models: Iterable[str]) -> None:
        for model in models:
            window = self._open.pop(model)
            self._closed.append((window, self._judge(window)))

    def go_on(self) -> bool:
        """Judge some features of a window that is over; whether there is more to judge."""
        if self._closed and next(self._closed[0][1], self) is self:
            self._closed.popleft()
        return bool(self._closed)

    def _judge(self, window: SketchingWindow) -> Iterator[None]:
        """Compare a closed window with the reference, tell, and hand it over; in small steps."""
        limits = self._policy.limits if self._policy else Limits()
        references = self._reference_of(window.bundle, window.variant)
        earlier = self._carried_of(window)
        sketches, drift = window.sketches(), dict[str, Drift]()
        scarce: dict[str, Sketch] = {}
        judged = len(sketches.keys() & references.keys())
        for number, (name, sketch) in enumerate(sketches.items()):
            if number % AT_ONCE == 0:
                yield
            reference = references.get(name)
            if reference is None:
                continue
            try:
                together = _merged(earlier.sketches.get(name), sketch)
                drift[name] = compare(reference, together, limits, features=judged)
            except EdgeFleetError as error:
                _log.warning("%s of %s can't be compared: %s", name, window.model, error.message)
                continue
            if drift[name].verdict == "unknown":
                scarce[name] = together
        if window.model not in self._serving:
            self._hand_over(window, sketches, drift)
            self._changed = True
            return
        if scarce:
            since = earlier.since
            self._carried[window.model] = Carried(
                bundle=window.bundle, since=since, sketches=scarce
            )
        else:
            self._carried.pop(window.model, None)
        self._hand_over(window, sketches, drift)
        if self._bundles.get(window.model, window.bundle) == window.bundle:
            self._tell(window, drift)
        self._changed = True

    def _carried_of(self, window: SketchingWindow) -> Carried:
        """What earlier windows saw too little of; nothing where they are too long ago."""
        carried = self._carried.get(window.model)
        length = window.end - window.start
        if (
            carried is None
            or carried.bundle != window.bundle
            or not 0 <= window.start - carried.since < MAX_MERGED * length
        ):
            return Carried(bundle=window.bundle, since=window.start, sketches={})
        return carried

    def _tell(self, window: SketchingWindow, drift: Mapping[str, Drift]) -> None:
        """Raise the alarm where a model's features have moved, end it where they are back."""
        verdict = worst(tuple(drift.values()))
        before = self._moved.get(window.model, ())
        moved = tuple(name for name, found in drift.items() if found.verdict == "moved")
        if verdict == "moved":
            self._moved[window.model] = moved
            if not before:
                worst_first = sorted(moved, key=lambda name: -(drift[name].psi or 0.0))
                named = worst_first[:MAX_NAMED]
                more = f" and {len(moved) - len(named)} more" if len(moved) > len(named) else ""
                why = ", ".join(f"{name} ({drift[name].why})" for name in named)
                self._alarm(
                    window.model,
                    f"{window.model}:{window.version} has moved from its reference: {why}{more}",
                    values={name: drift[name].psi for name in named},
                )
        elif verdict == "stable" and before:
            del self._moved[window.model]
            self._alarm(
                window.model,
                f"{window.model}:{window.version} is like its reference again",
                ended=True,
            )

    def _serves(self, seen: Seen) -> None:
        """End the alarm of a model that another bundle has replaced."""
        before = self._bundles.get(seen.model, seen.bundle)
        self._bundles[seen.model] = seen.bundle
        if before == seen.bundle or not self._moved.pop(seen.model, ()):
            return
        message = f"another version of {seen.model} serves: {seen.version}"
        self._alarm(seen.model, message, ended=True)

    def _alarm(self, model: str, message: str, **more: Any) -> None:  # noqa: ANN401 - Alarm's
        self._out.tell(Alarm(rule=RULE, message=message, model=model, **more))

    def _reference_of(self, bundle: str, variant: str) -> dict[str, Sketch]:
        key = (bundle, variant)
        if key not in self._known:
            found: dict[str, Sketch] = {}
            for name, plain in self._references(bundle, variant).items():
                try:
                    found[name] = read_sketch(plain)
                except EdgeFleetError as error:
                    _log.warning("the reference of %s can't be read: %s", name, error.message)
            self._known = {key: found}
        return self._known[key]

    # -------------------------------------------------------------------------------- handing over

    def _hand_over(
        self, window: SketchingWindow, sketches: Mapping[str, Sketch], drift: Mapping[str, Drift]
    ) -> None:
        """Events of a window: more than one where it has many features."""
        verdict = worst(tuple(drift.values()))
        for number, names in enumerate(_parts(sketches)):
            data = SketchWindow(
                model=window.model,
                model_version=window.version,
                bundle=window.bundle,
                start=_stamp(window.start),
                end=_stamp(window.end),
                requests=0 if number else window.requests,
                features={name: to_builtins(sketches[name]) for name in names},
                drift={name: drift[name] for name in names if name in drift},
                verdict=verdict,
            )
            event = new_event(
                data,
                time=_stamp(self._now()),
                identity=f"{window.id}.{number}",
            )
            self._keep(event)

    def _keep(self, event: Event) -> None:
        with self._lock:
            self._unkept[event.id] = event
        self._out.keep(event, lambda _: self._kept(event.id))

    def _kept(self, identity: str) -> None:
        """Forget an event that is kept, or counted as lost, by whoever takes it."""
        with self._lock:
            self._unkept.pop(identity, None)
            self._changed = True

    # ------------------------------------------------------------------------------------- the disk

    def save(self) -> None:
        """Let what is here outlive the process."""
        self._saved_at = self._clock()
        with self._lock:
            self._changed = False
            unkept = [encode(event) for event in self._unkept.values()]
        checkpoint = Checkpoint(
            open=[window.saved() for window in self._open.values()],
            closed=[window.saved() for window, _ in self._closed],
            carried=self._carried,
            moved=self._moved,
            bundles=self._bundles,
            unkept=unkept,
        )
        try:
            self._file.save(checkpoint)
        except (EdgeFleetError, OSError) as error:
            _log.warning("the sketches of open windows aren't saved: %s", error)

    def _restore(self) -> None:
        """Take over what an earlier process left, once."""
        if self._restored:
            return
        self._restored = True
        found, whole = self._file.load()
        apart = self._now() - self._clock()
        try:
            windows = {one.model: SketchingWindow(one, apart=apart) for one in found.open}
            closed = [SketchingWindow(one, apart=apart) for one in found.closed]
            for carried in found.carried.values():
                carried.sketches = {n: read_sketch(s) for n, s in carried.sketches.items()}
            unkept = [read_event(data) for data in found.unkept]
        except EdgeFleetError as error:
            _log.warning("the sketches that were saved are damaged: %s", error.message)
            self._file.set_aside()
            whole = False
        else:
            self._open, self._carried = windows, found.carried
            self._moved, self._bundles = found.moved, found.bundles
            self._closed.extend((window, self._judge(window)) for window in closed)
            for event in unkept:
                self._keep(event)
        if not whole:
            message = "sketches of windows that were open are damaged, and set aside"
            self._out.tell(HealthEvent(what="sketches-unreadable", message=message))


def _stamp(time: float) -> datetime:
    """A time by the device's clock, which may be set to anything, as one that can be sent."""
    return datetime.fromtimestamp(min(max(time, 0.0), LATEST_S), UTC)


def _merged(earlier: Sketch | None, sketch: Sketch) -> Sketch:
    if isinstance(sketch, NumberSketch) and isinstance(earlier, NumberSketch):
        return merge_numbers((earlier, sketch))
    if isinstance(sketch, ClassSketch) and isinstance(earlier, ClassSketch):
        return merge_classes((earlier, sketch))
    return sketch


def _parts(sketches: Mapping[str, Sketch]) -> Iterator[list[str]]:
    """The features, a list an event, so that none is over the limit of one."""
    names: list[str] = []
    total = 0
    for name, sketch in sketches.items():
        size = len(sketch.kll) * 2 if isinstance(sketch, NumberSketch) else len(sketch.counts) * 24
        if names and total + size > _EVENT_BYTES:
            yield names
            names, total = [], 0
        names.append(name)
        total += size + 512  # of the comparison
    if names:
        yield names
