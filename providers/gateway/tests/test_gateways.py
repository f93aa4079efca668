"""Several gateways over one state store, and a state store that is away for a while."""

from __future__ import annotations

import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import pytest

from edgefleet.errors import UnavailableError
from edgefleet.testing.kit import models, samples
from edgefleet.testing.waiting import TIMEOUT_S, eventually
from edgefleet_runtime.channels.requests import Reply, Request
from providers.gateway.tests.fleet_rig import FleetRig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgefleet.interfaces.state import StateStore


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[FleetRig]:
    made = FleetRig(tmp_path, gateways=2)
    yield made
    made.close()


@pytest.fixture
def deploy(rig: FleetRig, tmp_path: Path) -> Callable[[], None]:
    """Deploys a new version and waits until the devices attest it."""
    seeds = iter(range(100))

    def deploy() -> None:
        model = rig.fleet.push(models.write_model(tmp_path / "model.onnx", next(seeds)), "digits")
        status = rig.fleet.deploy(model, to="line-3").wait(timeout_s=TIMEOUT_S, progress=False)
        assert (status.attested, status.models) == (1, (model.reference,))

    return deploy


def test_devices_and_operators_go_on_with_the_gateway_that_is_left(
    rig: FleetRig, deploy: Callable[[], None]
) -> None:
    rig.cloud.add_device("cam-07", group="line-3")
    deploy()
    x, _ = models.points(3, count=2)
    for gone in (0, 1):
        rig.cloud.stop_gateway(gone)
        deploy()
        answer = rig.fleet.device("cam-07").infer("digits", x, timeout_s=TIMEOUT_S)
        assert answer["scores"].shape == (2, 2)
        rig.cloud.start_gateway(gone)
    report = rig.fleet.device("cam-07").info.report
    assert report is not None
    assert report.health.starts == 1
    assert len({line for line in rig.cloud.seen() if "putReport" in line}) >= 3


def test_an_answer_goes_by_another_gateway_than_the_request_came_by(rig: FleetRig) -> None:
    rig.deployer.enroll("cam-07", group="line-3")
    channel = rig.end("cam-07").channel
    asked, go = threading.Event(), threading.Event()

    def answer(request: Request) -> Reply:
        asked.set()
        assert go.wait(TIMEOUT_S)
        return Reply(200, {}, request.path.encode())

    channel.serve(answer)
    channel.pointer()  # polls from now on
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(rig.deployer.invoke, "cam-07", "/v2", timeout_s=TIMEOUT_S)
        assert asked.wait(TIMEOUT_S)
        rig.cloud.stop_gateway(0)
        go.set()
        assert reply.result(TIMEOUT_S).body == b"/v2"


def test_while_the_state_store_is_away_devices_serve_and_afterwards_they_converge(
    rig: FleetRig, deploy: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.cloud.add_device("cam-07", group="line-3")
    rig.deployer.enroll("other", group="line-4")
    deploy()
    other = rig.end("other")
    other.pointer()
    rig.fleet.deploy("digits:1", to="line-4")
    other.pointer()  # so its gateway has heard of all before it, and asks no store for it again
    report = rig.fleet.device("cam-07").info.report
    assert report is not None
    assert report.endpoint is not None
    said = samples.report(samples.pointer(1)).encoded()
    with away(rig.cloud.services.state, monkeypatch):
        with pytest.raises(UnavailableError):
            other.send_report(said)
        assert other.channel.access().state == "ok", "its polls are answered all the same"
        with urllib.request.urlopen(report.endpoint + "/v2/models/digits/ready") as served:
            assert served.status == 200
        with pytest.raises(UnavailableError, match="didn't answer within"):
            rig.deployer.invoke("cam-07", "/v2/health/ready", timeout_s=0.1)
    eventually(lambda: sent(other.send_report, said), "the gateway takes reports again")
    deploy()
    report = rig.fleet.device("cam-07").info.report
    assert report is not None
    assert report.health.starts == 1


@contextmanager
def away(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A state store that neither gives nor takes."""

    def fail(*_: object) -> NoReturn:
        raise ConnectionResetError("the state store is away")

    with monkeypatch.context() as patched:
        for call in ("_read", "_write", "_delete", "_keys"):
            patched.setattr(store, call, fail)
        yield


def sent(send: Callable[[bytes], None], said: bytes) -> bool:
    try:
        send(said)
    except UnavailableError:
        return False
    return True
