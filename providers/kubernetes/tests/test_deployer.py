"""Groups, devices and pointers in clusters, against the mock's API servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from device_runtime.tests.node.device import times
from edgefleet.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.fleet import Fleet
from edgefleet.interfaces.state import StateStore
from edgefleet.interfaces.wanted import Wanted
from edgefleet.profile import Profile
from edgefleet.protocol.documents import encode
from edgefleet.testing.kit import samples
from edgefleet_kubernetes.cloud.api_writes import Write
from edgefleet_kubernetes.names import pointer_name
from edgefleet_kubernetes.reading import MORE_LABELS, more_labels
from providers.kubernetes.tests.deployer_rig import Rig

State = Callable[[], StateStore]
PROFILED = ("runtime_image", "kubeconfig", "contexts", "max_attempts")


@pytest.fixture
def rig(tmp_path: Path, state: State) -> Iterator[Rig]:
    made = Rig(tmp_path / "cloud", state)
    made.deployer.install()
    yield made
    made.close()


@pytest.fixture
def two_sites(tmp_path: Path, state: State) -> Iterator[Rig]:
    """Two clusters with a node each of one group."""
    made = Rig(tmp_path / "cloud", state, contexts=("site-1", "site-2"), nodes=("a",))
    made.add_node("z", context="site-2")
    made.deployer.install()
    made.deployer.enroll("a", group="line-3")
    made.deployer.enroll("z", group="line-3")
    yield made
    made.close()


def config_map(rig: Rig, context: str = "site-1") -> dict[str, Any] | None:
    name = pointer_name("edgefleet", "line-3")
    return rig.store(context).find("ConfigMap", name, "edgefleet")


def daemon_set(rig: Rig) -> dict[str, Any]:
    return rig.store().get("DaemonSet", "edgefleet-runtime-line-3", "edgefleet")


def test_a_node_that_is_there_becomes_a_device(rig: Rig) -> None:
    device = rig.deployer.enroll("a", group="line-3", labels={"target": "x86-cpu", "site": "A 1"})
    assert (device.name, device.group) == ("a", "line-3")
    assert device.labels == {"target": "x86-cpu", "site": "A 1"}
    labels = rig.store().get("Node", "a")["metadata"]["labels"]
    assert labels["edgefleet.dev/group"] == "line-3"
    assert labels["label.edgefleet.dev/target"] == "x86-cpu"


def test_labels_of_others_stay_on_a_node(rig: Rig) -> None:
    rig.add_node("d", labels={"rack": "4"}, annotations={"team": "vision"})
    rig.deployer.enroll("d", group="line-3", labels={"site": "A 1"})
    rig.deployer.retire("d")
    metadata = rig.store().get("Node", "d")["metadata"]
    assert metadata["labels"] == {"rack": "4"}
    assert metadata["annotations"] == {"team": "vision"}


def test_a_node_that_is_not_there_is_no_device(rig: Rig) -> None:
    with pytest.raises(NotFoundError, match="kubectl get nodes"):
        rig.deployer.enroll("nobody", group="line-3")


def test_a_node_of_another_fleet_is_refused(rig: Rig) -> None:
    rig.another(prefix="other").install()
    rig.another(prefix="other").enroll("a", group="line-3")
    with pytest.raises(ConflictError, match="fleet 'other'"):
        rig.deployer.enroll("a", group="line-3")


def test_a_device_moves_by_being_retired_first(rig: Rig) -> None:
    rig.deployer.enroll("a", group="line-3")
    with pytest.raises(ConflictError, match="retire it first"):
        rig.deployer.enroll("a", group="line-4")
    rig.deployer.retire("a")
    assert rig.deployer.enroll("a", group="line-4").group == "line-4"


def test_a_report_that_came_while_a_device_was_retired_is_not_its_next(rig: Rig) -> None:
    rig.deployer.enroll("a", group="line-3")
    rig.deployer.retire("a")
    rig.report("a", "a", {"report.json": samples.report(samples.pointer(1)).encoded().decode()})
    assert rig.deployer.enroll("a", group="line-4").report is None


def test_a_label_that_kubernetes_takes_moves_out_of_the_annotation(rig: Rig) -> None:
    rig.deployer.enroll("a", group="line-3", labels={"site": "A 1", "größe": "x"})
    changed = rig.deployer.label("a", {"site": "A-1"})
    assert changed.labels == {"site": "A-1", "größe": "x"}
    annotations = rig.store().get("Node", "a")["metadata"]["annotations"]
    assert json.loads(annotations["edgefleet.dev/labels"]) == {"größe": "x"}


def test_a_group_of_labelled_nodes_without_its_daemon_set_is_shown_with_what_it_lacks(
    rig: Rig,
) -> None:
    labels = {"edgefleet.dev/fleet": "edgefleet", "edgefleet.dev/group": "by-hand"}
    rig.add_node("d", labels=labels)
    assert [group.name for group in rig.deployer.groups()] == ["by-hand"]
    device = rig.deployer.device("d")
    assert "no DaemonSet" in str(device.blocked)
    assert device.cure == "edgefleet install --group by-hand"


def test_a_pointer_is_a_config_map_and_nothing_else_changes(rig: Rig) -> None:
    rig.deployer.enroll("a", group="line-3")
    before = rig.versions()
    for number in range(1, 11):
        rig.deployer.publish("line-3", samples.pointer(number))
    after = rig.versions()
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {"ConfigMap edgefleet/edgefleet-pointer-line-3"}
    assert daemon_set(rig)["metadata"]["generation"] == 1


def test_what_is_rendered_is_what_is_applied(rig: Rig) -> None:
    rig.deployer.enroll("a", group="line-3")
    documents = {one.path: one for one in rig.deployer.render("line-3", samples.pointer(1))}
    (path,) = (path for path in documents if "/objects/" in path)
    rig.deployer.publish("line-3", samples.pointer(1))
    written = yaml.safe_load(documents[path].content)
    there = config_map(rig)
    assert there is not None
    assert there["data"] == written["data"]
    assert there["metadata"]["labels"] == written["metadata"]["labels"]
    listing = yaml.safe_load(documents["kubernetes/kustomization.yaml"].content)
    assert [f"kubernetes/{one}" for one in listing["resources"]] == [path]


def test_keys_of_others_beside_a_pointer_stay(rig: Rig) -> None:
    rig.deployer.enroll("a", group="line-3")
    rig.deployer.publish("line-3", samples.pointer(1))
    name = pointer_name("edgefleet", "line-3")
    rig.store().patch(
        "ConfigMap", name, {"data": {"theirs": "x"}}, "edgefleet", how=Write(manager="helm")
    )
    rig.deployer.publish("line-3", samples.pointer(2))
    there = config_map(rig)
    assert there is not None
    assert there["data"]["theirs"] == "x"
    assert rig.deployer.pointer("line-3") == samples.pointer(2)


def test_a_pointer_that_somebody_else_took_over_is_told_with_their_name(rig: Rig) -> None:
    rig.deployer.enroll("a", group="line-3")
    rig.deployer.publish("line-3", samples.pointer(1))
    name = pointer_name("edgefleet", "line-3")
    theirs = {"data": {"pointer.json": "{}"}}
    rig.store().patch("ConfigMap", name, theirs, "edgefleet", how=Write(manager="argocd"))
    with pytest.raises(ConflictError, match=r"argocd manages .*pointer\.json") as caught:
        rig.deployer.publish("line-3", samples.pointer(2))
    assert "--force-conflicts" in str(caught.value)
    there = config_map(rig)
    assert there is not None
    assert there["data"]["pointer.json"] == "{}"


def test_a_config_map_of_others_with_the_pointers_name_is_left_alone(rig: Rig) -> None:
    rig.deployer.enroll("a", group="line-3")
    metadata = {"name": pointer_name("edgefleet", "line-3"), "namespace": "edgefleet"}
    rig.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}})
    with pytest.raises(ConflictError, match="isn't ours"):
        rig.deployer.publish("line-3", samples.pointer(1))
    there = config_map(rig)
    assert there is not None
    assert there["data"] == {"a": "b"}


def test_every_cluster_with_the_group_gets_the_pointer(two_sites: Rig) -> None:
    two_sites.add_node("y", context="site-2")
    two_sites.deployer.enroll("y", group="only-two")
    two_sites.deployer.publish("line-3", samples.pointer(1))
    two_sites.deployer.publish("only-two", samples.pointer(2))
    assert [device.name for device in two_sites.deployer.devices("line-3")] == ["a", "z"]
    assert two_sites.deployer.device("z").evidence["context"] == "site-2"
    assert config_map(two_sites) is not None
    assert config_map(two_sites, "site-2") is not None
    other = pointer_name("edgefleet", "only-two")
    assert two_sites.store("site-1").find("ConfigMap", other, "edgefleet") is None


def carried(rig: Rig) -> dict[str, int]:
    """Number of the pointer in each of two clusters."""
    held = {context: config_map(rig, context) for context in ("site-1", "site-2")}
    return {
        context: json.loads(one["data"]["pointer.json"])["number"]
        for context, one in held.items()
        if one is not None
    }


@pytest.mark.parametrize("away, other", [("site-1", "site-2"), ("site-2", "site-1")])
def test_a_cluster_that_is_away_is_told_and_keeps_no_other_from_the_pointer(
    two_sites: Rig, away: str, other: str
) -> None:
    two_sites.deployer.publish("line-3", samples.pointer(1))
    with (
        two_sites.cloud.cluster(away).away(),
        pytest.raises(UnavailableError, match=f"isn't everywhere: {away}"),
    ):
        two_sites.deployer.publish("line-3", samples.pointer(2))
    assert carried(two_sites) == {away: 1, other: 2}
    two_sites.deployer.publish("line-3", samples.pointer(2))
    assert carried(two_sites) == {away: 2, other: 2}


def test_a_group_that_no_cluster_in_reach_has_is_not_called_missing(two_sites: Rig) -> None:
    with two_sites.cloud.cluster("site-1").away(), pytest.raises(UnavailableError):
        two_sites.deployer.group("elsewhere")


@pytest.fixture
def fleet(two_sites: Rig, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of two sites, with models in a folder."""
    settings = two_sites.settings.model_dump(mode="json", include=set(PROFILED))
    profile = Profile(
        name="plants",
        base=tmp_path,
        provider="local",
        deployers=("kubernetes",),
        settings={"kubernetes": settings},
    )
    with Fleet(profile) as opened:
        yield opened


