"""Events as an Ibis table over DuckDB.

Rules kept here:

- Segments that are files here are read in place when the table is used; DuckDB takes a segment that
  is cut short for whole, so each is read once by our own reader before. Everything else (hot
  events, segments that lie elsewhere, what came before a damage) is copied into DuckDB in batches.
- The device comes from the path or the channel, never from the event; each event is there once.
- DuckDB gets no extension that it doesn't bring, so nothing is downloaded.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidInputError, MissingExtraError
from edgefleet.interfaces.event_columns import FIELDS, HEAD, duckdb_columns, kind_in_duckdb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    import ibis
    import pyarrow as pa
    from ibis.backends.duckdb import Backend

_RAW = "{'id': 'VARCHAR', 'type': 'VARCHAR', 'time': 'TIMESTAMPTZ', 'subject': 'VARCHAR', 'data': 'JSON'}"  # noqa: E501 - one literal of SQL
_FROM_PATH = r"devices/([^/]+)/segments/date=[^/]+/model=[^/]+/[^/]+$"
_MEMORY = "1GB"  # of DuckDB's own; what doesn't fit goes to a temporary folder meanwhile
_MAX_OBJECT = 4 << 20  # bytes of one line; an event's limit is below


def backend_of(connection: Any) -> Backend:  # noqa: ANN401 - whatever the caller has
    """The DuckDB to work in: the one given, or one of its own in memory that may spill to disk.

    Raises:
        MissingExtraError: ibis or duckdb isn't installed.
        InvalidInputError: what was given is no connection of ibis to DuckDB.
    """
    try:
        import ibis  # noqa: PLC0415 - heavy and optional
        from ibis.backends.duckdb import Backend  # noqa: PLC0415
    except ImportError as error:
        msg = "Ibis tables need ibis-framework and duckdb"
        cure = "install them with: pip install 'edgefleet[analysis]'"
        raise MissingExtraError(msg, cure=cure) from error
    if connection is None:
        spill = Path(tempfile.gettempdir()) / f"edgefleet-duckdb-{uuid.uuid4().hex}"
        made: Backend = ibis.duckdb.connect(
            memory_limit=_MEMORY, temp_directory=str(spill), autoinstall_known_extensions=False
        )
        made.con.execute("SET TimeZone = 'UTC'")
        return made
    if not isinstance(connection, Backend):
        msg = f"{type(connection).__name__} is no connection of ibis to DuckDB"
        cure = "give ibis.duckdb.connect(), or use the same expression where your data is"
        raise InvalidInputError(msg, cure=cure)
    return connection


def event_table(
    backend: Backend,
    files: Iterable[Path],
    batches: Iterator[pa.RecordBatch],
    *,
    kind: str | None,
    model: str | None,
    since: datetime | None,
    until: datetime | None,
) -> ibis.Table:
    """A table of the events in these files and batches, each once.

    Args:
        backend: of `backend_of`.
        files: segments that are known to be sound; looked at after the batches are read.
        batches: what lies elsewhere, by `arrow_schema`.
        kind: only events of it.
        model: likewise.
        since: not before.
        until: before.
    """
    name = f"edgefleet_events_{uuid.uuid4().hex}"
    columns = ", ".join((*HEAD, *(field.name for field in FIELDS)))
    backend.con.execute(f"CREATE TABLE {name}_copied ({_definition()})")
    for batch in batches:
        relation = backend.con.from_arrow(batch)
        relation.insert_into(f"{name}_copied")
    parts = [f"SELECT {columns} FROM {name}_copied"]  # noqa: S608 - names of our own
    if listed := ", ".join(_quoted(_literal(str(file))) for file in files):
        fields = ", ".join(duckdb_columns("data"))
        parts.append(
            f"SELECT id, time, regexp_extract(filename, {_quoted(_FROM_PATH)}, 1) AS device, "  # noqa: S608 - every value is quoted
            f"{kind_in_duckdb('type')} AS kind, subject AS model, "
            f"coalesce(data, 'null'::JSON) AS data, {fields} "
            f"FROM read_json([{listed}], format = 'newline_delimited', compression = 'zstd', "
            f"columns = {_RAW}, filename = true, hive_partitioning = false, "
            f"maximum_object_size = {_MAX_OBJECT})"
        )
    wanted = {
        "kind = {}": kind,
        "model = {}": model,
        "time >= {}::TIMESTAMPTZ": None if since is None else since.isoformat(),
        "time < {}::TIMESTAMPTZ": None if until is None else until.isoformat(),
    }
    rules = [rule.format(_quoted(v)) for rule, v in wanted.items() if v is not None]
    where = f"WHERE {' AND '.join(rules)}" if rules else ""
    backend.con.execute(
        f"CREATE VIEW {name} AS SELECT {columns} FROM ({' UNION ALL '.join(parts)}) {where} "  # noqa: S608 - as above
        f"QUALIFY row_number() OVER (PARTITION BY device, id ORDER BY time) = 1"
    )
    return backend.table(name)


def arrow_schema() -> pa.Schema:
    """The table's columns as Arrow has them; ``data`` is text there."""
    import pyarrow as pa  # noqa: PLC0415 - heavy and optional

    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
    head = {name: pa.string() for name in HEAD} | {"time": pa.timestamp("us", tz="UTC")}
    return pa.schema([*head.items(), *((field.name, types[field.type]) for field in FIELDS)])


def ibis_schema() -> dict[str, str]:
    """The table's columns as ibis names their types, to declare the same table elsewhere."""
    head = dict.fromkeys(HEAD, "string") | {"time": "timestamp('UTC', 6)", "data": "json"}
    return head | {field.name: field.type for field in FIELDS}


def _definition() -> str:
    sql = {"string": "VARCHAR", "int64": "BIGINT", "float64": "DOUBLE"}
    head = dict.fromkeys(HEAD, "VARCHAR") | {"time": "TIMESTAMPTZ", "data": "JSON"}
    both = head | {field.name: sql[field.type] for field in FIELDS}
    return ", ".join(f"{name} {kind}" for name, kind in both.items())


def _literal(path: str) -> str:
    """A path that DuckDB doesn't take for a pattern."""
    return re.sub(r"[\[*?]", lambda found: f"[{found[0]}]", path)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
