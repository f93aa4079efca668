"""The mock of Kubernetes: API servers over HTTPS on loopback, an OCI registry, and nodes.

See ``mock_rules.md`` for each rule. What a cluster holds is kept in the mock's folder when it stops
in order, and a mock that starts there goes on with it. No environment tells anybody to trust the
clusters' throw-away authorities: kubeconfigs name them, and pods find theirs where every pod does.

The registry is the stand-in, which tells the journal, injects faults and knows tokens, or Debian's
``docker-registry``, which does none of that and is somebody else's program. A folder goes on with
the one that it began with.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from edgefleet.errors import ConfigurationError
from edgefleet.plugins.provider import Role
from edgefleet.testing.cloud.keeping import Keeper, Place
from edgefleet.testing.cloud.refusals import made_of_extra, not_running
from edgefleet.testing.cloud.rules import Rules
from edgefleet.testing.mock import MockCloud
from edgefleet_kubernetes.settings import KubernetesSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefleet.testing.cloud.oci import OciRegistry
    from edgefleet_kubernetes.cloud.oci_registry import Registry
    from edgefleet_kubernetes.cloud.stage import Stage

VENDOR = "Kubernetes"
RegistryKind = Literal["stand-in", "docker-registry"]
REGISTRY_VARIABLE = "EDGEFLEET_MOCK_REGISTRY"
"""Names the registry to run where the mock is a command."""
REPOSITORY = "edgefleet/models"
"""Where the mock's registry keeps the models of who names no repository."""
_FOLDERS: dict[RegistryKind, str] = {"stand-in": "registry", "docker-registry": "docker-registry"}
_REGISTRY = "/registry"  # among the ports of clusters, which have no slash in their names
NAMESPACE: str = KubernetesSettings.model_fields["namespace"].default


