"""Release: what a group of devices should run. Content only, immutable, addressed by digest.

Nothing here depends on a cloud, a time or a person, so the same wish has one digest everywhere.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edgefleet.errors import InvalidInputError, UnsupportedError
from edgefleet.protocol.digest import Digest, digest_of
from edgefleet.protocol.documents import VERSION, Document, decode, encode
from edgefleet.protocol.names import ModelName
from edgefleet.protocol.policy import Fraction, PositiveFloat, PositiveInt, TelemetryPolicy

MAX_BYTES = 256 << 10  # bytes of an encoded release

Role = Literal["active", "shadow"]


class ReleaseModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model of a release.

    Attributes:
        name: the name it is served under.
        version: the registry's version, for people and for the serving protocol's version field.
        bundle: digest of the bundle's index.
        role: ``active`` answers requests; ``shadow`` sees copies of them.
    """

    name: ModelName
    version: str
    bundle: Digest
    role: Role = "active"

    @property
    def label(self) -> str:
        """Its name for people; the role is told where it isn't ``active``."""
        return self.name if self.role == "active" else f"{self.name} ({self.role})"


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a release may cost while it is on trial; one that costs more is taken back by itself.

    Each model that the release before didn't serve is held to it, over its last requests. Requests
    that the model refuses because of what they hold don't count.

    Attributes:
        max_error_share: share of the window's requests that may fail.
        max_p99_us: microseconds of run time that 99 of 100 requests of the window must keep.
        window: requests looked at. Fewer already decide where no further ones could change it.
        trial_s: seconds of serving until the release counts as good; None leaves it to the device.
    """

    max_error_share: Fraction | None = None
    max_p99_us: PositiveFloat | None = None
    window: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 200
    trial_s: PositiveFloat | None = None


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the devices' runtimes should behave.

    Attributes:
        strict: refuse a model rather than run it on a slower provider than its variant asks for.
        keep_previous: keep the previous release loaded and ready to come back.
        store_max_bytes: cap of the blob store in bytes; None leaves it to the device.
        spool_max_bytes: cap of unsent telemetry in bytes; None leaves it to the device.
        memory_max_bytes: cap of what models may take in memory, by estimate; None leaves it to the
            device.
        unload_first: where a release doesn't fit beside the one that runs, unload that one first.
            No model answers until the new one serves, or the old one is loaded again. Otherwise
            such a release is rejected.
        shadow_share: share of the time that each shadow model may run: what it may cost others.
        shadow_max_bytes: what copies of requests that wait for a shadow model may take; further
            ones are dropped and counted.
        budget: what the release may cost on trial; None to judge it by its self-test alone.
        trial_bytes: most bytes that a device may fetch of further variants, to time them beside the
            one that serves; 0 fetches none. What an operator orders to be measured doesn't count.
    """

    strict: bool = False
    keep_previous: bool = True
    store_max_bytes: PositiveInt | None = None
    spool_max_bytes: PositiveInt | None = None
    memory_max_bytes: PositiveInt | None = None
    unload_first: bool = False
    shadow_share: Fraction = 0.25
    shadow_max_bytes: PositiveInt = 16 << 20
    budget: Budget | None = None
    trial_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0


class Release(Document, frozen=True, kw_only=True):
    """What a group should run: each model at most once in a role; written by name and role."""

    models: tuple[ReleaseModel, ...] = ()
    settings: RuntimeSettings = RuntimeSettings()
    telemetry: TelemetryPolicy = TelemetryPolicy()

    def __post_init__(self) -> None:
        """Refuse two entries of the same name and role."""
        keys = [(model.name, model.role) for model in self.models]
        if len(set(keys)) != len(keys):
            msg = "a release names the same model twice in the same role"
            raise InvalidInputError(msg)

    @property
    def digest(self) -> str:
        """Digest of the canonical bytes.

        Of a release that was read, take `digest_of` the bytes instead: they may hold more than this
        library knows.
        """
        return digest_of(self.encoded())

    def encoded(self) -> bytes:
        """Canonical bytes, models in a fixed order."""
        ordered = tuple(sorted(self.models, key=lambda model: (model.name, model.role)))
        return encode(msgspec.structs.replace(self, models=ordered), max_bytes=MAX_BYTES)

    def with_model(self, model: ReleaseModel) -> Release:
        """This release with ``model`` added, in place of one of the same name and role.

        Raises:
            UnsupportedError: a newer library wrote this release; see `without_model`.
        """
        self._refuse_loss()
        kept = tuple(m for m in self.models if (m.name, m.role) != (model.name, model.role))
        models = tuple(sorted((*kept, model), key=lambda m: (m.name, m.role)))
        return msgspec.structs.replace(self, models=models)

    def without_shadow(self, name: str, bundle: str) -> Release:
        """This release without that bundle as a shadow of that name; see `without_model`."""
        self._refuse_loss()
        out = (name, "shadow", bundle)
        models = tuple(m for m in self.models if (m.name, m.role, m.bundle) != out)
        return msgspec.structs.replace(self, models=models)

    def with_telemetry(self, policy: TelemetryPolicy) -> Release:
        """This release with another telemetry policy; see `without_model`."""
        self._refuse_loss()
        return msgspec.structs.replace(self, telemetry=policy)

    def without_model(self, name: str) -> Release:
        """This release without any role of the model ``name``.

        Raises:
            UnsupportedError: a newer library wrote this release, so that it may say more than this
                one knows, which an edit would lose.
        """
        self._refuse_loss()
        return msgspec.structs.replace(self, models=tuple(m for m in self.models if m.name != name))

    def _refuse_loss(self) -> None:
        if self.version > VERSION:
            msg = f"this release has version {self.version}, this library writes {VERSION}"
            raise UnsupportedError(msg, cure="upgrade edgefleet here, or deploy a whole release")


EMPTY = Release()
"""The release that runs nothing: where every group starts."""


def read_release(data: bytes) -> Release:
    """Decode a release from outside; see `documents.decode` for the errors."""
    return decode(Release, data, max_bytes=MAX_BYTES)
