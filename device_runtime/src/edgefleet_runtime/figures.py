"""A device's figures for a scraper: the same facts as in its report, as they are now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet_runtime.reconciler.machine import condition
from edgefleet_runtime.serve.prometheus import Family, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_runtime.reconciler.machine import State
    from edgefleet_runtime.spool.spool import Spool
    from edgefleet_runtime.store.blobs import BlobStore
    from edgefleet_runtime.store.fetch import Fetcher


def device_families(
    store: BlobStore, spool: Spool, fetcher: Fetcher, state: State, lag_s: float | None = None
) -> Iterator[Family]:
    """Figures of store, spool and release. Looks at the store's files."""
    yield _gauge("edgefleet_store_bytes", "Models on the disk, in bytes", store.used_bytes())
    yield _gauge("edgefleet_store_max_bytes", "Their cap", store.max_bytes)
    yield _gauge("edgefleet_spool_bytes", "Telemetry that waits, in bytes", spool.used_bytes)
    yield _counter("edgefleet_events_dropped", "Events lost for lack of room", spool.dropped)
    yield _counter("edgefleet_fetched_bytes", "Bytes of models fetched", fetcher.bytes_fetched)
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


def _gauge(name: str, about: str, value: float) -> Family:
    return Family(name, "gauge", about, (Sample(value),))


def _counter(name: str, about: str, value: float) -> Family:
    return Family(f"{name}_total", "counter", about, (Sample(value),))
