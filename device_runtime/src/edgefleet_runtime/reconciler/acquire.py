"""Acquiring a release: its document, each bundle's index, the variant that fits, and its blobs.

Small documents come first, so that what a device will run, and how many bytes it costs, is known
before any weights move. Everything ends up in the store; an acquisition without anything missing
touches no source, so it works offline. Where there is no source, the best variant is taken of those
that are whole in the store.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import EdgeFleetError, IntegrityError, LimitExceededError, UnavailableError
from edgefleet.protocol import bundle as b
from edgefleet.protocol import release as r
from edgefleet.protocol.target import Choice, rank_variants, target_of
from edgefleet_runtime.ensemble.stepped import steps_of
from edgefleet_runtime.rules.check import check_here
from edgefleet_runtime.store.fetch import Want

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from edgefleet_runtime.store.blobs import BlobStore
    from edgefleet_runtime.store.fetch import Fetcher
    from edgefleet_runtime.store.sources import Source

    OpenSources = Callable[[], Sequence[Source]]
    """Called when bytes are really missing; may raise, such as for expired access."""

    Rank = Callable[[Sequence[Choice]], Sequence[Choice]]
    """Puts the variants that a target allows in the order of this very device."""

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
        candidates: all variants that this device may run, the chosen one first.
    """

    model: r.ReleaseModel
    variant: b.Variant
    why: str
    manifest: b.Manifest
    details: b.Details
    candidates: tuple[Choice, ...] = ()

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
        rank: the device's own order of variants.
    """

    def __init__(
        self,
        store: BlobStore,
        fetcher: Fetcher,
        *,
        labels: Mapping[str, str],
        formats: Collection[str],
        rank: Rank = tuple,
    ) -> None:
        self._rank = rank
        self._store = store
        self._fetcher = fetcher
        self._target = target_of(labels)
        self._formats = formats

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers that the device's target asks for, the best first."""
        return self._target.providers

    def acquire(self, digest: str, sources: OpenSources | None) -> Acquired:
        """Get a release and what it needs; without sources, from the store alone.

        Sources are opened once at most: a new one would have to say anew who this device is.

        Raises:
            EdgeFleetError: as `Fetcher.fetch`; and when a document is malformed, no variant fits,
                or the release asks for what this runtime lacks.
            UnavailableError: without sources, something is missing.
        """
        pins = {digest}
        self._store.pin(WANTED, pins)
        asked = _no_sources if sources is None else cache(sources)
        release = r.read_release(self._document(digest, "the release", r.MAX_BYTES, asked))
        if sources is not None:  # what was taken once is served, whatever is installed by now
            check_here(release.telemetry, {model.name for model in release.models})
        parts: list[Part] = []
        for model in release.models:
            pins.add(model.bundle)
            self._store.pin(WANTED, pins)
            choices = self._choices(model, asked)
            parts.append(
                self._whole_part(model, choices)
                if sources is None
                else self._part(model, choices, choices[0], asked)
            )
            pins |= parts[-1].blobs()
            self._store.pin(WANTED, pins)
        self._fetch([want for part in parts for want in _wants_of(part)], asked)
        return Acquired(digest=digest, release=release, parts=tuple(parts))

    def cost(self, part: Part, choice: Choice) -> int:
        """Bytes to fetch to have another variant of a part.

        Without the details where the variant's manifest isn't here: it tells their size.
        """
        manifest = choice.variant.manifest
        if manifest.digest not in self._store:
            return manifest.size + choice.variant.bytes
        try:
            known = b.read_manifest(self._store.read(manifest))
        except EdgeFleetError:
            return manifest.size + choice.variant.bytes
        return self._fetcher.plan(_wants(part.model, choice.variant, known)).bytes

    def acquire_other(
        self,
        acquired: Acquired,
        part: Part,
        choice: Choice,
        sources: OpenSources,
        *,
        max_bytes: int,
    ) -> Acquired:
        """Get another variant of one part of a release.

        What is fetched stays pinned until something else is acquired.

        Raises:
            LimitExceededError: it costs more than ``max_bytes``, as only its manifest told.
            EdgeFleetError: as `acquire`.
        """
        self._store.pin(WANTED, {choice.variant.manifest.digest})
        name = f"{_bundle(part.model)}, variant {choice.variant.name}, manifest"
        self._blob(choice.variant.manifest, name, sources)
        needed = self.cost(part, choice)
        if needed > max_bytes:
            raise LimitExceededError(f"{name}: {needed} bytes more, {max_bytes} may be fetched")
        other = self._part(part.model, part.candidates, choice, sources)
        self._store.pin(WANTED, other.blobs())
        self._fetch(_wants_of(other), sources)
        parts = tuple(other if known.key == part.key else known for known in acquired.parts)
        return msgspec.structs.replace(acquired, parts=parts)

    def variants(self, model: r.ReleaseModel, sources: OpenSources) -> tuple[b.Variant, ...]:
        """All variants of a bundle, whatever suits this device; pinning is the caller's."""
        document = self._document(model.bundle, _bundle(model), b.MAX_INDEX_BYTES, sources)
        return b.variants_of(b.read_index(document))

    def part(self, model: r.ReleaseModel, choice: Choice, sources: OpenSources) -> Part:
        """What documents say of a variant; pinning is the caller's."""
        return self._part(model, (choice,), choice, sources)

    def missing_bytes(self, part: Part) -> int:
        """Bytes to fetch to have all files of a variant."""
        return self._fetcher.plan(_wants_of(part)).bytes

    def complete(self, part: Part, sources: OpenSources) -> None:
        """Fetch what is missing of a variant; see `Fetcher.fetch` for the errors."""
        self._fetch(_wants_of(part), sources)

    def _choices(self, model: r.ReleaseModel, sources: OpenSources) -> Sequence[Choice]:
        variants = self.variants(model, sources)
        return self._rank(rank_variants(variants, self._target, formats=self._formats))

    def _whole_part(self, model: r.ReleaseModel, choices: Sequence[Choice]) -> Part:
        """The best of the variants that the store holds whole."""
        problems: list[EdgeFleetError] = []
        for choice in choices:
            try:
                part = self._part(model, choices, choice, _no_sources)
                self._fetch(_wants_of(part), _no_sources)
            except EdgeFleetError as error:
                problems.append(error)
            else:
                return part
        raise problems[0]

    def _part(
        self,
        model: r.ReleaseModel,
        choices: Sequence[Choice],
        choice: Choice,
        sources: OpenSources,
    ) -> Part:
        name = f"{_bundle(model)}, variant {choice.variant.name}"
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
        others = (known for known in choices if known.variant.name != choice.variant.name)
        return Part(
            model=model,
            variant=choice.variant,
            why=choice.why,
            manifest=manifest,
            details=details,
            candidates=(choice, *others),
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


def _no_sources() -> Sequence[Source]:
    raise UnavailableError("it is not whole on this device's disk")


def _bundle(model: r.ReleaseModel) -> str:
    return f"bundle of {model.name}:{model.version}"


def _wants_of(part: Part) -> list[Want]:
    return _wants(part.model, part.variant, part.manifest)


def _wants(model: r.ReleaseModel, variant: b.Variant, manifest: b.Manifest) -> list[Want]:
    where = f"{model.name}:{model.version}, variant {variant.name}"
    names = {layer.digest: path for path, layer in b.files_of(manifest).items()}
    return [
        Want(
            digest=blob.digest,
            name=f"{names.get(blob.digest, 'a document')} of {where}",
            max_bytes=blob.size,
        )
        for blob in b.blobs_of(manifest)
    ]
