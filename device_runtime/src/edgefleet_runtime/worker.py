"""The reconciler's thread: look outside, act once, report, and wait for the next thing to do."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgefleet.protocol.report import Health, Report
from edgefleet_runtime import __version__
from edgefleet_runtime.notify import Pulse
from edgefleet_runtime.reconciler.machine import condition
from edgefleet_runtime.report import host
from edgefleet_runtime.report.reporter import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgefleet_runtime.channels.base import Channel
    from edgefleet_runtime.reconciler.driver import Driver
    from edgefleet_runtime.spool.spool import Spool
    from edgefleet_runtime.store.blobs import BlobStore
    from edgefleet_runtime.store.fetch import Fetcher
    from edgefleet_runtime.upgrade.upgrader import Upgrader

_log = logging.getLogger(__name__)

LONGEST_WAIT_S = 5.0  # between two turns: figures that nobody announces are looked at so often
TROUBLE_S = 1.0  # after a turn that failed for a reason nobody foresaw
WORK_S = 1800.0  # longest that work may take without a sign: opening a large model on a slow card
WAKE_S = 60.0  # longest that a wait may last beyond what was asked for, on a device that is busy


class Worker:
    """Runs a driver in a thread of its own and reports what it does.

    Args:
        driver: decides and acts.
        channel: wakes the thread, and takes the reports.
        store: for its figures.
        fetcher: likewise.
        spool: likewise.
        root: the folder whose disk is reported.
        labels: of the device.
        endpoint: gives the address that the device serves on.
        upgrader: of the runtime itself, for its troubles; None where there is none.
        pulse: hears of the thread's progress; what works for long should beat it too.
    """

    def __init__(
        self,
        *,
        driver: Driver,
        channel: Channel,
        store: BlobStore,
        fetcher: Fetcher,
        spool: Spool,
        root: Path,
        labels: Mapping[str, str],
        endpoint: Callable[[], str],
        pid: int,
        upgrader: Upgrader | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self._pulse = Pulse() if pulse is None else pulse
        self.stopping = threading.Event()
        self._driver = driver
        self._channel = channel
        self._store = store
        self._fetcher = fetcher
        self._spool = spool
        self._root = root
        self._labels = dict(labels)
        self._endpoint = endpoint
        self._pid = pid
        self._upgrader = upgrader
        self._started = datetime.now(UTC)
        self._reporter: Reporter | None = None
        self._restored = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    @property
    def latest(self) -> bytes:
        """The newest report as it was sent, or should have been; empty before the first."""
        return self._reporter.latest if self._reporter is not None else b""

    @property
    def ready(self) -> bool:
        """Whether a release answers requests."""
        return self._restored.is_set() and self._driver.state.running is not None

    @property
    def settled(self) -> bool:
        """Whether a release answers requests, or the channel was asked and has none for here."""
        outside = self._driver.outside
        asked = outside.live and not outside.given
        return self.ready or (asked and self._driver.state.pointer is None)

    def healthy(self) -> bool:
        """Whether the thread runs and makes progress."""
        return self._thread.is_alive() and not self._pulse.late()

    def working(self) -> None:
        """Note that long work gets on."""
        self._pulse.beat(WORK_S)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end soon; any thread may call it."""
        self.stopping.set()
        self._channel.wake()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; False when it is still busy after ``timeout_s`` seconds."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def once(self, timeout_s: float) -> bool:
        """In place of `start`: act until nothing is left to do or the time is up, then report.

        Returns:
            Whether the report was delivered.
        """
        driver = self._driver
        alarm = threading.Timer(timeout_s, self.stop)  # breaks off what takes longer
        alarm.daemon = True
        alarm.start()
        driver.restore()
        self._restored.set()
        self._reporter = reporter = self._new_reporter()
        while not self.stopping.is_set():
            driver.poll()
            if driver.step():
                continue
            if condition(driver.state) != "waiting":
                break
            due_s = driver.due_in_s()
            self._channel.wait(LONGEST_WAIT_S if due_s is None else min(due_s, LONGEST_WAIT_S))
        alarm.cancel()
        driver.poll()  # a release that serves counts as good by now
        driver.close()
        reporter.turn(last=True)
        return reporter.delivered

    def _new_reporter(self) -> Reporter:
        return Reporter(
            self._channel,
            self._now,
            self._measured,
            heartbeat_s=lambda: self._driver.telemetry.heartbeat_s,
            starts=self._driver.memory.starts,
        )

    def _run(self) -> None:
        driver = self._driver
        self.working()
        try:
            driver.restore()
        except Exception:  # noqa: BLE001 - a device that can't remember can still be told what to run
            _log.exception("restoring what ran before")
        self._restored.set()
        self._reporter = reporter = self._new_reporter()
        while not self.stopping.is_set():
            try:
                self._turn(reporter)
            except Exception:  # noqa: BLE001 - what serves goes on serving
                _log.exception("reconciling")
                self._rest()
        driver.close()
        reporter.turn(last=True)

    def _rest(self) -> None:
        """Wait after trouble, be it the channel's own: without this thread nothing is followed."""
        try:
            self._channel.wait(TROUBLE_S)
        except Exception:  # noqa: BLE001 - the turn before has told of it
            self.stopping.wait(TROUBLE_S)

    def _turn(self, reporter: Reporter) -> None:
        self.working()
        self._driver.poll()
        due_s = reporter.turn()  # before the step: a fetch may take hours
        if not self._driver.step() and not self._driver.improve():
            other_s = self._driver.due_in_s()
            self._pulse.beat(LONGEST_WAIT_S + WAKE_S)
            self._channel.wait(
                min(due_s, LONGEST_WAIT_S, LONGEST_WAIT_S if other_s is None else other_s)
            )

    def _errors(self) -> tuple[str, ...]:
        trouble = "" if self._upgrader is None else self._upgrader.trouble
        return (*((trouble,) if trouble else ()), *self._driver.errors)

    def report(self) -> Report:
        """The device as it is now, without a number."""
        return self._measured(self._now())

    def _now(self) -> Report:
        """The same without what takes long to measure."""
        driver = self._driver
        state, pointer = driver.state, driver.state.pointer
        sync = self._spool.sync.state
        return Report(
            sequence=0,
            time=datetime.now(UTC),
            state=condition(state),
            runtime=__version__,
            health=Health(
                pid=self._pid,
                started=self._started,
                starts=driver.memory.starts,
                spool_bytes=self._spool.used_bytes,
                bytes_fetched=self._fetcher.bytes_fetched,
                events_dropped=self._spool.dropped,
                pointer_lag_s=driver.outside.lag_s,
                sync=sync.why,
                synced=None
                if sync.delivered is None
                else datetime.fromtimestamp(sync.delivered, UTC),
            ),
            fleet=pointer.fleet if pointer else state.fleet,
            epoch=pointer.epoch if pointer else 0,
            number=pointer.number if pointer else 0,
            wanted=state.wanted,
            running=state.running,
            models=driver.models(),
            access=driver.outside.access,
            labels=self._labels,
            endpoint=None if self.stopping.is_set() else self._endpoint() or None,
            errors=self._errors(),
            rolled_back=state.order,
            reverted=None if self._upgrader is None else self._upgrader.reverted,
        )

    def _measured(self, report: Report) -> Report:
        return replace(
            report,
            health=replace(
                report.health,
                rss_bytes=host.rss_bytes(),
                disk_free_bytes=host.disk_free_bytes(self._root),
                store_bytes=self._store.used_bytes(),
            ),
        )
