"""Registry: model versions by name, their blobs by digest, approval, aliases.

Rules kept here, for every backend:

- A version names one digest for ever. Pushing the same bytes again gives the version that is there.
- Without a version the next whole number is taken, from 1; two pushers never get the same.
- Blobs go first, the version's record last: an interrupted push leaves nothing visible, and the
  next one skips what was sent.
"""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, final

from edgefleet.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PolicyError,
)
from edgefleet.interfaces.pulling import pull_bundle
from edgefleet.interfaces.service import Service
from edgefleet.interfaces.values import Approval, ApprovalState, ModelVersion, VariantInfo
from edgefleet.protocol.names import Reference, check_name, parse_reference
from edgefleet.protocol.release import MAX_BYTES as MAX_RELEASE_BYTES
from edgefleet.protocol.release import Release, read_release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from edgefleet.interfaces.blobs import BlobStore
    from edgefleet.protocol.layout import BundleLayout

    Progress = Callable[[int], object]

RELEASE_MEDIA_TYPE = "application/vnd.edgefleet.release.v1+json"
MAX_TRIES = 20  # of taking the next version number


class Registry(Service):
    """Model versions, by ``name``, ``name:version``, ``name:alias`` or ``name@digest``."""

    role: ClassVar[str] = "registry"
    blobs: BlobStore
    """Where the bytes lie."""

    @final
    def push(
        self,
        bundle: BundleLayout,
        name: str,
        *,
        version: str | None = None,
        labels: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> ModelVersion:
        """Store a bundle as a version. Resumable: blobs already there are skipped.

        Args:
            bundle: the bundle in a folder; every blob is checked while it is sent.
            name: of the model.
            version: None for the next whole number. A version that exists with the same digest is
                given back; with another it is an error.
            labels: free text by key.
            progress: called with bytes sent or skipped.

        Raises:
            AlreadyExistsError: the version exists with another digest.
            IntegrityError: a blob of the bundle is not what it should be; nothing is visible.
        """
        check_name("model", name)
        if version is not None:
            check_name("version", version)
            if version in self.aliases(name):
                msg = f"{name}:{version} is an alias"
                raise InvalidInputError(msg, cure="choose another version name")
        self.put_bundle(bundle, progress=progress)
        details = [bundle.details(variant.name) for variant in bundle.variants]
        for _ in range(MAX_TRIES):
            record = ModelVersion(
                name=name,
                version=version or self._next_version(name, bundle.digest),
                digest=bundle.digest,
                created=datetime.now(UTC),
                variants=tuple(
                    VariantInfo(
                        name=v.name,
                        format=v.format,
                        precision=v.precision,
                        targets=v.targets,
                        size_bytes=v.bytes,
                        opset=v.opset,
                    )
                    for v in bundle.variants
                ),
                labels=dict(labels or {}),
                metrics=dict(details[0].metrics),
                lineage=dict(details[0].lineage),
            )
            with self._boundary("push"):
                try:
                    self._create(record)
                except AlreadyExistsError:
                    there = self._get(name, record.version)
                    if there is not None and there.digest == bundle.digest:
                        return there
                    if version is not None:
                        raise
                else:
                    return record
        msg = f"others kept taking the next version of {name!r}"
        raise ConflictError(msg, cure="repeat the call, or name a version")

    @final
    def put_bundle(self, bundle: BundleLayout, *, progress: Progress | None = None) -> None:
        """Store a bundle's blobs without a version: whoever has its digest finds it, nobody else.

        Resumable, and again it sends nothing. What is pushed later as a version skips these blobs.

        Raises:
            IntegrityError: a blob of the bundle is not what it should be.
        """
        for descriptor in bundle.blobs():
            self.blobs.put(descriptor, lambda d=descriptor: bundle.open(d), progress=progress)  # type: ignore[misc]

    def _next_version(self, name: str, digest: str) -> str:
        there = {v.version: v for v in self.versions(name)}
        with self._boundary("push"):
            taken = {*there, *self._taken(name)}
        newest = str(max((int(version) for version in taken if version.isdecimal()), default=0))
        if newest in there and there[newest].digest == digest:
            return newest
        return str(int(newest) + 1)

    def _taken(self, name: str) -> Iterable[str]:
        """Names of versions that were deleted and may not be given again.

        The default knows of none: right where the backend itself never gives a number twice.
        """
        return ()

    @final
    def get(self, reference: str) -> ModelVersion:
        """The version that a reference names; the newest for a bare name.

        Raises:
            NotFoundError: no such model or version; the message lists what there is.
        """
        parsed = parse_reference(reference)
        with self._boundary("get"):
            found = self._resolve(parsed)
        if found is None:
            there = ", ".join(v.version for v in self.versions(parsed.name))
            msg = f"no model version {reference!r}"
            cure = f"versions there are: {there}" if there else self._names_cure()
            raise NotFoundError(msg, cure=cure)
        return found

    def _names_cure(self) -> str:
        names = ", ".join(self.list()) or "none yet; push one"
        return f"models there are: {names}"

    def _resolve(self, reference: Reference) -> ModelVersion | None:
        if reference.digest is not None:
            matching = [v for v in self._versions(reference.name) if v.digest == reference.digest]
            return max(matching, key=_order, default=None)
        if reference.tag is None:
            return max(self._versions(reference.name), key=_order, default=None)
        target = self._aliases(reference.name).get(reference.tag, reference.tag)
        return self._get(reference.name, target)

    @final
    def list(self) -> tuple[str, ...]:
        """Names of all models, sorted."""
        with self._boundary("list"):
            return tuple(sorted(self._names()))

    @final
    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """All versions of a model, oldest first; empty for an unknown model."""
        check_name("model", name)
        with self._boundary("versions"):
            return tuple(sorted(self._versions(name), key=_order))

    @final
    def pull(
        self,
        reference: str,
        to: Path | str,
        *,
        variant: str | None = None,
        progress: Progress | None = None,
    ) -> BundleLayout:
        """Fetch a version into a folder, whole or one variant; resumes where a killed pull stopped.

        The folder appears when it is complete and checked. A complete bundle of the same version
        that is there already is checked and given back.

        Raises:
            InvalidInputError: ``to`` exists and is something else.
            IntegrityError: a blob in the registry is damaged; the message names it.
        """
        version = self.get(reference)
        with self._boundary("pull"):
            return pull_bundle(
                self.blobs, version.digest, Path(to), variant=variant, progress=progress
            )

    @final
    def aliases(self, name: str) -> dict[str, str]:
        """Alias -> version."""
        check_name("model", name)
        with self._boundary("aliases"):
            return self._aliases(name)

    @final
    def alias(self, reference: str, alias: str) -> ModelVersion:
        """Point an alias, such as ``production``, to a version; moves it if it exists."""
        check_name("alias", alias)
        version = self.get(reference)
        with self._boundary("alias"):
            taken = self._get(version.name, alias) is not None
        if taken:
            msg = f"{version.name}:{alias} is a version"
            raise InvalidInputError(msg, cure="choose another alias")
        with self._boundary("alias"):
            self._set_alias(version.name, alias, version.version)
        return self.get(version.reference)

    @final
    def approve(self, reference: str, *, by: str, reason: str | None = None) -> ModelVersion:
        """Let a version go to devices."""
        return self._decide(reference, ApprovalState.APPROVED, by, reason)

    @final
    def reject(self, reference: str, *, by: str, reason: str | None = None) -> ModelVersion:
        """Keep a version from devices; a rejected version never deploys."""
        return self._decide(reference, ApprovalState.REJECTED, by, reason)

    def _decide(
        self, reference: str, state: ApprovalState, by: str, reason: str | None
    ) -> ModelVersion:
        approval = Approval(state=state, by=by, at=datetime.now(UTC), reason=reason)
        return self._change(reference, lambda v: v.model_copy(update={"approval": approval}))

    @final
    def label(self, reference: str, labels: Mapping[str, str | None]) -> ModelVersion:
        """Set labels of a version; None removes one."""

        def change(version: ModelVersion) -> ModelVersion:
            merged = {**version.labels, **labels}
            kept = {key: value for key, value in merged.items() if value is not None}
            return version.model_copy(update={"labels": kept})

        return self._change(reference, change)

    @final
    def record_metrics(self, reference: str, metrics: Mapping[str, float]) -> ModelVersion:
        """Add figures to a version; the same name again replaces the figure."""
        return self._change(
            reference, lambda v: v.model_copy(update={"metrics": {**v.metrics, **metrics}})
        )

    @final
    def record_lineage(self, reference: str, lineage: Mapping[str, str]) -> ModelVersion:
        """Add to what is known of a version's origin.

        Raises:
            PolicyError: a key exists with another value; lineage is never rewritten.
        """

        def change(version: ModelVersion) -> ModelVersion:
            for key, value in lineage.items():
                if version.lineage.get(key, value) != value:
                    msg = f"{version}: lineage {key!r} is recorded already"
                    raise PolicyError(msg, cure="lineage is never rewritten; use another key")
            return version.model_copy(update={"lineage": {**version.lineage, **lineage}})

        return self._change(reference, change)

    @final
    def delete(self, reference: str) -> None:
        """Delete a version's record; its name is never given again.

        Blobs stay: other versions may share them.

        Raises:
            PolicyError: an alias points to it.
        """
        version = self.get(reference)
        if version.aliases:
            msg = f"{version} has the alias {version.aliases[0]!r}"
            raise PolicyError(msg, cure="move the alias to another version first")
        with self._boundary("delete"):
            self._delete(version.name, version.version)

    @final
    def put_release(self, release: Release) -> str:
        """Store a release as a blob and return its digest."""
        return self.blobs.put_bytes(release.encoded(), RELEASE_MEDIA_TYPE).digest

    @final
    def get_release(self, digest: str) -> Release:
        """Read a release back.

        Raises:
            NotFoundError: it is not in the registry.
        """
        return read_release(self.blobs.read_bytes(digest, max_bytes=MAX_RELEASE_BYTES))

    def _change(
        self, reference: str, change: Callable[[ModelVersion], ModelVersion]
    ) -> ModelVersion:
        version = self.get(reference)
        with self._boundary("update"):
            return self._update(version.name, version.version, change)

    @abstractmethod
    def _create(self, record: ModelVersion) -> None:
        """Store a new record; `AlreadyExistsError` when the version exists, whoever was first."""

    @abstractmethod
    def _get(self, name: str, version: str) -> ModelVersion | None: ...

    @abstractmethod
    def _versions(self, name: str) -> Iterator[ModelVersion]: ...

    @abstractmethod
    def _names(self) -> Iterator[str]: ...

    @abstractmethod
    def _update(
        self, name: str, version: str, change: Callable[[ModelVersion], ModelVersion]
    ) -> ModelVersion:
        """Change a record so that no concurrent change is lost."""

    @abstractmethod
    def _delete(self, name: str, version: str) -> None: ...

    @abstractmethod
    def _aliases(self, name: str) -> dict[str, str]: ...

    @abstractmethod
    def _set_alias(self, name: str, alias: str, version: str) -> None: ...


def _order(version: ModelVersion) -> tuple[datetime, int]:
    number = int(version.version) if version.version.isdecimal() else 0
    return (version.created, number)
