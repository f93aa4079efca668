"""Proves permissions: of a cluster by asking its API server, of a registry by trying.

The API server gets one SelfSubjectAccessReview for each verb. It decides as it would for the call
itself, and does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import AccessDeniedError, ConfigurationError, NotFoundError
from edgefleet.interfaces.abilities import Proof
from edgefleet_kubernetes.names import cluster_name, object_name
from edgefleet_kubernetes.oci_errors import asking_registry
from edgefleet_kubernetes.roles import (
    CLUSTER,
    IMAGES,
    INSTALL,
    OPERATOR,
    all_of,
    namespace_of,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from edgefleet_kubernetes.cluster import Cluster
    from edgefleet_kubernetes.settings import KubernetesSettings


def prove(cluster: Cluster, settings: KubernetesSettings, parts: Iterable[str]) -> Iterator[Proof]:
    """Whether whoever calls may do what parts need.

    Args:
        cluster: where.
        settings: of the fleet.
        parts: such as ``state``.
    """
    for part in parts:
        images = part == "deployer" and settings.model_images is not None
        held = all_of([OPERATOR[part], IMAGES]) if images else OPERATOR[part]
        for place, rules in held.items():
            namespace = namespace_of(place, settings)
            for rule in written(rules, settings):
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        asked = _asked(rule, resource, verb, namespace)
                        allowed = cluster.review(asked)
                        where = "the cluster" if namespace is None else f"namespace {namespace}"
                        action = f"{verb} {_told(rule, resource)} in {where}"
                        problem = None if allowed else _problem(cluster, settings, part, place)
                        yield Proof(part, action, problem)


def tried(part: str, action: str, work: Callable[[], object]) -> Proof:
    """Whether a registry allows something, by work that leaves nothing there."""
    try:
        with asking_registry():
            work()
    except (AccessDeniedError, ConfigurationError, NotFoundError) as error:
        return Proof(part, action, str(error))
    return Proof(part, action)


def _asked(
    rule: dict[str, list[str]], resource: str, verb: str, namespace: str | None
) -> dict[str, str]:
    plural, _, below = resource.partition("/")
    found = {"verb": verb, "group": rule["apiGroups"][0], "resource": plural}
    if below:
        found["subresource"] = below
    if namespace is not None:
        found["namespace"] = namespace
    if rule.get("resourceNames"):
        found["name"] = rule["resourceNames"][0]
    return found


def _told(rule: dict[str, list[str]], resource: str) -> str:
    group = rule["apiGroups"][0]
    names = "".join(f" {name}" for name in rule.get("resourceNames") or ())
    return f"{resource}.{group}{names}" if group else f"{resource}{names}"


def _problem(cluster: Cluster, settings: KubernetesSettings, part: str, place: str) -> str:
    """Which role holds it."""
    if part == INSTALL:
        return (
            f"not allowed in {cluster.context}: the installer's role has it, see "
            "docs/reference/kubernetes-permissions.md"
        )
    if place == CLUSTER:
        role = f"ClusterRole {cluster_name(settings.namespace, settings.prefix, 'operator')}"
    else:
        role = f"Role {object_name(settings.prefix, 'operator')}"
    return f"not allowed in {cluster.context}: {role} has it; name yourself in `operators`"
