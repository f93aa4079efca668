"""The kit's suite of channels over IoT Edge: the vendor's own client behind the mock's edgeHub.

The link that is cut is the device's network: edgeHub stays, and keeps what goes out through it.
"""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import pytest

from edgefleet.errors import LimitExceededError
from edgefleet.protocol.event import Event, read_event
from edgefleet.testing.kit.device_channel import DeviceChannelConformance
from edgefleet_runtime.channels.iotedge.channel import IotEdgeChannel
from providers.azure.tests.cloud.edge_bench import MODULE, Bench, base_of, module_of
from providers.azure.tests.cloud.edge_storage import READ

CAM = "cam-1"


class Hub:
    """An IoT Hub with one device, whose network can be away."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._is_cut = False
        bench.deploy("base", base_of(module_of(status="stopped")), priority=1)
        bench.add(CAM)
        bench.site.settle(CAM)
        told = bench.site.device(CAM).environment(MODULE)
        # Not its proxy: that is asked for once a process, and another test has another one.
        self.environment = {k: v for k, v in told.items() if not k.lower().endswith("_proxy")}

    def publish(self, pointer: bytes) -> None:
        access = {"read": READ, "at": f"{self._bench.storage.address}/models"}
        wanted = {"pointer": pointer.decode(), "access": access}
        content = {MODULE: {"properties.desired.edgefleet": wanted}}
        with suppress(LimitExceededError):  # a twin holds no such value
            self._bench.deploy("layer", content, priority=10)

    def report(self) -> bytes | None:
        pieces = self._bench.reported(CAM).get("edgefleet", {}).get("report", {})
        return "".join(pieces[number] for number in sorted(pieces, key=int)).encode() or None

    def events(self) -> Sequence[Event]:
        sent = [json.loads(message.body)["events"] for message in self._bench.messages]
        return [read_event(json.dumps(event).encode()) for events in sent for event in events]

    def file(self, name: str) -> bytes | None:
        return self._bench.storage.uploads.get(f"/devices/{CAM}/{name}")

    def cut(self) -> None:
        if not self._is_cut:
            self._is_cut = True
            self._bench.site.cut_network(CAM)

    def restore(self) -> None:
        if self._is_cut:
            self._is_cut = False
            self._bench.site.restore_network(CAM)


# azure-iot-device asks for TLS 1.2 in a way that Python has deprecated.
@pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
class TestIotEdgeChannel(DeviceChannelConformance):
    @pytest.fixture(autouse=True)
    def _left_sockets(self) -> Iterator[None]:
        """Collect here what paho leaves, which the client pins below 2, not in another's test."""
        yield
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    @pytest.fixture
    def far_end(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Hub:
        made = Hub(bench)
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        return made

    @pytest.fixture
    def connect(self, far_end: Hub) -> Callable[[], IotEdgeChannel]:
        return lambda: IotEdgeChannel(CAM)

    @pytest.fixture
    def from_options(self, far_end: Hub) -> Callable[[Mapping[str, str]], IotEdgeChannel]:
        return lambda more: IotEdgeChannel.from_options(more, device=CAM)
