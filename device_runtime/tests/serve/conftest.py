"""What tests of serving share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.serving import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()
