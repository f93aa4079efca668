"""What a device makes of a cloud, a network and a nucleus that fail, and that it goes on after.

The devices of a test run the real runtime on a stand-in for their nucleus. A full disk and a power
cut at any instant are shown on the runtime itself, whatever its channel.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from edgefleet.errors import WaitTimeoutError
from edgefleet.plugins.provider import Role
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import models
from edgefleet.testing.mock import MockSession, mock
from edgefleet.testing.waiting import eventually
from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.mock import AwsMock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgefleet.deployment import Deployment
    from edgefleet.fleet import Fleet
    from edgefleet.protocol.report import Report
    from edgefleet_aws.cloud.nucleus import Nucleus

RUNTIME = "edgefleet.Runtime.edgefleet"  # of a fleet with the default prefix
TIMEOUT_S = 120.0  # of a machine that has much else to do
GROUP = "line-3"
CLASSIC, LITE = "dev-01", "dev-02"
DEVICES = "ASIA"  # begins the keys of roles
_numbers = itertools.count()


@pytest.fixture(scope="module")
def session() -> Iterator[MockSession]:
    """A fleet of two devices, one of each nucleus, whose only source is S3."""
    with mock("aws", devices=2, group=GROUP) as session:
        lines = session.config.read_text().splitlines(keepends=True)
        session.config.write_text("".join(one for one in lines if not one.startswith("mirrors")))
        yield session


@pytest.fixture
def cloud(session: MockSession) -> Iterator[AwsMock]:
    found = session.cloud(Role.DEPLOYER)
    assert isinstance(found, AwsMock)
    yield found
    found.rules.clear()


@pytest.fixture
def fleet(session: MockSession) -> Iterator[Fleet]:
    with session.connect() as fleet:
        yield fleet


@pytest.fixture
def deploy(fleet: Fleet, tmp_path: Path) -> Callable[[], Deployment]:
    """Deploys a model that no device has seen."""

    def deploy() -> Deployment:
        path = models.write_model(tmp_path / "model.onnx", next(_numbers))
        return fleet.deploy(fleet.push(path, "digits"), to=GROUP)

    return deploy


def arrives(deployment: Deployment) -> None:
    """Wait until both devices run it."""
    status = deployment.wait(timeout_s=TIMEOUT_S, progress=False)
    assert (status.number, status.attested) == (deployment.number, 2)


def waits(deployment: Deployment, words: str, *, on: str) -> None:
    """Wait until a device says why it doesn't go on, in these words."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        (found,) = (one for one in deployment.status().devices if one.device == on)
        if words in found.why:
            return
        assert found.outcome == "pending", found.why
        assert time.monotonic() < deadline, found.why
        with pytest.raises(WaitTimeoutError):
            deployment.wait(timeout_s=0.2, progress=False)


def report_of(fleet: Fleet, device: str) -> Report:
    eventually(lambda: fleet.device(device).info.report is not None)
    report = fleet.device(device).info.report
    assert report is not None
    return report


# ---------------------------------------------------------------------------- nucleus and network


@pytest.mark.parametrize("device", [CLASSIC, LITE])
def test_a_pointer_arrives_when_the_socket_of_the_nucleus_is_back(
    cloud: AwsMock, deploy: Callable[[], Deployment], device: str
) -> None:
    site = cloud.fleet.greengrass.site
    site.stop_ipc(device)
    deployment = deploy()
    site.settle(device)
    site.start_ipc(device)
    arrives(deployment)


def test_a_device_that_missed_releases_without_power_takes_the_latest(
    session: MockSession, cloud: AwsMock, deploy: Callable[[], Deployment]
) -> None:
    session.kill_device(CLASSIC)
    cloud.fleet.greengrass.devices.forget_keys(CLASSIC)
    deploy()
    deployment = deploy()
    session.start_device(CLASSIC)
    arrives(deployment)


def test_a_device_whose_keys_ended_without_a_network_goes_on_with_newer_ones(
    cloud: AwsMock, fleet: Fleet, deploy: Callable[[], Deployment]
) -> None:
    devices = cloud.fleet.greengrass.devices
    before = report_of(fleet, LITE).health.started
    devices.offline.add(LITE)
    devices.forget_keys(LITE)
    deploy()
    deployment = deploy()
    devices.offline.discard(LITE)
    arrives(deployment)
    assert report_of(fleet, LITE).health.started == before


