"""The Kubernetes channel: options, the mounted pointer, the report, events, and what is refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.tests.channels.api_server import FakeApiServer
from device_runtime.tests.support import FLEET, OTHER_FLEET
from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    EdgeFleetError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.event import Event, HealthEvent, new_event
from edgefleet.protocol.pointer import Pointer
from edgefleet.testing.kit import samples
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.kubernetes.channel import KubernetesChannel, higher
from edgefleet_runtime.channels.kubernetes.mounted import SETTLE_S, MountedPointer, read_mounted
from edgefleet_runtime.channels.kubernetes.settings import OPTIONS, Place, Settings, read_settings
from edgefleet_runtime.cli import main
from edgefleet_runtime.reconciler.outside import Outside

NODE = "edge-7.plant-a"
NAMESPACE = "edgefleet-reports"
REPORT = f"edgefleet-report-{NODE}"
POINTER = "edgefleet/edgefleet-pointer-line-3"


def pointer(number: int = 1, *, fleet: str = FLEET) -> bytes:
    return Pointer(
        fleet=fleet,
        epoch=1,
        number=number,
        current=digest_of(b"release"),
        sources=("https://models.test/fleet",),
        issued=datetime(2026, 11, 21, tzinfo=UTC),
    ).encoded()


class Mount:
    """A mounted ConfigMap, updated as the kubelet's AtomicWriter does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        folder.mkdir()

    @property
    def file(self) -> Path:
        return self.folder / "pointer.json"

    def write(self, **files: bytes) -> None:
        self.count += 1
        new, data = self.folder / f"..2026_11_21_{self.count}", self.folder / "..data"
        old = data.resolve() if data.exists() else None
        new.mkdir()
        for name, content in files.items():
            (new / f"{name}.json").write_bytes(content)
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").replace(data)
        for name in files:
            if not (self.folder / f"{name}.json").is_symlink():
                (self.folder / f"{name}.json").symlink_to(f"..data/{name}.json")
        if old is not None:
            for path in old.iterdir():
                path.unlink()
            old.rmdir()


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    return Mount(tmp_path / "mounted")


def made(api: FakeApiServer, mount: Mount, **more: Any) -> KubernetesChannel:
    settings = Settings(
        reports=Place(NAMESPACE, "edgefleet"), pointer=mount.file, token=api.folder, **more
    )
    return KubernetesChannel(NODE, settings, api.client(), interval_s=0.005)


@pytest.fixture
def channel(api: FakeApiServer, mount: Mount) -> KubernetesChannel:
    return made(api, mount)


def event(message: str = "warm") -> Event:
    return new_event(HealthEvent(what="hot", message=message))


# --------------------------------------------------------------------------------- the options


def given_options(**more: str) -> dict[str, str]:
    return {"reports": f"{NAMESPACE}/edgefleet", **more}


def test_what_a_pod_is_told_is_little() -> None:
    settings = read_settings(given_options())
    assert settings.reports == Place(NAMESPACE, "edgefleet")
    assert str(settings.pointer) == "/etc/edgefleet/pointer/pointer.json"
    assert (settings.watch, settings.events, settings.segments) == (None, None, None)


def test_each_option_is_read() -> None:
    values = {
        **dict.fromkeys(OPTIONS, "/a/file"),
        **given_options(),
        "watch": POINTER,
        "events": "mqtts://broker.test:8883/plant/{device}",
        "segments": "oci://registry.test/fleet/",
    }
    settings = read_settings(values)
    assert settings.watch == Place(*POINTER.split("/"))
    assert settings.events == "mqtts://broker.test:8883/plant/{device}"
    assert settings.segments == "oci://registry.test/fleet"
    assert settings.events_token == Path("/a/file") == settings.registry_credentials


