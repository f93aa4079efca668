"""Objects of a fleet: held to Kubernetes' own schemas, and to what their pods may do."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from edgefleet.errors import ProfileError
from edgefleet.testing.kit import samples
from edgefleet_kubernetes import yaml_files
from edgefleet_kubernetes.manifests import (
    daemon_set,
    fleet_documents,
    group_documents,
    namespaces,
    pointer_document,
)
from edgefleet_kubernetes.names import FLEET, GROUP, MANAGED_BY, POINTER_KEY
from edgefleet_kubernetes.settings import KubernetesSettings, Toleration

IMAGE = "registry.example/edgefleet/runtime:1.0"
VERSIONS = [f"1.{minor}" for minor in range(31, 38)]
FULL: dict[str, Any] = {
    "runtime_image": IMAGE,
    "operators": ("User:ada@example.com", "Group:plant", "ServiceAccount:ci:deploy"),
    "pull_secret": "models",
    "runtime_class": "nvidia",
    "device_resources": {"nvidia.com/gpu": "1", "smarter-devices/video0": "1"},
    "tolerations": (Toleration(key="edge", effect="NoSchedule"),),
    "events": "https://events.example/hot",
    "priority_class": "devices",
    "runtime_limits": {"memory": "2Gi"},
}


def make(**changes: Any) -> KubernetesSettings:
    return KubernetesSettings(**{"runtime_image": IMAGE, **changes})


def everything(settings: KubernetesSettings) -> list[dict[str, Any]]:
    return [
        *fleet_documents(settings),
        *group_documents(settings, "line-3"),
        pointer_document(settings, "line-3", samples.pointer(1)),
    ]


def pod_of(settings: KubernetesSettings) -> dict[str, Any]:
    found: dict[str, Any] = daemon_set(settings, "line-3")["spec"]["template"]["spec"]
    return found


def keys_of(found: object) -> set[str]:
    """Every key at any depth."""
    if isinstance(found, dict):
        return set(found) | {key for value in found.values() for key in keys_of(value)}
    if isinstance(found, list):
        return {key for value in found for key in keys_of(value)}
    return set()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("store", ["claim", "hostPath"])
def test_every_object_passes_the_strict_schemas(version: str, store: str) -> None:
    for changes in ({}, FULL):
        for document in everything(make(store=store, **changes)):
            kubernetes_validate.validate(document, version, strict=True)


def test_what_is_rendered_twice_is_the_same_bytes() -> None:
    once, again = (
        [yaml_files.encoded(document) for document in everything(make(**FULL))] for _ in range(2)
    )
    assert [len(one) for one in once] == [len(one) for one in again]
    assert all(first == second for first, second in zip(once, again, strict=True))


def test_yaml_reads_back_as_what_was_written() -> None:
    for document in everything(make(**FULL)):
        assert (yaml.safe_load(yaml_files.encoded(document)) == document) is True


@pytest.mark.parametrize("text", ["1e3", "0o14", "no", "y", "~", "12:30:00", "2026-01-01", "a: b"])
def test_a_text_that_looks_like_something_else_stays_a_text(text: str) -> None:
    written = yaml_files.encoded({"metadata": {"labels": {"site": text}}})
    assert f"'{text}'".encode() in written


def test_no_two_objects_share_a_file_or_a_name() -> None:
    documents = everything(make(store="claim", **FULL))
    paths = [yaml_files.file_name(document) for document in documents]
    assert len(set(paths)) == len(paths)


def test_every_object_is_marked_as_the_fleets() -> None:
    for document in everything(make(prefix="plant", store="claim", **FULL)):
        labels = document["metadata"]["labels"]
        assert (labels[MANAGED_BY], labels[FLEET]) == ("edgefleet", "plant")


def test_nothing_is_mounted_in_the_way_that_never_updates() -> None:
    assert not keys_of(pod_of(make(**FULL))) & {"subPath", "subPathExpr"}


def test_the_pod_breaks_the_restricted_standard_by_its_store_alone() -> None:
    for store, broken in (("hostPath", ["store"]), ("claim", [])):
        pod = pod_of(make(store=store, **FULL))
        # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
        allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
        volumes = [one["name"] for one in pod["volumes"] if not (set(one) - {"name"}) <= allowed]
        assert volumes == broken
        (container,) = pod["containers"]
        held = container["securityContext"]
        assert held["capabilities"] == {"drop": ["ALL"]}
        assert held["allowPrivilegeEscalation"] is False
        assert held["readOnlyRootFilesystem"] is True
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        forbidden = {"hostNetwork", "hostPID", "hostIPC", "privileged", "hostPort", "procMount"}
        assert not keys_of(pod) & forbidden


def test_namespaces_are_held_to_the_standard_that_their_pods_pass() -> None:
    key = "pod-security.kubernetes.io/enforce"

    def held(store: str) -> dict[str, str]:
        documents = namespaces(make(store=store))
        return {d["metadata"]["name"]: d["metadata"]["labels"][key] for d in documents}

    others = {"edgefleet-reports": "restricted", "edgefleet-training": "restricted"}
    assert held("claim") == {"edgefleet": "restricted", **others}
    assert held("hostPath") == {"edgefleet": "privileged", **others}


def test_the_pods_token_is_projected_and_ends() -> None:
    pod = pod_of(make())
    assert pod["automountServiceAccountToken"] is False
    (sources,) = (one["projected"]["sources"] for one in pod["volumes"] if "projected" in one)
    (token,) = (one["serviceAccountToken"] for one in sources if "serviceAccountToken" in one)
    assert token["expirationSeconds"] <= 3600


def test_a_pod_runs_where_and_as_the_profile_says() -> None:
    pod = pod_of(make(prefix="plant", **FULL))
    assert pod["nodeSelector"] == {FLEET: "plant", GROUP: "line-3"}
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["priorityClassName"] == "devices"
    assert pod["tolerations"] == [{"key": "edge", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["imagePullSecrets"] == [{"name": "models"}]


def test_a_device_plugins_resource_is_asked_for_as_it_is_limited() -> None:
    (container,) = pod_of(make(device_resources={"nvidia.com/gpu": "1"}))["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert container["resources"]["requests"]["nvidia.com/gpu"] == "1"


def test_a_group_of_any_name_has_names_that_kubernetes_takes() -> None:
    for group in ("line-3", "Line_3.a", "x" * 63):
        for document in group_documents(make(prefix="p" * 32), group):
            kubernetes_validate.validate(document, "1.37", strict=True)
            name = document["metadata"]["name"]
            assert len(name) <= 63
            assert name == name.lower()


def test_a_pointer_travels_as_it_was_written_and_fits() -> None:
    pointer = samples.pointer(7)
    document = pointer_document(make(), "line-3", pointer)
    assert document["data"][POINTER_KEY].encode() == pointer.encoded()
    assert len(yaml_files.encoded(document)) < 2048


def test_without_an_image_the_setting_is_named() -> None:
    with pytest.raises(ProfileError, match="runtime_image"):
        group_documents(KubernetesSettings(), "line-3")


def test_a_group_without_a_budget_has_none() -> None:
    kinds = [one["kind"] for one in group_documents(make(min_available=0), "line-3")]
    assert "PodDisruptionBudget" not in kinds
    assert "DaemonSet" in kinds


def test_kustomize_takes_the_folder(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    documents = everything(make(**FULL))
    for path, content in [(yaml_files.file_name(d), yaml_files.encoded(d)) for d in documents]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    listed = sorted(yaml_files.file_name(document) for document in documents)
    (tmp_path / "kustomization.yaml").write_bytes(yaml_files.kustomization(listed))
    built = subprocess.run(
        [kubectl, "kustomize", tmp_path], check=True, capture_output=True, timeout=60
    )
    found = list(yaml.safe_load_all(built.stdout))
    key = yaml_files.file_name
    pairs = itertools.zip_longest(sorted(found, key=key), sorted(documents, key=key))
    assert all(one == other for one, other in pairs)
