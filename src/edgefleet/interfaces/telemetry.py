"""Telemetry: what devices recorded, read back as events.

Cold events lie in segments, hot ones wherever the backend keeps them. A query reads both, gives
each event once, attributes it to the device whose channel brought it, and says which segments it
couldn't read.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, final

from edgefleet.errors import (
    DocumentError,
    EdgeFleetError,
    IntegrityError,
    InvalidInputError,
    MissingExtraError,
)
from edgefleet.interfaces.service import Service
from edgefleet.protocol.event import HOT, KINDS, attributed
from edgefleet.protocol.segment import read_segment

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    import pyarrow as pa

    from edgefleet.protocol.event import Event
    from edgefleet.protocol.segment import SegmentName

CLOCK_SLACK = timedelta(days=1)  # a device's clock, and so its date, may be off by this much
POLL_S = 0.5
_OVERLAP = timedelta(minutes=1)  # how far the backend's clock may be off ours
_ARROW_BATCH = 10_000


class Telemetry(Service):
    """Events of a fleet."""

    role: ClassVar[str] = "telemetry"

    @final
    def query(
        self,
        *,
        kind: str | None = None,
        model: str | None = None,
        device: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> EventQuery:
        """Events that match everything given; nothing is read before the result is used.

        Args:
            kind: one of prediction, metric, sketch, sample, alarm, health.
            model: the model concerned.
            device: the device they come from.
            since: not before this time, time zone required.
            until: before this time.
        """
        if kind is not None and kind not in KINDS:
            msg = f"no kind of event {kind!r}"
            raise InvalidInputError(msg, cure=f"use one of {', '.join(KINDS)}")
        for moment in (since, until):
            if moment is not None and moment.tzinfo is None:
                msg = f"{moment.isoformat()} has no time zone"
                raise InvalidInputError(msg, cure="use datetime.now(timezone.utc) or such")
        return EventQuery(self, kind=kind, model=model, device=device, since=since, until=until)

    @final
    def follow(
        self,
        *,
        kind: str | None = None,
        model: str | None = None,
        device: str | None = None,
        poll_s: float = POLL_S,
        timeout_s: float | None = None,
    ) -> Iterator[Event]:
        """New events as they arrive, until the caller stops or ``timeout_s`` passes without one."""
        since = datetime.now(UTC) - timedelta(seconds=1)
        query = self.query(kind=kind, model=model, device=device, since=since)
        arrived, seen = datetime.now(UTC) - _OVERLAP, set[str]()
        quiet = time.monotonic()
        late = False  # what came before the time was up is given, however long a reading takes
        while not late:
            late = timeout_s is not None and time.monotonic() - quiet >= timeout_s
            began = datetime.now(UTC)
            for event in query.arrived_after(arrived):
                if event.id not in seen:
                    seen.add(event.id)
                    yield event
                    quiet, late = time.monotonic(), False
            arrived = began - _OVERLAP
            time.sleep(poll_s)

    @abstractmethod
    def _segments(self) -> Iterator[SegmentName]:
        """Names of all segments, grouped by device, cheaply (a listing, no reading)."""

    @abstractmethod
    def _open_segment(self, name: SegmentName) -> BinaryIO: ...

    @abstractmethod
    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        """Hot events still kept, with the device whose channel brought each, in any order.

        Args:
            device: only this one's; None for every one's.
            since: what came before may be left out, where that spares reading it.
        """


@final
class EventQuery:
    """A lazy query: iterate it, or turn it into pandas or Arrow. Each use reads anew.

    Attributes:
        unreadable: segments set aside by the last use, with the reason.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        kind: str | None,
        model: str | None,
        device: str | None,
        since: datetime | None,
        until: datetime | None,
    ) -> None:
        self._telemetry = telemetry
        self._kind, self._model, self._device = kind, model, device
        self._since, self._until = since, until
        self._arrived = None if since is None else since - CLOCK_SLACK
        self.unreadable: dict[str, str] = {}

    def __repr__(self) -> str:
        given = {
            "kind": self._kind,
            "model": self._model,
            "device": self._device,
            "since": self._since,
            "until": self._until,
        }
        text = ", ".join(f"{key}={value}" for key, value in given.items() if value is not None)
        return f"<events {text or 'all'}>"

    def _repr_html_(self) -> str:
        from itertools import islice  # noqa: PLC0415

        from edgefleet.interfaces.tables import html_table  # noqa: PLC0415

        rows = [
            (str(e.time), e.device, e.kind, e.subject or "", bytes(e.data).decode()[:120])
            for e in islice(self, 20)
        ]
        return html_table(("time", "device", "kind", "model", "data"), rows, caption=repr(self))

    def __iter__(self) -> Iterator[Event]:
        """Events in the order of devices and days; sort them yourself where time matters."""
        self.unreadable = {}
        return self._telemetry._bounded("query", self._read)  # noqa: SLF001 - one subject

    def arrived_after(self, moment: datetime) -> Iterator[Event]:
        """Events as from the query itself, but no hot ones that the backend had before."""
        self._arrived = moment
        return iter(self)

    def _read(self) -> Iterator[Event]:
        # Hot events come from all devices at once, cold ones a device and a day after another.
        part, seen = None, set[tuple[str, str]]()
        for device, day, event in self._raw():
            this = None if day is None else (device, day)
            if this != part:
                part, seen = this, set()
            if (device, event.id) in seen or not self._matches(event):
                continue
            seen.add((device, event.id))
            yield attributed(event, device)

    def _raw(self) -> Iterator[tuple[str, Any, Event]]:
        if self._kind is None or self._kind in HOT:
            hot = self._telemetry._hot(self._device, self._arrived)  # noqa: SLF001 - one subject
            for device, event in hot:
                yield device, None, event
        if self._kind in HOT:
            return
        for name in sorted(filter(self._may_hold, self._telemetry._segments())):  # noqa: SLF001
            try:
                with self._telemetry._open_segment(name) as stream:  # noqa: SLF001
                    for event in read_segment(stream, name=name.path):
                        yield name.device, name.day, event
            except (IntegrityError, DocumentError) as error:
                self._set_aside(name, error)

    def _set_aside(self, name: SegmentName, error: EdgeFleetError) -> None:
        import warnings  # noqa: PLC0415

        self.unreadable[name.path] = error.message
        warnings.warn(f"segment set aside: {error.message}", RuntimeWarning, stacklevel=4)

    def _may_hold(self, name: SegmentName) -> bool:
        if self._device is not None and name.device != self._device:
            return False
        if self._model is not None and name.model != self._model:
            return False
        if self._since is not None and name.day < (self._since - CLOCK_SLACK).date():
            return False
        return self._until is None or name.day <= (self._until + CLOCK_SLACK).date()

    def _matches(self, event: Event) -> bool:
        return (
            (self._kind is None or event.kind == self._kind)
            and (self._model is None or event.subject == self._model)
            and (self._since is None or event.time >= self._since)
            and (self._until is None or event.time < self._until)
        )

    def to_arrow(self) -> pa.Table:
        """One row an event: id, time, device, kind, model and ``data`` as JSON text.

        Raises:
            MissingExtraError: pyarrow isn't installed.
        """
        try:
            import pyarrow as pa  # noqa: PLC0415 - heavy and optional
        except ImportError as error:
            msg = "Arrow tables need pyarrow"
            cure = "install it with: pip install 'edgefleet[analysis]'"
            raise MissingExtraError(msg, cure=cure) from error
        schema = pa.schema(
            [
                ("id", pa.string()),
                ("time", pa.timestamp("us", tz="UTC")),
                ("device", pa.string()),
                ("kind", pa.string()),
                ("model", pa.string()),
                ("data", pa.string()),
            ]
        )
        batches, rows = [], []
        for event in self:
            rows.append(
                {
                    "id": event.id,
                    "time": event.time,
                    "device": event.device,
                    "kind": event.kind,
                    "model": event.subject,
                    "data": bytes(event.data).decode(),
                }
            )
            if len(rows) >= _ARROW_BATCH:
                batches.append(pa.RecordBatch.from_pylist(rows, schema=schema))
                rows = []
        batches.append(pa.RecordBatch.from_pylist(rows, schema=schema))
        return pa.Table.from_batches(batches, schema=schema)

    def to_pandas(self) -> pd.DataFrame:
        """One row an event; the fields of ``data`` become columns of their own.

        Data of a foreign kind that is no object goes into a column ``data`` as it is.

        Raises:
            MissingExtraError: pandas isn't installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - heavy and optional
        except ImportError as error:
            msg = "data frames need pandas"
            cure = "install it with: pip install 'edgefleet[analysis]'"
            raise MissingExtraError(msg, cure=cure) from error
        rows = [
            {
                **_columns_of(event),
                "id": event.id,
                "time": event.time,
                "device": event.device,
                "kind": event.kind,
                "model": event.subject,
            }
            for event in self
        ]
        first = ["time", "device", "kind", "model", "id"]
        frame = pd.DataFrame(rows, columns=None if rows else first)
        rest = [column for column in frame.columns if column not in first]
        return frame[first + rest]


def _columns_of(event: Event) -> dict[str, Any]:
    data = event.plain()["data"]
    if not isinstance(data, dict):
        return {"data": data}
    return {key: value for key, value in data.items() if key not in ("version", "requires")}
