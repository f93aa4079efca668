"""Settings of the Google Cloud provider. Imports no vendor SDK: naming it must cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from edgefleet.plugins.provider import RemoteSettings

MIB = 1 << 20
# https://cloud.google.com/storage/docs/buckets#naming
_BUCKET = r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$"
_PROJECT = r"^(?:[a-z][a-z0-9.:-]{4,61}[a-z0-9]|\d{6,20})$"
# https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_NAME = r"^[A-Za-z][A-Za-z0-9._~+%-]{2,254}$"


class GcpSettings(RemoteSettings):
    """What ``[profiles.<name>.gcp]`` may hold. Credentials are google-auth's affair.

    Attributes:
        bucket: Cloud Storage bucket of the fleet; everything lies below ``prefix`` in it.
        project: that the subscription and topic of hot events lie in; None for what google-auth
            finds.
        topic: name of the Pub/Sub topic that devices publish hot events to; None where they write
            them below their own folders only.
        subscription: name of the topic's subscription that hot events are read from.
        trust_senders: take the device's name of a published event from what its sender says.
            Pub/Sub doesn't tell who published: whoever may publish to the topic may use any name.
            Without it, published events are left where they are, and only those in devices'
            folders count.
        chunk_mib: size of the chunks that large blobs are sent in, in MiB.
        cache: where uploads that go on are remembered; relative to the profile file. What is
            remembered lets its reader write that blob: the folder is for its owner only.
    """

    provider: ClassVar[str] = "gcp"
    bucket: str = Field(pattern=_BUCKET)
    project: str | None = Field(default=None, pattern=_PROJECT)
    topic: str | None = Field(default=None, pattern=_NAME)
    subscription: str | None = Field(default=None, pattern=_NAME)
    trust_senders: bool = False
    chunk_mib: int = Field(default=8, ge=1, le=512)
    cache: Path = Path(".edgefleet/gcp")

    @field_validator("topic", "subscription")
    @classmethod
    def _is_no_name_of_googles(cls, name: str | None) -> str | None:
        if name is not None and name.startswith("goog"):
            raise ValueError("names that begin with goog are Google's")
        return name

    @property
    def root(self) -> str:
        """Where everything of the fleet lies: ``gs://BUCKET/PREFIX``."""
        return f"gs://{self.bucket}/{self.prefix}"

    @property
    def chunk_bytes(self) -> int:
        """Size of the chunks that large blobs are sent in, in bytes: a multiple of 256 KiB."""
        return self.chunk_mib * MIB
