"""Engines that take long to build: something serves meanwhile, and nothing half built ever does."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.building_simulator import BUILT, INTERIM, install
from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.support import Repository
from edgefleet.protocol.release import RuntimeSettings
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.engines.cache import KEY, EngineCache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.protocol.report import ModelReport


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "fleet")


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """The file that lets builds go on."""
    return tmp_path / "go"


@pytest.fixture
def device(tmp_path: Path, repository: Repository, go: Path) -> Iterator[Device]:
    made = Device(tmp_path / "cam-07", repository, "--healthy-after", "0")
    made.environment = install(tmp_path / "packages", go=go)
    yield made
    made.kill()


@pytest.fixture
def wanted(repository: Repository) -> str:
    release = repository.release({"digits": publish(repository, 2)})
    repository.point(release)
    return release


def model(device: Device) -> ModelReport | None:
    report = device.report()
    return report.models[0] if report and report.models else None


def runs_on(device: Device, provider: str) -> bool:
    about = model(device)
    return about is not None and about.state == "active" and about.providers == (provider,)


def builds(device: Device) -> bool:
    about = model(device)
    return about is not None and about.building is not None and about.building.progress == 0.5


def entries(device: Device) -> list[str]:
    folder = device.data / "engines"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def test_the_next_best_provider_serves_while_an_engine_is_built(
    device: Device, wanted: str, go: Path
) -> None:
    device.start().active(wanted)
    eventually(partial(builds, device), device.log)
    assert runs_on(device, INTERIM)
    with device.client() as client:
        assert client.factor() == 2
        go.touch()
        eventually(partial(runs_on, device, BUILT), device.log)
        assert client.factor() == 2
    report = device.active(wanted)
    assert report.models[0].building is None
    assert report.errors == ()


def test_a_restart_finds_the_engine_that_was_built(device: Device, wanted: str, go: Path) -> None:
    go.touch()
    device.start()
    eventually(partial(runs_on, device, BUILT), device.log)
    device.kill()
    report = device.start().active(wanted)
    assert report.models[0].providers == (BUILT,)


def test_a_power_cut_while_an_engine_is_built_leaves_none(
    device: Device, wanted: str, go: Path
) -> None:
    device.start()
    eventually(partial(builds, device), device.log)
    device.kill()
    assert not [name for name in entries(device) if KEY.match(name)]
    go.touch()
    device.start()
    eventually(partial(runs_on, device, BUILT), device.log)
    assert [bool(KEY.match(name)) for name in entries(device)] == [True]


@pytest.mark.parametrize("fault", ["engine.built", "entry.json.written", "engine.sealed"])
def test_a_builder_that_dies_leaves_a_whole_engine_or_none(
    device: Device, wanted: str, go: Path, fault: str
) -> None:
    go.touch()
    device.start(fault=fault)
    failed = eventually(
        lambda: report if (report := device.report()) and report.errors else None, device.log
    )
    assert failed.attests(wanted)
    assert failed.models[0].providers == (INTERIM,)
    assert "ended with code -9" in failed.errors[0]
    for key in EngineCache(device.data / "engines").entries():
        assert EngineCache(device.data / "engines").find(key) is not None
        assert fault == "engine.sealed"


def test_an_engine_that_cannot_be_built_is_told_once_and_not_tried_again(
    device: Device, wanted: str, go: Path
) -> None:
    go.write_text("fail")
    device.start()
    failed = eventually(
        lambda: report if (report := device.report()) and report.errors else None, device.log
    )
    assert "no kernel fits" in failed.errors[0]
    assert runs_on(device, INTERIM)
    device.signal(signal.SIGTERM)
    assert device.ended() == 0
    go.unlink()
    repository = device.repository
    device.start().active(wanted)
    for number in (2, 3):
        repository.point(wanted)
        assert device.reported(number=number).models[0].building is None


def test_a_newer_release_ends_a_build(
    device: Device, repository: Repository, wanted: str, go: Path
) -> None:
    device.start()
    eventually(partial(builds, device), device.log)
    (half,) = entries(device)
    newer = repository.release({"digits": publish(repository, 3)})
    repository.point(newer)
    device.active(newer)
    eventually(lambda: half not in entries(device))
    go.touch()
    eventually(partial(runs_on, device, BUILT), device.log)
    with device.client() as client:
        assert client.factor() == 3


def test_strict_waits_for_the_engine(device: Device, repository: Repository, go: Path) -> None:
    strict = repository.release(
        {"digits": publish(repository, 3)}, settings=RuntimeSettings(strict=True)
    )
    repository.point(strict)
    device.start().reported(state="working")
    go.touch()
    assert device.active(strict).models[0].providers == (BUILT,)
