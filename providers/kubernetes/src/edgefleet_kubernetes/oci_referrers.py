"""What refers to a manifest: by the referrers API, or by the fallback tag where it is missing.

The fallback is the specification's: an index under the tag ``sha256-<hex>`` of the subject, which
clients read, change and write (distribution-spec 1.1, "Unavailable Referrers API"). Nothing
compares there, so of two that write at once one is lost. We read back and write again; what is lost
even so is what shows a record, never the record. What was replaced is no longer listed, and stays:
somebody may be about to write an index that names it.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from edgefleet.protocol.bundle import INDEX_MEDIA_TYPE
from edgefleet.protocol.digest import hex_of
from edgefleet_kubernetes.oci_pages import held

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.protocol.bundle import Descriptor
    from edgefleet_kubernetes.oci import RegistryClient

MAX_TRIES = 5  # of writing the fallback's index

_log = logging.getLogger(__name__)


class Referrers:
    """Manifests that refer to others in one repository.

    Args:
        client: of the repository.
    """

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    def of(self, digest: str, kind: str) -> list[dict[str, Any]]:
        """Descriptors of the manifests of a kind that refer to the one of a digest."""
        found = self._client.referrers(digest, kind)
        if found is None:
            found = [one for one in self._fallback(digest) if one.get("artifactType") == kind]
        return found

    def replace(
        self,
        subject: Descriptor,
        kind: str,
        notes: dict[str, str],
        make: Callable[[dict[str, str]], Descriptor],
    ) -> None:
        """Have one manifest refer to a subject, in place of those of its kind with its notes.

        Args:
            subject: that it refers to.
            kind: of what refers.
            notes: annotations by which it is known.
            make: stores it, with such annotations, and gives its descriptor.
        """
        made = make(notes)

        def is_old(one: dict[str, Any]) -> bool:
            same = one.get("artifactType") == kind and one.get("digest") != made.digest
            return same and notes.items() <= (one.get("annotations") or {}).items()

        listed = self._client.referrers(subject.digest, kind)
        if listed is None:
            self._replace_in_fallback(subject.digest, _as_json(made), is_old)
        for one in listed or ():
            if is_old(one):
                self._client.delete(one["digest"])

    def _replace_in_fallback(
        self, digest: str, made: dict[str, Any], is_old: Callable[[dict[str, Any]], bool]
    ) -> None:
        for _ in range(MAX_TRIES):
            there = self._fallback(digest)
            kept = [one for one in there if not is_old(one)]
            listed = any(one.get("digest") == made["digest"] for one in kept)
            if listed and len(kept) == len(there):
                return
            index = {
                "schemaVersion": 2,
                "mediaType": INDEX_MEDIA_TYPE,
                "manifests": kept if listed else [*kept, made],
            }
            data = json.dumps(index, sort_keys=True, separators=(",", ":")).encode()
            self._client.put_manifest(_tag(digest), INDEX_MEDIA_TYPE, data)
        _log.warning("others kept changing the tag %s of %s", _tag(digest), self._client.repository)

    def _fallback(self, digest: str) -> list[dict[str, Any]]:
        found = self._client.manifest(_tag(digest))
        if found is None:
            return []
        where = self._client.where(_tag(digest))
        return held(found.data, "manifests", dict[str, Any], where=where)


def _tag(digest: str) -> str:
    return f"sha256-{hex_of(digest)}"


def _as_json(made: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": made.media_type,
        "digest": made.digest,
        "size": made.size,
        "artifactType": made.artifact_type,
        "annotations": made.annotations,
    }
