"""What tests of Edge Manager's API share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def contract(contracts: Path) -> Path:
    """AWS's own definitions."""
    return contracts / "edgemanager" / "agent.proto"
