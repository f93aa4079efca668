"""The real kubectl on the mock: what it says there is what it says on a cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from providers.kubernetes.tests.cloud.api_samples import config_map, daemon_set
from providers.kubernetes.tests.cloud.kubectl import Kubectl
from providers.kubernetes.tests.cloud.place import Place


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.yaml"
    documents = [config_map(data={"k": "1"}), daemon_set()]
    path.write_text(yaml.safe_dump_all(documents))
    return path


def _done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_dry_run_of_server_side_apply_keeps_nothing(kubectl: Kubectl, manifest: Path) -> None:
    told = _done(kubectl("apply", "--server-side", "--dry-run=server", "-f", str(manifest)))
    assert told.splitlines() == [
        "configmap/a serverside-applied (server dry run)",
        "daemonset.apps/d serverside-applied (server dry run)",
    ]
    assert "NotFound" in kubectl("get", "ds", "d").stderr


def test_a_second_apply_has_no_diff(kubectl: Kubectl, manifest: Path) -> None:
    assert kubectl("diff", "--server-side", "-f", str(manifest)).returncode == 1
    _done(kubectl("apply", "--server-side", "-f", str(manifest)))
    assert _done(kubectl("diff", "--server-side", "-f", str(manifest))) == ""


def test_apply_of_the_client_merges_and_then_changes_nothing(
    kubectl: Kubectl, manifest: Path
) -> None:
    _done(kubectl("apply", "-f", str(manifest)))
    told = _done(kubectl("apply", "-f", str(manifest)))
    assert told.splitlines() == ["configmap/a unchanged", "daemonset.apps/d unchanged"]
    changed = daemon_set()
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "app:2"
    changed["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "s:1"})
    assert _done(kubectl("apply", "-f", "-", stdin=yaml.safe_dump(changed))) == (
        "daemonset.apps/d configured\n"
    )
    assert _done(kubectl("diff", "-f", "-", stdin=yaml.safe_dump(changed))) == ""
    found = json.loads(_done(kubectl("get", "ds", "d", "-o", "json")))
    containers = found["spec"]["template"]["spec"]["containers"]
    assert [one["image"] for one in containers] == ["app:2", "s:1"]


def test_a_conflict_is_told_with_its_field_and_manager(kubectl: Kubectl, manifest: Path) -> None:
    _done(kubectl("apply", "--server-side", "--field-manager=one", "-f", str(manifest)))
    other = yaml.safe_dump(config_map(data={"k": "2"}))
    apply = ("apply", "--server-side", "--field-manager=two", "-f", "-")
    result = kubectl(*apply, stdin=other)
    assert result.returncode == 1
    assert 'conflict with "one": .data.k' in result.stderr
    _done(kubectl(*apply, "--force-conflicts", stdin=other))


def test_an_unknown_field_is_refused_before_anything_is_kept(kubectl: Kubectl) -> None:
    wrong = yaml.safe_dump({**config_map(), "dta": {"k": "1"}})
    result = kubectl("apply", "-f", "-", stdin=wrong)
    assert result.returncode == 1
    assert 'unknown field "dta"' in result.stderr
    assert "NotFound" in kubectl("get", "cm", "a").stderr


def test_what_is_invalid_is_told_with_its_field(kubectl: Kubectl) -> None:
    wrong = yaml.safe_dump(daemon_set(updateStrategy={"type": "Slowly"}))
    result = kubectl("apply", "-f", "-", stdin=wrong)
    assert result.returncode == 1
    assert 'spec.updateStrategy.type: Unsupported value: "Slowly"' in result.stderr


def _put(place: Place, name: str, **labels: str) -> None:
    document = config_map(name, labels=labels)
    place.clients.call("POST", f"api/v1/namespaces/{place.namespace}/configmaps", document=document)


def test_get_lists_in_chunks_and_by_labels(kubectl: Kubectl, place: Place) -> None:
    for number in range(5):
        _put(place, f"a{number}", even=str(number % 2 == 0).lower())
    told = _done(kubectl("get", "cm", "-l", "even=true", "--chunk-size=2", "-o", "name"))
    assert told.splitlines() == ["configmap/a0", "configmap/a2", "configmap/a4"]


def test_get_watches(kubectl: Kubectl, place: Place) -> None:
    _put(place, "first")
    with kubectl.started("get", "cm", "--watch", "-o", "name") as lines:
        first = [next(lines).strip() for _ in range(2)]
        _put(place, "second")
        assert [*first, next(lines).strip()] == [
            "configmap/first",
            "configmap/kube-root-ca.crt",
            "configmap/second",
        ]


def test_objects_are_labelled_patched_and_deleted(kubectl: Kubectl, manifest: Path) -> None:
    _done(kubectl("apply", "-f", str(manifest)))
    _done(kubectl("label", "cm", "a", "tier=x"))
    patch = '[{"op": "add", "path": "/data/n", "value": "2"}]'
    _done(kubectl("patch", "cm", "a", "--type=json", "-p", patch))
    found = json.loads(_done(kubectl("get", "cm", "-l", "tier=x", "-o", "json")))
    assert found["items"][0]["data"] == {"k": "1", "n": "2"}
    told = _done(kubectl("delete", "-f", str(manifest)))
    assert told.splitlines() == ['configmap "a" deleted', 'daemonset.apps "d" deleted']


def test_what_a_cluster_has_is_described(kubectl: Kubectl, manifest: Path) -> None:
    _done(kubectl("apply", "-f", str(manifest)))
    assert "Selector:       app=d" in _done(kubectl("describe", "ds", "d"))
    assert "daemonsets" in _done(kubectl("api-resources"))
    assert "Server Version: v1." in _done(kubectl("version"))
