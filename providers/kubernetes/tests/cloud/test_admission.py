"""Admission: accounts, pod security standards, policies in CEL, quotas."""

from __future__ import annotations

from typing import Any

import pytest

from edgefleet_kubernetes.cloud.admission import Admission
from edgefleet_kubernetes.cloud.api_objects import clone
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_store import Store
from edgefleet_kubernetes.cloud.api_users import NODE_NAME, User
from edgefleet_kubernetes.cloud.api_writes import Write
from providers.kubernetes.tests.cloud.api_samples import (
    Object,
    config_map,
    daemon_set,
    plain,
    pod,
)

API = "admissionregistration.k8s.io/v1"
NODE = "request.userInfo.extra['authentication.kubernetes.io/node-name'][0]"


@pytest.fixture
def guarded(store: Store) -> Store:
    """A store with admission, and the account that pods have."""
    store.create(plain("ServiceAccount", "default"))
    store.admission.append(Admission(store))
    return store


def _label(store: Store, **modes: str) -> None:
    found = store.get("Namespace", "default")
    labels = {f"pod-security.kubernetes.io/{mode}": level for mode, level in modes.items()}
    found["metadata"]["labels"] |= labels
    store.update(found)


def _with(change: dict[str, Any], document: Object | None = None) -> Object:
    """A pod whose container's security context differs."""
    changed = clone(document or pod())
    changed["spec"]["containers"][0]["securityContext"] |= change
    return changed


# ------------------------------------------------------------------------------------ accounts


def test_a_pod_needs_its_account(guarded: Store) -> None:
    with pytest.raises(Refused, match=r'service account default/robot: .* "robot" not found'):
        guarded.create(pod(serviceAccountName="robot"))


def test_a_pod_gets_its_accounts_pull_secrets(guarded: Store) -> None:
    secrets = [{"name": "registry"}]
    guarded.create({**plain("ServiceAccount", "robot"), "imagePullSecrets": secrets})
    made = guarded.create(pod(serviceAccountName="robot"))
    assert made["spec"]["imagePullSecrets"] == secrets


# -------------------------------------------------------------------------- pod security

