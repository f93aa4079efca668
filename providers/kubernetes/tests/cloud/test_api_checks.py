"""What is refused of an object, by kubernetes-validate's schemas and beyond them."""

from __future__ import annotations

import base64
from typing import Any

import kubernetes_validate
import pytest

from edgefleet_kubernetes.cloud.api_objects import clone
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_store import Store
from providers.kubernetes.tests.cloud.api_samples import (
    Object,
    config_map,
    daemon_set,
    job,
    plain,
    pod,
)

MIB = 1 << 20


def _set(document: Object, path: str, value: Any) -> Object:
    changed = clone(document)
    *before, last = path.split(".")
    holder: Any = changed
    for name in before:
        holder = holder[int(name)] if isinstance(holder, list) else holder[name]
    holder[int(last) if isinstance(holder, list) else last] = value
    return changed


def _service(**spec: Any) -> Object:
    return plain("Service", "s", spec={"ports": [{"port": 80}], **spec})


WRONG: list[tuple[Object, str]] = [
    (_set(daemon_set(), "spec.selector.matchLabels", {"other": "x"}), "does not match template"),
    (_set(daemon_set(), "spec.selector", {}), "empty selector is invalid"),
    (
        daemon_set(updateStrategy={"type": "Slowly"}),
        'supported values: "OnDelete", "RollingUpdate"',
    ),
    (
        daemon_set(updateStrategy={"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}),
        "maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
    ),
    (
        daemon_set(updateStrategy={"rollingUpdate": {"maxUnavailable": "many"}}),
        "a valid percent string",
    ),
    (_set(daemon_set(), "spec.template.spec.restartPolicy", "Never"), 'supported values: "Always"'),
    (_set(job(), "spec.template.spec.restartPolicy", "Always"), '"Never", "OnFailure"'),
    (pod(containers=[]), "spec.containers: Required value"),
    (_set(pod(), "spec.containers.0.image", ""), r"containers\[0\].image: Required value"),
    (_set(pod(), "spec.containers.0.name", "Main"), r"containers\[0\].name: Invalid value"),
    (_set(pod(), "spec.containers.0.imagePullPolicy", "Sometimes"), "Unsupported value"),
    (
        _set(pod(), "spec.containers.0.volumeMounts", [{"name": "v", "mountPath": "/v"}]),
        r'volumeMounts\[0\].name: Not found: "v"',
    ),
    (pod(volumes=[{"name": "v"}]), "must specify a volume type"),
    (pod(volumes=[{"name": "v", "emptyDir": {}}] * 2), 'Duplicate value: "v"'),
    (
        pod(volumes=[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]),
        "may not specify more than 1 volume type",
    ),
    (
        _set(
            pod(), "spec.containers.0.resources", {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}
        ),
        "must be less than or equal to cpu limit",
    ),
    (
        _set(pod(), "spec.containers.0.resources", {"requests": {"nvidia.com/gpu": "1"}}),
        "Limit must be set for non overcommitable resources",
    ),
    (_set(pod(), "spec.containers.0.resources", {"limits": {"cpu": "much"}}), "quantities must"),
    (_service(ports=[]), "spec.ports: Required value"),
    (_service(ports=[{"port": 1}, {"port": 2}]), r"ports\[0\].name: Required value"),
    (_service(internalTrafficPolicy="Near"), 'supported values: "Cluster", "Local"'),
    (_set(_service(), "metadata.name", "9lives"), "a DNS-1035 label"),
    (config_map("Capital"), "a lowercase RFC 1123 subdomain"),
    (config_map(labels={"x": "not a value"}), "a valid label must be"),
    (config_map(labels={"not a key": "x"}), "name part must consist of"),
    (config_map(data={"a/b": "x"}), "a valid config key"),
    (config_map(data={"a": "x" * (MIB + 1)}), f"may not be more than {MIB} bytes"),
    (config_map(annotations={"a": "x" * (MIB // 4 + 1)}), "may not be more than 262144 bytes"),
    (
        plain(
            "PodDisruptionBudget", "b", "policy/v1", spec={"minAvailable": 1, "maxUnavailable": 1}
        ),
        "cannot be both set",
    ),
]


@pytest.mark.parametrize(
    "document,told", WRONG, ids=lambda one: one if isinstance(one, str) else ""
)
def test_what_is_wrong_is_refused_in_kubernetes_words(
    store: Store, document: Object, told: str
) -> None:
    with pytest.raises(Refused, match=f"422 Invalid: .*{told}"):
        store.create(document)


SAMPLES = [config_map(data={"k": "1"}), daemon_set(), job(), pod(), _service()]
BROKEN = [
    ("spec.template", "text"),
    ("spec.selector.matchLabels", {"x": 1}),
    ("spec.template.spec.containers.0.ports", [{"containerPort": "http"}]),
    ("spec.template.spec.hostNetwork", "yes"),
    ("spec.minReadySeconds", "soon"),
]


@pytest.mark.parametrize("path,value", BROKEN)
def test_the_schemas_verdict_is_kubernetes_validates(store: Store, path: str, value: Any) -> None:
    document = _set(daemon_set(), path, value)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, store.schemas.version, strict=True)
    with pytest.raises(Refused, match=r"422 Invalid"):
        store.create(document)


@pytest.mark.parametrize("version", ["1.31", "1.34", "1.37"])
def test_what_is_kept_passes_kubernetes_validate(version: str) -> None:
    store = Store(version=version)
    store.create(plain("Namespace", "default"))
    for sample in SAMPLES:
        kubernetes_validate.validate(store.create(sample), version, strict=True)


FIXED: list[tuple[Object, str, Any]] = [
    (daemon_set(), "spec.selector", {"matchLabels": {"app": "d", "x": "y"}}),
    (job(), "spec.template.spec.containers.0.image", "app:2"),
    (job(), "spec.completions", 7),
    (plain("Secret", "s", type="Opaque"), "type", "kubernetes.io/tls"),
]


@pytest.mark.parametrize("document,path,value", FIXED)
def test_what_is_fixed_cant_be_changed(
    store: Store, document: Object, path: str, value: Any
) -> None:
    made = store.create(document)
    with pytest.raises(Refused, match=r"field is immutable"):
        store.update(_set(made, path, value))


def test_of_a_pod_only_images_and_little_else_may_change(store: Store) -> None:
    made = store.create(pod())
    made = store.update(_set(made, "spec.containers.0.image", "app:2"))
    with pytest.raises(Refused, match=r"pod updates may not change fields other than"):
        store.update(_set(made, "spec.containers.0.args", ["x"]))


def test_a_bindings_role_cant_be_changed(store: Store) -> None:
    api = "rbac.authorization.k8s.io/v1"
    reference = {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}
    made = store.create(plain("RoleBinding", "b", api, roleRef=reference, subjects=[]))
    with pytest.raises(Refused, match=r"cannot change roleRef"):
        store.update(_set(made, "roleRef.name", "admin"))


def test_an_immutable_config_map_stays(store: Store) -> None:
    made = store.create({**config_map(data={"k": "1"}), "immutable": True})
    with pytest.raises(Refused, match=r"immutable when `immutable` is set"):
        store.update(_set(made, "data.k", "2"))


def test_a_secrets_text_is_kept_encoded(store: Store) -> None:
    made = store.create(plain("Secret", "s", stringData={"k": "v"}))
    assert made["data"] == {"k": base64.b64encode(b"v").decode()}
    assert "stringData" not in made


def test_all_that_is_wrong_is_told_at_once(store: Store) -> None:
    document = daemon_set(updateStrategy={"type": "Slowly"})
    with pytest.raises(Refused) as caught:
        store.create(_set(document, "spec.selector.matchLabels", {"other": "x"}))
    fields = [cause["field"] for cause in caught.value.details["causes"]]
    assert fields == ["spec.updateStrategy.type", "spec.template.metadata.labels"]
