"""What every test of the workspace may ask for."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Two cores shared with other work: a slow example is no failure.
hypothesis.settings.register_profile(
    "edgefleet", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
if not os.environ.get("CI"):  # there hypothesis has a profile of its own: reproducible, no deadline
    hypothesis.settings.load_profile("edgefleet")


MAX_SAID = 20_000  # characters of a failed child that are shown
# A child that crashes in native code then says where, as pytest has it for this process.
os.environ.setdefault("PYTHONFAULTHANDLER", "1")
# Threads of linear algebra wait for each other by spinning: where there are more processes than
# cores, training a small network takes several times the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Many tests give a process a home of its own, in which matplotlib would look at every font anew.
os.environ.setdefault("MPLCONFIGDIR", str(Path(__file__).parent / ".pytest_cache" / "matplotlib"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--live``: run the tests that need a real account or cluster."""
    parser.addoption("--live", action="store_true", help="run what needs a real account, too")


TOGETHER = frozenset(
    {
        "device_runtime/tests/node/test_kill.py",  # devices of each kind that have run before
        "providers/aws/tests/test_wheelhouse.py",  # the wheels
        "tests/end_to_end/test_vessel.py",  # five days at sea
        "tests/optimization/test_optimize.py",  # a bundle
        "tests/runtime_archive/",  # the archive of a runtime
    }
)
"""Files, or folders with a slash, whose tests share something dear: one process makes it once."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Any:  # noqa: ANN401 - untyped
    """Each test goes to whichever process is free, except that those of `TOGETHER` stay so.

    xdist's own marker for that, ``xdist_group``, has no effect under pytest 9.
    """
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - pytest runs without it, too

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc] # it has no types
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file[: file.rindex("/") + 1] if "/" in file else file
            return next((one for one in (file, folder) if one in TOGETHER), nodeid)

    return Scheduling(config, log)


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
