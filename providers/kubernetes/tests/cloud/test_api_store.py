"""Reading and writing objects by the API server's rules."""

from __future__ import annotations

import threading

import pytest

from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_store import Store
from edgefleet_kubernetes.cloud.api_writes import Write
from providers.kubernetes.tests.cloud.api_samples import config_map, daemon_set, job, plain, pod

STATUS = Write(subresource="status")


def test_a_new_object_has_identity_version_and_place(store: Store) -> None:
    made = store.create(config_map())
    metadata = made["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert metadata["resourceVersion"] == store.version
    assert store.get("ConfigMap", "a", "default") == made


def test_what_is_given_and_taken_is_a_copy(store: Store) -> None:
    given = config_map(data={"k": "1"})
    store.create(given)
    given["data"]["k"] = "changed"
    store.get("ConfigMap", "a", "default")["data"]["k"] = "changed"
    assert store.get("ConfigMap", "a", "default")["data"] == {"k": "1"}


def test_a_name_is_made_up_from_its_beginning(store: Store) -> None:
    names = {
        store.create(plain("ConfigMap", "", metadata={"generateName": "x-"}))["metadata"]["name"]
        for _ in range(3)
    }
    assert len(names) == 3
    assert all(name.startswith("x-") for name in names)


def test_what_exists_isnt_made_again(store: Store) -> None:
    store.create(config_map())
    with pytest.raises(Refused, match=r'409 AlreadyExists: configmaps "a" already exists'):
        store.create(config_map())


def test_a_namespace_that_isnt_there_holds_nothing(store: Store) -> None:
    with pytest.raises(Refused, match=r'404 NotFound: namespaces "other" not found'):
        store.create(config_map(namespace="other"))


def test_every_change_has_a_new_version(store: Store) -> None:
    first = store.create(config_map(data={"k": "1"}))
    second = store.update({**first, "data": {"k": "2"}})
    versions = [int(one["metadata"]["resourceVersion"]) for one in (first, second)]
    assert versions[1] > versions[0]


def test_a_write_that_changes_nothing_has_no_new_version(store: Store) -> None:
    first = store.create(config_map(data={"k": "1"}))
    store.update(first)
    assert store.get("ConfigMap", "a", "default") == first


def test_a_stale_version_is_a_conflict(store: Store) -> None:
    old = store.create(config_map(data={"k": "1"}))
    store.update({**old, "data": {"k": "2"}})
    with pytest.raises(Refused, match=r"409 Conflict: .* the object has been modified"):
        store.update({**old, "data": {"k": "3"}})


def test_another_objects_uid_is_a_conflict(store: Store) -> None:
    old = store.create(config_map())
    store.delete("ConfigMap", "a", "default")
    store.create(config_map())
    del old["metadata"]["resourceVersion"]
    with pytest.raises(Refused, match=r"409 Conflict: .* UID in precondition"):
        store.update(old)


def test_identity_cant_be_changed(store: Store) -> None:
    made = store.create(config_map())
    changed = store.update(
        {**made, "metadata": {**made["metadata"], "creationTimestamp": "2000-01-01T00:00:00Z"}}
    )
    assert changed["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]


def test_generation_counts_changes_of_the_spec_alone(store: Store) -> None:
    made = store.create(daemon_set())
    made["metadata"]["labels"] = {"x": "y"}
    labelled = store.update(made)
    labelled["spec"]["template"]["spec"]["containers"][0]["image"] = "app:2"
    changed = store.update(labelled)
    assert [one["metadata"]["generation"] for one in (made, labelled, changed)] == [1, 1, 2]


def test_status_changes_by_its_subresource_alone(store: Store) -> None:
    status = {"currentNumberScheduled": 1, "desiredNumberScheduled": 1}
    whole = {**status, "numberMisscheduled": 0, "numberReady": 1}
    made = store.create({**daemon_set(), "status": whole})
    assert "status" not in made
    made["spec"]["revisionHistoryLimit"] = 3
    told = store.update({**made, "status": whole}, how=STATUS)
    assert told["status"] == whole
    assert told["spec"]["revisionHistoryLimit"] == 10
    assert store.update({**told, "status": {}})["status"] == whole


def test_a_dry_run_checks_all_and_keeps_nothing(store: Store) -> None:
    dry = Write(dry_run=True)
    before = store.version
    assert store.create(config_map(data={"k": "1"}), how=dry)["metadata"]["uid"]
    with pytest.raises(Refused, match=r"422"):
        store.create(daemon_set(updateStrategy={"type": "Slowly"}), how=dry)
    assert (store.find("ConfigMap", "a", "default"), store.version) == (None, before)


def test_lists_are_sorted_and_selected(store: Store) -> None:
    for name, tier in (("c", "x"), ("a", "y"), ("b", "x")):
        store.create(config_map(name, labels={"tier": tier}))
    names = [one["metadata"]["name"] for one in store.list("ConfigMap", labels="tier=x")]
    assert names == ["b", "c"]
    only = store.list("ConfigMap", fields="metadata.name=a")
    assert [one["metadata"]["name"] for one in only] == ["a"]


@pytest.mark.parametrize(
    "selector,names",
    [
        ("tier in (x,z)", ["a", "c"]),
        ("tier notin (x)", ["b", "c", "d"]),
        ("tier!=x", ["b", "c", "d"]),
        ("tier", ["a", "b", "c"]),
        ("!tier", ["d"]),
        ("tier==y,tier", ["b"]),
    ],
)
def test_selectors_of_labels(store: Store, selector: str, names: list[str]) -> None:
    for name, tier in (("a", "x"), ("b", "y"), ("c", "z")):
        store.create(config_map(name, labels={"tier": tier}))
    store.create(config_map("d"))
    assert [one["metadata"]["name"] for one in store.list("ConfigMap", labels=selector)] == names


def test_a_selector_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(Refused, match=r"400 BadRequest"):
        store.list("ConfigMap", labels="a=b=c")


def test_an_unknown_field_is_refused_or_dropped_with_a_warning(store: Store) -> None:
    wrong = {**config_map(), "dta": {"k": "1"}}
    with pytest.raises(Refused, match=r'400 .*strict decoding error: unknown field "dta"'):
        store.create(wrong)
    warned: list[str] = []
    made = store.create(wrong, how=Write(fields="Warn", warn=warned.append))
    assert ("dta" in made, warned) == (False, ['unknown field "dta"'])


def test_a_kind_that_isnt_served_is_refused(store: Store) -> None:
    with pytest.raises(Refused, match=r"400 BadRequest: no kind"):
        store.create(plain("Deployment", "x", "apps/v1"))


def test_a_custom_kind_comes_with_its_definition(store: Store) -> None:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {"size": {"type": "integer"}},
            }
        },
    }
    names = {"kind": "Widget", "plural": "widgets"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "x.dev", "scope": "Namespaced", "names": names, "versions": [version]}
    api = "apiextensions.k8s.io/v1"
    store.create(plain("CustomResourceDefinition", "widgets.x.dev", api, spec=spec))
    store.create(plain("Widget", "w", "x.dev/v1", spec={"size": 1}))
    with pytest.raises(Refused, match=r"422 Invalid: .*spec.size: Required value"):
        store.create(plain("Widget", "bad", "x.dev/v1", spec={}))
    with pytest.raises(Refused, match=r"400 .*unknown field"):
        store.create(plain("Widget", "bad", "x.dev/v1", spec={"size": 1, "colour": "red"}))
    store.delete("CustomResourceDefinition", "widgets.x.dev")
    with pytest.raises(Refused, match=r"404"):
        store.list("Widget")