class KubernetesMock(MockCloud):
    """Kubernetes on this machine.

    Args:
        state: folder for what it keeps.
        clusters: names of the clusters, which are contexts of the kubeconfig too.
        version: of Kubernetes, such as ``1.31``; None for the newest there are schemas of.
        registry: which one to run; None for what EDGEFLEET_MOCK_REGISTRY names, else the one that
            the folder began with, else the stand-in.

    Attributes:
        rules: faults to inject.
    """

    name: ClassVar[str] = "kubernetes"
    roles: ClassVar[frozenset[Role]] = frozenset(Role)
    writes_elsewhere: ClassVar[bool] = True

    def __init__(
        self,
        state: Path,
        *,
        clusters: tuple[str, ...] = ("mock",),
        version: str | None = None,
        registry: RegistryKind | None = None,
    ) -> None:
        super().__init__(state)
        self._names, self._version, self._wanted = clusters, version, registry
        self._keeper = Keeper(state / "cloud.json")
        self._stages: dict[str, Stage] = {}
        self._registry: Registry | None = None
        self.rules = Rules(_throttled)

    def start(self) -> None:
        """Listen on loopback; no error when it does already.

        Raises:
            MissingExtraError: what the mock is made of isn't installed.
            ConfigurationError: there is no such registry, or the folder began with another.
        """
        if self._stages:
            return
        with made_of_extra(VENDOR, "edgefleet-kubernetes"):
            from edgefleet.testing.cloud.front import Journal  # noqa: PLC0415 - likewise
            from edgefleet_kubernetes.cloud.oci_registry import (  # noqa: PLC0415 - likewise
                registry_in,
            )
            from edgefleet_kubernetes.cloud.stage import (  # noqa: PLC0415 - extra may be missing
                Stage,
                write_kubeconfig,
            )
        kind = self._registry_kind()
        self.state.mkdir(parents=True, exist_ok=True)
        place, journal = Place({}), Journal()
        self._keeper.restore({"place": place})
        for name in self._names:
            stage = Stage(
                self.rules,
                self.state / "clusters" / name,
                name=name,
                version=self._version,
                journal=journal,
                borrowed=lambda: self.borrowed.variables,
            )
            self._keeper.restore(stage.parts)
            self._stages[name] = stage
            stage.open(place.told.get(name, 0))
        self._registry = registry_in(
            self.state / _FOLDERS[kind],
            real=kind == "docker-registry",
            journal=journal,
            rules=self.rules,
        )
        self._keeper.restore(_kept_of(self._registry))
        self._registry.start(place.told.get(_REGISTRY, 0))
        self.add_fleet()
        write_kubeconfig(self.kubeconfig, [(stage, stage.token) for stage in self._stages.values()])

    def stop(self) -> None:
        """Keep what there is, and stop listening."""
        self.rules.clear()
        stages, self._stages = self._stages, {}
        registry, self._registry = self._registry, None
        if not stages or registry is None:
            return
        ports = {name: stage.port for name, stage in stages.items()}
        ports[_REGISTRY] = registry.port
        parts: dict[str, Any] = {"place": Place(ports), **_kept_of(registry)}
        for stage in stages.values():
            parts |= stage.parts
        try:
            for stage in stages.values():
                stage.shut_down()
            self._keeper.save(parts)
        finally:
            registry.stop()
            for stage in stages.values():
                stage.close()

    @property
    def kubeconfig(self) -> Path:
        """File with the clusters and the operator's tokens."""
        return self.state / "kubeconfig"

    def cluster(self, name: str = "") -> Stage:
        """One of the clusters; the first where none is named.

        Raises:
            ConfigurationError: the mock isn't running, or has no such cluster.
        """
        found = self._stages.get(name or self._names[0])
        if found is None:
            raise ConfigurationError(
                f"the mock of Kubernetes isn't running, or has no cluster {name!r}",
                cure="start it first",
            )
        return found

    @property
    def stage(self) -> Stage:
        """The first cluster.

        Raises:
            ConfigurationError: the mock isn't running.
        """
        return self.cluster()

    @property
    def registry(self) -> OciRegistry:
        """The stand-in for an OCI registry beside the clusters.

        Raises:
            ConfigurationError: the mock isn't running, or runs another registry.
        """
        from edgefleet.testing.cloud.oci import OciRegistry  # noqa: PLC0415 - extra may be missing

        found = self._any_registry
        if not isinstance(found, OciRegistry):
            raise ConfigurationError(
                "the mock of Kubernetes runs docker-registry, which can't be looked into",
                cure="start it with the stand-in",
            )
        return found

    @property
    def _any_registry(self) -> Registry:
        if self._registry is None:
            raise not_running(VENDOR)
        return self._registry

    def _registry_kind(self) -> RegistryKind:
        """Which registry to run."""
        told = self._wanted or os.environ.get(REGISTRY_VARIABLE) or None
        began = next(
            (kind for kind, name in _FOLDERS.items() if (self.state / name).exists()), None
        )
        kind = next((one for one in get_args(RegistryKind) if one == (told or began)), None)
        if told is not None and kind is None:
            raise ConfigurationError(
                f"the mock of Kubernetes knows no registry {told!r}",
                cure=f"name one of {', '.join(get_args(RegistryKind))}",
            )
        if None not in {began, kind} and began != kind:
            raise ConfigurationError(
                f"what {self.state} keeps was pushed to the registry {began}, not to {kind}",
                cure="start the mock on an empty folder, or with that registry",
            )
        return kind or "stand-in"

    @property
    def environment(self) -> dict[str, str]:
        """What kubectl and clients of Kubernetes read."""
        self.cluster()
        return {"KUBECONFIG": str(self.kubeconfig.absolute())}

    @property
    def settings(self) -> dict[str, Any]:
        """Where clusters and models are, what pods run, and where outputs go."""
        from edgefleet_kubernetes.cloud.node_images import (  # noqa: PLC0415 - extra may be missing
            RUNTIME_IMAGE,
            TRAINING_IMAGE,
        )

        repository = f"oci://{self._any_registry.host}/{REPOSITORY}"
        found: dict[str, Any] = {
            "kubeconfig": str(self.kubeconfig.absolute()),
            "registry": repository,
            "registry_credentials": str(self._logins().absolute()),
            "segments": self.borrowed.segments or repository,
            "runtime_image": RUNTIME_IMAGE,
            "training_image": TRAINING_IMAGE,
            "cache": str((self.state / "cache").absolute()),
        }
        if len(self._names) > 1:
            found["contexts"] = list(self._names)
        return found

    def _logins(self) -> Path:
        """A file without logins: the registry asks nobody, and this machine's are not for it."""
        path = self.state / "logins.json"
        path.write_text("{}", encoding="utf-8")
        return path

    def add_device(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        """Add a node to the first cluster, enrol it and start it, and wait for its runtime."""
        from edgefleet_kubernetes.cloud.node_devices import add_device  # noqa: PLC0415 - likewise

        settings = {**self.settings, "kubeconfig": self.kubeconfig}
        add_device(self.stage, settings, name, group=group, labels=labels or {})

    def kill_device(self, name: str) -> None:
        """Cut a node's power; its disk stays."""
        self._stage_of(name).nodes.power_off(name)

    def start_device(self, name: str) -> None:
        """Give a node its power back."""
        self._stage_of(name).nodes.power_on(name)

    def _stage_of(self, node: str) -> Stage:
        """The cluster that a node is in; the first where none has it."""
        for stage in self._stages.values():
            if node in stage.nodes.nodes:
                return stage
        return self.stage

    def add_fleet(self, namespace: str = NAMESPACE) -> None:
        """Have the namespaces of a fleet in each cluster; install adopts them."""
        fleet = KubernetesSettings(namespace=namespace)
        for stage in self._stages.values():
            for name in (fleet.namespace, fleet.reports_namespace, fleet.training_namespace):
                if stage.store.find("Namespace", name) is None:
                    metadata = {"name": name}
                    stage.store.create(
                        {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
                    )

    def seen(self) -> Iterator[str]:
        """Every request: when, resource and verb, path, status."""
        for stage in self._stages.values():
            yield from stage.journal.lines()
            return  # all clusters write in one


def _kept_of(registry: Registry) -> dict[str, Any]:
    """What is written down of a registry; `docker-registry` has all in its folder."""
    content = getattr(registry, "content", None)
    return {} if content is None else {_REGISTRY: content}


def _throttled() -> Exception:
    from edgefleet_kubernetes.cloud.api_status import throttled  # noqa: PLC0415 - extra may be missing

    return throttled()
