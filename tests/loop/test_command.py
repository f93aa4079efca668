"""``edgefleet loop``: one command that goes on, also after SIGKILL."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.loop import lease
from edgefleet.loop.record import STEPS
from edgefleet.testing.waiting import eventually
from tests.loop.captured import capture, label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.loop.conftest import MakeWorld
    from tests.loop.world import World

LIMIT_S = 120.0  # for what a loaded machine may take


@pytest.fixture
def filed(make_world: MakeWorld) -> World:
    """A world whose samples and labels lie in files."""
    world = make_world(
        dataset={"least": 40, "labels": "labelled"}, lease_s=1.0, approval="required"
    )
    world.now = datetime.now(UTC)
    world.converge()
    label(world, capture(world, 60, at=world.now), at=world.now)
    return world


@pytest.fixture
def started(filed: World) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``edgefleet loop …`` in the world's folder; all have ended after the test."""
    children: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edgefleet.cli", "loop", *arguments]
        child = subprocess.Popen(
            command,
            cwd=filed.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "XDG_CACHE_HOME": str(filed.folder / "cache")},
        )
        children.append(child)
        return child

    yield start
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        child.communicate()


def reached(world: World, step: str) -> bool:
    """Whether the turn is at a step, or past it."""
    record = lease.read(world.fleet.state, "keep-signs")
    if record is None or (record.turn is None and not record.history):
        return False
    if record.turn is None:
        return True
    return STEPS.index(record.turn.step) >= STEPS.index(step)


def told(child: subprocess.Popen[str], expect: int) -> tuple[str, str]:
    out, error = child.communicate(timeout=LIMIT_S)
    assert child.returncode == expect, f"{out}\n{error}"
    return out, error


def facts(child: subprocess.Popen[str], expect: int) -> Any:
    return json.loads(told(child, expect)[0])


def test_killed_at_several_points_the_command_goes_on_and_does_everything_once(
    filed: World, started: Callable[..., subprocess.Popen[str]]
) -> None:
    for step in ("train", "optimize", "push", "approve"):
        child = started("run", "loop.yaml", "--wait", "--poll", "0.1")
        eventually(partial(reached, filed, step))
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=LIMIT_S)
    eventually(
        lambda: reached(filed, "approve"),
        meanwhile=lambda: started("run", "loop.yaml").communicate(),
    )
    filed.loop().approve(filed.fleet)
    for step in ("shadow", "promote"):
        child = started("run", "loop.yaml", "--wait", "--poll", "0.1")
        eventually(partial(reached, filed, step), meanwhile=lambda: filed.converge(compared=60))
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=LIMIT_S)
    last = started("run", "loop.yaml", "--wait", "--poll", "0.1", "--json")
    eventually(lambda: last.poll() is not None, meanwhile=lambda: filed.converge(compared=60))
    found = json.loads(last.communicate()[0])
    assert last.returncode == 0
    assert {"promoted"} >= {turn["outcome"] for turn in found["history"]}
    assert filed.counts() == (1, 2, ["deploy", "deploy", "deploy"])
    assert filed.serving == {"active": "2"}


def test_what_must_be_waited_for_has_an_exit_code_of_its_own(
    filed: World, started: Callable[..., subprocess.Popen[str]]
) -> None:
    eventually(
        lambda: reached(filed, "approve"),
        meanwhile=lambda: told(started("run", "loop.yaml"), expect=7),
    )
    waits = facts(started("run", "loop.yaml", "--json"), expect=7)
    assert (waits["state"], waits["turn"]["step"]) == ("waiting", "approve")
    out, _ = told(started("approve", "loop.yaml", "--reason", "looked"), expect=0)
    assert "signs:2 is approved" in out
    assert facts(started("run", "loop.yaml", "--json"), expect=7)["turn"]["step"] == "shadow"
    ended = facts(started("discard", "loop.yaml", "--reason", "no", "--json"), expect=0)
    assert (ended["state"], ended["why"]) == ("discarded", "tester wants it: no")
    assert filed.serving == {"active": "1"}


def test_the_status_tells_triggers_and_figures(
    filed: World, started: Callable[..., subprocess.Popen[str]]
) -> None:
    out, _ = told(started("status", "loop.yaml"), expect=0)
    assert "labelled   60 of 40 new labelled samples: holds" in out
    assert lease.read(filed.fleet.state, "keep-signs") is None


def test_another_process_at_work_has_an_exit_code_of_its_own(
    filed: World, started: Callable[..., subprocess.Popen[str]]
) -> None:
    with lease.Held(filed.fleet.state, "keep-signs", model="signs", ttl_s=6.0) as held:
        _, error = told(started("run", "loop.yaml"), expect=8)
    assert held.holder in error


def test_a_loop_s_file_that_is_wrong_is_told(
    filed: World, started: Callable[..., subprocess.Popen[str]]
) -> None:
    filed.write_spec(gruops=["line-3"])
    _, error = told(started("run", "loop.yaml"), expect=1)
    assert "gruops: is unknown" in error
