"""What a fleet needs before its first device: namespaces, roles, a policy, and a DaemonSet a group.

Every step may be repeated: what is there stays as it is, and what others put beside it as well.
A namespace that somebody else made is adopted, and never deleted. A cluster that a group comes to
gets the pointer that was published, so that its devices run what the others do. The runtime's image
is upgraded by installing again: deployments of models touch no DaemonSet.
"""

from __future__ import annotations

import base64
import logging
import secrets
from typing import TYPE_CHECKING

from edgefleet.errors import AlreadyExistsError, ConfigurationError
from edgefleet.interfaces.abilities import CanInstall, CanProve
from edgefleet.interfaces.values import Action, Rendered
from edgefleet_kubernetes import yaml_files
from edgefleet_kubernetes.cluster import is_ours
from edgefleet_kubernetes.manifests import (
    POLICIES_SINCE,
    fleet_documents,
    group_documents,
)
from edgefleet_kubernetes.names import (
    GROUP,
    MANAGED_BY,
    MANAGER,
    pointer_name,
    serving_secret,
)
from edgefleet_kubernetes.pointers import check_images, pointer_of
from edgefleet_kubernetes.proofs import prove
from edgefleet_kubernetes.removal import Removal, serving_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.abilities import Proof
    from edgefleet_kubernetes.cluster import Cluster
    from edgefleet_kubernetes.clusters import Clusters
    from edgefleet_kubernetes.groups import DeviceGroups
    from edgefleet_kubernetes.pointers import GroupPointers
    from edgefleet_kubernetes.reading import Object
    from edgefleet_kubernetes.settings import KubernetesSettings

_log = logging.getLogger(__name__)

_POLICIES = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
_ENFORCE = "pod-security.kubernetes.io/enforce"
_ORDER = {Action.UNCHANGED: 0, Action.UPDATE: 1, Action.CREATE: 2}


