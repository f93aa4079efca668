"""A device's figures for a scraper: the same facts as in its report, as they are now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from edgefleet_runtime.reconciler.machine import condition
from edgefleet_runtime.serve.prometheus import Family, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet_runtime.reconciler.machine import State
    from edgefleet_runtime.spool.spool import Spool
    from edgefleet_runtime.store.blobs import BlobStore
    from edgefleet_runtime.store.fetch import Fetcher
    from edgefleet_runtime.sync.sync import SyncState


def device_families(
    store: BlobStore, spool: Spool, fetcher: Fetcher, state: State, lag_s: float | None = None
) -> Iterator[Family]:
    """Figures of store, spool and release. Looks at the store's files."""
    yield _gauge("edgefleet_store_bytes", "Models on the disk, in bytes", store.used_bytes())
    yield _gauge("edgefleet_store_max_bytes", "Their cap", store.max_bytes)
    yield _gauge("edgefleet_spool_bytes", "Telemetry on the disk, in bytes", spool.used_bytes)
    yield _gauge("edgefleet_spool_max_bytes", "Its cap", spool.max_bytes)
    about = "Events that wait, by shelf: what is on the lowest goes first"
    yield _shelves("edgefleet_spool_events", "gauge", about, spool.waiting)
    yield _counter("edgefleet_events_dropped", "Events lost for lack of room", spool.dropped)
    about = "The same by the shelf that they waited on"
    yield _shelves("edgefleet_spool_dropped_total", "counter", about, spool.dropped_by_shelf)
    yield _counter("edgefleet_fetched_bytes", "Bytes of models fetched", fetcher.bytes_fetched)
    yield from _sync(spool.sync.state)
    if lag_s is not None:
        about = "Seconds from when the last pointer was issued until it was seen here"
        yield _gauge("edgefleet_pointer_lag_seconds", about, lag_s)
    labels = {
        "release": state.running or "",
        "wanted": state.wanted or "",
        "state": condition(state),
    }
    about = "What this device runs, what it should run, and how far it is"
    yield Family("edgefleet_release_info", "gauge", about, (Sample(1, labels),))


def _sync(state: SyncState) -> Iterator[Family]:
    about = "Files of telemetry that were taken"
    yield _counter("edgefleet_sync_files", about, state.files)
    yield _counter("edgefleet_sync_bytes", "Bytes in them", state.bytes)
    yield _counter("edgefleet_sync_hot_events", "Alarms and health events taken", state.hot)
    if state.delivered is not None:
        about = "When telemetry was last taken, in seconds since 1970"
        yield _gauge("edgefleet_sync_last_seconds", about, state.delivered)
    about = "What telemetry waits for; no sample while it goes"
    waits = () if state.why is None else (Sample(1, {"why": state.why}),)
    yield Family("edgefleet_sync_waits", "gauge", about, waits)


def _shelves(
    name: str, kind: Literal["counter", "gauge"], about: str, events: Mapping[str, int]
) -> Family:
    samples = tuple(Sample(count, {"shelf": shelf}) for shelf, count in events.items())
    return Family(name, kind, about, samples)


def _gauge(name: str, about: str, value: float) -> Family:
    return Family(name, "gauge", about, (Sample(value),))


def _counter(name: str, about: str, value: float) -> Family:
    return Family(f"{name}_total", "counter", about, (Sample(value),))
