"""Files of runs in a registry: what it refuses, and a registry that is away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgefleet.errors import AccessDeniedError, UnavailableError
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.oci import OciRegistry
from edgefleet.testing.cloud.rules import Rule
from edgefleet_kubernetes.artifacts import Artifacts

ArtifactsOf = Callable[..., Artifacts]


def test_a_registry_that_is_away_is_told(registry: OciRegistry, artifacts_of: ArtifactsOf) -> None:
    artifacts = artifacts_of(registry, max_attempts=1)
    registry.stop()
    with pytest.raises(UnavailableError, match="the registry can't be reached"):
        artifacts.find("code-1")
    registry.start()


def test_what_a_registry_refuses_is_told(registry: OciRegistry, artifacts_of: ArtifactsOf) -> None:
    artifacts = artifacts_of(registry)
    registry.rules.add(Rule("oci.GetManifest", fault=Refused(403, "DENIED", "not yours")))
    with pytest.raises(AccessDeniedError, match="not yours"):
        artifacts.find("code-1")
