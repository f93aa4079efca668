"""What a classic nucleus tells components before it changes any, and how long it waits for them.

``UpdateSystemPolicyService.java`` and ``LifecycleIPCEventStreamAgent.java`` of the nucleus at
a28341c4. Rules kept here:

- Every component that subscribed is told of every deployment, whether that touches it or not.
- The nucleus waits until all of them answered, or its policy's timeout is over; then as long as the
  longest answer says, and begins again. Nothing bounds how often.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Cancel = Callable[[], None]
    Tell = Callable[[Mapping[str, Any]], None]

TIMEOUT_S = 60.0  # of an answer, unless the deployment says otherwise (ComponentUpdatePolicy.java)


class NotAwaitedError(Exception):
    """An answer that nobody waits for, or no more."""


class Announcements:
    """Of one nucleus; lives on one event loop."""

    def __init__(self) -> None:
        self._listeners: list[tuple[str, Tell]] = []
        self._answers: dict[tuple[str, str], asyncio.Future[float]] = {}

    def subscribe(self, component: str, tell: Tell) -> Cancel:
        """Tell a component of deployments, until cancelled."""
        entry = (component, tell)
        self._listeners.append(entry)

        def cancel() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)

        return cancel

    def listens(self, component: str) -> bool:
        """Whether a component is told."""
        return any(name == component for name, _ in self._listeners)

    def answer(self, component: str, deployment: str, wait_s: float) -> None:
        """Take a component's answer.

        Raises:
            NotAwaitedError: the nucleus doesn't wait for it.
        """
        waiting = self._answers.pop((component, deployment), None)
        if waiting is None or waiting.done():
            raise NotAwaitedError
        waiting.set_result(wait_s)

    async def agreed(
        self, deployment: str, *, timeout_s: float, nucleus_restarts: bool = False
    ) -> None:
        """Tell of a deployment and wait until nobody puts it off any more."""
        event = {"deploymentId": deployment, "isGgcRestarting": nucleus_restarts}
        while True:
            wait_s = await self._asked(event, timeout_s)
            if not wait_s:
                return
            await asyncio.sleep(wait_s)

    async def _asked(self, event: Mapping[str, Any], timeout_s: float) -> float:
        self._answers.clear()
        waiting: list[asyncio.Future[float]] = []
        for component, tell in tuple(self._listeners):
            answer = asyncio.get_running_loop().create_future()
            self._answers[component, event["deploymentId"]] = answer
            waiting.append(answer)
            tell({"preUpdateEvent": event})
        if not waiting:
            return 0.0
        done, _ = await asyncio.wait(waiting, timeout=timeout_s)
        self._answers.clear()
        return max((one.result() for one in done), default=0.0)

    def done(self, deployment: str) -> None:
        """Tell that a deployment has been carried out."""
        for _, tell in tuple(self._listeners):
            tell({"postUpdateEvent": {"deploymentId": deployment}})
