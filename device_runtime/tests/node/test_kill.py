"""Power cuts: the process is killed at every point of fetch, store, state, swap and spool.

After each, what is on the disk must start as the old release or the new one, as a whole, without
any source; every blob must be what its name says; and with the source back it must converge.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from device_runtime.tests.node.cuts import (
    PADDING,
    GoingBack,
    Ordering,
    Template,
    Unloading,
    cuts,
)
from device_runtime.tests.node.device import RECORD, Device, publish
from device_runtime.tests.node.improving import Building, Trying
from device_runtime.tests.support import Repository
from edgefleet.protocol.digest import digest_of
from edgefleet.testing.waiting import eventually

Templates = Callable[[type[Template]], Template]
"""Gives a template of that kind, made once."""

# A point, and the how-manieth time: restoring the old release (two models) passes some of them too,
# and the state is written at the start, for the pointer, for the trial and for the swap.
POINTS = (
    "fetch.before",
    "fetch.chunk",
    "fetch.chunk:6",
    "fetch.chunk:8",
    "fetch.complete:3",
    "fetch.synced",
    "fetch.renamed",
    "fetch.renamed:6",
    "store.laid-out:3",
    "model.verified:4",
    "model.loaded:3",
    "model.warmed:3",
    "model.tested:4",
    "pointer.taken",
    *(f"state.saving:{n}" for n in (2, 3, 4)),
    *(f"state.json.written:{n}" for n in (1, 2, 3, 4)),
    *(f"state.json.renamed:{n}" for n in (1, 2, 3, 4)),
    "swap.saved",
    "swap.done",
)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    made: dict[type[Template], Template] = {}

    def template(kind: type[Template]) -> Template:
        if kind not in made:
            made[kind] = kind(tmp_path_factory.mktemp(kind.__name__))
        return made[kind]

    return template


@pytest.fixture(scope="module")
def template(templates: Templates) -> Template:
    return templates(Template)


@pytest.mark.parametrize("fault", POINTS)
def test_a_power_cut_leaves_the_old_release_or_the_new_one(
    template: Template, tmp_path: Path, fault: str
) -> None:
    device = template.copy(tmp_path)
    device.start(fault=fault)
    assert device.ended() == -signal.SIGKILL
    template.check(device)


@pytest.mark.parametrize(
    "kind, fault",
    [
        (Unloading, "swap.unloaded"),
        (Unloading, "swap.saved"),
        (GoingBack, "back.swapped"),
        (Ordering, "back.swapped"),
        (Ordering, "state.json.written:5"),
        (Ordering, "state.json.renamed:5"),
        *((Trying, f"trial.{step}") for step in ("noted", "fetched", "loaded", "timed", "swapped")),
        *((Trying, f"figures.json.{step}") for step in ("written", "renamed")),
        (Trying, "figures.saving:3"),
        (Building, "build.begun"),
        (Building, "trial.loaded"),
        (Building, "trial.swapped"),
    ],
)
def test_a_power_cut_of_what_is_rarely_done_leaves_what_serves(
    templates: Templates, tmp_path: Path, kind: type[Template], fault: str
) -> None:
    template = templates(kind)
    device = template.copy(tmp_path)
    device.start(fault=fault)

    def dead() -> bool:
        template.converged(device)  # asks what brings the device there
        return device.process is None or device.process.poll() is not None

    eventually(dead, device.log)
    assert device.ended() == -signal.SIGKILL
    template.check(device)


def test_a_power_cut_while_room_is_made_leaves_the_old_release(
    template: Template, tmp_path: Path
) -> None:
    device = template.copy(tmp_path, "--store-max-bytes", str(2 * PADDING + 150_000))
    leftover = b"x" * 200_000  # of some release before
    (device.data / "blobs" / "sha256" / digest_of(leftover)[7:]).write_bytes(leftover)
    device.start(fault="store.evicted")
    assert device.ended() == -signal.SIGKILL
    template.check(device)


def test_power_cut_after_power_cut_the_device_still_converges(
    template: Template, tmp_path: Path
) -> None:
    device = template.copy(tmp_path)
    for fault in ("fetch.chunk", "fetch.renamed:2", "fetch.chunk:4", "swap.saved", "fetch.before"):
        device.start(fault=fault)
        if fault == "fetch.before":  # nothing is left to fetch
            break
        assert device.ended() == -signal.SIGKILL
    report = device.active(template.new)
    assert report.health.starts == 6
    assert report.health.bytes_fetched == 0
    device.kill()


KILLS = 5  # a part


@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("kind", [Template, Unloading, GoingBack, Ordering, Trying, Building])
def test_power_cuts_at_any_point_leave_the_old_release_or_the_new_one(
    templates: Templates, tmp_path: Path, kind: type[Template], part: int
) -> None:
    template = templates(kind)
    seed = random.Random(f"{kind.__name__} {part}")
    for cut in cuts(template, tmp_path, seed, KILLS):
        template.check(cut.device)


@pytest.mark.parametrize(
    "fault",
    ["spool.appended", "spool.packed", "sync.uploading", "sync.uploaded", "sync.forgotten"],
)
def test_a_power_cut_in_the_spool_loses_no_prediction_and_repeats_none(
    tmp_path: Path, fault: str
) -> None:
    repository = Repository(tmp_path / "fleet")
    release = repository.release({"digits": publish(repository, 2)}, telemetry=RECORD)
    repository.point(release)
    device = Device(tmp_path / "cam-07", repository)
    device.start(fault=fault).active(release)
    with device.client() as client:
        for _ in range(6):
            client.factor()
    if fault != "spool.appended":  # it dies when it sends what it has
        device.signal(signal.SIGTERM)
    assert device.ended() == -signal.SIGKILL
    with device.start():
        device.active(release)
        eventually(lambda: device.recorded() == 6)
