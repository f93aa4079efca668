"""Telemetry: what devices recorded, read back as events.

Cold events lie in segments, hot ones wherever the backend keeps them. A query reads both, gives
each event once, attributes it to the device whose channel brought it, and says which segments it
couldn't read. Files of samples lie beside the segments, by their digests.
"""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast, final

from edgefleet.errors import (
    DocumentError,
    EdgeFleetError,
    IntegrityError,
    InvalidInputError,
    LimitExceededError,
    MissingExtraError,
    NotFoundError,
)
from edgefleet.interfaces.event_columns import HEAD, row_of
from edgefleet.interfaces.event_table import arrow_schema, backend_of, event_table
from edgefleet.interfaces.following import Arrivals
from edgefleet.interfaces.service import Service
from edgefleet.protocol.digest import CHUNK_BYTES, digest_of, hex_of
from edgefleet.protocol.event import HOT, KINDS, attributed
from edgefleet.protocol.names import check_name
from edgefleet.protocol.segment import read_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import ibis
    import pandas as pd
    import pyarrow as pa

    from edgefleet.protocol.event import Event
    from edgefleet.protocol.segment import SegmentName

CLOCK_SLACK = timedelta(days=1)  # a device's clock, and so its date, may be off by this much
POLL_S = 0.5
SAMPLES = "samples/sha256"  # where samples lie below a device's own prefix
MAX_SAMPLE_BYTES = 256 << 20  # of one file: an input or output of one request
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
            kind: one of `KINDS`: prediction, sketch, sample, alarm, …
            model: the model concerned.
            device: the device they come from.
            since: not before this time, time zone required.
            until: before this time.
        """
        if kind is not None and kind not in KINDS:
            msg = f"no kind of event {kind!r}"
            raise InvalidInputError(msg, cure=f"use one of {', '.join(KINDS)}")
        for moment in (since, until):
            _check_moment(moment)
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
        """Events that arrive after this call, each once, whenever they happened.

        What is there already is looked at before this returns. What a device recorded while it was
        offline comes when it brings it.

        Args:
            kind: as for `query`; so are ``model`` and ``device``.
            poll_s: seconds between two looks.
            timeout_s: ends after so many without an event; None goes on until the caller stops.
        """
        arrivals = Arrivals(self.query(kind=kind, model=model, device=device))
        return arrivals.until_quiet(poll_s, timeout_s)

    @final
    def sample(self, device: str, digest: str, *, max_bytes: int = MAX_SAMPLE_BYTES) -> bytes:
        """The content of a file that a device's ``sample`` event names by its digest.

        Args:
            device: that recorded it.
            digest: as in `Sample.inputs` or `Sample.outputs`.
            max_bytes: of the file; a longer one is refused.

        Raises:
            NotFoundError: it isn't there: not delivered yet, or dropped.
            IntegrityError: other content lies there than the digest says.
            LimitExceededError: it is longer.
        """
        path = f"{SAMPLES}/{hex_of(digest)}"
        with self._boundary("sample"):
            try:
                with self._open_file(check_name("device", device), path) as stream:
                    data = _read_up_to(stream, max_bytes + 1)
            except FileNotFoundError as error:
                raise _no_sample(device, digest) from error
        if len(data) > max_bytes:
            msg = f"sample {digest} of {device} is over the limit of {max_bytes} bytes"
            raise LimitExceededError(msg, cure="ask for it with a higher max_bytes")
        if digest_of(data) != digest:
            msg = f"sample {digest} of {device} holds other content"
            raise IntegrityError(msg, cure="its upload was damaged: leave the sample out")
        return data

    @abstractmethod
    def _segments(self) -> Iterator[SegmentName]:
        """Names of all segments, grouped by device, cheaply (a listing, no reading)."""

    @abstractmethod
    def _open_file(self, device: str, path: str) -> BinaryIO:
        """Open what a device wrote: a segment, or a sample's file.

        Args:
            device: whose; nothing that another device wrote may be reached by its name.
            path: below the device's own prefix.

        Raises:
            NotFoundError: it isn't there; FileNotFoundError and what `_translate` makes a
                NotFoundError do as well.
        """

    def _segment_file(self, name: SegmentName) -> Path | None:
        """Where a segment is a plain file on this machine; None where it isn't."""
        return None

    @abstractmethod
    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        """Hot events still kept, with the device whose channel brought each, in any order.

        Args:
            device: only this one's; None for every one's.
            since: what arrived before may be left out, where that spares reading it; but nothing
                that is left out now may be given for a later ``since``.
        """


