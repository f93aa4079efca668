"""What every test of the workspace may ask for."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

# Two cores shared with other work: a slow example is no failure.
hypothesis.settings.register_profile("edgefleet", deadline=None)
if not os.environ.get("CI"):  # there hypothesis has a profile of its own: reproducible, no deadline
    hypothesis.settings.load_profile("edgefleet")


MAX_SAID = 20_000  # characters of a failed child that are shown
# A child that crashes in native code then says where, as pytest has it for this process.
os.environ.setdefault("PYTHONFAULTHANDLER", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--live``: run the tests that need a real account or cluster."""
    parser.addoption("--live", action="store_true", help="run what needs a real account, too")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what stays to the end: ten thousand tests and their modules.

    While they are collected it would find nothing, which takes a third of the time; and each full
    collection after, automatic or asked for by a test, would look at all of them again.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs a real account where nobody asked for it."""
    if config.getoption("--live"):
        return
    skipped = pytest.mark.skip(reason="needs a real account or cluster, and --live")
    for item in items:
        if "live" in item.keywords:
            item.add_marker(skipped)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a child said before it failed, which its error alone keeps to itself."""
    report = yield
    error = None if call.excinfo is None else call.excinfo.value
    if isinstance(error, subprocess.CalledProcessError | subprocess.TimeoutExpired):
        for name, said in (("stdout", error.stdout), ("stderr", error.stderr)):
            text = said.decode(errors="replace") if isinstance(said, bytes) else said
            if text:
                report.sections.append((f"{name} of the child", text[-MAX_SAID:]))
    return report


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
