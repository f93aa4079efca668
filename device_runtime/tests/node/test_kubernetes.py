"""A runtime with the Kubernetes channel as a process: pointers, reports, what goes wrong."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from device_runtime.tests.channels.api_server import FakeApiServer
from device_runtime.tests.node.device import RECORD, Client, Device, publish
from device_runtime.tests.support import Repository
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.report import Report, read_report
from edgefleet.protocol.tags import path_of
from edgefleet.testing.cloud.oci import OciRegistry
from edgefleet.testing.cloud.ports import HeldPort
from edgefleet.testing.waiting import eventually

NODE = "cam-07"
MODELS, SEGMENTS = "plant/models", "plant/telemetry"
REPORT = f"edgefleet-reports/edgefleet-report-{NODE}"
POINTER = "edgefleet/edgefleet-pointer-line-3"
DISK = 'set -eu; mount -t tmpfs -o size="$2" tmpfs "$1"; shift 2; exec "$@"'


class Site:
    """A registry, an API server, and a node with a mounted ConfigMap."""

    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "fleet")
        self.registry = OciRegistry(folder / "registry")
        self.registry.start()
        self.host = self.registry.host
        self.api = FakeApiServer(folder / "cluster")
        self.api.start()
        self.mounted = folder / "mounted"
        self.mounted.mkdir()

    def stop(self) -> None:
        self.registry.stop()
        self.api.end()

    def release(self, factor: float, *, padding: int = 0) -> str:
        """Publish a release to the registry."""
        bundle = publish(self.repository, factor, padding=padding)
        release = self.repository.release({"digits": bundle}, telemetry=RECORD)
        content = self.registry.content
        for path in (self.repository.source / "blobs/sha256").iterdir():
            data = path.read_bytes()
            upload = content.begin(MODELS)
            content.upload(MODELS, upload).add(data)
            content.finish(MODELS, upload, digest_of(data))
        return release

    def pointer(self, release: str) -> str:
        address = f"oci://{self.host}/{MODELS}"
        return self.repository.pointer(release, sources=[address]).encoded().decode()

    def mount(self, pointer: str) -> None:
        """What the kubelet does with a pointer."""
        partial = self.mounted / ".partial"
        partial.write_text(pointer, encoding="utf-8")
        partial.replace(self.mounted / "pointer.json")


class Node(Device):
    """The runtime's process on the node; its report is what the API server got."""

    def __init__(self, root: Path, site: Site, *arguments: str, disk: str = "") -> None:
        super().__init__(root, site.repository, *arguments)
        self.site = site
        self.disk = disk
        self.environment = {**site.api.environment, "NODE_NAME": NODE}

    def command(self) -> list[str]:
        options = {
            "reports": "edgefleet-reports/edgefleet",
            "pointer": self.site.mounted / "pointer.json",
            "token": self.site.api.folder,
            "watch": POINTER,
            "segments": f"oci://{self.site.host}/{SEGMENTS}",
        }
        command = [
            *(sys.executable, "-m", "edgefleet_runtime", "run", "--exit-with-parent"),
            *("--root", str(self.data), "--channel", "kubernetes"),
            *(f"-o{key}={value}" for key, value in options.items()),
            *self.arguments,
        ]
        if not self.disk:
            return command
        self.data.mkdir(parents=True, exist_ok=True)
        inside = ["sh", "-c", DISK, "sh", str(self.data), self.disk, *command]
        return ["unshare", "--mount", "--propagation", "slave", *inside]

    def report(self) -> Report | None:
        found = self.site.api.objects.get(REPORT)
        return None if found is None else read_report(found["data"]["report.json"].encode())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.stop()


