"""The actions' own threads: begun at once, once each time an alarm begins, bounded, told if failed.

Rules kept here:

- Handing an action over takes a short critical section. Then, now and then, the thread that hands
  over gives way for a moment: else the action would wait for Python's lock, or for a core.
- Each action is tried once. What fails, what the device refuses and what finds no room is told as a
  health event, at most once a minute for each alarm and target. The alarm's own event doesn't
  depend on it.
- Threads begin with the first action, so a device without any pays nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import AccessDeniedError, ConfigurationError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Alarm, HealthEvent
from edgefleet_runtime.watch.actions.append import append
from edgefleet_runtime.watch.actions.broker import publish
from edgefleet_runtime.watch.actions.registered import registered_action
from edgefleet_runtime.watch.actions.webhook import post

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.protocol.event import Event
    from edgefleet.protocol.policy import Action, AlarmRule
    from edgefleet_runtime.rules.judge import Tell
    from edgefleet_runtime.watch.actions.registered import Registered
    from edgefleet_runtime.watch.actions.settings import ActionSettings

THREADS = 2
MAX_WAITING = 256  # actions
GIVE_WAY_S = 50e-6  # and what the system adds: as long as it takes the other thread to begin
APART_S = 0.01  # between two moments of giving way, so that they cost serving 1 % at most
TELL_S = 60.0  # between two health events about the same
MAX_TOLD = 256  # alarms and targets whose last failure is remembered

_log = logging.getLogger(__name__)


class _Task(NamedTuple):
    rule: str
    action: Action
    event: Event


class Actions:
    """Carries out what alarms ask for.

    Args:
        settings: what the device allows.
        tell: takes health events, on any thread.
        clock: monotonic seconds.
        give_way: lets other threads run for so many seconds.
    """

    def __init__(
        self,
        settings: ActionSettings,
        tell: Tell,
        *,
        clock: Callable[[], float] = time.monotonic,
        give_way: Callable[[float], object] = time.sleep,
    ) -> None:
        self._settings = settings
        self._tell = tell
        self._clock = clock
        self._give_way = give_way
        self._gave_way_at = clock() - APART_S
        self._found: dict[str, Registered] = {}
        self._waiting: deque[_Task] = deque()
        self._told: dict[tuple[str, str], float] = {}
        self._telling = threading.Lock()
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []

    def act(self, rule: AlarmRule, event: Event) -> None:
        """Begin a rule's actions; waits for none of them."""
        for action in rule.actions:
            task = _Task(rule.name, action, event)
            with self._changed:
                fits = len(self._waiting) < MAX_WAITING and not self._closed
                if fits:
                    self._waiting.append(task)
                    self._changed.notify()
            if not fits:
                self._failed(task, "action-dropped", "too many others wait")
        if not self._threads and not self._closed:
            self._start()
        now = self._clock()
        if rule.actions and now - self._gave_way_at >= APART_S:
            self._gave_way_at = now
            self._give_way(GIVE_WAY_S)

    def close(self, timeout_s: float) -> bool:
        """Finish what waits; False when that takes longer, and then the rest is let go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            left, self._waiting = self._waiting, deque()
        for task in left:
            self._failed(task, "action-dropped", "the runtime stops")
        return not any(thread.is_alive() for thread in self._threads)

    def _start(self) -> None:
        for number in range(THREADS):
            name = f"action-{number}"
            self._threads.append(threading.Thread(target=self._run, name=name, daemon=True))
            self._threads[-1].start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                task = self._waiting.popleft()
            try:
                self._perform(task)
            except (AccessDeniedError, ConfigurationError) as error:
                self._failed(task, "action-refused", str(error))
            except Exception as error:  # noqa: BLE001 - a registered action raises anything
                self._failed(task, "action-failed", f"{type(error).__name__}: {error}")

    def _perform(self, task: _Task) -> None:
        """Carry out one action.

        Raises:
            AccessDeniedError: the device doesn't allow it.
            ConfigurationError: something that it needs isn't there.
            Exception: it failed.
        """
        settings, action = self._settings, task.action
        match action.kind:
            case "webhook":
                post(
                    action.target,
                    encode(task.event),
                    timeout_s=settings.timeout_s,
                    hosts=settings.hosts,
                )
            case "mqtt":
                publish(
                    action.target,
                    encode(task.event),
                    timeout_s=settings.timeout_s,
                    hosts=settings.hosts,
                )
            case "file":
                line = encode(task.event)
                append(settings.folder, action.target, line, max_bytes=settings.file_max_bytes)
            case "run":
                alarm = task.event.payload()
                assert isinstance(alarm, Alarm)  # noqa: S101 - only alarms come here
                self._registered(action.target)(alarm)

    def _registered(self, name: str) -> Registered:
        """The action of that name, looked for once: entry points are read from the disk.

        Raises:
            AccessDeniedError: the device doesn't allow it.
            ConfigurationError: it can't be imported.
        """
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = registered_action(name, self._settings.registered)
        return found

    def _failed(self, task: _Task, what: str, why: str) -> None:
        message = f"{task.rule}: {task.action.kind} {task.action.target}: {why}"[:1024]
        _log.warning("%s: %s", what, message)
        place = (task.rule, task.action.target)
        with self._telling:
            told, now = self._told.get(place), self._clock()
            if told is not None and now - told < TELL_S:
                return
            if len(self._told) >= MAX_TOLD:
                self._told.clear()
            self._told[place] = now
        self._tell(HealthEvent(what=what, message=message))
