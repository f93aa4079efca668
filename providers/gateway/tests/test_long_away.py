"""Whole devices, as processes, that were away for months, or are to be away for good."""

from __future__ import annotations

import json
import re
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from edgefleet.protocol.documents import decode
from edgefleet.testing.kit import models
from edgefleet.testing.waiting import TIMEOUT_S, eventually
from edgefleet_gateway.records import DeviceRecord
from providers.gateway.tests.fleet_rig import KEYS, FleetRig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.deployment import Deployment

DEVICE, GROUP = "cam-07", "line-3"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[FleetRig]:
    made = FleetRig(tmp_path)
    yield made
    made.close()


def deploy(rig: FleetRig, folder: Path, seed: int) -> Deployment:
    model = rig.fleet.push(models.write_model(folder / f"{seed}.onnx", seed), "digits")
    return rig.fleet.deploy(model, to=GROUP)


def record(rig: FleetRig) -> DeviceRecord:
    stored = rig.fleet.state.read(KEYS.device(DEVICE))
    assert stored is not None
    return decode(DeviceRecord, stored.data)


def endpoint(rig: FleetRig) -> str:
    report = rig.deployer.device(DEVICE).report
    assert report is not None
    assert report.endpoint is not None
    return report.endpoint


def answers(address: str) -> list[float]:
    """What the device answers whoever asks it on its own machine."""
    x = models.points(1)[0][:1]
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    asked = urllib.request.Request(f"{address}/v2/models/digits/infer", body)
    with opener.open(asked, timeout=60) as answer:
        found: list[float] = json.load(answer)["outputs"][0]["data"]
    return found


@pytest.mark.parametrize("ended", [timedelta(days=1), timedelta(days=90), timedelta(days=360)])
def test_a_device_that_was_off_for_months_converges_with_its_identity_alone(
    rig: FleetRig, tmp_path: Path, ended: timedelta
) -> None:
    rig.cloud.add_device(DEVICE, group=GROUP)
    deploy(rig, tmp_path, 1).wait(timeout_s=TIMEOUT_S, progress=False)
    rig.cloud.kill_device(DEVICE)
    old = rig.age(DEVICE, ended=ended)
    waiting = deploy(rig, tmp_path, 2)
    rig.cloud.start_device(DEVICE)
    waiting.wait(timeout_s=TIMEOUT_S, progress=False)
    eventually(lambda: all(one.serial != old for one in record(rig).certificates))
    assert record(rig).certificates[-1].ends > datetime.now(UTC) + timedelta(days=80)


def test_a_device_that_was_off_for_too_long_says_what_to_do_and_serves(
    rig: FleetRig, tmp_path: Path
) -> None:
    rig.cloud.add_device(DEVICE, group=GROUP)
    deploy(rig, tmp_path, 1).wait(timeout_s=TIMEOUT_S, progress=False)
    served = answers(endpoint(rig))
    rig.cloud.kill_device(DEVICE)
    rig.age(DEVICE, ended=timedelta(days=366))
    log = rig.cloud.machine(DEVICE).log
    before = log.stat().st_size
    rig.cloud.start_device(DEVICE)

    def said() -> str:
        return log.read_bytes()[before:].decode()

    eventually(lambda: "edgefleet device enroll" in said(), said)
    assert answers(re.findall(r"http://127\.0\.0\.1:\d+", said())[-1]) == served
    assert (
        "edgefleet device enroll" in rig.fleet.why(DEVICE).cure
    )  # though it has all that is wanted
    waiting = deploy(rig, tmp_path, 2)
    assert "edgefleet device enroll" in rig.fleet.why(DEVICE).cure
    assert waiting.status().attested == 0


def test_a_revoked_device_syncs_no_more_and_goes_on_serving(rig: FleetRig, tmp_path: Path) -> None:
    rig.cloud.add_device(DEVICE, group=GROUP)
    deploy(rig, tmp_path, 1).wait(timeout_s=TIMEOUT_S, progress=False)
    address = endpoint(rig)
    before = answers(address)
    rig.fleet.revoke(DEVICE)
    refused = [line for line in rig.cloud.seen() if '"revoked"' in line]
    waiting = deploy(rig, tmp_path, 2)
    eventually(lambda: len([s for s in rig.cloud.seen() if '"revoked"' in s]) > len(refused) + 1)
    assert answers(address) == before
    assert waiting.status().attested == 0
