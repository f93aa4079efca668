"""Drift injected into the digits stream is noticed by the runtime itself, with no network."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import edgefleet as ef
from device_runtime.tests.node.device import Device
from device_runtime.tests.support import Repository
from edgefleet.protocol.drift import Limits
from edgefleet.protocol.event import Alarm, SketchWindow, read_event
from edgefleet.protocol.policy import Action, AlarmRule, DriftPolicy, TelemetryPolicy
from edgefleet.protocol.segment import read_segment
from edgefleet.testing.waiting import eventually
from tests.optimization.conftest import Digits, trained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

WINDOW_S = 1.0
POLICY = TelemetryPolicy(
    segment_max_age_s=0.2,
    drift=DriftPolicy(window_s=WINDOW_S, limits=Limits(min_count=200)),
    alarms=(
        AlarmRule(
            name="moved",
            model="digits",
            when="size(drifted) > 20",
            actions=(Action(kind="file", target="moved.ndjson"),),
        ),
    ),
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return trained(tmp_path_factory.mktemp("digits"), (32,))


@pytest.fixture
def images() -> NDArray[np.float32]:
    """Scanned digits in a random order: in the data set's own, writers come one by one."""
    from sklearn.datasets import load_digits

    found, _ = load_digits(return_X_y=True)
    mixed: NDArray[np.float32] = np.random.default_rng(5).permutation(found / 16)
    return mixed.astype(np.float32)


class Sender:
    """Asks a device about some images at a time."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def close(self) -> None:
        self._connection.close()

    def send(self, images: NDArray[np.float32]) -> None:
        for rows in np.array_split(images, max(1, len(images) // 16)):
            shape, data = list(rows.shape), rows.ravel().tolist()
            tensor = {"name": "X", "datatype": "FP32", "shape": shape, "data": data}
            self._connection.request(
                "POST", "/v2/models/digits/infer", json.dumps({"inputs": [tensor]})
            )
            with self._connection.getresponse() as reply:
                assert reply.status == 200, reply.read()
                reply.read()


@pytest.fixture
def device(tmp_path: Path, digits: Digits, images: NDArray[np.float32]) -> Iterator[Device]:
    repository = Repository(tmp_path / "fleet")
    bundle = ef.optimize(
        digits.path,
        targets=["x86-cpu"],
        calibration=images[:900],
        name="digits",
        output=tmp_path / "bundle",
    )
    for descriptor in bundle.blobs():
        data = bundle.path_of(descriptor).read_bytes()
        repository.put(data)
    release = repository.release({"digits": bundle}, telemetry=POLICY)
    repository.point(release)
    (tmp_path / "alarms").mkdir()
    device = Device(tmp_path / "device", repository, "--alarm-folder", str(tmp_path / "alarms"))
    with device.start():
        device.active(release)
        yield device


def test_drift_is_noticed_offline_acted_on_at_once_and_told_when_there_is_a_network(
    device: Device, images: NDArray[np.float32], tmp_path: Path
) -> None:
    report = device.reported()
    endpoint = report.endpoint or ""
    acted = tmp_path / "alarms" / "moved.ndjson"
    away = device.outbox.with_name("away")
    device.outbox.rename(away)

    def cut_off() -> bool:
        shutil.rmtree(device.outbox, ignore_errors=True)  # it may have made it again meanwhile
        device.outbox.write_text("no network: nothing can be delivered")
        return True

    eventually(cut_off, ignoring=IsADirectoryError)

    with closing(Sender(endpoint)) as sender:
        sender.send(images[900:])
        before = time.time()

        def noticed() -> bool:
            sender.send(1.0 - images[900:1100])  # white on black: a lamp is out
            return acted.exists()

        eventually(noticed, f"an alarm\n{device.log}")
        alarm = read_event(acted.read_bytes().splitlines()[0]).payload()
        assert isinstance(alarm, Alarm)
        assert alarm.rule == "moved"

    bundle = {model.bundle for model in report.models}
    device.signal(signal.SIGTERM)
    device.ended()
    device.outbox.unlink()
    away.rename(device.outbox)
    device.start()

    def told() -> Any:
        return [data for data in _hot(device) if isinstance(data, Alarm) and data.rule == "drift"]

    drift = eventually(told, f"the alarm\n{device.log}")[0]
    assert drift.model == "digits"
    assert all(name.startswith(("X[", "probabilities:", "label")) for name in drift.values)
    assert "PSI" in drift.message or "outside" in drift.message

    windows = eventually(lambda: _windows(device), "the windows")
    early = [window.verdict for window in windows if window.end.timestamp() <= before]
    assert "moved" not in early, "what is like the calibration data is no drift"
    # Where a window closed while the last were sent, too few came behind it to tell.
    # What was looked at after a window had closed is in another one of the same span.
    judged = [window for window in windows if window.verdict != "unknown"]
    assert "moved" in {each.verdict for each in judged if each.start == judged[-1].start}
    assert {window.bundle for window in windows} == bundle


def _windows(device: Device) -> list[SketchWindow]:
    """Those that the device has sent, once one that moved is among them."""
    events = {
        event.id: event.payload()
        for path in device.outbox.rglob("*.ndjson.zst")
        for event in read_segment(io.BytesIO(path.read_bytes()))
    }
    found = [data for data in events.values() if isinstance(data, SketchWindow)]
    found.sort(key=lambda window: window.start)
    return found if any(window.verdict == "moved" for window in found) else []


def _hot(device: Device) -> list[Any]:
    lines = [
        line for path in device.outbox.rglob("*.ndjson") for line in path.read_bytes().splitlines()
    ]
    return [read_event(line).payload() for line in lines]