def _check_moment(moment: object) -> None:
    if moment is None:
        return
    if not isinstance(moment, datetime):
        msg = f"{moment!r} is no datetime"
        cure = "give datetime.now(timezone.utc) - timedelta(days=7) or such"
        raise InvalidInputError(msg, cure=cure)
    if moment.tzinfo is None:
        msg = f"{moment.isoformat()} has no time zone"
        raise InvalidInputError(msg, cure="use datetime.now(timezone.utc) or such")


@final
class EventQuery:
    """A lazy query: iterate it, or turn it into pandas or Arrow. Each use reads anew.

    Attributes:
        unreadable: segments set aside by the last use, with the reason.
        segments: paths of those that the last use opened, with the bytes read of each, as they are
            stored.
        held: paths of those of them that hold an event that matches: by their paths alone, some
            that hold none may be opened.
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
        self._is_new: Callable[[str], bool] | None = None
        self._begin()

    def _begin(self) -> None:
        self.unreadable: dict[str, str] = {}
        self.segments: dict[str, int] = {}
        self.held: set[str] = set()

    def __repr__(self) -> str:
        given = {
            "kind": self._kind,
            "model": self._model,
            "device": self._device,
            "since": self._since,
            "until": self._until,
        }
        text = ", ".join(f"{key}={value}" for key, value in given.items() if value is not None)
        aside = f"; {len(self.unreadable)} segments set aside" if self.unreadable else ""
        return f"<events {text or 'all'}{aside}>"

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
        self._begin()
        return self._telemetry._bounded("query", self._read)  # noqa: SLF001 - one subject

    def there(self) -> set[str]:
        """Paths of the segments that a use would open now."""
        if self._kind in HOT:
            return set()
        telemetry = self._telemetry
        found = telemetry._bounded("query", telemetry._segments)  # noqa: SLF001 - one subject
        return {name.path for name in found if self._may_hold(name)}

    def news(self, since: datetime, is_new: Callable[[str], bool]) -> Iterator[Event]:
        """Events as from the query itself, but for what was there before.

        Args:
            since: hot events that the backend had before this are left out, where it can tell.
            is_new: asked once for the path of each segment that is there; only new ones are opened.
        """
        self._arrived, self._is_new = since, is_new
        return iter(self)

    def _read(self, in_place: list[Path] | None = None) -> Iterator[Event]:
        """The events; files that may be read in place go to the list given, if one is."""
        # Hot events come from all devices at once, cold ones a device and a day after another.
        part, seen = None, set[tuple[str, str]]()
        noted: SegmentName | None = None
        for device, name, event in self._raw(in_place):
            this = None if name is None else (device, name.day)
            if this != part:
                part, seen = this, set()
            if not self._matches(event):
                continue
            if name is not None and name is not noted:
                noted = name
                self.held.add(name.path)
            if (device, event.id) in seen:
                continue
            seen.add((device, event.id))
            yield attributed(event, device)

    def _raw(self, in_place: list[Path] | None) -> Iterator[tuple[str, SegmentName | None, Event]]:
        if self._kind is None or self._kind in HOT:
            hot = self._telemetry._hot(self._device, self._arrived)  # noqa: SLF001 - one subject
            for device, event in hot:
                yield device, None, event
        if self._kind in HOT:
            return
        names = filter(self._may_hold, self._telemetry._segments())  # noqa: SLF001 - one subject
        is_new = self._is_new or (lambda _: True)
        for name in sorted(name for name in names if is_new(name.path)):
            if in_place is not None and (file := self._sound(name)) is not None:
                in_place.append(file)
                continue
            try:
                for event in self._events(name):
                    yield name.device, name, event
            except (IntegrityError, DocumentError, NotFoundError) as error:
                self._set_aside(name, error)

    def _events(self, name: SegmentName) -> Iterator[Event]:
        telemetry = self._telemetry
        try:
            with telemetry._boundary("query"):  # noqa: SLF001 - one subject
                stream = telemetry._open_file(name.device, name.below_device)  # noqa: SLF001
        except FileNotFoundError as error:
            msg = f"segment {name.path} is gone"
            raise NotFoundError(msg, cure="repeat the query") from error
        with stream:
            counted = _Counted(stream)
            try:
                yield from read_segment(cast("BinaryIO", counted), name=name.path)
            finally:
                self.segments[name.path] = counted.bytes

    def _sound(self, name: SegmentName) -> Path | None:
        """Where a segment can be read in place; None where it is elsewhere or damaged."""
        file = self._telemetry._segment_file(name)  # noqa: SLF001 - one subject
        if file is None:
            return None
        try:
            for _ in self._events(name):
                pass
        except (IntegrityError, DocumentError, NotFoundError):
            return None  # it is read as the others are, and set aside there
        return file

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
        """One row an event, columns as of `edgefleet.interfaces.event_columns`.

        Raises:
            MissingExtraError: pyarrow isn't installed.
        """
        try:
            import pyarrow as pa  # noqa: PLC0415 - heavy and optional
        except ImportError as error:
            msg = "Arrow tables need pyarrow"
            cure = "install it with: pip install 'edgefleet[analysis]'"
            raise MissingExtraError(msg, cure=cure) from error
        return pa.Table.from_batches(_batches(self), schema=arrow_schema())

    def to_ibis(self, connection: Any = None) -> ibis.Table:  # noqa: ANN401 - ibis is optional
        """A table of hot and cold events over DuckDB, columns as `to_arrow` has them.

        Segments that are files here are checked now and read in place, in bounded memory, whenever
        the table is used. What is checked but can't be read is in `unreadable`. Everything else is
        copied into DuckDB now.

        Args:
            connection: of ``ibis.duckdb.connect``; None for one of its own.

        Raises:
            MissingExtraError: ibis or duckdb isn't installed.
            InvalidInputError: the connection is none to DuckDB.
        """
        backend = backend_of(connection)
        self._begin()
        whole: list[Path] = []
        copied = self._telemetry._bounded("query", lambda: self._read(in_place=whole))  # noqa: SLF001
        return event_table(
            backend,
            whole,
            _batches(copied),
            kind=self._kind,
            model=self._model,
            since=self._since,
            until=self._until,
        )

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
        rows = [_frame_row(event) for event in self]
        first = ["time", "device", "kind", "model", "id"]
        frame = pd.DataFrame(rows, columns=None if rows else first)
        rest = [column for column in frame.columns if column not in first]
        return frame[first + rest]


def _read_up_to(stream: BinaryIO, size: int) -> bytes:
    """So many bytes, or all there are; unbuffered streams may give fewer at once."""
    parts = []
    while size > 0 and (part := stream.read(min(size, CHUNK_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _no_sample(device: str, digest: str) -> NotFoundError:
    return NotFoundError(
        f"sample {digest} of {device} isn't there",
        cure="it may still be on the device; ask again when it has sent what it kept",
    )


class _Counted:
    """A stream that counts what is read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.bytes = stream, 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.bytes += len(data)
        return data


def _batches(events: Iterable[Event]) -> Iterator[pa.RecordBatch]:
    """Events as Arrow has them, some at a time; at least one batch."""
    schema, rows = arrow_schema(), []
    for event in events:
        rows.append(row_of(event))
        if len(rows) >= _ARROW_BATCH:
            yield _batch(rows, schema)
            rows = []
    yield _batch(rows, schema)


def _batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa  # noqa: PLC0415 - heavy and optional

    columns = {name: [row[name] for row in rows] for name in schema.names}
    return pa.RecordBatch.from_pydict(columns, schema=schema)


def _frame_row(event: Event) -> dict[str, Any]:
    """A row of a data frame: the fields of the data, and the columns that tell something."""
    data = event.plain()["data"]
    if isinstance(data, dict):
        found = {key: value for key, value in data.items() if key not in ("version", "requires")}
    else:
        found = {"data": data}
    row = row_of(event)
    del row["data"]
    head = {name: value for name, value in row.items() if name in HEAD}
    return {**found, **{name: value for name, value in row.items() if value is not None}, **head}