@pytest.mark.parametrize("away, other", [("site-1", "site-2"), ("site-2", "site-1")])
def test_a_deployment_goes_on_where_clusters_answer_and_to_the_rest_by_repeating(
    two_sites: Rig, fleet: Fleet, tmp_path: Path, away: str, other: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(times(2.0))
    first, second = (fleet.push(tmp_path / "model.onnx", name) for name in ("first", "second"))
    fleet.deploy(first, to="line-3")
    before = carried(two_sites)
    with (
        two_sites.cloud.cluster(away).away(),
        pytest.raises(UnavailableError, match=f"isn't everywhere: {away}"),
    ):
        fleet.deploy(second, to="line-3")
    assert carried(two_sites)[away] == before[away]
    newest = carried(two_sites)[other]
    assert newest > before[other]
    fleet.deploy(second, to="line-3")
    assert carried(two_sites) == {away: newest, other: newest}


def test_the_first_deployment_of_a_group_waits_for_every_cluster(
    two_sites: Rig, fleet: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(times(2.0))
    model = fleet.push(tmp_path / "model.onnx", "first")
    with two_sites.cloud.cluster("site-2").away(), pytest.raises(UnavailableError):
        fleet.deploy(model, to="line-3")
    assert carried(two_sites) == {}


def test_what_several_clusters_carry_is_the_lowest_of_it(two_sites: Rig) -> None:
    two_sites.deployer.publish("line-3", samples.pointer(1))
    name = pointer_name("edgefleet", "line-3")
    two_sites.store("site-2").delete("ConfigMap", name, "edgefleet")
    assert two_sites.deployer.pointer("line-3") is None
    two_sites.deployer.publish("line-3", samples.pointer(1))
    assert two_sites.deployer.pointer("line-3") == samples.pointer(1)


def test_a_cluster_that_a_group_comes_to_carries_its_pointer(tmp_path: Path, state: State) -> None:
    rig = Rig(tmp_path / "cloud", state, contexts=("site-1", "site-2"), nodes=("a",))
    try:
        rig.add_node("z", context="site-2")
        rig.deployer.install()
        rig.deployer.enroll("a", group="line-3")
        rig.deployer.publish("line-3", samples.pointer(1))
        rig.deployer.enroll("z", group="line-3")
        assert config_map(rig, "site-2") is not None
        assert rig.deployer.pointer("line-3") == samples.pointer(1)
    finally:
        rig.close()


def test_a_cluster_that_a_group_is_installed_in_later_carries_its_pointer(
    tmp_path: Path, state: State
) -> None:
    rig = Rig(tmp_path / "cloud", state, contexts=("site-1", "site-2"), nodes=())
    with closing(rig):
        first = rig.another(contexts=("site-1",))
        first.install(group="line-3")
        first.publish("line-3", samples.pointer(1))
        rig.deployer.install(group="line-3")
        assert config_map(rig, "site-2") is not None
        assert rig.deployer.pointer("line-3") == samples.pointer(1)


def test_a_cluster_with_a_lower_pointer_is_brought_to_the_highest_by_installing(
    two_sites: Rig,
) -> None:
    two_sites.deployer.publish("line-3", samples.pointer(1))
    two_sites.another(contexts=("site-1",)).publish("line-3", samples.pointer(2))
    two_sites.deployer.install()
    assert two_sites.deployer.pointer("line-3") == samples.pointer(2)


def test_installing_leaves_a_pointer_above_the_known_one_alone(rig: Rig) -> None:
    rig.deployer.install(group="line-3")
    rig.deployer.publish("line-3", samples.pointer(2))
    forgotten = rig.state()
    (key,) = forgotten.keys("kubernetes/pointers/")
    known = forgotten.read(key)
    assert known is not None
    forgotten.write(key, encode(Wanted(pointer=samples.pointer(1))), expect=known.tag)
    rig.deployer.install(group="line-3")
    assert rig.deployer.pointer("line-3") == samples.pointer(2)


def test_two_nodes_of_one_name_are_refused(two_sites: Rig) -> None:
    two_sites.add_node("a", context="site-2")
    with pytest.raises(ConfigurationError, match=r"'a'.*site-1.*site-2"):
        two_sites.deployer.enroll("a", group="line-3")


def test_a_node_that_is_not_ready_is_not_connected_and_says_since_when(rig: Rig) -> None:
    rig.deployer.enroll("a", group="line-3")
    condition = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
        "lastTransitionTime": "2026-11-21T10:00:00Z",
    }
    status = {"status": {"conditions": [condition]}}
    rig.store().patch("Node", "a", status, how=Write(subresource="status"))
    device = rig.deployer.device("a")
    assert device.connected is False
    assert "NotReady since 2026-11-21T10:00:00Z" in str(device.blocked)
    assert [one.blocked for one in rig.deployer.devices()] == [device.blocked]


def test_a_quota_that_keeps_pods_away_is_told_for_each_node(rig: Rig) -> None:
    rig.deployer.enroll("a", group="line-3")
    message = 'Error creating: pods "r-" is forbidden: exceeded quota: tight, used: pods=0'
    rig.put(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "r.1", "namespace": "edgefleet"},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": message,
            "lastTimestamp": "2026-11-21T10:00:00Z",
            "involvedObject": {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "namespace": "edgefleet",
                "name": "edgefleet-runtime-line-3",
            },
        }
    )
    (device,) = rig.deployer.devices()
    assert "exceeded quota: tight" in str(device.blocked)
    assert "ResourceQuota" in str(device.cure)
    assert device.evidence["last warning"].startswith("FailedCreate")


@pytest.mark.parametrize(
    "written", ["[]", "none", '{"a":' + "[" * 100_000], ids=["list", "word", "deep"]
)
def test_labels_that_somebody_spoiled_are_none(written: str) -> None:
    assert more_labels({"metadata": {"annotations": {MORE_LABELS: written}}}) == {}
