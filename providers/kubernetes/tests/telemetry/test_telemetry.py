"""The conformance kit over telemetry in a registry, with the channel that devices really have."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import AccessDeniedError, NotFoundError, ProfileError, UnavailableError
from edgefleet.protocol.segment import SegmentName
from edgefleet.protocol.tags import tag_of
from edgefleet.testing.cloud.calls import Call
from edgefleet.testing.cloud.oci import OciRegistry
from edgefleet.testing.cloud.oci_tokens import PULL, User
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.devices import AddDevice, DeviceEnd
from edgefleet.testing.kit.receiving import ReceivingConformance
from edgefleet.testing.kit.telemetry import TelemetryConformance
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_kubernetes.telemetry import KubernetesTelemetry
from edgefleet_runtime.channels.kubernetes.api import ApiServer
from edgefleet_runtime.channels.kubernetes.channel import KubernetesChannel
from edgefleet_runtime.channels.kubernetes.settings import Place, Settings

PASSWORD = "a password"
FOLDER = "plant/telemetry"


class Cluster:
    """A cluster that knows nodes of the fleet, and reports of those that were."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.reports: list[str] = []

    def list(
        self, kind: str, namespace: str | None = None, *, labels: dict[str, str]
    ) -> Iterator[dict[str, Any]]:
        assert labels["edgefleet.dev/fleet"] == "plant"
        if kind == "Node":
            names = self.nodes
        else:
            assert (kind, namespace) == ("ConfigMap", "edgefleet-reports")
            names = [f"plant-report-{name}" for name in self.reports]
        yield from ({"metadata": {"name": name}} for name in names)


class Counted(OciRegistry):
    """A registry that notes over which connections it was asked for repositories."""

    def __init__(self, root: Path, **more: Any) -> None:
        super().__init__(root, **more)
        self.peers: set[int] = set()

    def allow(self, call: Call, name: str, action: str) -> None:
        self.peers.add(call.environ["REMOTE_PORT"])
        super().allow(call, name, action)


