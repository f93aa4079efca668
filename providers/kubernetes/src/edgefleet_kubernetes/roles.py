"""What each part must be allowed, in RBAC's words, and where. Pure.

Rules kept here:

- A part's rules stand at the place where they are needed: the cluster, the fleet's namespace, or
  that of reports. A role reaches no further than its place.
- A device writes its own report and nothing else. Which one is its own, RBAC can't tell; the
  admission policy of `manifests` does.
- Applying needs ``patch``, and ``create`` as well where the object may be new.
- RBAC lets nobody give away what they lack, so the installer has what operators and devices have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet_kubernetes.names import pointer_name, serving_secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgefleet_kubernetes.settings import KubernetesSettings

CLUSTER, NAMESPACE, REPORTS, TRAINING = "cluster", "namespace", "reports", "training"
PLACES = (CLUSTER, NAMESPACE, REPORTS, TRAINING)
SERVING = "{serving}"
"""Stands for the name of the Secret with the serving token."""
POINTER = "{pointer}"
"""Stands for the name of the ConfigMap with a group's pointer."""


class Rule(NamedTuple):
    """Verbs on resources of one API group.

    Attributes:
        group: of the API; empty for the core.
        resources: plural names, subresources after a slash.
        verbs: as RBAC names them.
        names: of the objects meant; empty for all.
    """

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()


Rules = dict[str, tuple[Rule, ...]]

DEVICE: Rules = {REPORTS: (Rule("", ("configmaps",), ("create", "get", "patch", "update")),)}
"""What a device's own ServiceAccount may do."""
WATCH: Rules = {NAMESPACE: (Rule("", ("configmaps",), ("list", "watch"), (POINTER,)),)}
"""And that of a device which watches its group's pointer."""

IMAGES: Rules = {NAMESPACE: (Rule("apps", ("daemonsets",), ("patch",)),)}
"""What an operator has to be allowed beside where publishing mounts releases' images."""

_APPLY = ("create", "delete", "get", "list", "patch")
_RBAC = "rbac.authorization.k8s.io"

_LOOK = Rule(
    "",
    ("configmaps", "persistentvolumeclaims", "pods", "secrets", "serviceaccounts", "services"),
    ("list",),
)
"""By which a teardown sees whether a namespace is somebody else's, too."""

OPERATOR: dict[str, Rules] = {
    "state": {
        NAMESPACE: (Rule("", ("configmaps",), ("create", "delete", "get", "list", "update")),),
    },
    "deployer": {
        CLUSTER: (Rule("", ("nodes",), ("get", "list", "patch")),),
        NAMESPACE: (
            Rule("", ("configmaps",), ("create", "get", "patch")),
            Rule("", ("events",), ("list",)),
            Rule("", ("pods",), ("list",)),
            Rule("", ("pods/log",), ("get",)),
            Rule("", ("pods/proxy",), ("create", "get")),
            Rule("", ("secrets",), ("get",), (SERVING,)),
            Rule("apps", ("daemonsets",), ("get", "list")),
        ),
        REPORTS: (Rule("", ("configmaps",), ("delete", "get", "list")),),
    },
    "trainer": {
        CLUSTER: (Rule("", ("nodes",), ("list",)),),
        TRAINING: (
            Rule("", ("events",), ("list",)),
            Rule("", ("pods",), ("list",)),
            Rule("", ("pods/log",), ("get",)),
            Rule("batch", ("jobs",), ("create", "get", "list", "patch")),
            Rule("trainer.kubeflow.org", ("trainjobs",), ("create", "get", "list", "patch")),
        ),
    },
    "telemetry": {
        CLUSTER: (Rule("", ("nodes",), ("list",)),),
        REPORTS: (Rule("", ("configmaps",), ("list",)),),
    },
    "install": {
        CLUSTER: (
            Rule("", ("namespaces",), ("create", "delete", "get", "patch")),
            Rule("", ("persistentvolumes",), _APPLY),
            Rule("", ("nodes",), ("list",)),
            Rule(_RBAC, ("clusterrolebindings", "clusterroles"), _APPLY),
            Rule(
                "admissionregistration.k8s.io",
                ("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
                _APPLY,
            ),
        ),
        NAMESPACE: (
            _LOOK,
            Rule("", ("configmaps",), ("delete",)),
            Rule("", ("persistentvolumeclaims", "serviceaccounts", "services"), _APPLY),
            Rule("", ("secrets",), ("create", "delete", "get")),
            Rule("apps", ("daemonsets",), _APPLY),
            Rule("policy", ("poddisruptionbudgets",), _APPLY),
            Rule(_RBAC, ("rolebindings", "roles"), _APPLY),
        ),
        REPORTS: (
            _LOOK,
            Rule("", ("configmaps",), ("delete",)),
            Rule(_RBAC, ("rolebindings", "roles"), _APPLY),
        ),
        TRAINING: (_LOOK, Rule(_RBAC, ("rolebindings", "roles"), _APPLY)),
    },
}
"""What an operator of each part must be allowed, by place."""

INSTALL = "install"


def namespace_of(place: str, settings: KubernetesSettings) -> str | None:
    """The namespace of a place; None for the cluster."""
    return {
        CLUSTER: None,
        NAMESPACE: settings.namespace,
        REPORTS: settings.reports_namespace,
        TRAINING: settings.training_namespace,
    }[place]


def all_of(parts: Iterable[Rules]) -> Rules:
    """Rules of several parts together, by place, in order."""
    found: dict[str, set[Rule]] = {}
    for part in parts:
        for place, rules in part.items():
            found.setdefault(place, set()).update(rules)
    return {place: merged(found[place]) for place in PLACES if place in found}


def merged(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same permissions, a rule for each resource and set of names."""
    found: dict[tuple[str, str, tuple[str, ...]], set[str]] = {}
    for rule in rules:
        for resource in rule.resources:
            found.setdefault((rule.group, resource, rule.names), set()).update(rule.verbs)
    return tuple(
        Rule(group, (resource,), tuple(sorted(verbs)), names)
        for (group, resource, names), verbs in sorted(found.items())
        if not (names and verbs <= found.get((group, resource, ()), set()))
    )


def operators(*, images: bool = False) -> Rules:
    """What somebody must be allowed who does everything but install.

    Args:
        images: with what publishing needs where the profile names ``model_images``.
    """
    parts = [rules for part, rules in OPERATOR.items() if part != INSTALL]
    return all_of([*parts, IMAGES] if images else parts)


def written(
    rules: Iterable[Rule], settings: KubernetesSettings, *, group: str = ""
) -> list[dict[str, Any]]:
    """Rules as a Role has them, one for a group where it is given."""
    return [
        {
            "apiGroups": [rule.group],
            "resources": list(rule.resources),
            **({"resourceNames": _named(rule, settings, group)} if rule.names else {}),
            "verbs": list(rule.verbs),
        }
        for rule in rules
    ]


def _named(rule: Rule, settings: KubernetesSettings, group: str) -> list[str]:
    stands = {
        SERVING: serving_secret(settings.prefix),
        POINTER: pointer_name(settings.prefix, group),
    }
    return [stands[name] for name in rule.names]


def subject(who: str) -> dict[str, str]:
    """A subject of a binding, from how `KubernetesSettings.operators` names it."""
    kind, _, name = who.partition(":")
    if kind != "ServiceAccount":
        return {"apiGroup": _RBAC, "kind": kind, "name": name}
    namespace, _, name = name.partition(":")
    return {"kind": kind, "name": name, "namespace": namespace}
