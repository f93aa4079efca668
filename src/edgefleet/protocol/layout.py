"""A bundle on disk: an OCI image layout, written deterministically and read with every check.

Rules kept here:

- The bundle's index is the layout's ``index.json``, and also lies among the blobs by its digest, so
  that the same bytes serve in a folder, an object store, a registry or a USB stick.
- The same content gives the same bytes: no clocks, no host names.
- ``index.json`` is written last: an interrupted writer leaves no bundle, never half of one.
- Readers keep the rules of `edgefleet.protocol.files`, and an error says which bundle, variant or
  file is wrong.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

import msgspec

from edgefleet.errors import DocumentError, IntegrityError, InvalidInputError, NotFoundError
from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import CHUNK_BYTES, blob_path, digest_of
from edgefleet.protocol.documents import encode, parse
from edgefleet.protocol.files import (
    check_bytes,
    check_folder,
    checked_bytes,
    checked_chunks,
    naming,
    open_plain,
    place,
    read_small,
    replacing,
    translate_full,
    write_whole,
)
from edgefleet.protocol.names import check_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from edgefleet.protocol.files import Progress

__all__ = [  # with what other rooms have always found here
    "BundleLayout",
    "BundleWriter",
    "check_bytes",
    "checked_bytes",
    "checked_chunks",
    "lay_out",
    "place",
    "translate_full",
    "write_layout_marks",
]

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"


class _ImageLayout(msgspec.Struct, rename="camel"):
    image_layout_version: str


class BundleLayout:
    """A bundle in a folder. Opening reads and checks the index; the rest is read when asked for.

    Raises:
        NotFoundError: the folder is missing or holds no image layout.
        DocumentError: its marker or index is malformed, too big, or requires an unknown feature.
        InvalidInputError: its marker or index is a link or no plain file.
        IntegrityError: its folder of blobs is a link or missing.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        marker = self._read_mark(LAYOUT_FILE, 4096)
        with naming(str(self.root)):
            version = parse(_ImageLayout, marker, LAYOUT_FILE).image_layout_version
            if version != "1.0.0":
                msg = f"image layout version {version[:20]!r} is unknown"
                raise DocumentError(msg, cure="export the bundle as an OCI image layout 1.0.0")
        data = self._read_mark(INDEX_FILE, b.MAX_INDEX_BYTES)
        self.digest = digest_of(data)
        with naming(str(self.root / INDEX_FILE)):
            self.index = b.read_index(data)
        self.variants = b.variants_of(self.index)
        self._index_bytes = data
        for folder in (self.root / "blobs", self.root / "blobs" / "sha256"):
            check_folder(folder)

    def __repr__(self) -> str:
        names = ", ".join(variant.name for variant in self.variants)
        return f"<bundle {self.digest[7:19]} with {names} at {self.root}>"

    def variant(self, name: str) -> b.Variant:
        """The variant of that name.

        Raises:
            NotFoundError: there is none; the message lists those there are.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants)
        msg = f"the bundle has no variant {name!r}"
        raise NotFoundError(msg, cure=f"choose one of {names}")

    def manifest(self, variant: str) -> b.Manifest:
        """The manifest of a variant, checked against what the index says of it."""
        about = self.variant(variant)
        with naming(f"{self.root}, variant {variant!r}"):
            manifest = b.read_manifest(self.read(about.manifest, b.MAX_MANIFEST_BYTES))
            size = sum(layer.size for layer in b.files_of(manifest).values())
            if size != about.bytes:
                msg = f"its files take {size} bytes, the index says {about.bytes}"
                raise DocumentError(msg, cure="make or pull the bundle again")
        return manifest

    def details(self, variant: str) -> b.Details:
        """The details of a variant, checked against its manifest."""
        manifest = self.manifest(variant)
        data = self.read(b.details_descriptor(manifest), b.MAX_DETAILS_BYTES)
        with naming(f"{self.root}, variant {variant!r}"):
            details = b.read_details(data)
            b.entry_of(manifest, details)
            if details.variant != variant:
                msg = f"its details are those of variant {details.variant[:200]!r}"
                raise DocumentError(msg, cure="make or pull the bundle again")
        return details

    def index_descriptor(self) -> b.Descriptor:
        """Descriptor of the index itself, as a blob."""
        return b.Descriptor(
            media_type=b.INDEX_MEDIA_TYPE, digest=self.digest, size=len(self._index_bytes)
        )

    def blobs(self, variant: str | None = None) -> tuple[b.Descriptor, ...]:
        """Every blob of the bundle, or of the index and one variant; weights before manifests.

        The order lets a store be filled so that whatever names a blob comes after it.
        """
        names = [v.name for v in self.variants] if variant is None else [self.variant(variant).name]
        found: dict[str, b.Descriptor] = {}
        for name in names:
            for descriptor in b.blobs_of(self.manifest(name)):
                found.setdefault(descriptor.digest, descriptor)
        for name in names:
            descriptor = self.variant(name).manifest
            found.setdefault(descriptor.digest, descriptor)
        found[self.digest] = self.index_descriptor()
        return tuple(found.values())

    def path_of(self, descriptor: b.Descriptor, *, name: str | None = None) -> Path:
        """Where a blob lies; its kind and size are checked, its digest is not.

        Args:
            descriptor: of the blob.
            name: of the file that it holds, for the errors.

        Raises:
            IntegrityError: missing, a symlink, no plain file, or of another size.
        """
        path = self.root / blob_path(descriptor.digest)
        what = f"blob {descriptor.digest}" + (f" ({name})" if name else "")
        try:
            info = path.lstat()
        except FileNotFoundError as error:
            msg = f"the bundle lacks {what}"
            raise IntegrityError(msg, cure="copy or pull the bundle again") from error
        if not stat.S_ISREG(info.st_mode):
            msg = f"{what} is a link or no plain file"
            raise IntegrityError(msg, cure="copy the bundle with its files, not links")
        if info.st_size != descriptor.size:
            msg = f"{what} has {info.st_size} bytes, {descriptor.size} are due"
            raise IntegrityError(msg, cure="copy or pull the bundle again")
        return path

    def open(self, descriptor: b.Descriptor, *, name: str | None = None) -> BinaryIO:
        """Open a blob for reading; the reader checks the digest. See `path_of` for the rest."""
        return open_plain(self.path_of(descriptor, name=name))

    def read(self, descriptor: b.Descriptor, max_bytes: int) -> bytes:
        """The bytes of a small blob, checked."""
        if descriptor.size > max_bytes:
            msg = f"blob {descriptor.digest} has {descriptor.size} bytes, {max_bytes} are allowed"
            raise IntegrityError(msg)
        with self.open(descriptor) as stream:
            data = stream.read(descriptor.size + 1)
        check_bytes(data, descriptor)
        return data

    def verify(self, *, variant: str | None = None, progress: Progress | None = None) -> None:
        """Read every blob, of one variant or of all, and check digests, sizes and documents.

        Raises:
            IntegrityError: names the first blob that is not what it should be, and its file.
            DocumentError: a manifest or details document is malformed.
        """
        names = {
            layer.digest: f"{v.name}/{path}"
            for v in self.variants
            if variant in (None, v.name)
            for path, layer in b.files_of(self.manifest(v.name)).items()
        }
        for descriptor in self.blobs(variant):
            name = names.get(descriptor.digest)
            with self.open(descriptor, name=name) as stream:
                for chunk in checked_chunks(stream, descriptor, name=name):
                    if progress is not None:
                        progress(len(chunk))
        for v in self.variants:
            if variant in (None, v.name):
                self.details(v.name)

    def materialize(self, variant: str, destination: Path) -> Path:
        """Verify a variant, lay its files out and return the path of the one that engines open.

        Args:
            variant: its name.
            destination: see `lay_out`.
        """
        self.verify(variant=variant)
        lay_out(self.manifest(variant), self.path_of, destination)
        return destination / self.details(variant).entry

    def _read_mark(self, name: str, max_bytes: int) -> bytes:
        try:
            return read_small(self.root / name, max_bytes)
        except (FileNotFoundError, NotADirectoryError) as error:
            msg = f"{self.root} is no bundle: it has no {name}"
            raise NotFoundError(msg, cure="name a folder that holds an OCI image layout") from error


class BundleWriter:
    """Makes a bundle in a new folder; use as a context manager, then call `finish` inside it.

    The folder appears when `finish` returns; leaving the block without it removes every trace.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        if os.path.lexists(self.root):
            raise self._taken()
        self._manifests: list[b.Descriptor] = []
        self._staging = _staging_for(self.root)
        try:
            with translate_full(self.root):
                (self._staging / "blobs" / "sha256").mkdir(parents=True)
        except BaseException:
            shutil.rmtree(self._staging, ignore_errors=True)
            raise

    def _taken(self) -> InvalidInputError:
        msg = f"{self.root} exists already"
        return InvalidInputError(msg, cure="name a folder that does not exist yet")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)

    def add_bytes(self, data: bytes, media_type: str) -> b.Descriptor:
        """Store bytes as a blob."""
        descriptor = b.Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))
        # Never over the blob in place: it may be a link to another bundle's, see `adopt`.
        write_whole(self._staging / blob_path(descriptor.digest), data)
        return descriptor

    def add_file(
        self, source: Path | str, *, filepath: str, progress: Progress | None = None
    ) -> b.Descriptor:
        """Copy a file into the bundle as a weight layer, hashing while copying.

        Args:
            source: a plain file; symlinks are refused.
            filepath: where a device lays it out, relative.
            progress: called with the bytes of each chunk.

        Raises:
            InvalidInputError: the source is missing, a link or no plain file, or the path unsafe.
            StorageFullError: no room.
        """
        check_path(filepath)
        hasher, size = hashlib.sha256(), 0
        copied = self._staging / "copied"
        with (
            replacing(copied) as partial,
            _open_source(Path(source)) as stream,
            partial.open("xb") as to,
        ):
            while chunk := stream.read(CHUNK_BYTES):
                hasher.update(chunk)
                to.write(chunk)
                size += len(chunk)
                if progress is not None:
                    progress(len(chunk))
        digest = "sha256:" + hasher.hexdigest()
        copied.replace(self._staging / blob_path(digest))
        return b.Descriptor(
            media_type=b.WEIGHT_MEDIA_TYPE,
            digest=digest,
            size=size,
            annotations={b.FILEPATH: filepath},
        )

    def add_variant(
        self,
        details: b.Details,
        files: Mapping[str, Path],
        *,
        model_name: str,
        model_format: str,
        precision: str,
        targets: tuple[str, ...] = (),
        opset: int | None = None,
        progress: Progress | None = None,
    ) -> b.Descriptor:
        """Add a variant of the given files (relative path -> file)."""
        if details.entry not in files:
            msg = f"entry {details.entry!r} is not among the variant's files"
            raise InvalidInputError(msg)
        layers = tuple(
            self.add_file(source, filepath=path, progress=progress)
            for path, source in sorted(files.items())
        )
        about = self.add_bytes(encode(details), b.DETAILS_MEDIA_TYPE)
        config = self.add_bytes(
            _modelpack_config(
                (*layers, about), name=model_name, model_format=model_format, precision=precision
            ),
            b.CONFIG_MEDIA_TYPE,
        )
        manifest_bytes = encode(b.Manifest(config=config, layers=(*layers, about)))
        b.read_manifest(manifest_bytes)  # the writer keeps the reader's rules
        manifest = self.add_bytes(manifest_bytes, b.MANIFEST_MEDIA_TYPE)
        notes = b.annotations_of(
            details.variant,
            model_format=model_format,
            precision=precision,
            targets=targets,
            size=sum(layer.size for layer in layers),
            opset=opset,
            requires=details.requires,
        )
        manifest = msgspec.structs.replace(
            manifest, annotations=notes, artifact_type=b.ARTIFACT_TYPE
        )
        self._manifests.append(manifest)
        return manifest

    def adopt(self, source: BundleLayout, variant: str) -> b.Descriptor:
        """Add a variant of another bundle unchanged, once its blobs are verified."""
        source.verify(variant=variant)
        for descriptor in b.blobs_of(source.manifest(variant)):
            place(source.path_of(descriptor), self._staging / blob_path(descriptor.digest))
        manifest = source.variant(variant).manifest
        place(source.path_of(manifest), self._staging / blob_path(manifest.digest))
        self._manifests.append(manifest)
        return manifest

    def finish(self) -> BundleLayout:
        """Write the index, move the folder to its place and open it.

        Raises:
            InvalidInputError: no variant was added, or somebody else made the folder meanwhile.
        """
        if not self._manifests:
            msg = f"the bundle for {self.root} has no variant"
            raise InvalidInputError(msg, cure="add one with add_variant or adopt")
        index = encode(b.Index(manifests=tuple(self._manifests)))
        b.read_index(index)
        self.add_bytes(index, b.INDEX_MEDIA_TYPE)
        write_layout_marks(self._staging, index)
        self._staging.chmod(0o755)
        if not _moved(self._staging, self.root):
            raise self._taken()
        return BundleLayout(self.root)