class Plant:
    """A registry, a cluster, and nodes whose credentials push to their own repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = Cluster()
        self.registry = Counted(
            folder / "registry", users={"operator": User(PASSWORD, PULL)}, bearer=True
        )
        self.registry.start()

    @property
    def address(self) -> str:
        return f"oci://{self.registry.host}/{FOLDER}"

    def credentials(self, user: str) -> Path:
        path = self.folder / f"{user}.json"
        auth = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
        path.write_text(json.dumps({"auths": {self.registry.host: {"auth": auth}}}), "ascii")
        return path

    def add(self, name: str) -> None:
        assert self.registry.access is not None
        below = f"{FOLDER}/devices/{name}/"
        self.registry.access.users[name] = User(PASSWORD, below=below)
        self.cluster.nodes.append(name)

    def channel(self, name: str, *, writes_as: str | None = None) -> KubernetesChannel:
        settings = Settings(
            reports=Place("edgefleet-reports", "plant"),
            pointer=self.folder / "pointer.json",
            token=self.folder,
            segments=self.address,
            segments_credentials=self.credentials(writes_as or name),
        )
        return KubernetesChannel(name, settings, ApiServer("127.0.0.1", 1, self.folder))

    def telemetry(
        self, *, made: type[KubernetesTelemetry] = KubernetesTelemetry, **more: Any
    ) -> KubernetesTelemetry:
        settings = KubernetesSettings.model_validate(
            {
                "prefix": "plant",
                "segments": self.address,
                "registry_credentials": self.credentials("operator"),
                "max_attempts": 2,
                **more,
            }
        )
        clients = Clients(settings)
        return made(clients, settings, base=self.folder, clusters=[self.cluster])


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    (tmp_path / "plant").mkdir()
    made = Plant(tmp_path / "plant")
    yield made
    made.registry.stop()


@pytest.fixture
def telemetry(plant: Plant) -> Iterator[KubernetesTelemetry]:
    made = plant.telemetry()
    yield made
    made.close()


class TestConformance(TelemetryConformance):
    @pytest.fixture
    def telemetry(self, plant: Plant) -> Iterator[KubernetesTelemetry]:
        made = plant.telemetry()
        yield made
        made.close()

    @pytest.fixture
    def device_end(self, plant: Plant) -> Callable[[str], DeviceEnd]:
        return plant.channel

    @pytest.fixture
    def add_device(self, plant: Plant) -> AddDevice:
        return lambda name, **_: plant.add(name)


class TestReceiving(ReceivingConformance):
    @pytest.fixture
    def telemetry(self, plant: Plant) -> Iterator[KubernetesTelemetry]:
        assert plant.registry.access is not None
        plant.registry.access.users["operator"] = User(PASSWORD, below=f"{FOLDER}/")
        made = plant.telemetry(cache=plant.folder / "cache")
        yield made
        made.close()


def test_a_reader_who_may_not_read_what_gateways_note_reads_the_rest(plant: Plant) -> None:
    plant.add("a")
    plant.channel("a").send_hot([sent := samples.alarm(1)])
    assert plant.registry.access is not None
    plant.registry.access.users["operator"] = User(PASSWORD, PULL, below=f"{FOLDER}/devices/")
    with closing(plant.telemetry()) as telemetry:
        assert [event.id for event in telemetry.query(kind="alarm")] == [sent.id]


def test_what_a_gateway_needs_is_proven_when_it_is_asked_for(plant: Plant) -> None:
    assert plant.registry.access is not None
    with closing(plant.telemetry(cache=plant.folder / "cache")) as reader:
        (denied,) = reader.receiving_proofs()
    assert (denied.part, denied.action) == ("receiving", f"push at {plant.address}/received")
    assert "push to the repository" in str(denied.problem)
    plant.registry.access.users["operator"] = User(PASSWORD, below=f"{FOLDER}/")
    with closing(plant.telemetry(cache=plant.folder / "cache")) as writer:
        (allowed,) = writer.receiving_proofs()
        assert allowed.problem is None
        assert list(writer.query()) == []
    assert list(plant.registry.content.uploads()) == []


def segment(plant: Plant, *, model: str = "digits") -> tuple[str, Path]:
    from edgefleet.protocol.segment import write_segment

    path = plant.folder / "segment"
    with path.open("wb") as stream:
        write_segment([samples.prediction(0)], stream)
    name = SegmentName(day=samples.MOMENT.date(), device="a", model=model, id="0-0-1")
    return name.below_device, path


def test_a_credential_of_one_device_writes_for_no_other(plant: Plant) -> None:
    plant.add("victim")
    plant.add("thief")
    name, path = segment(plant)
    with pytest.raises(AccessDeniedError):
        plant.channel("victim", writes_as="thief").upload(name, path)


def test_a_node_that_is_gone_is_known_by_its_report(
    plant: Plant, telemetry: KubernetesTelemetry
) -> None:
    plant.add("old")
    plant.channel("old").upload(*segment(plant))
    plant.cluster.nodes.clear()
    assert list(telemetry.query()) == []
    plant.cluster.reports.append("old")
    assert [event.device for event in telemetry.query()] == ["old"]


def test_content_that_isnt_what_the_tag_leads_to_is_set_aside(
    plant: Plant, telemetry: KubernetesTelemetry
) -> None:
    plant.add("a")
    name, path = segment(plant)
    plant.channel("a").upload(name, path)
    for blob in (plant.folder / "registry/blobs/sha256").iterdir():
        if blob.stat().st_size == path.stat().st_size:
            blob.write_bytes(b"x" * blob.stat().st_size)
    query = telemetry.query()
    with pytest.warns(RuntimeWarning, match="set aside"):
        assert list(query) == []
    assert list(query.unreadable) == [f"devices/a/{name}"]


def test_a_segment_that_retention_took_meanwhile_is_set_aside(
    plant: Plant, telemetry: KubernetesTelemetry
) -> None:
    plant.add("a")
    name, path = segment(plant)
    plant.channel("a").upload(name, path)
    listed = SegmentName(day=samples.MOMENT.date(), device="a", model="digits", id="0-0-1")
    plant.registry.content.delete(f"{FOLDER}/devices/a", tag_of(name))
    with pytest.raises(NotFoundError, match="isn't there"):
        telemetry._open_file("a", listed.below_device)


class ListsWhatIsGone(KubernetesTelemetry):
    """The registry's retention takes a file away between its listing and its reading."""

    def _paths(self, device: str, start: str) -> Iterator[str]:
        yield f"{start}2026-11-22/{0:016x}-{0:08x}.json"
        yield from super()._paths(device, start)


