"""`edgefleet mock aws`: what it gives to a command, to a terminal, and to the next time."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

MOCK = [sys.executable, "-m", "edgefleet.cli", "mock", "aws"]
TIMEOUT_S = 240.0
LOOK = """\
import boto3
import edgefleet as ef

with ef.connect() as fleet:
    print(*(f"{device.name} in {device.group}" for device in fleet.devices()), sep="\\n")
print(*(one["thingName"] for one in boto3.client("iot").list_things()["things"]))
"""


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*MOCK, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def below(folder: Path) -> set[int]:
    """Ids of the processes that run in a folder."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if place.readlink().is_relative_to(folder):
                found.add(int(place.parent.name))
        except OSError:
            continue
    return found


def exports(process: subprocess.Popen[str]) -> dict[str, str]:
    """What it tells another terminal to export."""
    assert process.stdout is not None
    found: dict[str, str] = {}
    while "no_proxy" not in found:  # the last by name
        (said,) = shlex.split(process.stdout.readline().removeprefix("export "))
        name, _, value = said.partition("=")
        found[name] = value
    return found


def test_a_command_finds_devices_by_the_sdk_and_by_the_vendors_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [*MOCK, "--devices", "2", "--group", "line-3", "--log", "--", sys.executable, "-c", LOOK],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "dev-01 in line-3",
        "dev-02 in line-3",
        "dev-01 dev-02",
    ]
    assert "greengrassv2.CreateDeployment /greengrass/v2/deployments 201" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_signal_ends_the_devices_and_they_are_there_the_next_time(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    script = [sys.executable, "-c", LOOK]
    with started("--state", str(kept), "--devices", "1", "--group", "yard") as process:
        exported = exports(process)
        done = subprocess.run(
            script, env={**os.environ, **exported}, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines() == ["dev-01 in yard", "dev-01"]
        assert below(kept)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130
    eventually(lambda: not below(kept), "all of them end", timeout_s=TIMEOUT_S)
    done = subprocess.run(
        [*MOCK, "--state", str(kept), "--", *script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert done.stdout.splitlines() == ["dev-01 in yard", "dev-01"]
    eventually(lambda: not below(kept), "all of them end", timeout_s=TIMEOUT_S)
