"""What every test of the workspace may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# Two cores shared with other work: a slow example is no failure.
hypothesis.settings.register_profile("edgefleet", deadline=None)
if not os.environ.get("CI"):  # there hypothesis has a profile of its own: reproducible, no deadline
    hypothesis.settings.load_profile("edgefleet")


@pytest.fixture(scope="session")
def contracts() -> Path:
    """The vendors' published contracts: skips where they are absent, fails where CI lacks them."""
    folder = Path(__file__).resolve().parent.parent / "shared" / "contracts"
    if not folder.is_dir():
        why = f"the vendors' contracts are not in {folder}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return folder