def test_folders_of_models_come_before_the_pointers_sources(
    api: FakeApiServer, mount: Mount
) -> None:
    models = read_settings(given_options(models="/models/a,/models/b")).models
    pointer = samples.pointer(1)
    found = Outside(made(api, mount, models=models)).sources(pointer)
    folders = ("file:///models/a", "file:///models/b")
    assert tuple(source.address for source in found) == (*folders, *pointer.sources)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"watch": POINTER},
        given_options(colour="red"),
        {"reports": "reports/Not_A_Name"},
        given_options(watch="no-namespace"),
        given_options(events="ftp://x/y"),
        given_options(events="https://user:secret@host/"),
        given_options(events="https://host/?key=secret"),
        given_options(events="https://host:99999999/secret"),
        given_options(segments="s3://bucket/secret"),
        given_options(events_cert="/secret.pem"),
        given_options(events="http://host/", events_token="/secret"),
        given_options(events="mqtt://host/", events_token="/secret"),
    ],
)
def test_options_that_make_no_sense_are_refused_without_what_is_secret(
    options: dict[str, str],
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(options)
    assert "secret" not in str(caught.value)
    assert caught.value.cure


def test_the_node_names_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    assert KubernetesChannel.own_device() is None
    monkeypatch.setenv("NODE_NAME", NODE)
    assert KubernetesChannel.own_device() == NODE
    with pytest.raises(ConfigurationError, match="edge-8"):
        KubernetesChannel.from_options(given_options(), device="edge-8")


def test_the_command_line_tells_a_pod_without_a_kubelet_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("NODE_NAME", NODE)
    options = [f"-o{key}={value}" for key, value in given_options().items()]
    assert main(["run", "--root", str(tmp_path), "--channel", "kubernetes", *options]) != 0
    assert "KUBERNETES_SERVICE_HOST" in capsys.readouterr().err


# ----------------------------------------------------------------------------- the mounted pointer


def test_before_the_first_release_there_is_no_pointer(
    channel: KubernetesChannel, mount: Mount
) -> None:
    assert channel.pointer() is None
    mount.write(other=b"{}")
    assert channel.pointer() is None
    mount.folder.rename(mount.folder.with_name("gone"))
    assert channel.pointer() is None


def test_a_swap_wakes_the_waiting(channel: KubernetesChannel, mount: Mount) -> None:
    mount.write(pointer=pointer(1))
    assert channel.pointer() == pointer(1)
    channel.access()
    assert not channel.wait(0)
    writer = threading.Timer(0.02, mount.write, kwargs={"pointer": pointer(2)})
    writer.start()
    assert channel.wait(90)
    assert channel.pointer() == pointer(2)
    writer.join()


def test_a_swap_in_the_middle_of_a_read_leaves_one_whole_pointer(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that was opened is swapped and emptied before the file in it is opened."""
    mount.write(pointer=pointer(1))
    really, swaps = os.open, [pointer(2), pointer(3)]

    def swapping(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if more.get("dir_fd") is not None and swaps:
            mount.write(pointer=swaps.pop(0))
        return really(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", swapping)
    assert MountedPointer(mount.file).read() == pointer(3)


def test_whatever_the_kubelet_does_meanwhile_what_is_read_is_whole(mount: Mount) -> None:
    mount.write(pointer=pointer(1))
    reader, over = MountedPointer(mount.file), threading.Event()
    read: list[bytes | None] = []

    def reading() -> None:
        while not over.is_set():
            read.append(reader.read())

    thread = threading.Thread(target=reading)
    thread.start()
    numbers = range(2, 200)
    for number in numbers:
        mount.write(pointer=pointer(number))
    over.set()
    thread.join()
    assert {*read} <= {None, pointer(1), *map(pointer, numbers)}
    assert reader.read() == pointer(199)


def test_a_file_that_is_being_written_counts_when_it_is_whole(tmp_path: Path) -> None:
    path, now = tmp_path / "pointer.json", [0.0]
    reader = MountedPointer(path, clock=lambda: now[0])
    path.write_bytes(pointer(1))
    assert reader.read() == pointer(1)
    path.write_bytes(b"")
    assert reader.read() == pointer(1)
    path.write_bytes(pointer(2)[:40])
    assert reader.read() == pointer(1)
    path.write_bytes(pointer(2))
    assert reader.read() == pointer(2)


@pytest.mark.parametrize("damaged", [b'{"number": ', b'{"fleet": "\xff"}'])
def test_what_stays_damaged_is_given_as_it_is_to_be_refused_aloud(
    tmp_path: Path, damaged: bytes
) -> None:
    path, now = tmp_path / "pointer.json", [0.0]
    reader = MountedPointer(path, clock=lambda: now[0])
    path.write_bytes(damaged)
    assert reader.read() is None
    now[0] += SETTLE_S
    assert reader.read() == damaged


@given(st.binary(max_size=2000))
def test_no_more_is_read_than_a_pointer_may_have(data: bytes) -> None:
    # One folder for all examples: hypothesis makes hundreds.
    folder = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp")
    path = folder / f"edgefleet-test-{os.getpid()}-{threading.get_ident()}"
    path.write_bytes(data)
    try:
        assert read_mounted(folder, path.name, 1024) == data[:1025]
    finally:
        path.unlink()


# ------------------------------------------------------------------------------ through the API


def test_a_watched_pointer_comes_without_the_kubelet(api: FakeApiServer, mount: Mount) -> None:
    channel = made(api, mount, watch=Place(*POINTER.split("/")))
    channel.pointer()
    channel.access()
    api.put(POINTER, {"pointer.json": pointer(2).decode()})
    assert channel.wait(90)
    eventually(lambda: channel.pointer() == pointer(2))
    mount.write(pointer=pointer(1))  # the kubelet is late
    assert channel.pointer() == pointer(2)
    mount.write(pointer=pointer(3))  # and now the watch is
    assert channel.pointer() == pointer(3)
    channel.close()


@pytest.mark.parametrize(
    "mounted, watched, expected",
    [
        (None, None, None),
        (b"one", None, b"one"),
        (None, b"one", b"one"),
        (pointer(2), pointer(1), pointer(2)),
        (pointer(1), pointer(2), pointer(2)),
        (b"damaged", pointer(1), pointer(1)),
        (pointer(1), b"damaged", pointer(1)),
        (pointer(9), pointer(1, fleet=OTHER_FLEET), pointer(1, fleet=OTHER_FLEET)),
    ],
)
def test_the_higher_of_two_pointers_counts(
    mounted: bytes | None, watched: bytes | None, expected: bytes | None
) -> None:
    assert higher(mounted, watched) == expected


# ---------------------------------------------------------------------------------- the report


def test_a_report_is_one_apply_under_our_own_name(
    api: FakeApiServer, channel: KubernetesChannel
) -> None:
    channel.send_report(b'{"state":"active"}')
    ((method, path, query),) = api.requests
    assert (method, path) == ("PATCH", f"/api/v1/namespaces/{NAMESPACE}/configmaps/{REPORT}")
    assert query == {"fieldManager": "edgefleet-runtime", "force": "true"}
    (sent,) = api.sent
    assert sent["data"] == {"report.json": '{"state":"active"}'}
    assert sent["metadata"]["name"] == REPORT
    assert sent["metadata"]["labels"]["edgefleet.dev/fleet"] == "edgefleet"


@pytest.mark.parametrize(
    "refusal, kind, said",
    [
        ((401, "Unauthorized"), AccessExpiredError, "the kubelet renews it"),
        (
            (403, "ValidatingAdmissionPolicy 'edgefleet' denied request: another node's report"),
            AccessDeniedError,
            "another node's report",
        ),
        ((404, 'namespaces "edgefleet-reports" not found'), UnavailableError, "edgefleet install"),
        ((409, "Operation cannot be fulfilled"), EdgeFleetError, "409"),
        ((429, "too many requests"), ThrottledError, "429"),
        ((500, "etcdserver: leader changed"), UnavailableError, "etcdserver"),
        ((503, "apiserver is shutting down"), ThrottledError, "503"),
        ((302, "elsewhere"), UnavailableError, "302"),
    ],
)
def test_a_refused_report_says_why_and_what_to_do(
    api: FakeApiServer,
    channel: KubernetesChannel,
    refusal: tuple[int, str],
    kind: type[EdgeFleetError],
    said: str,
) -> None:
    api.refuse = lambda _method, _path: refusal
    with pytest.raises(kind) as caught:
        channel.send_report(b"{}")
    assert said in str(caught.value)
    assert "token-1" not in str(caught.value)


def test_a_server_that_is_away_means_later(api: FakeApiServer, channel: KubernetesChannel) -> None:
    api.stop()
    with pytest.raises(UnavailableError):
        channel.send_report(b"{}")


# ---------------------------------------------------------------------------------- the access


def test_what_is_refused_stands_in_the_access_until_it_isnt(
    api: FakeApiServer, channel: KubernetesChannel
) -> None:
    assert (channel.access().state, channel.access().detail) == ("ok", None)
    api.refuse = lambda _method, _path: (403, "another node's report")
    with pytest.raises(AccessDeniedError):
        channel.send_report(b"{}")
    told = channel.access()
    assert told.state == "ok"  # models can be read
    assert "another node's report" in (told.detail or "")
    api.refuse = lambda _method, _path: None
    channel.send_report(b"{}")
    assert channel.access().detail is None


def test_credentials_that_come_later_wake_the_runtime(
    api: FakeApiServer, mount: Mount, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    channel = made(api, mount, registry_credentials=path)
    channel.pointer()
    assert channel.access().state == "denied"
    assert not channel.wait(0)
    path.write_text("{}", encoding="ascii")
    assert channel.wait(0)
    assert channel.access().state == "ok"


# ------------------------------------------------------------------------------ with nowhere to go


@pytest.mark.parametrize(
    "send",
    [
        lambda channel, _: channel.send_hot([event()]),
        lambda channel, path: channel.upload("samples/sha256/" + "0" * 64, path),
    ],
)
def test_without_an_address_events_and_segments_wait(
    channel: KubernetesChannel, tmp_path: Path, send: Callable[[KubernetesChannel, Path], None]
) -> None:
    with pytest.raises(UnavailableError, match="wait"):
        send(channel, tmp_path)
