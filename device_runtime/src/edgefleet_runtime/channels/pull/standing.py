"""How a device stands with its gateway: what the last calls met, in the words of a report."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgefleet.errors import AccessDeniedError, AccessExpiredError, ThrottledError
from edgefleet.protocol.report import MAX_TEXT, AccessReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.errors import EdgeFleetError


class Standing:
    """What is known; any thread may tell and ask.

    Args:
        changed: called when it has become another.
        remark: what is to be said beside it; None for nothing.
    """

    def __init__(
        self,
        changed: Callable[[], None] = lambda: None,
        *,
        remark: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._changed, self._remark = changed, remark
        self._lock = threading.Lock()
        self._said = AccessReport(state="unknown", detail="the gateway was not reached yet")

    def report(self) -> AccessReport:
        """As a report has it."""
        said, remark = self._said, self._remark()
        detail = "; ".join(part for part in (said.detail, remark) if part)
        return AccessReport(state=said.state, detail=detail[:MAX_TEXT] or None)

    def went_well(self) -> None:
        """The gateway gave this device what it asked for."""
        self._tell(AccessReport(state="ok"))

    def met(self, error: EdgeFleetError) -> None:
        """A call failed: the state is what it means for all others."""
        if isinstance(error, ThrottledError):
            return  # it is there, and busy
        if isinstance(error, AccessExpiredError):
            state = "expired"
        else:
            state = "denied" if isinstance(error, AccessDeniedError) else "unknown"
        detail = error.message if error.cure is None else f"{error.message}; {error.cure}"
        self._tell(AccessReport(state=state, detail=detail[:MAX_TEXT]))  # type: ignore[arg-type]

    def _tell(self, said: AccessReport) -> None:
        with self._lock:
            before, self._said = self._said, said
        if said.state != before.state:
            self._changed()
