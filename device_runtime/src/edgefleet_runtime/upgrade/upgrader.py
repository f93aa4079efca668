"""Brings the device another runtime when its channel offers one, and proves itself when it is new.

Rules kept here:

- One that was offered is installed beside the one that runs; the process then ends with `RESTART`,
  and the start script starts the new one, a few times at most.
- The new one keeps its place once it serves what was served before, and has reached its fleet: one
  that reached nobody could never be replaced. Otherwise it goes back, and says why.
- What failed is not tried again before another is ordered.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edgefleet.errors import CancelledError, EdgeFleetError, IntegrityError
from edgefleet.protocol.report import MAX_TEXT
from edgefleet_runtime.retry import RetryTimer
from edgefleet_runtime.upgrade.installing import Installer
from edgefleet_runtime.upgrade.offers import own_platform, wanted
from edgefleet_runtime.upgrade.places import STARTS, Kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.protocol.report import RevertedRuntime
    from edgefleet_runtime.channels.base import Channel
    from edgefleet_runtime.store.bandwidth import Bandwidth
    from edgefleet_runtime.upgrade.offers import Wanted
    from edgefleet_runtime.upgrade.places import Places

RESTART = 79  # exit status: start me again, there may be another runtime
SERVES_S = 600.0  # that a new runtime has to serve what was served before
REACHES_S = 3600.0  # and to reach its fleet: networks have hours of their own
LOOK_S = 1.0
_log = logging.getLogger(__name__)


class Condition(NamedTuple):
    """How this process is.

    Attributes:
        serves: whether a release answers requests.
        reached: whether the fleet was reached.
    """

    serves: bool
    reached: bool


class Upgrader:
    """One device's upgrades, in a thread of its own.

    Args:
        places: the folder of the runtimes.
        channel: offers them.
        device: this device's name.
        condition: tells how this process is; any thread may ask.
        healthy_after_s: seconds that a new runtime must be well without a break.
        bandwidth: the limit of the link; None for none.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        places: Places,
        channel: Channel,
        *,
        device: str,
        condition: Callable[[], Condition],
        healthy_after_s: float,
        bandwidth: Bandwidth | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trouble = ""
        """Why an offered runtime can't be had now; empty for nothing."""
        self.restart = False
        """Whether this process ends so that another runtime can be started."""
        self._places, self._channel, self._device = places, channel, device
        self._condition, self._healthy_after_s = condition, healthy_after_s
        self._clock = clock
        self._stopping, self._news = threading.Event(), threading.Event()
        self._retry = RetryTimer(clock)
        self._began = clock()
        self._well_since: float | None = None
        self._installer = Installer(
            places, channel, stopped=self._stopping.wait, bandwidth=bandwidth
        )
        self._thread = threading.Thread(target=self._run, name="upgrade", daemon=True)
        self._end: Callable[[], object] = lambda: None
        self._kept = places.load()
        self._note()

    @property
    def reverted(self) -> RevertedRuntime | None:
        """The runtime that was taken back here, for the report."""
        return None if self._kept is None else self._kept.reverted

    def start(self, end: Callable[[], object]) -> None:
        """Begin to work.

        Args:
            end: ends this process in order; called once, by the thread, after `restart` was set.
        """
        self._end = end
        self._channel.on_offer = self._news.set
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Break off what is under way; False when it is still busy after ``timeout_s`` seconds."""
        self._stopping.set()
        self._news.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ------------------------------------------------------------------------- one turn of each

    def prove(self) -> bool | None:
        """As a runtime on trial: whether it may stay; None while that isn't known."""
        now, seen = self._clock(), self._condition()
        must_serve = self._kept is not None and self._kept.served
        serves = seen.serves or not must_serve
        if not (serves and seen.reached):
            self._well_since = None
        elif self._well_since is None:
            self._well_since = now
        if self._well_since is not None:
            if now - self._well_since < self._healthy_after_s:
                return None
            self._places.keep_own()
            _log.info("this runtime stays: %s", self._places.own)
            return True
        lasted = now - self._began
        if not serves and lasted >= SERVES_S:
            self._give_up(f"it didn't serve within {SERVES_S:g} s")
        elif lasted >= REACHES_S:
            self._give_up(f"it didn't reach its fleet within {REACHES_S:g} s")
        else:
            return None
        return False

    def follow(self) -> bool:
        """Do what the offer of now asks for; True when this process should end for it.

        Raises:
            CancelledError: the process ends.
            EdgeFleetError: not now; call again later.
        """
        offer = self._channel.offered_runtime()
        found = wanted(
            offer,
            device=self._device,
            machine=own_platform(),
            own=self._places.own,
            kept=self._kept,
        )
        if found is None:
            return False
        _log.info("the runtime %s is offered", found.runtime)
        kept = self._new(found)
        try:
            self._installer.install(found)
        except IntegrityError as error:
            self._remember(kept, error.message)
            return False
        self._kept = kept
        self._places.save(kept)
        self._places.try_next(found.name)
        return True

    def _new(self, found: Wanted) -> Kept:
        return Kept(
            order=found.order,
            name=found.name,
            runtime=found.runtime,
            served=self._condition().serves,
        )

    def _note(self) -> None:
        """Remember what the start script had to do; a disk that takes nothing delays only that."""
        kept, name = self._kept, self._places.given_up()
        if not name:
            return
        try:
            if name != self._places.own and kept is not None and kept.name == name:
                if not kept.failed:
                    self._remember(kept, f"it ended {STARTS} times before it was well")
                self._places.clear({self._places.own})
            self._places.forget_given_up()
        except OSError as error:
            _log.warning("what became of a runtime can't be written down: %s", error)

    def _give_up(self, reason: str) -> None:
        _log.error("this runtime gives up: %s", reason)
        try:
            if self._kept is not None:
                self._remember(self._kept, reason)
        except OSError as error:
            _log.warning("the reason can't be written down: %s", error)
        self._places.give_up_trial()

    def _remember(self, kept: Kept, reason: str) -> None:
        _log.warning("the runtime %s is not for this device: %s", kept.runtime, reason)
        self._kept = msgspec.structs.replace(kept, failed=reason[:MAX_TEXT])
        self._places.save(self._kept)

    # -------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            if self._places.on_trial and not self._proven():
                return
            self._news.set()  # what was offered before anybody listened
            while not self._stopping.is_set():
                self._news.wait(self._retry.due_in_s())
                self._news.clear()
                if not self._stopping.is_set() and self._followed():
                    self._end_process()
                    return
        except Exception:  # noqa: BLE001 - what serves goes on serving
            _log.exception("upgrading the runtime")

    def _proven(self) -> bool:
        """Wait until it is known whether this runtime may stay; False where the process ends."""
        while not self._stopping.is_set():
            try:
                stays = self.prove()
            except OSError as error:  # such as a full disk: the trial goes on
                _log.warning("the trial of this runtime can't be ended now: %s", error)
                stays = None
            if stays is False:
                self._end_process()
            if stays is not None:
                return stays
            self._stopping.wait(LOOK_S)
        return False

    def _followed(self) -> bool:
        self._retry.cancel()
        try:
            ends = self.follow()
        except CancelledError:
            return False
        except (EdgeFleetError, OSError) as error:
            why = error.message if isinstance(error, EdgeFleetError) else error.strerror
            self.trouble = f"the offered runtime can't be had: {why}"[:MAX_TEXT]
            _log.info("%s", self.trouble)
            self._retry.wait()
            return False
        self.trouble = ""
        self._retry.reset()
        return ends

    def _end_process(self) -> None:
        self.restart = True
        self._end()