class Installation:
    """A fleet's side of its clusters.

    Args:
        clusters: of the fleet.
        groups: who is where.
        pointers: of the groups.
        settings: of the fleet.
        deployer: its name in the profile.
    """

    def __init__(
        self,
        clusters: Clusters,
        groups: DeviceGroups,
        pointers: GroupPointers,
        settings: KubernetesSettings,
        *,
        deployer: str,
    ) -> None:
        self._clusters = clusters
        self._groups = groups
        self._pointers = pointers
        self._settings = settings
        self._deployer = deployer

    def install(self, group: str | None) -> None:
        """Have every node of the fleet run the runtime, those that join later too.

        Args:
            group: that gets its DaemonSet, or a newer one; None for all that there are.

        Raises:
            ConfigurationError: a namespace that is there can't be used.
            ConflictError: somebody else manages what is to be changed.
        """
        self._settings.needed("runtime_image", "installing")
        for cluster in self._clusters:
            wanted = self._documents(cluster, group)
            for document in wanted:
                cluster.apply(document)
            for name in self._groups_of(cluster, group):
                self._pointers.bring(cluster, name)
            self._make_secret(cluster)
            Removal(cluster, self._settings).prune(wanted, self._groups_of(cluster, group))

    def install_group(self, cluster: Cluster, group: str) -> None:
        """Have one cluster hold a group."""
        for document in self._group_documents(cluster, group):
            cluster.apply(document)

    def documents(self, group: str | None) -> Iterator[Rendered]:
        """What `install` would apply, and whether that is there already.

        The Secret with the serving token is none of them: it is made where it isn't. Nor are
        pointers, which a cluster that a group comes to gets as they were published.
        """
        self._settings.needed("runtime_image", "installing")
        actions: dict[str, Action] = {}
        found: dict[str, Object] = {}
        for cluster in self._clusters:
            for document in self._documents(cluster, group):
                path = yaml_files.file_name(document)
                action = self._action(cluster, document)
                found[path] = document
                actions[path] = max(action, actions.get(path, action), key=_ORDER.__getitem__)
        for path, document in found.items():
            content = yaml_files.encoded(document)
            yield Rendered(path=self._path(path), content=content, action=actions[path])
        listing = max(actions.values(), key=_ORDER.__getitem__)
        content = yaml_files.kustomization(found)
        path = self._path(yaml_files.KUSTOMIZATION)
        yield Rendered(path=path, content=content, action=listing)

    def uninstall(self, *, data: bool) -> None:
        """Take the runtime off the devices, and what operators and devices may do away.

        Pointers, state and reports stay, and nodes their labels, so that installing again goes on
        where it was. What models the nodes have on their disks stays in any case.

        Args:
            data: delete pointers, state and reports, and namespaces that install made, where
                nothing of others is in them.
        """
        for cluster in self._clusters:
            Removal(cluster, self._settings).remove(data=data)

    def _path(self, path: str) -> str:
        return f"{self._deployer}/{path}"

    def _documents(self, cluster: Cluster, group: str | None) -> list[Object]:
        """What a cluster should have, but for namespaces of others."""
        policies = cluster.version() >= POLICIES_SINCE
        if not policies:
            _log.warning(
                "%s is older than Kubernetes 1.30: no policy holds a device to its own report",
                cluster.context,
            )
        fleet = fleet_documents(self._settings, policies=policies)
        wanted = [one for one in fleet if not self._adopted(cluster, one)]
        for name in self._groups_of(cluster, group):
            wanted += self._group_documents(cluster, name)
        return wanted

    def _group_documents(self, cluster: Cluster, group: str) -> list[Object]:
        """A group's objects, with the images of the releases that it has."""
        if self._settings.model_images is None:
            return group_documents(self._settings, group)
        check_images(cluster)
        name = pointer_name(self._settings.prefix, group)
        there = cluster.get("ConfigMap", name, self._settings.namespace)
        pointer = None if there is None else pointer_of(there)
        return group_documents(self._settings, group, pointer)

    def _groups_of(self, cluster: Cluster, group: str | None) -> list[str]:
        if group is not None:
            return [group]
        found = [one["metadata"]["labels"][GROUP] for one in self._groups.daemon_sets(cluster)]
        named = [member.group for member in self._groups.members_in(cluster, None)]
        return sorted({*found, *named})

    def _adopted(self, cluster: Cluster, document: Object) -> bool:
        """Whether that is a namespace that others made.

        Raises:
            ConfigurationError: pods of ours couldn't be there.
        """
        if document["kind"] != "Namespace":
            return False
        name = document["metadata"]["name"]
        there = cluster.get("Namespace", name)
        if there is None or is_ours(there, self._settings.prefix):
            return False
        labels = there["metadata"].get("labels") or {}
        held = labels.get(_ENFORCE, "privileged")
        needed = document["metadata"]["labels"][_ENFORCE]
        if needed == "privileged" and held != "privileged":
            whose = "another fleet's" if labels.get(MANAGED_BY) == MANAGER else "somebody else's"
            raise ConfigurationError(
                f"namespace {name} in {cluster.context} is {whose} and held to the pod security "
                f"standard {held!r}, which refuses pods with a hostPath",
                cure='set `store = "claim"` in the profile, or name another `namespace`',
            )
        return True

    def _make_secret(self, cluster: Cluster) -> None:
        """Have the tokens that applications and operators show to the runtime; those there stay."""
        name = serving_secret(self._settings.prefix)
        if cluster.get("Secret", name, self._settings.namespace) is not None:
            return
        token, orders = (
            base64.b64encode(secrets.token_hex(32).encode()).decode() for _ in range(2)
        )
        try:
            cluster.create(serving_document(self._settings, token, orders))
        except AlreadyExistsError:
            _log.debug("somebody made %s at the same time", name)

    def _action(self, cluster: Cluster, document: Object) -> Action:
        metadata = document["metadata"]
        there = cluster.get(document["kind"], metadata["name"], metadata.get("namespace"))
        if there is None:
            return Action.CREATE
        after = cluster.apply(document, dry_run=True)
        return Action.UNCHANGED if _bare(after) == _bare(there) else Action.UPDATE


def _bare(found: Object) -> Object:
    """An object without what changes by itself."""
    own = {"managedFields", "resourceVersion", "generation"}
    metadata = {key: value for key, value in found["metadata"].items() if key not in own}
    return {**found, "metadata": metadata}


class InstallsKubernetes(CanInstall, CanProve):
    """What a deployer on Kubernetes installs, and how it proves what it may do."""

    name: str
    _clusters: Clusters
    _members: DeviceGroups
    _pointers: GroupPointers
    _settings: KubernetesSettings

    def _installation(self) -> Installation:
        return Installation(
            self._clusters, self._members, self._pointers, self._settings, deployer=self.name
        )

    def _install(self, group: str | None) -> None:
        self._installation().install(group)

    def _install_documents(self, group: str | None) -> Iterator[Rendered]:
        return self._installation().documents(group)

    def _uninstall(self, data: bool) -> None:  # noqa: FBT001 - the interface's own
        self._installation().uninstall(data=data)

    def _proofs(self) -> Iterator[Proof]:
        for cluster in self._clusters:
            yield from prove(cluster, self._settings, ("deployer", "install"))
