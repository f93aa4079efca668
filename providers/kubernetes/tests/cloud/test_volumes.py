"""What pods find below their mounts, and what becomes of it."""

from __future__ import annotations

import base64
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.cloud.kubelet_volumes import File, NodeDisk, NotYetError, Volumes, swap
from edgefleet_kubernetes.cloud.node_client import Client
from edgefleet_kubernetes.cloud.node_tokens import Tokens
from providers.kubernetes.tests.cloud.node_bench import (
    FAST,
    NAMESPACE,
    Bench,
    Object,
    config_map,
    pod,
    python,
)


class Contents:
    """ConfigMaps and Secrets that can be changed."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object."""
        assert namespace in (NAMESPACE, "")
        return self.objects.get((kind, name))

    def token(self, pod: Object, audience: str | None, expires_s: int) -> str:
        """A token that tells what it was asked for with."""
        return f"{pod['metadata']['uid']} {audience} {expires_s}"

    def set(self, name: str, **data: str) -> None:
        """Have a ConfigMap."""
        self.objects["ConfigMap", name] = config_map(name, **data)


@pytest.fixture
def contents() -> Contents:
    """No contents."""
    return Contents()


@pytest.fixture
def disk(tmp_path: Path) -> NodeDisk:
    """A node's disk."""
    return NodeDisk(tmp_path / "disk", tmp_path / "volatile")


def mounted(
    contents: Contents, disk: NodeDisk, volume: dict[str, Any], **mount: str
) -> tuple[Volumes, Path]:
    """A pod's volume, and where its container finds it."""
    container = {
        "name": "app",
        "volumeMounts": [{"name": "it", "mountPath": "/it", **mount}],
    }
    document = {
        "metadata": {"uid": "u-1", "name": "one", "namespace": NAMESPACE, "labels": {"a": "b"}},
        "spec": {"containers": [container], "volumes": [{"name": "it", **volume}]},
    }
    volumes = Volumes(document, disk.disk.parent / "pods" / "u-1", disk, contents)
    volumes.mount()
    return volumes, volumes.folders(container)["/it"]


def read(folder: Path) -> dict[str, str]:
    """What is seen in a folder."""
    return {
        one.name: one.read_text()
        for one in sorted(folder.iterdir())
        if not one.name.startswith("..")
    }


# -------------------------------------------------------------------------- what it is made of


def test_a_config_map_is_a_folder_with_a_file_a_key(contents: Contents, disk: NodeDisk) -> None:
    contents.set("settings", a="1", b="2")
    _, folder = mounted(contents, disk, {"configMap": {"name": "settings"}})
    assert read(folder) == {"a": "1", "b": "2"}


def test_items_choose_keys_paths_and_modes(contents: Contents, disk: NodeDisk) -> None:
    contents.set("settings", a="1", b="2")
    items = [{"key": "a", "path": "deep/first", "mode": 0o400}]
    _, folder = mounted(contents, disk, {"configMap": {"name": "settings", "items": items}})
    assert (folder / "deep" / "first").read_text() == "1"
    assert (folder / "deep" / "first").stat().st_mode & 0o777 == 0o400


def test_a_secret_is_decoded(contents: Contents, disk: NodeDisk) -> None:
    data = {"key": base64.b64encode(b"s3cret").decode()}
    contents.objects["Secret", "keys"] = {"kind": "Secret", "data": data}
    _, folder = mounted(contents, disk, {"secret": {"secretName": "keys"}})
    assert read(folder) == {"key": "s3cret"}


def test_what_is_not_there_is_waited_for(contents: Contents, disk: NodeDisk) -> None:
    with pytest.raises(NotYetError, match='configmap "none" not found'):
        mounted(contents, disk, {"configMap": {"name": "none"}})


def test_what_is_optional_is_empty_until_it_is_there(contents: Contents, disk: NodeDisk) -> None:
    volume = {"configMap": {"name": "late", "optional": True}}
    volumes, folder = mounted(contents, disk, volume)
    assert read(folder) == {}
    contents.set("late", word="now")
    assert volumes.refresh()
    assert read(folder) == {"word": "now"}