def write_layout_marks(root: Path, index: bytes) -> None:
    """Complete a folder that already holds the blobs: the marker, then ``index.json`` last."""
    write_whole(root / LAYOUT_FILE, b'{"imageLayoutVersion":"1.0.0"}')
    write_whole(root / INDEX_FILE, index)


def lay_out(
    manifest: b.Manifest, path_of: Callable[[b.Descriptor], Path], destination: Path
) -> None:
    """Lay a variant's files out under a new folder, atomically, as hard links where possible.

    Args:
        manifest: the variant's manifest, already checked.
        path_of: where a verified blob lies.
        destination: appears whole or not at all; an existing one is left as it is.

    Raises:
        StorageFullError: no room; nothing is left of the attempt.
    """
    if destination.exists():
        return
    staging = _staging_for(destination)
    try:
        for path, descriptor in b.files_of(manifest).items():
            place(path_of(descriptor), staging / path)
        staging.chmod(0o755)
        _moved(staging, destination)  # else somebody else laid out the same content first
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _staging_for(target: Path) -> Path:
    """A new folder beside ``target``."""
    with translate_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".staging-", dir=target.parent))


def _moved(staging: Path, target: Path) -> bool:
    """Move a folder to its place; False when something lies there already."""
    try:
        staging.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return False
    return True


def _open_source(path: Path) -> BinaryIO:
    try:
        return open_plain(path)
    except FileNotFoundError as error:
        msg = f"there is no file {path}"
        raise InvalidInputError(msg, cure="give the path of the model file") from error


def _modelpack_config(
    layers: tuple[b.Descriptor, ...], *, name: str, model_format: str, precision: str
) -> bytes:
    about = {"format": model_format, "precision": precision}
    if precision.startswith("int"):
        about["quantization"] = precision
    config = {
        "descriptor": {"name": name},
        "config": about,
        "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},
    }
    return msgspec.json.encode(config, order="sorted")
