"""The kit's suite of channels over a cluster: API server, mounted pointer, registry, receiver."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import trustme

from device_runtime.tests.channels.api_server import FakeApiServer
from device_runtime.tests.channels.test_kubernetes import Mount
from device_runtime.tests.channels.test_kubernetes_events import Receiver
from device_runtime.tests.channels.test_kubernetes_files import stored
from edgefleet.protocol.event import Event, read_event
from edgefleet.testing.cloud.oci import OciRegistry
from edgefleet.testing.cloud.ports import HeldPort
from edgefleet.testing.kit.device_channel import DeviceChannelConformance
from edgefleet_runtime.channels.kubernetes.channel import KubernetesChannel
from edgefleet_runtime.channels.kubernetes.settings import Settings, read_settings

NODE = "edge-7.plant-a"
POINTER = "edgefleet/edgefleet-pointer-line-3"
REPORT = f"edgefleet-reports/edgefleet-report-{NODE}"


class Cluster:
    """A node's cluster, and what receives its events and segments.

    Attributes:
        options: of the channel.
    """

    def __init__(self, folder: Path, api: FakeApiServer, receiver: Receiver) -> None:
        self.api, self._receiver = api, receiver
        self._mount = Mount(folder / "mounted")
        self._unseen: bytes | None = None
        self._held = HeldPort()
        self._registry = OciRegistry(folder / "registry")
        self._registry.start(self._held.number)
        (folder / "orders-token").write_text("a-token")
        self.options = {
            "reports": "edgefleet-reports/edgefleet",
            "pointer": str(self._mount.file),
            "token": str(api.folder),
            "watch": POINTER,
            "events": f"https://127.0.0.1:{receiver.server_port}/events",
            "events_ca": str(folder / "receiver.pem"),
            "orders": "127.0.0.1:0",
            "orders_token": str(folder / "orders-token"),
            "segments": f"oci://{self._registry.host}/fleet",
        }

    @property
    def settings(self) -> Settings:
        return read_settings(self.options)

    def publish(self, pointer: bytes) -> None:
        self.api.put(POINTER, {"pointer.json": pointer.decode()})
        if self.api.up.is_set():
            self._mount.write(pointer=pointer)
        else:
            self._unseen = pointer

    def report(self) -> bytes | None:
        found = self.api.objects.get(REPORT)
        return None if found is None else found["data"]["report.json"].encode()

    def events(self) -> Sequence[Event]:
        sent = [event for batch in self._receiver.batches for event in batch]
        return [read_event(json.dumps(event).encode()) for event in sent]

    def file(self, name: str) -> bytes | None:
        try:
            return stored(self._registry, name)
        except Exception:  # noqa: BLE001 - as the registry says that it hasn't got it
            return None

    def cut(self) -> None:
        if self.api.up.is_set():
            self.api.stop()
            self._registry.stop()
            self._receiver.refuse = lambda _: 503

    def restore(self) -> None:
        if not self.api.up.is_set():
            self._receiver.refuse = lambda _: 0
            self._registry.start(self._held.number)
            self.api.start()
            if self._unseen is not None:  # the kubelet has it as well
                self._mount.write(pointer=self._unseen)

    def close(self) -> None:
        self._registry.stop()
        self._held.close()


class TestKubernetesChannel(DeviceChannelConformance):
    @pytest.fixture
    def receiver(self, tmp_path: Path) -> Iterator[Receiver]:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "receiver.pem")
        with Receiver(authority) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield server
            server.shutdown()
            thread.join()

    @pytest.fixture
    def far_end(self, tmp_path: Path, api: FakeApiServer, receiver: Receiver) -> Iterator[Cluster]:
        made = Cluster(tmp_path, api, receiver)
        yield made
        made.close()

    @pytest.fixture
    def connect(self, far_end: Cluster) -> Callable[[], KubernetesChannel]:
        def made() -> KubernetesChannel:
            client = far_end.api.client()
            return KubernetesChannel(NODE, far_end.settings, client, interval_s=0.005)

        return made

    @pytest.fixture
    def from_options(
        self, far_end: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[Mapping[str, str]], KubernetesChannel]:
        for name, value in far_end.api.environment.items():
            monkeypatch.setenv(name, value)
        return lambda more: KubernetesChannel.from_options({**far_end.options, **more}, device=NODE)