def test_a_projected_volume_has_tokens_labels_and_keys(contents: Contents, disk: NodeDisk) -> None:
    contents.set("ca", **{"ca.crt": "PEM"})
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    sources = [
        {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 900}},
        {"configMap": {"name": "ca"}},
        {"downwardAPI": {"items": [labels]}},
    ]
    _, folder = mounted(contents, disk, {"projected": {"sources": sources}})
    assert read(folder) == {"token": "u-1 vault 900", "ca.crt": "PEM", "labels": 'a="b"'}


def test_a_host_path_must_be_there_where_it_says_so(contents: Contents, disk: NodeDisk) -> None:
    volume = {"hostPath": {"path": "/var/lib/store", "type": "Directory"}}
    with pytest.raises(NotYetError, match="hostPath type check failed"):
        mounted(contents, disk, volume)
    (disk.disk / "var/lib/store").mkdir(parents=True)
    assert mounted(contents, disk, volume)[1] == disk.disk / "var/lib/store"


def test_a_claim_is_the_folder_of_its_volume(contents: Contents, disk: NodeDisk) -> None:
    contents.objects["PersistentVolumeClaim", "data"] = {"spec": {"volumeName": "pv-1"}}
    contents.objects["PersistentVolume", "pv-1"] = {"spec": {"local": {"path": "/mnt/ssd"}}}
    _, folder = mounted(contents, disk, {"persistentVolumeClaim": {"claimName": "data"}})
    assert folder == disk.disk / "mnt/ssd"


def test_an_empty_dir_goes_with_the_pod_and_a_host_path_stays(
    contents: Contents, disk: NodeDisk
) -> None:
    empty, folder = mounted(contents, disk, {"emptyDir": {}})
    (folder / "x").touch()
    empty.remove()
    assert not folder.exists()
    host, kept = mounted(contents, disk, {"hostPath": {"path": "/keep"}})
    (kept / "x").touch()
    host.remove()
    assert (kept / "x").exists()


# --------------------------------------------------------------------------------- what changes


def test_a_config_map_changes_by_one_swap_of_a_link(contents: Contents, disk: NodeDisk) -> None:
    contents.set("settings", a="1", b="1")
    volumes, folder = mounted(contents, disk, {"configMap": {"name": "settings"}})
    before = (folder / "..data").readlink()
    contents.set("settings", a="2", c="2")
    assert volumes.refresh()
    assert read(folder) == {"a": "2", "c": "2"}
    assert (folder / "..data").readlink() != before
    assert not (folder / before).exists()


def test_nothing_is_written_where_nothing_changed(contents: Contents, disk: NodeDisk) -> None:
    contents.set("settings", a="1")
    volumes, folder = mounted(contents, disk, {"configMap": {"name": "settings"}})
    before = (folder / "..data").readlink()
    assert not volumes.refresh()
    assert (folder / "..data").readlink() == before


def test_a_reader_sees_one_state_or_the_other(tmp_path: Path) -> None:
    swap(tmp_path, {"a": File(b"0", 0o644), "b": File(b"0", 0o644)})
    enough = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not enough.is_set():
            written += 1
            text = str(written).encode()
            swap(tmp_path, {"a": File(text, 0o644), "b": File(text, 0o644)})

    writer = threading.Thread(target=write)
    writer.start()
    seen: set[bytes] = set()
    try:
        while len(seen) < 50 and writer.is_alive():
            try:
                # One state is what lies behind the link as it was read once.
                state = tmp_path / (tmp_path / "..data").readlink()
                one, other = (state / "a").read_bytes(), (state / "b").read_bytes()
            except FileNotFoundError:
                continue  # it was swapped in the middle, and the old state is gone
            assert one == other
            seen.add(one)
    finally:
        enough.set()
        writer.join()
    assert len(seen) == 50
    assert read(tmp_path) == {"a": str(written), "b": str(written)}


def test_a_path_below_a_volume_never_changes(contents: Contents, disk: NodeDisk) -> None:
    contents.set("settings", a="1")
    volumes, file = mounted(
        contents, disk, {"configMap": {"name": "settings"}}, subPath="a", mountPath="/it"
    )
    contents.set("settings", a="2")
    volumes.refresh()
    assert file.read_text() == "1"


def reading(name: str) -> Object:
    """A pod that tells each content that it reads of a mounted pointer."""
    source = """
import sys, time
last = None
while True:
    text = open(sys.argv[1]).read()
    if text != last:
        print(text, flush=True)
    last = text
    time.sleep(0.01)
"""
    mount = {"volumeMounts": [{"name": "pointer", "mountPath": "/etc/pointer"}]}
    volume = {"name": "pointer", "configMap": {"name": "pointer"}}
    return pod(name, python(source, "/etc/pointer/pointer.json", **mount), volumes=[volume])


