"""What a device and its gateway say to each other over HTTPS: paths, headers and documents.

Rules kept here:

- The device's name is in none of them: it is that of the certificate which the device showed.
- A pointer, a report, events and blobs go as they are; only what enrols, renews and upgrades a
  device has documents of its own.
- Uploads go on where they stopped, by the header fields of "Resumable Uploads for HTTP"
  (draft-ietf-httpbis-resumable-upload) and the digest of RFC 9530. Waiting is asked for by
  ``Prefer: wait`` (RFC 7240). Refusals are problem documents (RFC 9457).
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document
from edgefleet.protocol.names import DeviceName, GroupName
from edgefleet.protocol.pointer import FleetId, Permille

ROOT = "/v1"
AUTHORITIES = ROOT + "/ca"
"""GET, anybody: certificates of the fleet's authority, PEM."""
ENROLL = ROOT + "/enroll"
"""POST, whoever has a token: an `Enrolment`; answered by `Identity`."""
RENEW = ROOT + "/renew"
"""POST, also with a certificate that ended not long ago: a `Renewal`; answered by `Identity`."""
POINTER = ROOT + "/pointer"
"""GET: the pointer of the device's group, with an ETag; 204 before the first."""
BLOBS = ROOT + "/blobs"
"""GET ``BLOBS/sha256/<hex>`` of the fleet, with ranges; may redirect."""
REPORT = ROOT + "/report"
"""PUT: the device's report."""
EVENTS = ROOT + "/events"
"""POST: a batch of hot events, `EVENTS_TYPE`, each taken once by its id."""
FILES = ROOT + "/files"
"""HEAD tells how far ``FILES/<path>`` came, PATCH goes on with it."""
REQUESTS = ROOT + "/requests"
"""GET: requests of operators that wait for the device, `Requests`."""
ANSWERS = ROOT + "/answers"
"""PUT ``ANSWERS/<id>``: the answer to one."""
RUNTIME = ROOT + "/runtime"
"""GET: the runtime that the device should be, a `RuntimeOffer`; 204 where none was ordered."""
ARCHIVES = ROOT + "/archives"
"""GET ``ARCHIVES/sha256/<hex>``, anybody: a runtime's archive, with ranges."""
INSTALL = "/install.sh"
"""GET, anybody: the script that installs and enrols a device."""

EVENTS_TYPE = "application/cloudevents-batch+json"
UPLOAD_TYPE = "application/partial-upload"
PROBLEM_TYPE = "application/problem+json"
OFFSET_HEADER = "Upload-Offset"
"""Bytes that are there, or that a PATCH begins at."""
LENGTH_HEADER = "Upload-Length"
"""Bytes of the whole file."""
COMPLETE_HEADER = "Upload-Complete"
"""``?1`` with the last part and when the file is there whole, else ``?0``."""
DIGEST_HEADER = "Repr-Digest"
"""Of the whole file: ``sha-256=:<base64>:``."""
WAITING_HEADER = "EdgeFleet-Waiting"
"""With the answer to `POINTER`: how many requests of operators wait for this device."""
OFFER_HEADER = "EdgeFleet-Runtime"
"""With the answer to `POINTER`: the ETag of the `RuntimeOffer`, where there is one."""
POLL_HEADER = "EdgeFleet-Poll"
"""With the answer to `POINTER`: seconds until a device that doesn't wait should ask again."""

MAX_EVENTS_BYTES = 240 << 10  # bytes of one POST of hot events
MAX_PART_BYTES = 1 << 20  # bytes of one PATCH
MAX_FILE_BYTES = 256 << 20  # bytes of one file: a segment, or a sample's input
MAX_DOCUMENT_BYTES = 64 << 10  # bytes of an enrolment, a renewal, a report
MAX_ANSWER_BYTES = 360 << 10  # bytes of an answer, in base64 below what a state document holds
MAX_WAIT_S = (
    55.0  # longest wait that a device may ask for; many proxies end what is silent for 60 s
)

