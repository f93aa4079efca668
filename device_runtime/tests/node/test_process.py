"""Whole runtimes as processes, with real models."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from device_runtime.tests.node.device import RECORD, Device, publish
from device_runtime.tests.support import OTHER_FLEET, Repository, details
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import read_event
from edgefleet.protocol.orders import CAPTURE, ROLLBACK, STATUS, TRIAL
from edgefleet.protocol.report import AccessReport
from edgefleet.testing.waiting import eventually


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "fleet")


@pytest.fixture
def device(tmp_path: Path, repository: Repository) -> Iterator[Device]:
    made = Device(tmp_path / "cam-07", repository)
    yield made
    made.kill()


def grown(answers: list[float], beyond: int) -> bool:
    return len(answers) > beyond


@contextmanager
def load(device: Device, clients: int = 2) -> Iterator[tuple[list[float], list[Exception]]]:
    """Clients that ask without a pause; yields the answers and the failures they got."""
    answers, failures, stop = list[float](), list[Exception](), threading.Event()

    def work() -> None:
        with device.client() as client:
            while not stop.is_set():
                try:
                    answers.append(client.factor())
                except Exception as error:  # noqa: BLE001 - whatever fails is counted
                    failures.append(error)
                    return

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers, failures
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_ten_releases_and_a_broken_one_under_load_keep_process_and_every_request(
    device: Device, repository: Repository
) -> None:
    first = repository.release({"digits": publish(repository, 1)})
    broken = repository.release({"digits": publish(repository, 99, recorded=98)})
    repository.point(first)
    pid = device.start().active(first).health.pid
    with load(device) as (answers, failures):
        for factor in range(2, 11):
            release = repository.release({"digits": publish(repository, factor)})
            repository.point(release)
            report = device.active(release)
            assert report.health.pid == pid
            assert report.models[0].engine is not None
            if factor == 5:
                repository.point(broken)
                rejected = device.reported(state="rejected", running=release)
                assert "self-test case 1 failed" in rejected.errors[0]
                eventually(partial(grown, answers, len(answers) + 20))
        repository.point(first)
        device.active(first)
        eventually(lambda: answers[-1] == 1.0)
    assert failures == []
    assert set(answers) <= {float(n) for n in range(1, 11)}
    assert device.process is not None
    assert device.process.pid == pid


def test_a_device_serves_two_models(device: Device, repository: Repository) -> None:
    release = repository.release({"a": publish(repository, 2), "b": publish(repository, 3)})
    repository.point(release)
    device.start().active(release)
    with device.client() as client:
        assert (client.factor("a"), client.factor("b")) == (2, 3)
        assert client.ask("/v2/health/ready") == 200


def test_a_device_has_settled_without_a_pointer_and_again_when_it_serves(
    device: Device, repository: Repository
) -> None:
    with device.start().client() as client:
        eventually(lambda: client.ask("/v2/health/settled") == 200)
        assert client.ask("/v2/health/ready") == 503
        broken = repository.release({"digits": publish(repository, 99, recorded=98)})
        repository.point(broken)
        device.reported(state="rejected", wanted=broken)
        assert client.ask("/v2/health/settled") == 503
        release = repository.release({"digits": publish(repository, 2)})
        repository.point(release)
        device.active(release)
        assert client.ask("/v2/health/settled") == 200


def test_an_order_is_followed_from_the_channel_and_not_from_the_endpoint(
    device: Device, repository: Repository
) -> None:
    first, second = (
        repository.release({"digits": publish(repository, factor)}) for factor in (2, 3)
    )
    repository.point(first)
    device.start().active(first)
    repository.point(second)
    device.active(second)
    with device.client() as client:
        assert client.ask(STATUS) == 404
        for path in (ROLLBACK, CAPTURE, TRIAL):
            assert client.ask(path, '{"model":"digits"}') == 404
        assert client.factor() == 3
        device.order(ROLLBACK)
        assert device.reported(running=first).rolled_back is not None
        assert client.factor() == 2


def test_a_restart_without_network_or_channel_serves_at_once(
    device: Device, repository: Repository
) -> None:
    release = repository.release({"digits": publish(repository, 2)})
    repository.point(release)
    device.start().active(release)
    device.kill()
    shutil.rmtree(repository.source)
    repository.pointer_path.unlink()
    report = device.start().active(release)
    assert report.health.starts == 2
    assert report.health.bytes_fetched == 0
    with device.client() as client:
        assert client.factor() == 2


def test_expired_access_waits_and_goes_on_when_it_is_renewed(
    device: Device, repository: Repository
) -> None:
    first = repository.release({"digits": publish(repository, 2)})
    repository.point(first)
    device.start().active(first)
    access = repository.pointer_path.with_name("access.json")
    access.write_bytes(encode(AccessReport(state="expired", detail="ended in May")))
    device.reported(access=AccessReport(state="expired", detail="ended in May"))
    second = repository.release({"digits": publish(repository, 3)})
    repository.point(second)
    report = device.reported(state="waiting", running=first, wanted=second)
    assert "ended in May" in report.errors[0]
    with device.client() as client:
        assert client.factor() == 2
        access.unlink()
        device.active(second)
        assert client.factor() == 3


def test_a_foreign_pointer_is_refused_and_reported(device: Device, repository: Repository) -> None:
    release = repository.release({"digits": publish(repository, 2)})
    repository.point(release)
    device.start().active(release)
    other = repository.release({"digits": publish(repository, 3)})
    repository.point(other, fleet=OTHER_FLEET, number=9)
    report = eventually(lambda: r if (r := device.report()) and r.errors else None)
    assert "another fleet" in report.errors[0]
    assert (report.running, report.pair) == (release, (0, 1))


def test_two_runtimes_on_one_folder_are_refused(device: Device, repository: Repository) -> None:
    device.start().reported(state="idle")
    second = subprocess.run(
        device.command(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert device.process is not None
    assert f"process {device.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "parent gone"])
def test_a_runtime_stops_in_order_and_says_so(
    device: Device, repository: Repository, how: str
) -> None:
    release = repository.release({"digits": publish(repository, 2)}, telemetry=RECORD)
    repository.point(release)
    device.start().active(release)
    with device.client() as client:
        for _ in range(5):
            client.factor()
        assert device.process is not None
        assert device.process.stdin is not None
        if how == "parent gone":
            device.process.stdin.close()
        else:
            device.signal(signal.Signals[how])
        assert device.ended() == 0
    report = device.report()
    assert report is not None
    assert report.endpoint is None
    assert report.models[0].inferences == 5
    assert device.recorded() == 5


def test_predictions_survive_a_kill(device: Device, repository: Repository) -> None:
    release = repository.release({"digits": publish(repository, 2)}, telemetry=RECORD)
    repository.point(release)
    device.start().active(release)
    with device.client() as client:
        for _ in range(7):
            client.factor()
    eventually(lambda: device.waiting("ordinary") == 7)
    device.kill()
    device.start().active(release)
    eventually(lambda: device.recorded() == 7)


def test_a_release_that_kills_the_process_is_given_up_after_three_tries(
    device: Device, repository: Repository
) -> None:
    first = repository.release({"digits": publish(repository, 2)})
    repository.point(first)
    device.start().active(first)
    device.kill()
    deadly = repository.release({"digits": publish(repository, 3)})
    repository.point(deadly)
    for _ in range(3):
        device.start(fault="model.loaded:2")  # the first is the one that served before
        assert device.ended() == -signal.SIGKILL
    report = device.start(fault="model.loaded:2").reported(state="rejected", running=first)
    assert "ended 3 times" in report.errors[0]
    with device.client() as client:
        assert client.factor() == 2


def test_health_events_reach_the_outbox(device: Device, repository: Repository) -> None:
    release = repository.release({"digits": publish(repository, 2)})
    repository.point(release)
    device.start().active(release)

    def told() -> list[str]:
        lines = [line for p in device.outbox.glob("hot/*") for line in p.read_bytes().splitlines()]
        return [read_event(line).plain()["data"]["what"] for line in lines]

    eventually(lambda: told() == ["started", "release-active"])


def test_a_model_that_is_no_model_is_rejected_with_the_engines_reason(
    device: Device, repository: Repository
) -> None:
    broken = repository.bundle(
        {"model.onnx": b"not a model"}, details(2, entry="model.onnx", variant="fp32")
    )
    repository.point(repository.release({"digits": broken}))
    report = device.start().reported(state="rejected")
    assert report.models[0].state == "rejected"
    assert report.models[0].reason
