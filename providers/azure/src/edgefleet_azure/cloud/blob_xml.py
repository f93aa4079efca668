"""Documents of Blob storage: listings, lists of blocks, access policies, keys; all XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING

from edgefleet.testing.cloud.calls import Refused
from edgefleet_azure.cloud.accounts import MAX_POLICIES, Policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgefleet_azure.cloud.accounts import Blob, Container

MAX_XML_BYTES = 16 << 20
PAGE = 5000  # entries of a listing at most


def parse(data: bytes, root: str) -> ET.Element:
    """A document with that root.

    Raises:
        Refused: it is none, or has a document type, in which entities could hide.
    """
    if b"<!DOCTYPE" in data:
        raise _invalid()
    try:
        found = ET.fromstring(data.removeprefix(b"\xef\xbb\xbf"))  # noqa: S314 - see above
    except (ET.ParseError, ValueError) as error:
        raise _invalid() from error
    if found.tag != root:
        raise _invalid()
    return found


def parse_policies(data: bytes) -> dict[str, Policy]:
    """The stored access policies of a document.

    Raises:
        Refused: it is none, or there are too many.
    """
    found: dict[str, Policy] = {}
    for one in parse(data, "SignedIdentifiers") if data else ():
        policy = one.find("AccessPolicy")
        name = one.findtext("Id") or ""
        if not 0 < len(name) <= 64 or name in found:
            raise _invalid()
        found[name] = Policy(
            *(
                "" if policy is None else policy.findtext(part) or ""
                for part in ("Start", "Expiry", "Permission")
            )
        )
    if len(found) > MAX_POLICIES:
        raise _invalid()
    return found


def policies(container: Container) -> bytes:
    """The stored access policies of a container."""
    root = ET.Element("SignedIdentifiers")
    for name, policy in container.policies.items():
        one = ET.SubElement(root, "SignedIdentifier")
        _add(one, "Id", name)
        inner = ET.SubElement(one, "AccessPolicy")
        for tag, value in (
            ("Start", policy.start),
            ("Expiry", policy.expiry),
            ("Permission", policy.permission),
        ):
            if value:
                _add(inner, tag, value)
    return _document(root)


def delegation_key(values: dict[str, str]) -> bytes:
    """A user delegation key."""
    root = ET.Element("UserDelegationKey")
    for tag, value in values.items():
        _add(root, tag, value)
    return _document(root)


def block_list(kinds: dict[str, Iterable[tuple[str, int]]]) -> bytes:
    """Blocks by kind, ``CommittedBlocks`` and ``UncommittedBlocks``: ids and sizes."""
    root = ET.Element("BlockList")
    for kind, blocks in kinds.items():
        inner = ET.SubElement(root, kind)
        for name, size in blocks:
            one = ET.SubElement(inner, "Block")
            _add(one, "Name", name)
            _add(one, "Size", str(size))
    return _document(root)


@dataclass
class Listing:
    """A page of a listing of blobs.

    Attributes:
        prefix: that names have.
        delimiter: that ends a name's common beginning; empty for none.
        limit: entries of the page.
        blobs: of the page, by name; without a state for a name that has uncommitted blocks only.
        prefixes: common beginnings of names.
        marker: where the next page begins; empty for no other.
    """

    prefix: str
    delimiter: str
    limit: int
    blobs: dict[str, Blob | None] = field(default_factory=dict)
    prefixes: list[str] = field(default_factory=list)
    marker: str = ""

    def fill(self, names: dict[str, Blob | None], start: str) -> None:
        """Take from names, in their order, what the page holds.

        Args:
            names: every name there is, with its blob.
            start: the first that may come.
        """
        for name in sorted(names):
            if not name.startswith(self.prefix) or name < start:
                continue
            rest = name[len(self.prefix) :]
            cut = rest.find(self.delimiter) if self.delimiter else -1
            common = name[: len(self.prefix) + cut + len(self.delimiter)] if cut >= 0 else ""
            if common and common in self.prefixes:
                continue
            if len(self.blobs) + len(self.prefixes) >= self.limit:
                self.marker = name
                return
            if common:
                self.prefixes.append(common)
            else:
                self.blobs[name] = names[name]

    def document(self, address: str, container: str, *, metadata: bool) -> bytes:
        """The page, as Azure writes it."""
        root = ET.Element(
            "EnumerationResults", ServiceEndpoint=f"{address}/", ContainerName=container
        )
        _add(root, "Prefix", self.prefix)
        _add(root, "MaxResults", str(self.limit))
        if self.delimiter:
            _add(root, "Delimiter", self.delimiter)
        inner = ET.SubElement(root, "Blobs")
        for name, blob in self.blobs.items():
            _add_blob(inner, name, blob, metadata=metadata)
        for prefix in self.prefixes:
            _add(ET.SubElement(inner, "BlobPrefix"), "Name", prefix)
        _add(root, "NextMarker", self.marker)
        return _document(root)


def containers(address: str, names: Iterable[str], state: dict[str, Container]) -> bytes:
    """A listing of containers."""
    root = ET.Element("EnumerationResults", ServiceEndpoint=f"{address}/")
    inner = ET.SubElement(root, "Containers")
    for name in names:
        one = ET.SubElement(inner, "Container")
        _add(one, "Name", name)
        properties = ET.SubElement(one, "Properties")
        _add(properties, "Last-Modified", formatdate(state[name].modified, usegmt=True))
        _add(properties, "Etag", state[name].etag)
    _add(root, "NextMarker", "")
    return _document(root)


def _add_blob(root: ET.Element, name: str, blob: Blob | None, *, metadata: bool) -> None:
    one = ET.SubElement(root, "Blob")
    _add(one, "Name", name)
    properties = ET.SubElement(one, "Properties")
    if blob is None:
        _add(properties, "Content-Length", "0")
        _add(properties, "BlobType", "BlockBlob")
        return
    _add(properties, "Creation-Time", formatdate(blob.created, usegmt=True))
    _add(properties, "Last-Modified", formatdate(blob.modified, usegmt=True))
    _add(properties, "Etag", blob.etag.strip('"'))
    _add(properties, "Content-Length", str(blob.content.size))
    _add(properties, "Content-Type", blob.headers.get("Content-Type", ""))
    _add(properties, "Content-MD5", blob.headers.get("Content-MD5", ""))
    _add(properties, "BlobType", "BlockBlob")
    _add(properties, "AccessTier", "Hot")
    if metadata:
        inner = ET.SubElement(one, "Metadata")
        for key, value in blob.metadata.items():
            _add(inner, key, value)


def _add(parent: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(parent, tag).text = text


def _document(root: ET.Element) -> bytes:
    found: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return found


def _invalid() -> Refused:
    return Refused(400, "InvalidXmlDocument", "XML specified is not syntactically valid.")
