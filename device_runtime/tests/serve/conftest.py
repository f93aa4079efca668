"""What tests of serving share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.serving import Gate
from edgefleet_runtime.serve import trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Together = Callable[[int], None]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Together:
    """Lets the trial of every model find that so many rows should run together."""
    return lambda rows: monkeypatch.setattr(trial, "max_rows", lambda *_: rows)
