"""The page of permissions, written from the lists.

``python -m edgefleet_kubernetes.permissions_page > docs/reference/kubernetes-permissions.md``; a
test holds that file against it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes import roles, yaml_files
from edgefleet_kubernetes.manifests import role_documents
from edgefleet_kubernetes.settings import KubernetesSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# Permissions on Kubernetes

<!-- Made by `python -m edgefleet_kubernetes.permissions_page`; don't edit. -->

The least that each part needs, as roles, one for each place where it is needed: the cluster, the
fleet's namespace, that of reports. `edgefleet install` makes the roles `device` and `operator`,
the latter with all parts but `install`, and binds it to those that the setting
`operators` names: `User:ada@example.com`, `Group:plant`, `ServiceAccount:ci:deploy`. The roles of
single parts below are for those who do less; they are named for the fleet `edgefleet` in the
namespace `edgefleet`, and install neither changes nor deletes them.

Tests run parts with exactly these roles on the mock cloud, whose API server enforces them, and
compare them with the calls that were made, for the parts that say so; nothing of it was tried in a
real cluster.

`edgefleet doctor --profile P` asks the API server for each of these, by a SelfSubjectAccessReview,
and names those that are missing, with the role that has them.
"""
_ABOUT = {
    "registry": "Nothing: models lie in an OCI registry, which has permissions of its own.",
    "state": "Releases, pointers' numbers and other shared documents. Compared with the calls.",
    "trainer": "Start, follow and stop training.",
    "telemetry": "Read what devices recorded.",
    "deployer": "Enrol nodes, deliver, read status and logs, ask a device. Whoever may patch nodes "
    "may label and\ntaint any; without that, nodes are labelled by who runs the cluster. "
    "`pods/proxy` reaches every port of\nthe namespace's pods. With `model_images` the operator's "
    "role also has `patch` on\nDaemonSets, by which one may do anything on the nodes. Compared "
    "with the calls.",
    "install": "`edgefleet install`, its dry run and its teardown, and enrolling into a new group. "
    "The namespaces\nhave to be there before roles can lie in them: apply `0-namespace.*.yaml` of "
    "a dry run first. RBAC\nlets nobody give away what they lack, so the installer also needs all "
    "other roles of this page. Who\nmay write DaemonSets and PersistentVolumes may do anything on "
    "the nodes. Compared with the calls.",
}
_PLACES = {
    roles.CLUSTER: "In the whole cluster",
    roles.NAMESPACE: "In the fleet's namespace",
    roles.REPORTS: "In the namespace of reports",
    roles.TRAINING: "In the namespace of training",
}
_DEVICES = """\
## Devices

The runtime's pods have the ServiceAccount `PREFIX-device`. Which ConfigMap of the reports'
namespace is a device's own, RBAC can't tell: the ValidatingAdmissionPolicy
`NAMESPACE.PREFIX.reports` lets a device write only the one that ends in the node's name of its own
token. Before Kubernetes 1.30 there is neither that policy nor that claim, and a device whose token
is stolen can write others' reports. With `watch_pointers` each group has a role more, to watch the
ConfigMap with its pointer.
"""


def page() -> str:
    """The page as Markdown."""
    return "\n".join(_parts())


def _parts() -> Iterator[str]:
    yield _HEAD
    yield "## Operators\n"
    for part, rules in roles.OPERATOR.items():
        yield f"### {part}\n"
        yield f"{_ABOUT[part]}\n"
        yield from _blocks(part, rules)
    yield _DEVICES
    yield from _blocks("device", roles.DEVICE)
    blocks = [*_blocks("watch", roles.WATCH, group="GROUP")]
    yield from blocks[:-1]
    yield blocks[-1].rstrip("\n") + "\n"


def _blocks(who: str, rules: roles.Rules, *, group: str = "") -> Iterator[str]:
    settings = KubernetesSettings()
    for place, held in rules.items():
        documents: list[dict[str, Any]] = role_documents(
            settings, who, {place: roles.merged(held)}, [], group=group
        )
        for document in documents:
            del document["metadata"]["labels"]  # by which install knows what it made
            yield f"{_PLACES[place]}:\n"
            yield f"```yaml\n{yaml_files.encoded(document).decode()}```\n"


if __name__ == "__main__":
    sys.stdout.write(page())
