"""Installing, again and away, against the mock's API servers."""

from __future__ import annotations

import base64
import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgefleet.cli.documents import write_documents
from edgefleet.errors import ConfigurationError, ConflictError, ProfileError
from edgefleet.interfaces.state import StateStore
from edgefleet.interfaces.values import Action
from edgefleet.testing.kit import samples
from edgefleet_kubernetes.cloud.api_writes import Write
from providers.kubernetes.tests.deployer_rig import Rig

State = Callable[[], StateStore]


@pytest.fixture
def rig(tmp_path: Path, state: State) -> Iterator[Rig]:
    made = Rig(tmp_path / "cloud", state)
    yield made
    made.close()


def actions(rig: Rig, **changes: Any) -> dict[str, Action]:
    documents = rig.another(**changes).install_documents()
    return {one.path.rpartition("/")[2]: one.action for one in documents}


def test_installing_twice_changes_nothing(rig: Rig) -> None:
    rig.deployer.install()
    rig.deployer.enroll("a", group="line-3")
    rig.deployer.install()
    before = rig.versions()
    rig.deployer.install()
    rig.another().install(group="line-3")
    assert rig.versions() == before


def test_a_dry_run_tells_what_installing_changes_and_changes_nothing(rig: Rig) -> None:
    before = rig.versions()
    assert set(actions(rig).values()) == {Action.CREATE}
    assert rig.versions() == before
    rig.deployer.install()
    rig.deployer.enroll("a", group="line-3")
    assert set(actions(rig).values()) == {Action.UNCHANGED}
    newer = actions(rig, runtime_image="registry.example/edgefleet/runtime:1.1")
    changed = {name for name, action in newer.items() if action is not Action.UNCHANGED}
    assert changed == {
        "4-daemonset.edgefleet.edgefleet-runtime-line-3.yaml",
        "kustomization.yaml",
    }


def test_a_dry_run_holds_no_secret(rig: Rig) -> None:
    documents = rig.deployer.install_documents(group="line-3")
    kinds = {yaml.safe_load(document.content)["kind"] for document in documents}
    assert "DaemonSet" in kinds
    assert "Secret" not in kinds


def test_installing_a_group_makes_its_daemon_set_before_it_has_a_node(rig: Rig) -> None:
    rig.deployer.install(group="line-3")
    assert [(one.name, one.devices) for one in rig.deployer.groups()] == [("line-3", 0)]
    rig.deployer.publish("line-3", samples.pointer(1))
    assert rig.deployer.pointer("line-3") == samples.pointer(1)


def test_the_runtime_is_upgraded_a_group_at_a_time(rig: Rig) -> None:
    for group in ("line-3", "line-4"):
        rig.deployer.install(group=group)
    newer = "registry.example/edgefleet/runtime:1.1"
    rig.another(runtime_image=newer).install(group="line-4")

    def image(group: str) -> str:
        found = rig.store().get("DaemonSet", f"edgefleet-runtime-{group}", "edgefleet")
        return str(found["spec"]["template"]["spec"]["containers"][0]["image"])

    assert image("line-3") != newer
    assert image("line-4") == newer


def test_the_serving_token_is_made_once_and_stays(rig: Rig) -> None:
    rig.deployer.install()
    first = rig.store().get("Secret", "edgefleet-serving", "edgefleet")["data"]["token"]
    assert len(base64.b64decode(first)) >= 32
    rig.deployer.install()
    assert rig.store().get("Secret", "edgefleet-serving", "edgefleet")["data"]["token"] == first


def test_what_a_setting_no_longer_asks_for_goes(rig: Rig) -> None:
    rig.deployer.install(group="line-3")
    rig.deployer.install(group="line-4")
    rig.another(min_available=0).install(group="line-3")
    budgets = rig.store().list("PodDisruptionBudget", "edgefleet")
    assert [one["metadata"]["name"] for one in budgets] == ["edgefleet-runtime-line-4"]


def test_without_an_image_nothing_is_installed(rig: Rig) -> None:
    before = rig.versions()
    with pytest.raises(ProfileError, match="runtime_image"):
        rig.another(runtime_image=None).install()
    assert rig.versions() == before


def test_a_field_that_somebody_else_manages_stops_installing(rig: Rig) -> None:
    rig.deployer.install(group="line-3")
    name = "edgefleet-runtime-line-3"
    theirs = {"spec": {"revisionHistoryLimit": 9}}
    rig.store().patch("DaemonSet", name, theirs, "edgefleet", how=Write(manager="kubectl-edit"))
    with pytest.raises(ConflictError, match=r"kubectl-edit manages \.spec\.revisionHistoryLimit"):
        rig.deployer.install(group="line-3")


