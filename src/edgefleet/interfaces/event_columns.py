"""Columns of events as a table: one schema, whatever reads it.

The first six are every event's. The others are fields of its ``data``, by a path that SQL/JSON and
the dialects of warehouses share; they are null where an event's kind has no such field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from edgefleet.protocol.documents import parse
from edgefleet.protocol.event import PREFIX

if TYPE_CHECKING:
    from edgefleet.protocol.event import Event

Type = Literal["string", "int64", "float64"]


class Column(NamedTuple):
    """A field of the data.

    Attributes:
        name: of the column.
        type: of its values.
        path: keys and indexes from the data on.
        about: what it tells, and of which kinds.
    """

    name: str
    type: Type
    path: tuple[str | int, ...]
    about: str

    @property
    def json_path(self) -> str:
        """The path as SQL/JSON writes it, such as ``$.outputs[0].top[0]``."""
        return "$" + "".join(
            f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path
        )


HEAD: dict[str, str] = {
    "id": "the event's id, unique for its device",
    "time": "when it happened, by the device's clock, in UTC",
    "device": "whose channel brought it; what the event says itself isn't believed",
    "kind": "prediction, window, …; the whole type where it is not ours",
    "model": "the model concerned; null for none",
    "data": "everything the event tells, as JSON",
}
FIELDS: tuple[Column, ...] = (
    Column("model_version", "string", ("model_version",), "predictions, sketches and samples"),
    Column("bundle", "string", ("bundle",), "digest: predictions, sketches and samples"),
    Column("top", "int64", ("outputs", 0, "top", 0), "predictions: best class of the first output"),
    Column("score", "float64", ("outputs", 0, "score", 0), "predictions: its score"),
    Column("latency_us", "float64", ("latency_us",), "predictions: the engine's run time"),
    Column("stream", "string", ("stream",), "readings, windows and alarms"),
    Column("key", "string", ("key",), "readings, windows and alarms: which of the stream"),
    Column("rule", "string", ("rule",), "windows and alarms"),
    Column("verdict", "string", ("verdict",), "sketches: of the device itself"),
)


def row_of(event: Event) -> dict[str, Any]:
    """An event as a row of the table.

    Raises:
        DocumentError: its data is malformed.
    """
    text = bytes(event.data)
    data = parse(object, text, "event")
    return {
        "id": event.id,
        "time": event.time,
        "device": event.device,
        "kind": event.kind,
        "model": event.subject,
        "data": text.decode(),
        **{field.name: _value(data, field) for field in FIELDS},
    }


def _value(data: Any, field: Column) -> Any:  # noqa: ANN401 - JSON, any of it
    for step in field.path:
        if not isinstance(data, list if isinstance(step, int) else dict):
            return None
        within: Any = data
        try:
            data = within[step]
        except (KeyError, IndexError):
            return None
    if field.type == "string":
        return data if isinstance(data, str) else None
    if isinstance(data, bool) or not isinstance(data, int | float):
        return None
    if field.type == "float64":
        return float(data)
    return data if isinstance(data, int) and abs(data) < 1 << 63 else None


def duckdb_columns(data: str) -> list[str]:
    """The fields as expressions of DuckDB's SQL, over a column of JSON.

    Args:
        data: that column.
    """
    kinds = {
        "string": ("VARCHAR",),
        "int64": ("BIGINT", "UBIGINT"),
        "float64": ("DOUBLE", "BIGINT", "UBIGINT"),
    }
    sql = {"string": "VARCHAR", "int64": "BIGINT", "float64": "DOUBLE"}
    found = []
    for field in FIELDS:
        path = f"'{field.json_path}'"
        of = ", ".join(f"'{kind}'" for kind in kinds[field.type])
        found.append(
            f"CASE WHEN json_type({data}, {path}) IN ({of}) "
            f"THEN TRY_CAST({data} ->> {path} AS {sql[field.type]}) END AS {field.name}"
        )
    return found


def kind_in_duckdb(of: str) -> str:
    """An event's kind as an expression of DuckDB's SQL, over a column of its type."""
    return f"CASE WHEN starts_with({of}, '{PREFIX}') THEN {of}[{len(PREFIX) + 1}:] ELSE {of} END"
