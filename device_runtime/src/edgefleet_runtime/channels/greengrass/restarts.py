"""When a nucleus may restart the runtime: a restart waits, briefly, for a fetch or a swap to end.

A classic nucleus announces each deployment to the components that subscribed, and waits for all of
them to answer (``UpdateSystemPolicyService.java`` at a28341c4). Rules kept here:

- Every announcement gets an answer: one that stays away holds the deployment up until its policy's
  timeout, for new pointers as well.
- Only what would restart this runtime is put off. The nucleus says when it restarts itself; and
  artifacts are prepared before they are announced, so a newer version of the runtime's component
  lies beside this one by then. A version that was there before is not noticed: it isn't waited for.
- One deployment is put off for `MAX_S` in all, whatever is under way.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEP_S = 5.0  # after which the nucleus asks again
MAX_S = 60.0


class Restarts:
    """Decides how long an update waits; may be asked by several threads.

    Args:
        busy: whether something is under way that a restart would undo.
        artifacts: folder of this version's artifacts, in the folder of all versions; None where
            the component has none.
        step_s: seconds for which an update is put off at once.
        max_s: seconds for which one deployment is put off in all.
    """

    def __init__(
        self,
        busy: Callable[[], bool],
        artifacts: Path | None,
        *,
        step_s: float = STEP_S,
        max_s: float = MAX_S,
    ) -> None:
        self._busy = busy
        self._versions = None if artifacts is None else artifacts.parent
        self._known = self._there()
        self._step_s, self._left_s, self._max_s = step_s, max_s, max_s
        self._deployment = ""
        self._lock = threading.Lock()

    def wait_s(self, deployment: str, *, nucleus_restarts: bool) -> float:
        """Seconds after which the nucleus shall ask again; 0 lets it go on.

        Args:
            deployment: its id, the same each time that it is announced.
            nucleus_restarts: whether the nucleus itself, and all it runs, starts anew.
        """
        with self._lock:
            if deployment != self._deployment:
                self._deployment, self._left_s = deployment, self._max_s
            restarts = nucleus_restarts or bool(self._there() - self._known)
            if not (restarts and self._busy()):
                return 0.0
            wait_s = min(self._step_s, self._left_s)
            self._left_s -= wait_s
            return wait_s

    def _there(self) -> frozenset[str]:
        """Versions whose artifacts are on the disk."""
        if self._versions is None:
            return frozenset()
        try:
            return frozenset(path.name for path in self._versions.iterdir())
        except OSError:  # nobody may look, or nothing is there: then nothing is put off
            return frozenset()