@pytest.mark.parametrize("device", [CLASSIC, LITE])
def test_what_a_device_tells_without_a_network_arrives_when_it_has_one(
    session: MockSession, cloud: AwsMock, fleet: Fleet, device: str
) -> None:
    devices = cloud.fleet.greengrass.devices
    report_of(fleet, device)  # it has told of itself once
    session.kill_device(device)
    before, since = len(starts(fleet, device)), report_of(fleet, device).health.started
    nucleus = cloud.fleet.greengrass.site.nucleus(device)
    log = len(nucleus.log(RUNTIME, 10**6))
    devices.offline.add(device)
    session.start_device(device)
    eventually(lambda: bool(nucleus.kept) or "the report waits" in said_since(nucleus, log))
    devices.offline.discard(device)
    eventually(lambda: report_of(fleet, device).health.started > since)
    eventually(lambda: len(starts(fleet, device)) > before)


def said_since(nucleus: Nucleus, lines: int) -> str:
    return "\n".join(nucleus.log(RUNTIME, 10**6)[lines:])


def starts(fleet: Fleet, device: str) -> list[object]:
    """What a device told of its runtime's starts."""
    found = fleet.events(kind="health", device=device)
    return [one for one in found if b'"started"' in bytes(one.data)]


# ---------------------------------------------------------------------------------------- access


def test_a_role_alias_that_is_gone_is_reported_and_waited_for(
    cloud: AwsMock, deploy: Callable[[], Deployment]
) -> None:
    devices = cloud.fleet.greengrass.devices
    devices.forget_keys(CLASSIC)
    alias, devices.role_alias = devices.role_alias, "gone"
    deployment = deploy()
    waits(deployment, "access denied", on=CLASSIC)
    devices.role_alias = alias
    arrives(deployment)


@pytest.mark.parametrize(
    "fault, words",
    [
        (Fault("RequestTimeTooSkewed", "The difference is too large.", 403), "clock is wrong"),
        (Fault("AccessDenied", "Access Denied", 403), "access denied"),
    ],
    ids=["clock", "policy"],
)
def test_what_s3_refuses_is_reported_and_waited_for(
    cloud: AwsMock, deploy: Callable[[], Deployment], fault: Fault, words: str
) -> None:
    cloud.rules.add(Rule("s3.GetObject", times=None, caller=DEVICES, fault=fault))
    deployment = deploy()
    waits(deployment, words, on=CLASSIC)
    cloud.rules.clear()
    arrives(deployment)


@pytest.mark.parametrize(
    "rule",
    [
        Rule("s3.GetObject", times=2, caller=DEVICES, fault=Fault("SlowDown", "Slow down.", 503)),
        Rule("s3.GetObject", times=2, caller=DEVICES, cut_answer_at=10),
    ],
    ids=["throttled", "cut off"],
)
def test_what_s3_answers_later_is_fetched_later(
    cloud: AwsMock, deploy: Callable[[], Deployment], rule: Rule
) -> None:
    cloud.rules.add(rule)
    arrives(deploy())
    assert rule.times == 0


# ----------------------------------------------------------------------------------- the end
# The stand-in's nucleus kills what hasn't ended ten seconds after SIGTERM.


def ends_in_time(session: MockSession, cloud: AwsMock, device: str) -> None:
    site = cloud.fleet.greengrass.site
    nucleus = site.nucleus(device)
    site.shut_down(device)
    killed = RUNTIME in nucleus.killed
    nucleus.killed.clear()
    session.start_device(device)
    assert not killed, nucleus.log(RUNTIME)


def test_the_runtime_ends_in_time_although_a_request_never_comes_whole(
    session: MockSession, cloud: AwsMock, fleet: Fleet
) -> None:
    address = urlsplit(report_of(fleet, LITE).endpoint or "")
    with socket.create_connection((address.hostname, address.port), TIMEOUT_S) as client:
        head = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
        client.sendall(head)
        ends_in_time(session, cloud, LITE)


def test_the_runtime_ends_in_time_although_a_fetch_hangs(
    session: MockSession, cloud: AwsMock, deploy: Callable[[], Deployment]
) -> None:
    hold = threading.Event()
    rule = Rule("s3.GetObject", caller=DEVICES, hold=hold)
    cloud.rules.add(rule)
    try:
        deployment = deploy()
        deadline = time.monotonic() + TIMEOUT_S
        while rule.times:
            assert time.monotonic() < deadline
            with pytest.raises(WaitTimeoutError):
                deployment.wait(timeout_s=0.1, progress=False)
        for device in (CLASSIC, LITE):  # one of them
            ends_in_time(session, cloud, device)
    finally:
        hold.set()
    arrives(deployment)


def test_the_runtime_ends_in_time_although_its_nucleus_answers_nothing(
    session: MockSession, cloud: AwsMock
) -> None:
    cloud.fleet.greengrass.site.nucleus(CLASSIC).fall_silent()
    ends_in_time(session, cloud, CLASSIC)


def test_the_runtime_ends_in_time_although_the_socket_of_its_nucleus_is_gone(
    session: MockSession, cloud: AwsMock
) -> None:
    cloud.fleet.greengrass.site.stop_ipc(LITE)
    ends_in_time(session, cloud, LITE)
