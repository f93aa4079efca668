"""The kit's suites of registry and blobs: over stand-ins and the real ``docker-registry``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet.protocol.digest import hex_of
from edgefleet.testing.cloud.oci import Kind, OciRegistry
from edgefleet.testing.kit.blobs import BlobStoreConformance
from edgefleet.testing.kit.registry import RegistryConformance
from edgefleet_kubernetes.blobs import OciBlobStore
from edgefleet_kubernetes.cloud.oci_registry import DockerRegistry, installed
from edgefleet_kubernetes.registry import KubernetesRegistry
from edgefleet_runtime.store.oci import OciSource
from providers.kubernetes.tests.oci.rig import Operator

LESSER = Kind(referrers=False, chunks=False, mounts=False, deletes=False, redirects=True, page=3)


class _Place:
    """A registry that runs, and where its blobs lie."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self.host: str = registry.host

    def path_of(self, digest: str) -> Path:
        stand_in = isinstance(self._registry, OciRegistry)
        found: Path = (self._registry.content if stand_in else self._registry).path_of(digest)
        return found


@pytest.fixture(params=["stand-in", "lesser stand-in", "docker-registry"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_Place]:
    if request.param == "docker-registry":
        if not installed():
            pytest.skip("docker-registry is not installed here")
        running: Any = DockerRegistry(tmp_path / "registry")
    else:
        kind = Kind() if request.param == "stand-in" else LESSER
        running = OciRegistry(tmp_path / "registry", kind)
    with running:
        yield _Place(running)


def _corrupt(path: Path) -> None:
    size = path.stat().st_size
    path.chmod(0o600)
    path.write_bytes(bytes(size))


class TestBlobs(BlobStoreConformance):
    @pytest.fixture
    def blobs(self, place: _Place, operator: Operator) -> OciBlobStore:
        blobs = operator.registry(place.host, max_attempts=6).blobs
        assert isinstance(blobs, OciBlobStore)
        return blobs

    @pytest.fixture
    def fetch(self) -> Callable[[str], bytes]:
        """As a device does."""

        def fetch(address: str) -> bytes:
            source, _, name = address.partition("/blobs/sha256/")
            with OciSource(source).open(f"sha256:{name}", 0) as stream:
                return b"".join(iter(lambda: stream.read(1 << 16), b""))

        return fetch


class TestRegistry(RegistryConformance):
    @pytest.fixture
    def registry(self, place: _Place, operator: Operator) -> KubernetesRegistry:
        return operator.registry(place.host, max_attempts=6)

    @pytest.fixture
    def corrupt_blob(self, place: _Place) -> Callable[[str], None]:
        return lambda digest: _corrupt(place.path_of(f"sha256:{hex_of(digest)}"))