RESTRICTED: list[tuple[Object, str]] = [
    (_with({"allowPrivilegeEscalation": True}), "allowPrivilegeEscalation != false"),
    (_with({"capabilities": {}}), "unrestricted capabilities"),
    (_with({"runAsNonRoot": False}), "runAsNonRoot != true"),
    (_with({"runAsUser": 0}), "runAsUser=0"),
    (_with({}, pod(securityContext={"runAsNonRoot": True})), "seccompProfile"),
    (
        pod(volumes=[{"name": "v", "nfs": {"server": "s", "path": "/x"}}]),
        'restricted volume types .volume "v" uses restricted volume type "nfs"',
    ),
]
BASELINE: list[tuple[Object, str]] = [
    (pod(hostNetwork=True, hostPID=True), "host namespaces .hostNetwork=true, hostPID=true"),
    (_with({"privileged": True}), 'privileged .container "main" must not set'),
    (_with({"capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]}}), "non-default capabilities"),
    (pod(volumes=[{"name": "v", "hostPath": {"path": "/x"}}]), 'hostPath volumes .volume "v"'),
    (_with({"seccompProfile": {"type": "Unconfined"}}), "seccompProfile"),
    (_with({"procMount": "Unmasked"}), "procMount"),
    (
        pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
        "forbidden sysctls",
    ),
]


def test_a_pod_within_the_restricted_standard_passes(guarded: Store) -> None:
    _label(guarded, enforce="restricted")
    assert guarded.create(pod())["metadata"]["uid"]


@pytest.mark.parametrize("document,told", RESTRICTED)
def test_what_breaks_the_restricted_standard_is_refused(
    guarded: Store, document: Object, told: str
) -> None:
    _label(guarded, enforce="baseline")
    guarded.create(document)
    guarded.delete("Pod", "p", "default")
    _label(guarded, enforce="restricted")
    with pytest.raises(
        Refused, match=f'403 Forbidden: .*violates PodSecurity "restricted:latest": .*{told}'
    ):
        guarded.create(document)


@pytest.mark.parametrize("document,told", BASELINE)
def test_what_breaks_the_baseline_standard_is_refused(
    guarded: Store, document: Object, told: str
) -> None:
    _label(guarded, enforce="baseline")
    with pytest.raises(Refused, match=f'violates PodSecurity "baseline:latest": .*{told}'):
        guarded.create(document)
    _label(guarded, enforce="privileged")
    assert guarded.create(document)["metadata"]["uid"]


def test_a_host_port_breaks_the_baseline_standard(guarded: Store) -> None:
    _label(guarded, enforce="baseline")
    document = pod()
    document["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 80}]
    with pytest.raises(Refused, match=r'hostPort .container "main" uses hostPort 80'):
        guarded.create(document)


def test_a_template_is_warned_of_and_kept(guarded: Store) -> None:
    _label(guarded, enforce="restricted", warn="restricted")
    document = daemon_set()
    document["spec"]["template"]["spec"]["hostNetwork"] = True
    warned: list[str] = []
    guarded.create(document, how=Write(warn=warned.append))
    (told,) = warned
    assert told.startswith('would violate PodSecurity "restricted:latest": host namespaces')


# ------------------------------------------------------------------------------------ policies


def _policy(store: Store, expression: str, **more: Any) -> None:
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["configmaps"],
    }
    binding = more.pop("binding", {})
    validation = {"expression": expression, **more.pop("validation", {})}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [validation],
        **more,
    }
    store.create(plain("ValidatingAdmissionPolicy", "rule", API, spec=spec))
    bound = {"policyName": "rule", "validationActions": ["Deny"], **binding}
    store.create(plain("ValidatingAdmissionPolicyBinding", "bound", API, spec=bound))


def _device(node: str) -> Write:
    return Write(user=User("system:serviceaccount:default:device", extra={NODE_NAME: (node,)}))


def test_a_policy_binds_a_name_to_the_tokens_node(guarded: Store) -> None:
    _policy(
        guarded,
        f"object.metadata.name == 'fleet-report-' + {NODE}",
        validation={"message": "a device writes its own report"},
    )
    guarded.create(config_map("fleet-report-cam-1"), how=_device("cam-1"))
    with pytest.raises(Refused) as caught:
        guarded.create(config_map("fleet-report-cam-2"), how=_device("cam-1"))
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert caught.value.message == (
        "configmaps \"fleet-report-cam-2\" is forbidden: ValidatingAdmissionPolicy 'rule' with "
        "binding 'bound' denied request: a device writes its own report"
    )


def test_a_token_without_a_node_fails_closed(guarded: Store) -> None:
    _policy(guarded, f"object.metadata.name.endsWith({NODE})")
    with pytest.raises(Refused, match=r"resulted in error"):
        guarded.create(config_map())


def test_a_policy_that_ignores_failures_lets_them_pass(guarded: Store) -> None:
    _policy(guarded, f"object.metadata.name.endsWith({NODE})", failurePolicy="Ignore")
    assert guarded.create(config_map())["metadata"]["uid"]


def test_a_condition_says_whom_a_policy_is_for(guarded: Store) -> None:
    conditions = [
        {
            "name": "devices",
            "expression": "request.userInfo.username == 'system:serviceaccount:default:device'",
        }
    ]
    _policy(guarded, "false", matchConditions=conditions)
    guarded.create(config_map())
    with pytest.raises(Refused, match=r"failed expression: false"):
        guarded.create(config_map("b"), how=_device("cam-1"))


def test_variables_and_old_objects_are_known(guarded: Store) -> None:
    variables = [{"name": "first", "expression": "oldObject == null"}]
    _policy(guarded, "variables.first || object.data == oldObject.data", variables=variables)
    made = guarded.create(config_map(data={"k": "1"}))
    made["metadata"]["labels"] = {"x": "y"}
    made = guarded.update(made)
    made["data"] = {"k": "2"}
    with pytest.raises(Refused, match=r"denied request"):
        guarded.update(made)


@pytest.mark.parametrize(
    "binding",
    [
        {"matchResources": {"namespaceSelector": {"matchLabels": {"x": "y"}}}},
        {"matchResources": {"objectSelector": {"matchLabels": {"x": "y"}}}},
        {"policyName": "another"},
        {"validationActions": ["Warn"]},
    ],
)
def test_a_binding_says_where_a_policy_counts(guarded: Store, binding: dict[str, Any]) -> None:
    _policy(guarded, "false", binding=binding)
    assert guarded.create(config_map())["metadata"]["uid"]


def test_a_policy_can_warn(guarded: Store) -> None:
    _policy(guarded, "false", binding={"validationActions": ["Warn"]})
    warned: list[str] = []
    guarded.create(config_map(), how=Write(warn=warned.append))
    assert warned[0].endswith("failed expression: false")


def test_other_resources_and_subresources_arent_its_affair(guarded: Store) -> None:
    _policy(guarded, "false")
    assert guarded.create(daemon_set())["metadata"]["uid"]


def test_an_expression_that_is_none_is_refused(guarded: Store) -> None:
    with pytest.raises(Refused, match=r"validations\[0\].expression: .*compilation failed"):
        _policy(guarded, "object.")


def test_a_dry_run_is_held_to_policies(guarded: Store) -> None:
    _policy(guarded, "false")
    with pytest.raises(Refused, match=r"denied request"):
        guarded.create(config_map(), how=Write(dry_run=True))


# -------------------------------------------------------------------------------------- quotas


def _quota(store: Store, **hard: str) -> None:
    named = {name.replace("__", "/").replace("_", "."): value for name, value in hard.items()}
    store.create(plain("ResourceQuota", "q", spec={"hard": named}))


def _asking(name: str, **requests: str) -> Object:
    document = pod(name)
    document["spec"]["containers"][0]["resources"] = {"requests": requests, "limits": requests}
    return document


def test_a_quota_counts_objects(guarded: Store) -> None:
    _quota(guarded, pods="1")
    guarded.create(pod("a"))
    with pytest.raises(Refused) as caught:
        guarded.create(pod("b"))
    assert caught.value.message == (
        'pods "b" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'
    )
    guarded.delete("Pod", "a", "default")
    assert guarded.create(pod("b"))["metadata"]["uid"]


def test_a_quota_sums_what_pods_ask_for(guarded: Store) -> None:
    _quota(guarded, requests_cpu="1500m")
    guarded.create(_asking("a", cpu="1"))
    with pytest.raises(Refused, match=r"requested: requests.cpu=1,used|used: requests.cpu=1"):
        guarded.create(_asking("b", cpu="1"))
    assert guarded.create(_asking("b", cpu="500m"))["metadata"]["uid"]


def test_a_quota_of_processors_makes_pods_say_how_much(guarded: Store) -> None:
    _quota(guarded, requests_cpu="1")
    with pytest.raises(Refused, match=r"failed quota: q: must specify requests.cpu for: main"):
        guarded.create(pod())


def test_a_quota_of_any_kind_counts(guarded: Store) -> None:
    _quota(guarded, count__daemonsets_apps="1")
    guarded.create(daemon_set("a"))
    with pytest.raises(Refused, match=r"exceeded quota: q, requested: count/daemonsets.apps=1"):
        guarded.create(daemon_set("b"))