def test_kubectl_takes_what_a_dry_run_writes_and_finds_no_difference_afterwards(
    rig: Rig, tmp_path: Path
) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        flags: list[str | Path] = [
            kubectl,
            "--kubeconfig",
            rig.cloud.kubeconfig,
            "--cache-dir",
            tmp_path / "cache",
        ]
        return subprocess.run(
            [*flags, *words], capture_output=True, text=True, timeout=120, check=False
        )

    def written() -> Path:
        folder = tmp_path / "out"
        rig.deployer.enroll("a", group="line-3")
        documents = [
            *rig.deployer.install_documents(),
            *(
                one
                for one in rig.deployer.render("line-3", samples.pointer(1))
                if "/objects/" in one.path
            ),
        ]
        write_documents(folder, documents, {})
        return folder / "kubernetes"

    rig.deployer.install()
    folder = written()
    applied = run("apply", "--dry-run=server", "--server-side", "--field-manager=edgefleet",
                  "-f", folder / "objects")  # fmt: skip
    assert applied.returncode == 0, applied.stderr
    assert applied.stdout.count("serverside-applied") == len(list((folder / "objects").iterdir()))
    plain = run("apply", "--dry-run=server", "-f", folder / "objects")
    assert plain.returncode == 0, plain.stderr
    rig.deployer.publish("line-3", samples.pointer(1))
    rig.deployer.install()
    same = run("diff", "--server-side", "--field-manager=edgefleet", "-f", folder / "objects")
    assert (same.returncode, same.stdout) == (0, ""), same.stderr


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def test_a_namespace_of_others_is_adopted_as_it_is(rig: Rig) -> None:
    rig.put(namespace("plant", team="plant"))
    deployer = rig.another(namespace="plant")
    deployer.install(group="line-3")
    labels = rig.store().get("Namespace", "plant")["metadata"]["labels"]
    assert not any("edgefleet.dev" in key or "pod-security" in key for key in labels)
    assert rig.store().find("Namespace", "plant-reports") is not None
    deployer.uninstall(data=True)
    assert rig.store().find("Namespace", "plant") is not None
    assert rig.store().find("Namespace", "plant-reports") is None


def test_a_namespace_that_refuses_the_pods_is_told_before_anything_is_made(rig: Rig) -> None:
    rig.put(namespace("plant", **{"pod-security.kubernetes.io/enforce": "restricted"}))
    before = rig.versions()
    with pytest.raises(ConfigurationError, match='store = "claim"'):
        rig.another(namespace="plant", store="hostPath").install()
    assert rig.versions() == before
    rig.another(namespace="plant").install()


def test_a_cluster_without_admission_policies_is_told_of(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path / "cloud", state, version="1.29")
    with closing(rig), caplog.at_level(logging.WARNING):
        rig.deployer.install()
        kinds = {key.split()[0] for key in rig.versions()}
    assert "no policy holds a device to its own report" in caplog.text
    assert "ClusterRole" in kinds
    assert "ValidatingAdmissionPolicy" not in kinds


def test_a_teardown_takes_what_install_made_and_leaves_data(rig: Rig) -> None:
    deployer = rig.another(namespace="plant")
    before = set(rig.versions())
    deployer.install(group="line-3")
    deployer.enroll("a", group="line-3")
    deployer.publish("line-3", samples.pointer(1))
    deployer.uninstall()
    left = set(rig.versions()) - before
    assert left == {
        "ConfigMap plant/edgefleet-pointer-line-3",
        "Namespace /plant",
        "Namespace /plant-reports",
        "Namespace /plant-training",
    }
    deployer.uninstall()


def test_a_teardown_with_data_leaves_nothing_of_the_fleets(rig: Rig) -> None:
    deployer = rig.another(namespace="plant")
    before = set(rig.versions())
    deployer.install(group="line-3")
    deployer.enroll("a", group="line-3")
    deployer.publish("line-3", samples.pointer(1))
    deployer.uninstall(data=True)
    assert set(rig.versions()) == before


def test_a_teardown_leaves_another_fleet_in_the_same_namespace_alone(rig: Rig) -> None:
    ours, other = rig.another(namespace="plant"), rig.another(namespace="plant", prefix="other")
    ours.install(group="line-3")
    other.install(group="line-3")
    theirs = {key: version for key, version in rig.versions().items() if "other" in key}
    ours.uninstall(data=True)
    assert {key: rig.versions().get(key) for key in theirs} == theirs
    assert rig.store().find("Namespace", "plant") is not None


def test_a_folder_in_a_volume_is_claimed_once_for_all_nodes(rig: Rig) -> None:
    rig.another(store="claim").install(group="line-3")
    volume = rig.store().get("PersistentVolume", "edgefleet.edgefleet.store")
    assert volume["spec"]["hostPath"]["path"] == "/var/lib/edgefleet"
    claim = rig.store().get("PersistentVolumeClaim", "edgefleet-store", "edgefleet")
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
