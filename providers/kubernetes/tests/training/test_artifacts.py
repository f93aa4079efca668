"""Files of runs in a registry: what it refuses, and a registry that is away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet.errors import AccessDeniedError, DocumentError, UnavailableError
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.oci import OciRegistry
from edgefleet.testing.cloud.rules import Rule
from edgefleet_kubernetes.artifacts import CODE, Artifacts

ArtifactsOf = Callable[..., Artifacts]


def test_a_registry_that_is_away_is_told(registry: OciRegistry, artifacts_of: ArtifactsOf) -> None:
    artifacts = artifacts_of(registry, max_attempts=1)
    registry.stop()
    with pytest.raises(UnavailableError, match="the registry can't be reached"):
        artifacts.find("code-1")
    registry.start()


@pytest.mark.parametrize(
    "said",
    [b'{"layers":' + b"[" * 100_000, b"[]", b'{"layers":[{"size":1}]}', b'{"layers":[1]}'],
    ids=["deep", "list", "no digest", "numbers"],
)
def test_a_tag_that_leads_to_no_manifest_is_told(
    registry: OciRegistry, artifacts_of: ArtifactsOf, tmp_path: Path, said: bytes
) -> None:
    artifacts = artifacts_of(registry)
    digest = artifacts.send({}, "outputs-1", CODE)
    registry.content.path_of(digest).write_bytes(said)
    with pytest.raises(DocumentError, match=r"malformed manifest of .* outputs-1"):
        artifacts.fetch("outputs-1", tmp_path / "outputs")
    assert not (tmp_path / "outputs").exists()


def test_what_a_registry_refuses_is_told(registry: OciRegistry, artifacts_of: ArtifactsOf) -> None:
    artifacts = artifacts_of(registry)
    registry.rules.add(Rule("oci.GetManifest", fault=Refused(403, "DENIED", "not yours")))
    with pytest.raises(AccessDeniedError, match="not yours"):
        artifacts.find("code-1")
