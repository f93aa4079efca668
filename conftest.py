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


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--live``: run the tests that need a real account or cluster."""
    parser.addoption("--live", action="store_true", help="run what needs a real account, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs a real account where nobody asked for it."""
    if config.getoption("--live"):
        return
    skipped = pytest.mark.skip(reason="needs a real account or cluster, and --live")
    for item in items:
        if "live" in item.keywords:
            item.add_marker(skipped)


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
