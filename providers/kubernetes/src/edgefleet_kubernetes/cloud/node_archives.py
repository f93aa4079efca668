"""Images that somebody brought to a node as an archive: what ``ctr images import`` does.

Rules kept here:

- The archive is an OCI image layout in a tar file: marker, ``index.json`` with one image that has a
  name, each blob as large as its descriptor says and of its digest, the config's ``diff_ids`` those
  of the layers. See https://github.com/opencontainers/image-spec, ``image-layout.md``,
  ``manifest.md``, ``config.md``.
- Of an index the manifest of the node's platform is taken.
- A layer holds plain files and folders alone. Its files can't be written; the image appears whole
  or not at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, cast

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.digest import digest_of_stream
from edgefleet.protocol.tar_members import unpack_member

PLATFORM = {"architecture": "amd64", "os": "linux"}
"""Of all nodes of the mock, whatever this machine is."""
CONTAINERD_NAME = "io.containerd.image.name"
MAX_DOCUMENT = 4 << 20  # bytes; what registries take of a manifest
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def image_folder(images: Path, reference: str) -> Path:
    """Where an image's files are, if it is there."""
    return images / hashlib.sha256(reference.encode()).hexdigest()


def import_archive(archive: Path, images: Path) -> str:
    """Unpack an archive's image below a folder; one of the same name is replaced.

    Returns:
        The image's name.

    Raises:
        InvalidInputError: it breaks the image specification, or a layer leaves its folder.
    """
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=images) as temporary:
        try:
            with tarfile.open(archive, "r:") as opened:
                reference, layers = _checked(opened)
                for layer in layers:
                    _unpack(opened, layer, images / temporary)
            for path in Path(temporary).rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o444)
        except (tarfile.TarError, KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"{archive.name} is no OCI image archive: {error}") from error
        place = image_folder(images, reference)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(temporary, place)
    return reference


def _checked(archive: tarfile.TarFile) -> tuple[str, list[dict[str, Any]]]:
    """The image's name and its layers, everything checked."""
    if _document(archive, "oci-layout") != {"imageLayoutVersion": "1.0.0"}:
        raise ValueError("oci-layout is of another version")
    (entry,) = _document(archive, "index.json")["manifests"]
    reference = entry["annotations"][CONTAINERD_NAME]
    while entry["mediaType"] == _INDEX:
        fits = [
            one
            for one in _blob(archive, entry)["manifests"]
            if one.get("platform", PLATFORM) == PLATFORM
        ]
        entry = fits[0] if fits else {"mediaType": "no manifest for linux/amd64"}
    if entry["mediaType"] != _MANIFEST:
        raise ValueError(f"{entry['mediaType']} where a manifest should be")
    manifest = _blob(archive, entry)
    config, layers = _blob(archive, manifest["config"]), manifest["layers"]
    if {key: config[key] for key in PLATFORM} != PLATFORM:
        raise ValueError("the config is of another platform")
    if config["rootfs"]["diff_ids"] != [one["digest"] for one in layers]:
        raise ValueError("diff_ids of the config aren't those of the layers")
    for one in layers:
        if one["mediaType"] != _LAYER:
            raise ValueError(f"a layer is {one['mediaType']}, the mock unpacks plain tar alone")
        _verify(archive, one)
    return reference, layers


def _document(archive: tarfile.TarFile, name: str) -> Any:  # noqa: ANN401 - JSON
    member = archive.getmember(name)
    if member.size > MAX_DOCUMENT:
        raise ValueError(f"{name} has {member.size} bytes")
    with _opened(archive, name) as stream:
        return json.load(stream)


def _blob(archive: tarfile.TarFile, descriptor: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    _verify(archive, descriptor)
    return _document(archive, _path(descriptor))


def _verify(archive: tarfile.TarFile, descriptor: dict[str, Any]) -> None:
    with _opened(archive, _path(descriptor)) as stream:
        found = digest_of_stream(stream)
    if found != (descriptor["digest"], descriptor["size"]):
        raise ValueError(f"{_path(descriptor)} isn't what its descriptor says")


def _path(descriptor: dict[str, Any]) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/", 1)


def _opened(archive: tarfile.TarFile, name: str) -> BinaryIO:
    stream = archive.extractfile(name)
    if stream is None:
        raise ValueError(f"{name} is no file")
    return cast("BinaryIO", stream)


def _unpack(archive: tarfile.TarFile, layer: dict[str, Any], folder: Path) -> None:
    """Lay a layer over those before it."""
    stream = archive.extractfile(_path(layer))
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        with tarfile.open(fileobj=stream, mode="r:") as files:
            for member in files:
                try:
                    unpack_member(files, member, Path(fresh))
                except InvalidInputError as error:
                    msg = "a layer reaches outside of its folder, or holds a link or a device"
                    raise ValueError(f"{msg}: {error.message}") from error
        shutil.copytree(fresh, folder, dirs_exist_ok=True)
