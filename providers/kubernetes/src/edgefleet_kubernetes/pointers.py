"""Pointers of groups: one ConfigMap each, in every cluster that has the group.

Rules kept here:

- The highest pointer is known in the profile's state store before anything is sent; whoever
  publishes repeats until each cluster carries it, so that racing operators end at the highest.
- A pointer is applied under the version that was read, so that none comes in between unseen.
- What can't be reached now doesn't keep the others from theirs; it is told, and publishing again
  brings it there.
- What devices of several clusters have in common is the lowest of their pointers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import (
    ConflictError,
    DocumentError,
    EdgeFleetError,
    UnavailableError,
    UnknownFeatureError,
    UnsupportedError,
)
from edgefleet.interfaces.values import Action, Rendered
from edgefleet.interfaces.wanted import WantedPointers
from edgefleet.protocol.pointer import read_pointer
from edgefleet_kubernetes import yaml_files
from edgefleet_kubernetes.cluster import is_ours
from edgefleet_kubernetes.errors import problem_of
from edgefleet_kubernetes.manifests import (
    IMAGES_SINCE,
    daemon_set,
    pointer_document,
    restart_warnings,
)
from edgefleet_kubernetes.names import POINTER_KEY, pointer_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet.interfaces.state import StateStore
    from edgefleet.protocol.pointer import Pointer
    from edgefleet_kubernetes.cluster import Cluster
    from edgefleet_kubernetes.clusters import Clusters
    from edgefleet_kubernetes.groups import DeviceGroups
    from edgefleet_kubernetes.reading import Object
    from edgefleet_kubernetes.settings import KubernetesSettings

_TRIES = 20  # of a contended publish in one cluster


class GroupPointers:
    """The pointers of a fleet's groups.

    Args:
        clusters: of the fleet.
        groups: who is where.
        settings: of the fleet.
        state: gives the profile's state store.
        deployer: its name in the profile.
    """

    def __init__(
        self,
        clusters: Clusters,
        groups: DeviceGroups,
        settings: KubernetesSettings,
        state: Callable[[], StateStore],
        *,
        deployer: str,
    ) -> None:
        self._clusters = clusters
        self._groups = groups
        self._settings = settings
        self._wanted = WantedPointers(state, deployer=deployer)
        self._deployer = deployer

    def read(self, group: str) -> Pointer | None:
        """The pointer in place; of several clusters the lowest, None where one has none."""
        found = [self._read(cluster, group) for cluster in self._with(group)]
        there = [one for one in found if one is not None]
        return min(there, key=lambda one: one.pair) if there and len(there) == len(found) else None

    def held(self, group: str) -> Pointer | None:
        """The pointer in place; None also where a cluster can't be read, which `publish` tells."""
        try:
            return self.read(group)
        except Exception as error:
            if problem_of(error) is None:
                raise
            return None

    def render(self, group: str, pointer: Pointer) -> Iterator[Rendered]:
        """What publishing would apply; the same documents in every cluster.

        Raises:
            UnsupportedError: images are wanted, and a cluster is too old for them.
        """
        documents = [pointer_document(self._settings, group, pointer)]
        if self._settings.model_images is not None:
            for cluster in self._with(group):
                check_images(cluster)
            documents.append(daemon_set(self._settings, group, pointer))
        there = [self._read(cluster, group) for cluster in self._with(group)]
        if all(one == pointer for one in there):
            action = Action.UNCHANGED
        else:
            action = Action.UPDATE if any(there) else Action.CREATE
        files = {yaml_files.file_name(one): yaml_files.encoded(one) for one in documents}
        files[yaml_files.KUSTOMIZATION] = yaml_files.kustomization(list(files))
        for name, content in files.items():
            yield Rendered(path=f"{self._deployer}/{name}", content=content, action=action)

    def warnings(self, group: str, pointer: Pointer) -> Iterator[str]:
        """What publishing does besides."""
        there = (self._read(cluster, group) for cluster in self._with(group))
        return restart_warnings(self._settings, group, there, pointer)

    def publish(self, group: str, pointer: Pointer) -> None:
        """Bring a pointer into every cluster that has the group.

        Raises:
            UnsupportedError: images are wanted, and a cluster is too old for them: nothing was
                written, not to the state store either.
            ConflictError: there is a higher one, or somebody else manages it.
            UnavailableError: some clusters don't answer; the others have it.
        """
        self._check_images(group)
        self._wanted.raise_to(group, pointer)
        problems: dict[str, EdgeFleetError] = {}
        for cluster in self._clusters:
            try:
                if self._groups.is_in(cluster, group):
                    self._bring(cluster, group)
            except Exception as error:
                problem = problem_of(error)
                if problem is None or len(self._clusters.names) == 1:
                    raise
                problems[cluster.context] = problem
        if problems:
            told = "; ".join(f"{context}: {why.message}" for context, why in problems.items())
            only_away = all(isinstance(why, UnavailableError) for why in problems.values())
            kind = UnavailableError if only_away else ConflictError
            raise kind(
                f"pointer #{pointer.number} of {group} isn't everywhere: {told}",
                cure="deploy again when that is mended: where it is already, nothing changes",
            )

    def bring(self, cluster: Cluster, group: str) -> None:
        """Have a cluster that a group has come to carry what was published, unless it does.

        Raises:
            UnsupportedError: images are wanted, and the cluster is too old for them.
            ConflictError: somebody else manages its pointer.
        """
        wanted = self._wanted.find(group)
        if wanted is None:
            return
        there = self._read(cluster, group)
        if there is None or there.pair < wanted.pointer.pair:
            self._bring(cluster, group)

    def _bring(self, cluster: Cluster, group: str) -> None:
        """Have a cluster carry the group's highest pointer."""
        for _ in range(_TRIES):
            highest = self._wanted.highest(group).pointer
            there = self._config_map(cluster, group)
            held = None if there is None else pointer_of(there)
            if held is not None and held.pair > highest.pair:
                raise ConflictError(
                    f"{group} holds pointer {held.pair} in {cluster.context}, above {highest.pair}",
                    cure="read the group again and repeat",
                    retryable=False,
                )
            self._mount_images(cluster, group, highest)
            if held == highest:
                return
            document = pointer_document(self._settings, group, highest)
            if there is not None:
                document["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
            try:
                cluster.apply(document)
            except ConflictError as error:
                if not error.retryable:
                    raise
        raise ConflictError(f"the pointer of {group} in {cluster.context} changed all the time")

    def _check_images(self, group: str) -> None:
        """Refuse clusters that are too old for images; others' problems are told by publishing.

        Raises:
            UnsupportedError: there is one.
        """
        if self._settings.model_images is None:
            return
        for cluster in self._clusters:
            try:
                if self._groups.is_in(cluster, group):
                    check_images(cluster)
            except UnsupportedError:
                raise
            except Exception as error:
                if problem_of(error) is None:
                    raise

    def _mount_images(self, cluster: Cluster, group: str, pointer: Pointer) -> None:
        """Have the group's pods mount the images of a pointer's releases, where it is wanted.

        Before the pointer, so that a pod which sees that has them. A group without a DaemonSet gets
        them with it, from install.
        """
        if self._settings.model_images is None:
            return
        check_images(cluster)
        if self._groups.daemon_set(cluster, group) is not None:
            cluster.apply(daemon_set(self._settings, group, pointer))

    def _with(self, group: str) -> list[Cluster]:
        """The clusters that have the group; the only one there is, whether or not it has."""
        found = list(self._clusters)
        if len(found) == 1:
            return found
        return [cluster for cluster in found if self._groups.is_in(cluster, group)]

    def _read(self, cluster: Cluster, group: str) -> Pointer | None:
        found = self._config_map(cluster, group)
        return None if found is None else pointer_of(found)

    def _config_map(self, cluster: Cluster, group: str) -> Object | None:
        """The ConfigMap of a group's pointer.

        Raises:
            ConflictError: somebody else's has its name.
        """
        name = pointer_name(self._settings.prefix, group)
        found = cluster.get("ConfigMap", name, self._settings.namespace)
        if found is not None and not is_ours(found, self._settings.prefix):
            raise ConflictError(
                f"ConfigMap {self._settings.namespace}/{name} in {cluster.context} isn't ours",
                cure="delete it, or set another `prefix` in the profile",
                retryable=False,
            )
        return found


def check_images(cluster: Cluster) -> None:
    """Refuse a cluster that knows no volumes from images.

    Raises:
        UnsupportedError: it is too old.
    """
    major, minor = found = cluster.version()
    if found < IMAGES_SINCE:
        raise UnsupportedError(
            f"{cluster.context} runs Kubernetes {major}.{minor}: image volumes came with 1.31",
            cure="upgrade the cluster, or take `model_images` out of the profile",
            provider="kubernetes",
        )


def pointer_of(config_map: Object) -> Pointer | None:
    """The pointer that a ConfigMap carries; None where somebody wrote what is none.

    Raises:
        UnknownFeatureError: it is of a newer kind.
    """
    text = (config_map.get("data") or {}).get(POINTER_KEY)
    try:
        return read_pointer(text.encode()) if isinstance(text, str) else None
    except UnknownFeatureError:
        raise
    except DocumentError:
        return None
