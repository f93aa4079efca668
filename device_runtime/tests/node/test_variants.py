"""A device with two variants of a real model, of which the target's rules like the slower one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.node.device import Device, times, times_with_needless_work
from device_runtime.tests.support import Repository, details
from edgefleet.protocol.release import RuntimeSettings
from edgefleet.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.protocol.report import ModelReport, Report

ENOUGH = 10_000_000


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "fleet")


@pytest.fixture
def device(tmp_path: Path, repository: Repository) -> Iterator[Device]:
    options = ("--healthy-after", "0.2", "--label", "target=any")
    made = Device(tmp_path / "cam-07", repository, *options)
    yield made
    made.kill()


def release(repository: Repository, trial_bytes: int) -> str:
    bundle = repository.bundle_of(
        [
            ({"m.onnx": model}, details(2, entry="m.onnx", variant=precision), precision, ())
            for precision, model in (("fp32", times_with_needless_work(2)), ("int8", times(2)))
        ]
    )
    settings = RuntimeSettings(trial_bytes=trial_bytes)
    made = repository.release({"digits": bundle}, settings=settings)
    repository.point(made)
    return made


def model(report: Report | None) -> ModelReport | None:
    return report.models[0] if report and report.models else None


def told(device: Device, variant: str, state: str) -> Report:
    """The first report that attests a variant, with a second one in this state."""

    def found() -> Report | None:
        report = device.report()
        about = model(report)
        if about is None or about.variant != variant or len(about.variants) != 2:
            return None
        return report if about.variants[1].state == state else None

    report: Report = eventually(found, device.log)
    return report


def test_with_bytes_for_trials_a_device_ends_on_the_faster_variant(
    device: Device, repository: Repository
) -> None:
    wanted = release(repository, ENOUGH)
    device.start()
    report = told(device, "int8", "measured")
    assert report.attests(wanted)
    about = report.models[0]
    assert "faster here than fp32" in (about.why or "")
    assert about.variants[0].p50_us is not None
    assert about.variants[1].p50_us is not None
    assert about.variants[0].p50_us < about.variants[1].p50_us
    with device.client() as client:
        assert client.factor() == 2


def test_a_restart_begins_with_the_faster_variant_and_fetches_nothing(
    device: Device, repository: Repository
) -> None:
    wanted = release(repository, ENOUGH)
    device.start()
    told(device, "int8", "measured")
    eventually(lambda: '"tries"' not in (device.data / "figures.json").read_text())
    device.kill()
    report = device.start().active(wanted)
    assert report.models[0].variant == "int8"
    assert report.health.bytes_fetched == 0


@pytest.mark.parametrize("who", ["the policy", "the device"])
def test_without_bytes_for_trials_a_device_stays_and_fetches_nothing_more(
    device: Device, repository: Repository, who: str
) -> None:
    if who == "the device":
        device.arguments = (*device.arguments, "--trial-bytes", "0")
    wanted = release(repository, 0 if who == "the policy" else ENOUGH)
    fetched = device.start().active(wanted).health.bytes_fetched
    eventually(lambda: f'"good":"{wanted}"' in (device.data / "state.json").read_text())
    repository.point(wanted)
    device.reported(number=2)
    repository.point(wanted)  # between the two it has looked at what it may try
    report = device.reported(number=3)
    assert report.models[0].variant == "fp32"
    assert "trials may fetch 0" in (report.models[0].variants[1].reason or "")
    assert report.health.bytes_fetched == fetched
