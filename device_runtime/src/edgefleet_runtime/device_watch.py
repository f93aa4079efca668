"""The whole watch of a device, put together: tap, thread, and the parts that look."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgefleet_runtime.redaction import Redactor
from edgefleet_runtime.spool.recorders import SpoolRecorder
from edgefleet_runtime.watch.capturing import Capturer
from edgefleet_runtime.watch.first import First
from edgefleet_runtime.watch.keeping import Keeper
from edgefleet_runtime.watch.rule_parts import rule_parts
from edgefleet_runtime.watch.sketching import Sketcher
from edgefleet_runtime.watch.tap import Tap
from edgefleet_runtime.watch.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from edgefleet.protocol.bundle import TensorSpec
    from edgefleet_runtime.reconciler.slot import Slot
    from edgefleet_runtime.serve.table import ModelTable
    from edgefleet_runtime.spool.spool import Spool
    from edgefleet_runtime.watch.actions.settings import ActionSettings

FOLDER = "watch"


class DeviceWatch:
    """What a device looks for in what it serves and hears.

    Args:
        table: the models that answer requests.
        spool: keeps what is found.
        slots: gives the releases in memory: their bundles hold the references of drift.
        root: the runtime's folder.
        settings: what alarms may do on this device.
        clock: monotonic seconds.
        now: seconds since 1970.

    Attributes:
        tap: takes requests that shadows have answered, and readings.
        watch: the thread.
        redactor: of everything that is stored of inputs.
        keeper: writes samples.
    """

    def __init__(
        self,
        table: ModelTable,
        spool: Spool,
        slots: Callable[[], Iterable[Slot | None]],
        root: Path,
        settings: ActionSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._slots = slots
        self.redactor = Redactor(spool.tell)
        self._sketcher = Sketcher(spool, self._references, root / FOLDER, clock=clock, now=now)
        self.keeper = Keeper(SpoolRecorder(spool), self.redactor, self._specs)
        capturer = Capturer(self.keeper, spool.tell)
        rules = rule_parts(
            spool, settings, began=lambda rule, model: first.began(rule, model, clock())
        )
        self._actions = rules.actions
        first = First(rules.alarms, spool.tell, drifted=self._sketcher.drifted)
        self.tap = Tap(table, first, clock=clock, now=now)
        self.watch = Watch(
            self.tap,
            (rules.windows, rules.readings, self._sketcher, capturer),
            tell=spool.tell,
            drifted=self._sketcher.drifted,
            clock=clock,
            now=now,
        )

    def checkpoint(self) -> None:
        """Look at all that waits, and let it outlive the process; without the thread."""
        self.watch.work()
        self._sketcher.save()
        self.keeper.flush()

    def settle(self) -> None:
        """Forget events that the spool has made safe; after both have ended."""
        self._sketcher.settle()

    def finish(self, timeout_s: float) -> bool:
        """The end of a process that never started the thread; False where actions take longer."""
        self.tap.close()
        self.watch.finish()
        return self._actions.close(timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """End the thread, and what alarms do; False when that takes longer."""
        until = time.monotonic() + timeout_s
        stopped = self.watch.stop(timeout_s)
        return self._actions.close(max(0.0, until - time.monotonic())) and stopped

    def _references(self, bundle: str, variant: str) -> Mapping[str, Any]:
        for slot in self._slots():
            for unit in () if slot is None else tuple(slot.units.values()):
                if (unit.part.model.bundle, unit.part.variant.name) == (bundle, variant):
                    return unit.part.details.sketches
        return {}

    def _specs(self, model: str) -> Mapping[str, TensorSpec]:
        for served in self._table:
            if served.name == model:
                return {spec.name: spec for spec in served.model.interface.inputs}
        return {}