def test_an_older_version_of_kubernetes_has_no_younger_kinds() -> None:
    assert not Store(version="1.29").schemas.knows(Store().kinds.named("ValidatingAdmissionPolicy"))
    assert Store(version="1.30").schemas.knows(Store().kinds.named("ValidatingAdmissionPolicy"))


def test_a_job_selects_its_own_pods(store: Store) -> None:
    spec = store.create(job())["spec"]
    wanted = spec["selector"]["matchLabels"]
    assert wanted.items() <= spec["template"]["metadata"]["labels"].items()


def test_a_pod_is_filled_as_kubernetes_does(store: Store) -> None:
    spec = store.create(pod())["spec"]
    assert (spec["restartPolicy"], spec["dnsPolicy"]) == ("Always", "ClusterFirst")
    assert spec["serviceAccountName"] == "default"
    assert spec["containers"][0]["imagePullPolicy"] == "IfNotPresent"


def test_writers_at_once_lose_no_write(store: Store) -> None:
    store.create(config_map(data={"n": "0"}))
    refusals = set()

    def count() -> None:
        written = 0
        while written < 20:
            found = store.get("ConfigMap", "a", "default")
            found["data"]["n"] = str(int(found["data"]["n"]) + 1)
            try:
                store.update(found)
            except Refused as refused:
                refusals.add(refused.reason)
            else:
                written += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("ConfigMap", "a", "default")["data"] == {"n": "80"}
    assert refusals <= {"Conflict"}
