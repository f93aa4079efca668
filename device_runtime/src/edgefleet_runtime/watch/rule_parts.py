"""The parts of the watch that go by declared rules, put together for a spool."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgefleet.protocol.event import new_event
from edgefleet_runtime.watch.actions.pool import Actions
from edgefleet_runtime.watch.alarms import Alarms
from edgefleet_runtime.watch.readings import ReadingEvents
from edgefleet_runtime.watch.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgefleet.protocol.event import Event, EventData
    from edgefleet_runtime.watch.actions.settings import ActionSettings


class Keeping(Protocol):
    """What a spool does with what the parts find."""

    def tell(self, data: EventData | Event) -> None:
        """Send a hot event soon, and not lose it."""

    def put(self, events: Iterable[Event]) -> int:
        """Record events."""


class RuleParts(NamedTuple):
    """The parts; those of the watch in the order in which they look.

    Attributes:
        alarms: for `edgefleet_runtime.watch.first.First`, because somebody waits for what they do.
        windows: what reduces.
        readings: what keeps single readings.
        actions: threads of what alarms do; closed after the watch.
    """

    alarms: Alarms
    windows: Windows
    readings: ReadingEvents
    actions: Actions


def rule_parts(
    spool: Keeping,
    settings: ActionSettings,
    *,
    began: Callable[[str, str | None], object] = lambda *_: None,
) -> RuleParts:
    """The parts of a device.

    Args:
        spool: keeps what they find.
        settings: what the device allows actions.
        began: as of `Alarms`.
    """
    actions = Actions(settings, spool.tell)
    return RuleParts(
        alarms=Alarms(actions.act, spool.tell, spool.tell, began=began),
        windows=Windows(
            lambda window: spool.put((new_event(window, time=window.end),)), spool.tell
        ),
        readings=ReadingEvents(lambda event: spool.put((event,)), spool.tell),
        actions=actions,
    )
