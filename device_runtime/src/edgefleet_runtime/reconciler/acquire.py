"""Acquiring a release: its document, each bundle's index, the variant that fits, and its blobs.

Small documents come first, so that what a device will run, and how many bytes it costs, is known
before any weights move. Everything ends up in the store; an acquisition without anything missing
touches no source, so it works offline.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import EdgeFleetError, IntegrityError
from edgefleet.protocol import bundle as b
from edgefleet.protocol import release as r
from edgefleet.protocol.target import choose_variant, target_of
from edgefleet_runtime.ensemble.stepped import steps_of
from edgefleet_runtime.store.fetch import Want

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from edgefleet_runtime.store.blobs import BlobStore
    from edgefleet_runtime.store.fetch import Fetcher
    from edgefleet_runtime.store.sources import Source

    OpenSources = Callable[[], Sequence[Source]]
    """Called when bytes are really missing; may raise, such as for expired access."""

_log = logging.getLogger(__name__)

WANTED = "wanted"
"""Owner of the pins on what is being acquired."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a release, as far as documents tell.

    Attributes:
        model: what the release says.
        variant: chosen for this device.
        why: why it was chosen.
        manifest: of the variant.
        details: of the variant.
    """

    model: r.ReleaseModel
    variant: b.Variant
    why: str
    manifest: b.Manifest
    details: b.Details

    @property
    def key(self) -> tuple[str, r.Role]:
        """What tells the release's models apart."""
        return (self.model.name, self.model.role)

    def blobs(self) -> frozenset[str]:
        """Digests of all that the store must hold for this model."""
        blobs = {descriptor.digest for descriptor in b.blobs_of(self.manifest)}
        return frozenset(blobs | {self.variant.manifest.digest, self.model.bundle})


class Acquired(msgspec.Struct, frozen=True, kw_only=True):
    """A release whose blobs are all in the store, not yet verified."""

    digest: str
    release: r.Release
    parts: tuple[Part, ...]

    def blobs(self) -> frozenset[str]:
        """Digests of all that the store must hold for it."""
        return frozenset({self.digest}).union(*(part.blobs() for part in self.parts))


class Acquirer:
    """Brings releases into a store.

    Args:
        store: where blobs go.
        fetcher: how they get there.
        labels: the device's; they name its hardware target.
        formats: model formats that the engines here open.
    """

    def __init__(
        self,
        store: BlobStore,
        fetcher: Fetcher,
        *,
        labels: Mapping[str, str],
        formats: Collection[str],
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._target = target_of(labels)
        self._formats = formats

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers that the device's target asks for, the best first."""
        return self._target.providers

    def acquire(self, digest: str, sources: OpenSources) -> Acquired:
        """Get a release and what it needs.

        Raises:
            EdgeFleetError: as `Fetcher.fetch`; and when a document is malformed, no variant fits,
                or the release asks for what this runtime lacks.
        """
        pins = {digest}
        self._store.pin(WANTED, pins)
        release = r.read_release(self._document(digest, "the release", r.MAX_BYTES, sources))
        parts: list[Part] = []
        for model in release.models:
            pins.add(model.bundle)
            self._store.pin(WANTED, pins)
            parts.append(self._part(model, sources))
            pins |= parts[-1].blobs()
            self._store.pin(WANTED, pins)
        self._fetch([want for part in parts for want in _wants(part)], sources)
        return Acquired(digest=digest, release=release, parts=tuple(parts))

    def _part(self, model: r.ReleaseModel, sources: OpenSources) -> Part:
        what = f"bundle of {model.name}:{model.version}"
        index = b.read_index(self._document(model.bundle, what, b.MAX_INDEX_BYTES, sources))
        choice = choose_variant(b.variants_of(index), self._target, formats=self._formats)
        name = f"{what}, variant {choice.variant.name}"
        manifest = b.read_manifest(
            self._blob(choice.variant.manifest, f"{name}, manifest", sources)
        )
        about = b.details_descriptor(manifest)
        details = b.read_details(self._blob(about, f"{name}, details", sources))
        b.entry_of(manifest, details)  # refused now rather than after its weights have come
        try:
            steps_of(details)  # likewise
        except EdgeFleetError as error:
            error.prefixed(name)
            raise
        return Part(
            model=model,
            variant=choice.variant,
            why=choice.why,
            manifest=manifest,
            details=details,
        )

    def _document(self, digest: str, name: str, limit: int, sources: OpenSources) -> bytes:
        """The bytes of a document of which only the digest is known."""
        want = Want(digest=digest, name=name, max_bytes=limit, exact=False)
        self._fetch([want], sources)
        descriptor = b.Descriptor(
            media_type="", digest=digest, size=min(self._store.size_of(digest), limit)
        )
        return self._checked(descriptor, want, sources)

    def _blob(self, descriptor: b.Descriptor, name: str, sources: OpenSources) -> bytes:
        """The bytes of a document whose size is known too."""
        limit = b.MAX_DETAILS_BYTES
        if descriptor.size > limit:
            raise IntegrityError(f"{name} has {descriptor.size} bytes, {limit} are allowed")
        want = Want(digest=descriptor.digest, name=name, max_bytes=descriptor.size)
        self._fetch([want], sources)
        return self._checked(descriptor, want, sources)

    def _checked(self, descriptor: b.Descriptor, want: Want, sources: OpenSources) -> bytes:
        try:
            return self._store.read(descriptor, name=want.name)
        except IntegrityError as error:
            _log.warning("%s; fetching it again", error.message)
            self._store.discard(descriptor.digest)
            self._fetch([want], sources)
            # Its size may have been wrong, too: what the store took now has the right content.
            size = self._store.size_of(descriptor.digest)
            fresh = msgspec.structs.replace(descriptor, size=size)
            return self._store.read(fresh, name=want.name)

    def _fetch(self, wants: Iterable[Want], sources: OpenSources) -> None:
        missing = self._fetcher.plan(wants).missing
        if missing:
            self._fetcher.fetch(missing, sources())


def _wants(part: Part) -> list[Want]:
    where = f"{part.model.name}:{part.model.version}, variant {part.variant.name}"
    names = {layer.digest: path for path, layer in b.files_of(part.manifest).items()}
    return [
        Want(
            digest=blob.digest,
            name=f"{names.get(blob.digest, 'a document')} of {where}",
            max_bytes=blob.size,
        )
        for blob in b.blobs_of(part.manifest)
    ]
