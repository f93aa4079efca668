"""How a group's release travels on a stick, and what its devices sent travels back.

Below a folder of the stick, its mount point as a rule::

    edgefleet/
      pointer.json                        the group's pointer, as any channel brings it
      members/<hex>.json                  whose it is, `Members`; <hex>: SHA-256 of pointer.json
      blobs/sha256/<hex>                  what its release needs
      receipts/<device>/                  what a device has to say, written by itself
        report.json                       its newest report
        hot/<name>.json                   alarms and health events: a batch of CloudEvents
        files/<path>                      segments and samples, by their path below its prefix
        <any of these>.receipt.json       beside each of them: a `SignedReceipt`

Rules kept here:

- Everything appears whole, by a rename; a file without its receipt isn't finished.
- A device writes only where ``edgefleet/`` is: an empty mount point is no stick.
- A stick passes through many hands. A release is believed by its pointer's fleet and number and by
  digests; a receipt by the signature of the device's key, which its certificate names.
- A pointer doesn't say whose it is, and a stick is easily mistaken for another: an enrolled device
  takes it only where `Members` lists the device. They are named by the pointer's digest, so that no
  pointer is ever read with another's.
- Names are those that FAT takes, too.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from edgefleet.protocol.digest import Digest, digest_of
from edgefleet.protocol.documents import Document
from edgefleet.protocol.gateway import Pem
from edgefleet.protocol.names import DeviceName
from edgefleet.protocol.pointer import FleetId

FOLDER = "edgefleet"
POINTER = "pointer.json"
MEMBERS = "members"
RECEIPTS = "receipts"
REPORT = "report.json"
HOT = "hot"
FILES = "files"
RECEIPT_SUFFIX = ".receipt.json"
MAX_RECEIPT_BYTES = 64 << 10  # bytes of a `SignedReceipt`
MAX_MEMBERS_BYTES = 4 << 20  # bytes of `Members`: a hundred thousand devices with usual names

_DOMAIN = b"edgefleet receipt 1\0"  # so that nothing else that the key signs can pass for one


class Members(Document, frozen=True, kw_only=True):
    """Whose a stick's pointer is.

    Attributes:
        group: ``deployer/group``, for people.
        devices: names of the devices in it when the stick was written, sorted.
    """

    group: Annotated[str, msgspec.Meta(max_length=200)]
    devices: tuple[DeviceName, ...]


class Receipt(Document, frozen=True, kw_only=True):
    """What a device says of one file that it wrote.

    Attributes:
        device: its name.
        path: of the file, below ``receipts/<device>/``.
        digest: of the file's bytes.
        size: in bytes.
        fleet: UUID of the device's fleet; None where it has no identity.
    """

    device: DeviceName
    path: Annotated[str, msgspec.Meta(max_length=1100)]
    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0)]
    fleet: FleetId | None = None


class SignedReceipt(Document, frozen=True, kw_only=True):
    """A receipt and who vouches for it.

    Attributes:
        receipt: the bytes of a `Receipt`.
        signature: by the device's key over `signed_bytes` of them: ECDSA with SHA-256, DER; None
            of a device without an identity.
        certificate: the device's, and those that lead to the authority's, PEM; None likewise.
    """

    receipt: bytes
    signature: bytes | None = None
    certificate: Pem | None = None


def members_path(pointer: bytes) -> str:
    """Where the `Members` lie that belong to a pointer, given as it lies on the stick."""
    return f"{MEMBERS}/{digest_of(pointer).removeprefix('sha256:')}.json"


def signed_bytes(receipt: bytes) -> bytes:
    """What the signature of a receipt is over."""
    return _DOMAIN + receipt
