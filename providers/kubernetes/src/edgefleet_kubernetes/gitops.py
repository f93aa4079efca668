"""A deployer for sites whose API server the operator doesn't reach: manifests in a git work tree.

Flux or Argo CD at the site brings them in. One folder serves any number of clusters, for nothing in
it is one cluster's own.

Rules kept here:

- A file is written only where it changes, whole or not at all; nothing is committed.
- What others put into the folder stays, and so does what they wrote into ``kustomization.yaml``.
- No secret is written: who has the cluster makes the serving token's there.
- Devices are seen through the profile's contexts alone, where it names any.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from edgefleet.errors import ConflictError, DocumentError, UnsupportedError
from edgefleet.interfaces.abilities import CanInstall
from edgefleet.interfaces.deployer import Deployer
from edgefleet.interfaces.values import Action, DeviceInfo, Group, Rendered
from edgefleet_kubernetes import yaml_files
from edgefleet_kubernetes.cluster import is_ours
from edgefleet_kubernetes.clusters import Clusters
from edgefleet_kubernetes.groups import DeviceGroups
from edgefleet_kubernetes.manifests import (
    daemon_set,
    fleet_documents,
    group_documents,
    pointer_document,
    restart_warnings,
)
from edgefleet_kubernetes.names import GROUP, PART
from edgefleet_kubernetes.pointers import pointer_of
from edgefleet_kubernetes.removal import PARTS
from edgefleet_kubernetes.service import KubernetesService
from edgefleet_kubernetes.sight import Sight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from edgefleet.protocol.pointer import Pointer
    from edgefleet_kubernetes.clients import Clients
    from edgefleet_kubernetes.reading import Object
    from edgefleet_kubernetes.settings import KubernetesSettings


class GitDeployer(KubernetesService, CanInstall, Deployer):
    """Groups as files, for Flux or Argo CD.

    Args:
        clients: to see devices with, where the profile names contexts; closed with the deployer.
        settings: ``git_dir``, namespace, prefix, the runtime's image.
        name: of this deployer in the profile.
        base: folder that relative paths in settings start from.
    """

    def __init__(
        self,
        clients: Clients,
        settings: KubernetesSettings,
        *,
        name: str = "kubernetes",
        base: Path = Path(),
    ) -> None:
        self.name = name
        self._clients = clients
        self._settings = settings
        self._folder = base / settings.needed("git_dir", 'delivery = "git"')
        place = hashlib.sha256(os.fsencode(self._folder.absolute())).hexdigest()[:16]
        self._lock = base / settings.cache / f"git-{place}.lock"
        self._members: DeviceGroups | None = None
        self._sight: Sight | None = None
        if settings.contexts:
            clusters = Clusters(clients)
            self._members = DeviceGroups(clusters, settings)
            self._sight = Sight(clusters, self._members, settings)

    # Groups and devices

    def _groups(self) -> Iterator[Group]:
        for document in self._ours().values():
            if document["kind"] == "DaemonSet":
                yield Group(name=document["metadata"]["labels"][GROUP], deployer=self.name)

    def _devices(self, group: str | None) -> Iterator[DeviceInfo]:
        return iter(()) if self._sight is None else self._sight.devices(group)

    def _device(self, name: str) -> DeviceInfo | None:
        return None if self._sight is None else self._sight.device(name)

    def _label(self, device: str, labels: Mapping[str, str | None]) -> None:
        if self._members is None:
            raise UnsupportedError(
                "no context is named, so nodes aren't reached",
                cure=f"where they are: kubectl label node {device} label.edgefleet.dev/KEY=VALUE",
            )
        self._members.label(device, labels)

    # Pointers

    def _pointer(self, group: str) -> Pointer | None:
        for document in self._ours().values():
            labels = document["metadata"]["labels"]
            if labels.get(PART) == "pointer" and labels.get(GROUP) == group:
                return pointer_of(document)
        return None

    def _render(self, group: str, pointer: Pointer) -> Iterator[Rendered]:
        yield from self._rendered(self._published(group, pointer))

    def _warnings(self, group: str, pointer: Pointer) -> Iterator[str]:
        return restart_warnings(self._settings, group, (self._pointer(group),), pointer)

    def _publish(self, group: str, pointer: Pointer) -> None:
        with self._locked():
            there = self._pointer(group)
            if there is not None and there.pair > pointer.pair:
                raise ConflictError(
                    f"{group} was given pointer {there.pair}, above {pointer.pair}",
                    cure="read the group again and repeat",
                    retryable=False,
                )
            self._write(self._published(group, pointer), ())

    def _published(self, group: str, pointer: Pointer) -> list[Object]:
        found = [pointer_document(self._settings, group, pointer)]
        if self._settings.model_images is not None:
            found.append(daemon_set(self._settings, group, pointer))
        return found

    # Install

    def _install(self, group: str | None) -> None:
        with self._locked():
            groups = self._names_of(group)
            wanted = self._wanted(groups)
            paths = {yaml_files.file_name(document) for document in wanted}
            stale = [
                path
                for path, document in self._ours().items()
                if path not in paths and self._is_stale(document, groups)
            ]
            self._write(wanted, stale)

    def _install_documents(self, group: str | None) -> Iterator[Rendered]:
        yield from self._rendered(self._wanted(self._names_of(group)))

    def _uninstall(self, data: bool) -> None:  # noqa: FBT001 - the interface's own
        with self._locked():
            gone = [
                path
                for path, document in self._ours().items()
                if data or document["metadata"]["labels"].get(PART) in PARTS
            ]
            self._write((), gone)

    def _names_of(self, group: str | None) -> list[str]:
        return [group] if group is not None else sorted(one.name for one in self._groups())

    def _wanted(self, groups: Iterable[str]) -> list[Object]:
        self._settings.needed("runtime_image", "installing")
        found = fleet_documents(self._settings)
        for name in groups:
            found += group_documents(self._settings, name, self._pointer(name))
        return found

    @staticmethod
    def _is_stale(document: Object, groups: Iterable[str]) -> bool:
        labels = document["metadata"]["labels"]
        return labels.get(PART) in PARTS and labels.get(GROUP) in {None, *groups}

    # Files

    def _ours(self) -> dict[str, Object]:
        """The fleet's objects in the folder, by path below it."""
        found = {}
        for path in sorted(self._folder.glob(f"{yaml_files.OBJECTS}/*.yaml")):
            try:
                document = _loaded(path)
            except DocumentError:
                continue  # several objects in one file, or none: not ours
            named = isinstance(document.get("metadata"), dict) and "kind" in document
            if named and is_ours(document, self._settings.prefix):
                found[path.relative_to(self._folder).as_posix()] = document
        return found

    def _rendered(self, documents: Iterable[Object]) -> Iterator[Rendered]:
        files = {yaml_files.file_name(one): yaml_files.encoded(one) for one in documents}
        listing = yaml_files.encoded(self._listing(files, ()))
        for path, content in {**files, yaml_files.KUSTOMIZATION: listing}.items():
            there = _read(self._folder / path)
            action = Action.CREATE if there is None else Action.UPDATE
            if there == content:
                action = Action.UNCHANGED
            yield Rendered(path=f"{self.name}/{path}", content=content, action=action)

    def _write(self, documents: Iterable[Object], gone: Iterable[str]) -> None:
        files = {yaml_files.file_name(one): yaml_files.encoded(one) for one in documents}
        listing = self._listing(files, gone)
        for path, content in files.items():
            self._put(path, content)
        # The list before what it no longer names: no reader finds a file missing.
        self._put(yaml_files.KUSTOMIZATION, yaml_files.encoded(listing))
        for path in gone:
            (self._folder / path).unlink(missing_ok=True)

    def _listing(self, added: Iterable[str], gone: Iterable[str]) -> Object:
        """``kustomization.yaml`` with what others wrote there, and our files."""
        path = self._folder / yaml_files.KUSTOMIZATION
        found = _loaded(path) if path.exists() else yaml_files.no_kustomization()
        there = found.get("resources") or []
        left = {*gone}
        kept = [one for one in there if one not in left]
        return {**found, "resources": kept + sorted({*added} - {*kept})}

    def _put(self, path: str, content: bytes) -> None:
        """Write a file, whole or not at all; leave one alone that is so already."""
        place = self._folder / path
        if _read(place) == content:
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".edgefleet-", dir=place.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(place)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock  # noqa: PLC0415 - only where something is written

        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock):
            yield


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _loaded(path: Path) -> dict[str, Any]:
    """A file's only object.

    Raises:
        DocumentError: it is no YAML, or none of one object.
    """
    try:
        found = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise DocumentError(f"{path} is no YAML of one object: {error}") from error
    if not isinstance(found, dict):
        raise DocumentError(f"{path} holds no object", cure="mend it, or move it elsewhere")
    return found
