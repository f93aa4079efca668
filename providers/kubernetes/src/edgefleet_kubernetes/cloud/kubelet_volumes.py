"""A pod's volumes in the mock: folders in place of mounts, written as the kubelet writes them.

Rules kept here:

- ConfigMaps, Secrets, projected volumes and the downward API are written by ``AtomicWriter``
  (``pkg/volume/util/atomic_writer.go`` of kubernetes/kubernetes): files are links into ``..data``,
  itself a link that is swapped in one rename; what was there before is removed then.
- A path below ``subPath`` is a copy that never changes.
- An image's files are those that were brought to the node as an archive; nothing is pulled.
- hostPath and local volumes lie on the node's disk and outlive pods. What a real node keeps in
  memory, below ``/run`` and ``/tmp`` and in an emptyDir with medium Memory, goes with the power.
"""

from __future__ import annotations

import base64
import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgefleet_kubernetes.cloud.kubelet_fields import FieldError, field_of, resource_of
from edgefleet_kubernetes.cloud.node_archives import image_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgefleet_kubernetes.cloud.api_objects import Object

_turns = itertools.count()
_WRITTEN = ("configMap", "secret", "projected", "downwardAPI")


class NotYetError(Exception):
    """A volume can't be made now; its message is what the event ``FailedMount`` says."""


class Sources(Protocol):
    """Where volumes' contents come from."""

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object; None where there is none, or it can't be reached."""

    def token(self, pod: Object, audience: str | None, expires_s: int) -> str:
        """A token of the pod's service account.

        Raises:
            NotYetError: none can be had now.
        """


class File(NamedTuple):
    """What one file of a written volume holds."""

    content: bytes
    mode: int


class NodeDisk(NamedTuple):
    """Where a node keeps things.

    Attributes:
        disk: stands for ``/`` of the node.
        volatile: what the power takes along; its path is short, because of sockets.
    """

    disk: Path
    volatile: Path

    @property
    def images(self) -> Path:
        """Where images lie that were brought to the node."""
        return self.disk.with_name("images")

    def place(self, path: str) -> Path:
        """Where a path of the node is."""
        gone = path.startswith(("/run/", "/var/run/", "/tmp/", "/dev/shm/"))  # noqa: S108 - the node's
        return (self.volatile if gone else self.disk) / path.strip("/")