def test_a_file_of_hot_events_that_retention_takes_away_meanwhile_is_passed_over(
    plant: Plant,
) -> None:
    plant.add("a")
    plant.channel("a").send_hot([sent := samples.alarm(1)])
    with closing(plant.telemetry(made=ListsWhatIsGone)) as telemetry:
        assert [event.id for event in telemetry.query(device="a", kind="alarm")] == [sent.id]


def test_hot_events_that_were_read_are_not_fetched_again(
    plant: Plant, telemetry: KubernetesTelemetry
) -> None:
    plant.add("a")
    plant.channel("a").send_hot([samples.alarm(1)])
    assert len(list(telemetry.query(kind="alarm"))) == 1
    fetched = len(plant.registry.seen("GetBlob"))
    assert len(list(telemetry.query(kind="alarm"))) == 1
    assert len(plant.registry.seen("GetBlob")) == fetched


def test_looks_at_many_devices_take_up_the_same_connection(
    plant: Plant, telemetry: KubernetesTelemetry
) -> None:
    many = 40
    for number in range(many):
        plant.add(f"cam-{number}")
        plant.channel(f"cam-{number}").send_hot([samples.alarm(number)])
    plant.registry.peers.clear()
    assert len(list(telemetry.query(kind="alarm"))) == many
    assert len(plant.registry.peers) == 1
    tokens = len(plant.registry.seen("GetToken"))
    assert len(list(telemetry.query(kind="alarm"))) == many
    assert len(plant.registry.seen("GetToken")) == tokens


def test_a_gateway_passes_on_what_many_devices_sent_over_the_same_connection(plant: Plant) -> None:
    assert plant.registry.access is not None
    plant.registry.access.users["operator"] = User(PASSWORD, below=f"{FOLDER}/")
    names = [f"cam-{number}" for number in range(12)]
    with closing(plant.telemetry(cache=plant.folder / "cache")) as telemetry:
        for name in names:
            telemetry.receive_hot(name, [samples.alarm(0)])
        assert len(plant.registry.peers) == 1
        tokens = len(plant.registry.seen("GetToken"))
        for name in names:
            telemetry.receive_hot(name, [samples.alarm(1)])
        assert len(plant.registry.seen("GetToken")) == tokens


def test_a_registry_that_is_away_is_told(plant: Plant, telemetry: KubernetesTelemetry) -> None:
    plant.add("a")
    plant.registry.stop()
    with pytest.raises(UnavailableError, match="registry"):
        list(telemetry.query())
    plant.registry.start()


def test_an_api_server_that_is_away_is_not_taken_for_the_registry(plant: Plant) -> None:
    cluster = {"server": "https://127.0.0.1:1"}
    kubeconfig = {
        "clusters": [{"name": "site", "cluster": cluster}],
        "users": [{"name": "ada", "user": {"token": "a token"}}],
        "contexts": [{"name": "site", "context": {"cluster": "site", "user": "ada"}}],
        "current-context": "site",
    }
    path = plant.folder / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))
    settings = KubernetesSettings(segments=plant.address, kubeconfig=path, max_attempts=1)
    away = KubernetesTelemetry(Clients(settings), settings, base=plant.folder)
    with closing(away), pytest.raises(UnavailableError, match="the API server at") as caught:
        list(away.query())
    assert "registry" not in str(caught.value)


@pytest.mark.parametrize("segments", [None, "gs://bucket/prefix"])
def test_a_profile_without_a_registry_for_segments_is_told(
    plant: Plant, segments: str | None
) -> None:
    with pytest.raises(ProfileError, match="segments"):
        plant.telemetry(segments=segments)