def set_pointer(bench: Bench, text: str) -> None:
    """Change the pointer."""
    bench.store.patch("ConfigMap", "pointer", {"data": {"pointer.json": text}}, NAMESPACE)


def test_a_change_reaches_a_running_pod_without_a_restart(bench: Bench) -> None:
    bench.cluster.add_node("n-1")
    bench.create(config_map("pointer", **{"pointer.json": "first"}))
    bench.create(reading("one"))
    eventually(lambda: bench.log() == "first\n")
    before = eventually(lambda: bench.cluster.pid("n-1", "app"))
    set_pointer(bench, "second")
    eventually(lambda: bench.log() == "first\nsecond\n")
    assert bench.cluster.pid("n-1", "app") == before


def test_a_change_reaches_a_running_pod_later_than_a_new_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FAST._replace(volume_lag_s=3600.0))
    try:
        bench.cluster.add_node("n-1")
        bench.create(config_map("pointer", **{"pointer.json": "first"}))
        bench.create(reading("old"))
        eventually(lambda: bench.log("old") == "first\n")
        set_pointer(bench, "second")
        bench.create(reading("new"))
        eventually(lambda: bench.log("new") == "second\n")
        assert bench.log("old") == "first\n"
    finally:
        bench.stop()


def test_a_token_is_had_anew_before_it_ends(bench: Bench) -> None:
    clock = [0.0]
    sources = Tokens(
        client=Client(bench.store, "kubelet"),
        node="n-1",
        issue=bench.issue,
        reachable=lambda: True,
        clock=lambda: clock[0],
    )
    document = pod("one", nodeName="n-1")
    document["metadata"]["uid"] = "u-1"
    first = sources.token(document, None, 600)
    clock[0] = 479.0
    assert sources.token(document, None, 600) == first
    clock[0] = 481.0
    assert sources.token(document, None, 600) != first


def test_a_pods_token_is_of_its_account_and_its_node(bench: Bench) -> None:
    bench.cluster.add_node("n-1")
    meta = {"name": "device", "namespace": NAMESPACE}
    bench.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 900}}
    volume = {"name": "token", "projected": {"sources": [token]}}
    container = python(
        "import sys; print(open(sys.argv[1]).read())",
        "/var/run/secrets/edgefleet/token",
        volumeMounts=[{"name": "token", "mountPath": "/var/run/secrets/edgefleet"}],
    )
    bench.create(
        pod("one", container, volumes=[volume], serviceAccountName="device", restartPolicy="Never")
    )
    eventually(lambda: bench.phase() == "Succeeded")
    assert json.loads(bench.log())["expires_s"] == 900
    assert bench.tokens == [("device", None, "n-1")]


def test_a_pod_without_its_volume_waits_and_says_why(bench: Bench) -> None:
    bench.cluster.add_node("n-1")
    volume = {"name": "settings", "configMap": {"name": "late"}}
    container = python("", volumeMounts=[{"name": "settings", "mountPath": "/etc/settings"}])
    bench.create(pod("one", container, volumes=[volume], restartPolicy="Never"))
    eventually(lambda: "FailedMount" in bench.events("one"))
    assert bench.waiting() == "ContainerCreating"
    bench.create(config_map("late"))
    eventually(lambda: bench.phase() == "Succeeded")


@pytest.fixture
def short() -> Iterator[Bench]:
    """A cluster in a folder with a short name, as that of `edgefleet mock` is."""
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        bench = Bench(Path(folder))
        yield bench
        bench.stop()


def test_sockets_fit_below_volumes_that_are_in_memory(short: Bench) -> None:
    bench = short
    bench.cluster.add_node("n-1")
    source = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1]); print('ok')"
    volume = {"name": "run", "emptyDir": {"medium": "Memory"}}
    mount = {"volumeMounts": [{"name": "run", "mountPath": "/run/app"}]}
    container = python(source, "/run/app/runtime.sock", **mount)
    bench.create(pod("one", container, volumes=[volume], restartPolicy="Never"))
    eventually(lambda: bench.phase() in ("Succeeded", "Failed"))
    assert bench.log() == "ok\n"
