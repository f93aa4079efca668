"""The mock's devices: real runtimes that lose and regain their power and their nucleus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import UnavailableError
from edgefleet.plugins.provider import Role
from edgefleet.testing.kit import models
from edgefleet.testing.mock import MockSession, mock
from edgefleet.testing.waiting import eventually
from edgefleet_aws.mock import AwsMock

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNTIME = "edgefleet.Runtime.edgefleet"  # of a fleet with the default prefix
TIMEOUT_S = 120.0  # of a machine that has much else to do


@pytest.fixture
def session() -> Iterator[MockSession]:
    with mock("aws", devices=2, group="line-3") as session:
        yield session


def cloud_of(session: MockSession) -> AwsMock:
    cloud = session.cloud(Role.DEPLOYER)
    assert isinstance(cloud, AwsMock)
    return cloud


def test_devices_take_both_nuclei_by_turns(session: MockSession) -> None:
    with session.connect() as fleet:
        cores = [fleet.device(name).info.evidence["core device"] for name in ("dev-01", "dev-02")]
    assert cores == ["HEALTHY, nucleus 2.16.0", "HEALTHY, nucleus 2.3.0"]


def test_a_device_whose_power_is_cut_serves_again_when_it_is_back(session: MockSession) -> None:
    with session.connect() as fleet:
        model = fleet.push(models.write_model(session.config.parent / "m.onnx", 1), "digits")
        fleet.deploy(model, to="line-3").wait(timeout_s=TIMEOUT_S, progress=False)
        session.kill_device("dev-01")
        with pytest.raises(UnavailableError):
            fleet.device("dev-01").infer("digits", models.points(3)[0], timeout_s=0.2)
        session.start_device("dev-01")
        report = fleet.device("dev-01").info.report
        assert report is not None
        before = report.health.pid
        eventually(lambda: started(fleet.device("dev-01").info.report) != before)
        answer = fleet.device("dev-01").infer("digits", models.points(3)[0])
        assert "scores" in answer


def started(report: object) -> object:
    return getattr(getattr(report, "health", None), "pid", None)


def test_a_pointer_arrives_after_the_nucleus_hung_up(session: MockSession) -> None:
    site = cloud_of(session).fleet.greengrass.site
    for name in ("dev-01", "dev-02"):
        site.drop_connections(name)
    with session.connect() as fleet:
        model = fleet.push(models.write_model(session.config.parent / "m.onnx", 1), "digits")
        status = fleet.deploy(model, to="line-3").wait(timeout_s=TIMEOUT_S, progress=False)
    assert status.attested == 2


def test_the_runtime_ends_in_time_when_its_nucleus_stops(session: MockSession) -> None:
    site = cloud_of(session).fleet.greengrass.site
    nucleus = site.nucleus("dev-01")
    eventually(lambda: "serving on" in "\n".join(nucleus.log(RUNTIME)))
    site.shut_down("dev-01")
    assert nucleus.process_id(RUNTIME) is None
    assert "stopping" in "\n".join(nucleus.log(RUNTIME))


def test_what_the_cloud_saw_names_service_and_operation(session: MockSession) -> None:
    seen = "\n".join(cloud_of(session).seen())
    assert "greengrassv2.CreateDeployment" in seen
    assert "iot.AddThingToThingGroup" in seen