def test_a_release_comes_by_the_mounted_pointer_and_the_next_by_the_watch(
    site: Site, tmp_path: Path
) -> None:
    first, second = site.release(2), site.release(3)
    site.mount(site.pointer(first))
    with Node(tmp_path / NODE, site) as node:
        pid = node.active(first).health.pid
        site.api.put(POINTER, {"pointer.json": site.pointer(second)})
        report = node.active(second)
        assert report.health.pid == pid
        with node.client() as client:
            assert client.factor() == 3


def test_segments_lie_in_the_nodes_repository_when_it_stops(site: Site, tmp_path: Path) -> None:
    release = site.release(2)
    site.mount(site.pointer(release))
    with Node(tmp_path / NODE, site) as node:
        node.active(release)
        with node.client() as client:
            client.factor()
        assert node.process is not None
        node.process.terminate()
        assert node.ended() == 0
    tags = site.registry.content.repository(f"{SEGMENTS}/devices/{NODE}").tags
    kinds = {str(path_of(tag)).partition("/")[0] for tag in tags}
    assert "segments" in kinds
    assert "hot" in kinds  # that the runtime started


@pytest.fixture
def held() -> Iterator[HeldPort]:
    with closing(HeldPort()) as port:
        yield port


def test_a_pod_that_is_deleted_with_nothing_reachable_serves_the_last_release(
    site: Site, tmp_path: Path, held: HeldPort
) -> None:
    release = site.release(2)
    site.mount(site.pointer(release))
    address = f"127.0.0.1:{held.number}"
    node = Node(tmp_path / NODE, site, "--http", address)
    with node:
        node.active(release)
    site.registry.stop()
    site.api.stop()
    shutil.rmtree(site.mounted)
    site.api.objects.clear()

    def served() -> float | None:
        with suppress(OSError, http.client.HTTPException), Client(f"http://{address}") as client:
            return client.factor() if client.ask("/v2/health/ready") == 200 else None
        return None

    with node.start():
        assert eventually(served, node.log) == 2
        site.api.start()
        assert node.active(release).health.starts == 2
    site.registry.start()


def test_a_server_that_goes_and_comes_back_costs_no_pointer(site: Site, tmp_path: Path) -> None:
    first, second = site.release(2), site.release(3)
    site.api.put(POINTER, {"pointer.json": site.pointer(first)})
    with Node(tmp_path / NODE, site) as node:
        node.active(first)
        site.api.stop()
        site.api.put(POINTER, {"pointer.json": site.pointer(second)})
        site.api.forget()
        site.api.start()
        node.active(second)


def test_a_refused_report_stops_no_release(site: Site, tmp_path: Path) -> None:
    first, second = site.release(2), site.release(3)
    refused: list[str] = []

    def policy(method: str, path: str) -> tuple[int, str] | None:
        if method != "PATCH" or len(refused) >= 2:
            return None
        refused.append(path)
        return 403, "ValidatingAdmissionPolicy denied request: the report of another node"

    site.api.refuse = policy
    site.mount(site.pointer(first))
    with Node(tmp_path / NODE, site) as node:
        node.active(first)  # refused twice, then taken
        site.mount(site.pointer(second))
        node.active(second)
        assert "the report of another node" in node.log
    assert len(refused) == 2


def _no_mounts() -> bool:
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return True
    trying: list[Any] = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(trying, capture_output=True, check=False).returncode != 0


@pytest.mark.skipif(_no_mounts(), reason="only root may give a process a disk of its own")
def test_a_full_disk_is_reported_and_the_last_release_serves_on(site: Site, tmp_path: Path) -> None:
    first, second = site.release(2), site.release(3, padding=12_000_000)
    third = site.release(4)
    site.mount(site.pointer(first))
    with Node(tmp_path / NODE, site, disk="8m") as node:
        node.active(first)
        site.mount(site.pointer(second))
        report = node.reported(wanted=second, running=first, state="waiting")
        assert any("space" in error or "disk" in error for error in report.errors), report.errors
        with node.client() as client:
            assert client.factor() == 2
        site.mount(site.pointer(third))
        node.active(third)