class Volumes:
    """The volumes of one pod.

    Args:
        pod: with its spec.
        folder: of the pod.
        node: that it is on.
        sources: of contents.
    """

    def __init__(self, pod: Object, folder: Path, node: NodeDisk, sources: Sources) -> None:
        self._pod, self._folder, self._node, self._sources = pod, folder, node, sources
        self._written: dict[str, dict[str, File]] = {}
        self._folders: dict[str, Path] = {}

    def mount(self) -> None:
        """Make all volumes.

        Raises:
            NotYetError: one can't be made now.
        """
        for volume in self._pod["spec"].get("volumes") or ():
            self._folders[volume["name"]] = self._made(volume)

    def refresh(self) -> bool:
        """Write anew what has changed; what can't be read now stays. Says whether anything did."""
        changed = False
        for volume in self._pod["spec"].get("volumes") or ():
            if volume["name"] in self._folders and any(kind in volume for kind in _WRITTEN):
                try:
                    changed |= self._write(volume)
                except NotYetError:
                    continue
        return changed

    def folders(self, container: Object) -> dict[str, Path]:
        """Where each of a container's mount paths is.

        Raises:
            NotYetError: a path below a volume isn't there.
        """
        found: dict[str, Path] = {}
        for mount in container.get("volumeMounts") or ():
            where = self._folders.get(mount["name"])
            if where is None:
                raise NotYetError(f'volume "{mount["name"]}" is not mounted')
            below = mount.get("subPath") or ""
            found[mount["mountPath"].rstrip("/") or "/"] = (
                self._below(container, mount["name"], where, below) if below else where
            )
        return found

    def remove(self) -> None:
        """Remove what goes with the pod."""
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._memory, ignore_errors=True)

    @property
    def _memory(self) -> Path:
        return self._node.volatile / "m" / str(self._pod["metadata"]["uid"])[:13]

    def _made(self, volume: Object) -> Path:
        name: str = volume["name"]
        own = self._folder / "volumes" / name
        if any(kind in volume for kind in _WRITTEN):
            own.mkdir(parents=True, exist_ok=True)
            self._folders[name] = own
            self._write(volume)
            return own
        if "emptyDir" in volume:
            medium = (volume["emptyDir"] or {}).get("medium")
            own = self._memory / name if medium == "Memory" else own
            own.mkdir(parents=True, exist_ok=True)
            return own
        if "hostPath" in volume:
            return self._host_path(volume["hostPath"])
        if "persistentVolumeClaim" in volume:
            return self._claimed(volume["persistentVolumeClaim"]["claimName"])
        if "image" in volume:
            return self._imported(volume["image"])
        kinds = ", ".join(sorted(set(volume) - {"name"}))
        raise NotYetError(f'volume "{name}" is of a kind that the mock has not: {kinds}')

    def _imported(self, source: Mapping[str, Any]) -> Path:
        reference: str = source["reference"]
        where = image_folder(self._node.images, reference)
        if not where.is_dir() or source.get("pullPolicy") == "Always":
            raise NotYetError(
                f'ErrImagePull: failed to pull and unpack image "{reference}": failed to resolve '
                "reference: network is unreachable"
            )
        return where

    def _host_path(self, source: Mapping[str, Any]) -> Path:
        where, kind = self._node.place(source["path"]), source.get("type") or ""
        if kind in ("DirectoryOrCreate", ""):
            where.mkdir(parents=True, exist_ok=True)
        elif kind == "FileOrCreate":
            where.parent.mkdir(parents=True, exist_ok=True)
            where.touch()
        elif not where.exists():
            raise NotYetError(f"hostPath type check failed: {source['path']} is not a {kind}")
        return where

    def _claimed(self, claim: str) -> Path:
        namespace = self._pod["metadata"]["namespace"]
        found = self._sources.get("PersistentVolumeClaim", namespace, claim)
        bound = ((found or {}).get("spec") or {}).get("volumeName")
        volume = None if not bound else self._sources.get("PersistentVolume", "", bound)
        if volume is None:
            raise NotYetError(f'persistentvolumeclaim "{claim}" not found or not bound')
        if "hostPath" in volume["spec"]:
            return self._host_path(volume["spec"]["hostPath"])
        source = volume["spec"].get("local")
        if source is None:
            raise NotYetError(f'persistentvolume "{bound}" is neither local nor hostPath')
        where = self._node.place(source["path"])
        where.mkdir(parents=True, exist_ok=True)
        return where

    def _below(self, container: Object, volume: str, where: Path, below: str) -> Path:
        source = where / below
        if volume not in self._written:
            source.mkdir(parents=True, exist_ok=True)
            return source
        copy: Path = (
            self._folder / "subpaths" / container["name"] / volume / below.replace("/", "~")
        )
        if not copy.exists():
            if not source.exists():
                raise NotYetError(f'subPath "{below}" of volume "{volume}" is not there')
            copy.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
        return copy

    # -- written volumes

    def _write(self, volume: Object) -> bool:
        payload = self._payload(volume)
        if self._written.get(volume["name"]) == payload:
            return False
        swap(self._folders[volume["name"]], payload)
        self._written[volume["name"]] = payload
        return True

    def _payload(self, volume: Object) -> dict[str, File]:
        kind = next(kind for kind in _WRITTEN if kind in volume)
        source = volume[kind]
        mode = source.get("defaultMode", 0o644)
        if kind != "projected":
            return dict(self._files(kind, source, mode))
        found: dict[str, File] = {}
        for one in source.get("sources") or ():
            name = next(iter(one))
            found.update(self._files(name, one[name], mode))
        return found

    def _files(self, kind: str, source: Mapping[str, Any], mode: int) -> Iterable[tuple[str, File]]:
        if kind == "serviceAccountToken":
            expires = source.get("expirationSeconds", 3600)
            token = self._sources.token(self._pod, source.get("audience"), expires)
            return [(source["path"], File(token.encode(), 0o600))]
        if kind == "downwardAPI":
            return [self._told(one, mode) for one in source.get("items") or ()]
        return self._keyed(kind, source, mode)

    def _told(self, item: Mapping[str, Any], mode: int) -> tuple[str, File]:
        try:
            text = (
                field_of(self._pod, item["fieldRef"]["fieldPath"])
                if "fieldRef" in item
                else resource_of(self._pod, item["resourceFieldRef"])
            )
        except FieldError as error:
            raise NotYetError(str(error)) from error
        return item["path"], File(text.encode(), item.get("mode", mode))

    def _keyed(self, kind: str, source: Mapping[str, Any], mode: int) -> Iterable[tuple[str, File]]:
        name = source.get("secretName") or source.get("name") or ""
        is_secret = kind == "secret"
        namespace = self._pod["metadata"]["namespace"]
        found = self._sources.get("Secret" if is_secret else "ConfigMap", namespace, name)
        what = f'{"secret" if is_secret else "configmap"} "{name}"'
        if found is None:
            if source.get("optional"):
                return []
            raise NotYetError(f"{what} not found")
        data = contents(found)
        items = source.get("items")
        if not items:
            return [(key, File(value, mode)) for key, value in data.items()]
        files = []
        for item in items:
            if item["key"] in data:
                one = File(data[item["key"]], item.get("mode", mode))
                files.append((item["path"], one))
            elif not source.get("optional"):
                raise NotYetError(f"{what} references non-existent key: {item['key']}")
        return files


def contents(found: Object) -> dict[str, bytes]:
    """What a ConfigMap or a Secret holds."""
    if found["kind"] == "Secret":
        data: Mapping[str, str] = found.get("data") or {}
        return {key: base64.b64decode(value) for key, value in data.items()}
    texts: Mapping[str, str] = found.get("data") or {}
    binary: Mapping[str, str] = found.get("binaryData") or {}
    return {
        **{key: value.encode() for key, value in texts.items()},
        **{key: base64.b64decode(value) for key, value in binary.items()},
    }


def swap(folder: Path, payload: Mapping[str, File]) -> None:
    """Have a folder hold these files, all of them from one moment to the next."""
    data, fresh = folder / "..data", folder / f"..mock_{next(_turns):08d}"
    for path, file in payload.items():
        where = fresh / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(file.content)
        where.chmod(file.mode)
    fresh.mkdir(parents=True, exist_ok=True)
    before = data.readlink().name if data.is_symlink() else None
    link = folder / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(data)
    wanted = {Path(path).parts[0] for path in payload}
    for name in wanted:
        visible = folder / name
        if not visible.is_symlink():
            visible.symlink_to(Path("..data") / name)
    for one in folder.iterdir():
        if not one.name.startswith("..") and one.name not in wanted:
            one.unlink()
    if before is not None and before != fresh.name:
        shutil.rmtree(folder / before, ignore_errors=True)