REVOKED = "revoked"
EXPIRED = "expired"
UNKNOWN = "unknown-device"
TOKEN_USED = "token-used"  # noqa: S105 - the name of a problem
TOKEN_EXPIRED = "token-expired"  # noqa: S105 - likewise
TOKEN_UNKNOWN = "token-unknown"  # noqa: S105 - likewise

Pem = Annotated[str, msgspec.Meta(max_length=32 << 10)]
Token = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_\-]{20,128}\Z")]
RequestId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Platform = Literal["linux-x86_64", "linux-aarch64"]


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request was refused, as RFC 9457 has it.

    Attributes:
        title: what is wrong, for people.
        status: the HTTP status.
        detail: what helps.
        code: one of the names above, where a device acts upon it; a member of our own.
    """

    title: str
    status: int
    detail: str = ""
    code: str = ""


class Enrolment(Document, frozen=True, kw_only=True):
    """A device asks for its first certificate.

    Attributes:
        token: single-use, from whoever operates the fleet.
        request: PKCS #10, PEM; signed by the device's key. Its subject is ignored.
        labels: facts about the device.
    """

    token: Token
    request: Pem
    labels: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it

    def __repr__(self) -> str:
        return f"Enrolment(labels={self.labels!r})"


class Renewal(Document, frozen=True, kw_only=True):
    """A device asks for its next certificate, over the connection that its last one secures.

    Attributes:
        request: PKCS #10, PEM; of a new key or the same.
    """

    request: Pem


class Identity(Document, frozen=True, kw_only=True):
    """Who a device is from now on.

    Attributes:
        device: its name.
        group: its group now; it may be moved later without a new certificate.
        fleet: UUID of its fleet.
        certificate: its certificate and those that lead to the authority's, PEM.
        authorities: certificates that the gateway's own is verified against, PEM.
        gateways: addresses of gateways of this fleet, the preferred first: ``https://HOST:PORT``.
    """

    device: DeviceName
    group: GroupName
    fleet: FleetId
    certificate: Pem
    authorities: Pem
    gateways: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=8)]


class WaitingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request of an operator; its parts as in the runtime's `channels.requests.Message`."""

    id: RequestId
    path: str
    headers: dict[str, str] = {}
    body: bytes | None = None


class Requests(Document, frozen=True, kw_only=True):
    """Requests that wait for a device, the oldest first."""

    waiting: tuple[WaitingRequest, ...] = ()


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime's archive for one kind of machine.

    Attributes:
        digest: of its bytes.
        size: in bytes.
    """

    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=1)]


class RuntimeOffer(Document, frozen=True, kw_only=True):
    """Which runtime the devices of a group should be.

    Attributes:
        runtime: its version, as it calls itself.
        archives: by platform.
        salt: of the cohort; see `edgefleet.protocol.pointer.in_cohort`.
        permille: how many of a thousand devices take it now.
    """

    runtime: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z.+\-]{0,62}\Z")]
    archives: dict[str, Archive]
    salt: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] = "runtime"
    permille: Permille = 1000


def digest_field(digest: str) -> str:
    """A digest ``sha256:<hex>`` as RFC 9530 writes it in a header field."""
    raw = bytes.fromhex(digest.removeprefix("sha256:"))
    return f"sha-256=:{base64.b64encode(raw).decode()}:"


def read_digest_field(value: str) -> str:
    """The digest ``sha256:<hex>`` that a header field gives.

    Raises:
        InvalidInputError: it gives none by SHA-256.
    """
    for part in value.split(","):
        name, _, encoded = part.strip().partition("=")
        if name == "sha-256" and len(encoded) > 2 and encoded[0] == encoded[-1] == ":":
            try:
                raw = base64.b64decode(encoded[1:-1], validate=True)
            except binascii.Error:
                continue
            if len(raw) == 32:
                return f"sha256:{raw.hex()}"
    raise InvalidInputError(
        f"no digest by SHA-256: {value[:100]!r}", cure="write sha-256=:BASE64:, as RFC 9530 says"
    )
