"""A real device measures what no release names, in processes of their own, and leaves nothing."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import msgspec
import pytest

from device_runtime.tests.node.device import Device, publish, times, times_with_needless_work
from device_runtime.tests.support import Repository, details
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.orders import TRIAL, TrialAnswer, TrialOrder
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.requests import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.protocol.layout import BundleLayout

ORDER = "order-0001"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "fleet")


@pytest.fixture
def device(tmp_path: Path, repository: Repository) -> Iterator[Device]:
    """A device whose release serves and counts as good."""
    made = Device(tmp_path / "cam-07", repository, "--healthy-after", "0", "--label", "target=any")
    release = repository.release({"digits": publish(repository, 2)})
    repository.point(release)
    made.start().active(release)
    eventually(lambda: f'"good":"{release}"' in (made.data / "state.json").read_text())
    yield made
    made.kill()


def candidates(repository: Repository) -> BundleLayout:
    made = [
        ({"m.onnx": model}, details(due, entry="m.onnx", variant=name), "fp32", ())
        for name, due, model in (
            ("slow", 3, times_with_needless_work(3)),
            ("wrong", 3, times(4)),
            ("fast", 3, times(3)),
        )
    ]
    return repository.bundle_of(made)


def asked(device: Device, order: TrialOrder) -> Answer:
    """The device's answer to an order, over the file channel."""
    reply = device.order(TRIAL, encode(order), name=uuid.uuid4().hex)
    eventually(reply.exists, device.log)
    answer: Answer = msgspec.json.decode(reply.read_bytes(), type=Answer)
    return answer


def told(device: Device, order: TrialOrder | None = None) -> TrialAnswer:
    answer = asked(device, order or TrialOrder(id=ORDER))
    assert answer.status == 200, answer
    return decode(TrialAnswer, answer.body)


def over(device: Device) -> TrialAnswer:
    def found() -> TrialAnswer | None:
        answer = told(device)
        return answer if answer.over else None

    answer: TrialAnswer = eventually(found, device.log)
    return answer


def stored(device: Device) -> set[str]:
    folders = ("blobs/sha256", "partial", "materialized")
    return {f"{one}/{path.name}" for one in folders for path in (device.data / one).iterdir()}


def test_a_device_tells_what_each_variant_did_and_keeps_none(
    device: Device, repository: Repository
) -> None:
    before = stored(device)
    told(device, TrialOrder(id=ORDER, bundle=candidates(repository).digest, calls=50))
    answer = over(device)
    assert (answer.state, answer.reason, answer.target) == ("done", "", "any")
    found = {figures.variant: figures for figures in answer.figures}
    slow, fast = found["slow"], found["fast"]
    for figures in (slow, fast):
        assert (figures.outcome, figures.providers) == ("measured", ("CPUExecutionProvider",))
        assert figures.engine.startswith("onnxruntime ")
        assert figures.self_test is not None
        assert figures.self_test.passed
        assert figures.memory_bytes is not None
        assert figures.memory_bytes > 0
        assert figures.fetched_bytes > 0
    assert fast.p50_us is not None
    assert slow.p50_us is not None
    assert fast.p50_us < slow.p50_us
    assert found["wrong"].outcome == "failed"
    assert "out of tolerance" in found["wrong"].reason
    assert stored(device) == before
    with device.client() as client:
        assert client.factor() == 2


@pytest.mark.parametrize(
    "cut",
    [
        "ordered-trial.saving",
        "ordered-trial.noted",
        "fetch.complete:3",
        "ordered-trial.fetched",
        "ordered-trial.begun",
        "ordered-trial.begun:2",
        "ordered-trial.variant-cleared",
        "ordered-trial.cleared",
    ],
)
def test_a_power_cut_leaves_nothing_but_that_it_was_interrupted(
    device: Device, repository: Repository, cut: str
) -> None:
    before = stored(device)
    bundle = candidates(repository)
    device.kill()
    device.start(fault=cut).reported(state="active")
    process = device.process
    assert process is not None
    device.order(TRIAL, encode(TrialOrder(id=ORDER, bundle=bundle.digest, calls=5)))
    eventually(lambda: process.poll() is not None, device.log)
    device.ended()
    device.start().reported(state="active")
    answer = asked(device, TrialOrder(id=ORDER))
    if cut == "ordered-trial.saving":  # nothing was accepted
        assert answer.status == 404
        assert "no trial" in json.loads(answer.body)["error"]
    else:
        assert decode(TrialAnswer, answer.body).state == "interrupted"
    assert stored(device) == before
    with device.client() as client:
        assert client.factor() == 2
