"""Blob storage: what Azure's REST API says, for block blobs.

https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api; each rule is listed in
``mock_rules.md``. Leases, snapshots, versions, tiers, append and page blobs are unknown here: who
asks for them is refused.
"""

from __future__ import annotations

import re
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_azure.cloud import blob_xml, conditions
from edgefleet_azure.cloud.accounts import (
    MAX_BLOCK_BYTES,
    MAX_BLOCKS,
    MAX_PUT_BYTES,
    Blob,
    Content,
)
from edgefleet_azure.cloud.calls import Call
from edgefleet_azure.cloud.roles import TENANT
from edgefleet_azure.cloud.sas import Door, Need
from edgefleet_azure.cloud.server import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgefleet_azure.cloud.accounts import Container, StorageAccount
    from edgefleet_azure.cloud.identity import Identities

VERSION = "2025-11-05"
_CONTAINER = "Microsoft.Storage/storageAccounts/blobServices/containers"
_BLOB = f"{_CONTAINER}/blobs"
_DELEGATE = "Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action"
_NAME = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]|\$root|\$web")
_CHUNK = 1 << 20
_SET = {
    "x-ms-blob-content-type": "Content-Type",
    "x-ms-blob-content-encoding": "Content-Encoding",
    "x-ms-blob-content-language": "Content-Language",
    "x-ms-blob-content-disposition": "Content-Disposition",
    "x-ms-blob-cache-control": "Cache-Control",
    "x-ms-blob-content-md5": "Content-MD5",
}


class BlobService:
    """A storage account's blob endpoint, path-style: ``/ACCOUNT/CONTAINER/BLOB``.

    Args:
        account: what it holds.
        identities: who may call by a token.
    """

    def __init__(self, account: StorageAccount, identities: Identities) -> None:
        self._account = account
        self._door = Door(account, identities)

    @property
    def routes(self) -> Sequence[Route]:
        """Every operation; the more special first."""
        account = f"/{self._account.name}"
        place = f"{account}/{{container}}"
        container = partial(self._route, place)
        blob = partial(self._route, f"{place}/{{blob*}}")
        whole = {"restype": "container", "comp": ""}
        listing, acl = {**whole, "comp": "list"}, {**whole, "comp": "acl"}
        service = {"restype": "service", "comp": "userdelegationkey"}
        return (
            self._route(account, "GetUserDelegationKey", "POST", self._delegate, service),
            self._route(account, "ListContainers", "GET", self._list_all, {"comp": "list"}),
            container("ListBlobs", "GET", self._list, listing),
            container("GetContainerAcl", "GET", self._get_acl, acl),
            container("SetContainerAcl", "PUT", self._set_acl, acl),
            container("CreateContainer", "PUT", self._create, whole),
            container("GetContainerProperties", "GET", self._look, whole),
            container("GetContainerProperties", "HEAD", self._look, whole),
            container("DeleteContainer", "DELETE", self._delete_container, whole),
            blob("PutBlock", "PUT", self._stage, {"comp": "block"}),
            blob("PutBlockList", "PUT", self._commit, {"comp": "blocklist"}),
            blob("GetBlockList", "GET", self._blocks, {"comp": "blocklist"}),
            blob("SetBlobMetadata", "PUT", self._set_metadata, {"comp": "metadata"}),
            blob("PutBlob", "PUT", self._put, {"comp": ""}),
            blob("GetBlob", "GET", self._get, {"comp": "", "snapshot": "", "versionid": ""}),
            blob("GetBlobProperties", "HEAD", self._head, {"comp": "", "snapshot": ""}),
            blob("DeleteBlob", "DELETE", self._delete, {"comp": "", "snapshot": ""}),
        )

    def _route(
        self,
        path: str,
        operation: str,
        method: str,
        handle: Callable[[Call], Reply],
        query: dict[str, str],
    ) -> Route:
        def answer(call: Call) -> Reply:
            try:
                reply = handle(call)
            except Refused as refused:
                refused.headers.setdefault("x-ms-version", VERSION)
                raise
            reply.headers["x-ms-version"] = call.headers.get("x-ms-version", VERSION)
            return reply

        return Route(f"blob.{operation}", method, path, answer, open=True, query=query)

    def _admit(
        self, call: Call, letters: str, action: str, *, data: bool = True, listing: bool = False
    ) -> str:
        need = Need(
            letters,
            action,
            data=data,
            container=call.parts.get("container", ""),
            blob=call.query.get("prefix", "") if listing else call.parts.get("blob", ""),
            listing=listing,
        )
        return self._door.admit(call, need)

    # ---------------------------------------------------------------------------- the account

    def _delegate(self, call: Call) -> Reply:
        self._door.admit(call, Need("", _DELEGATE, data=False))
        if call.principal is None:
            raise Refused(
                403, "AuthenticationFailed", "Only an identity's token gets a delegation key."
            )
        asked = blob_xml.parse(call.body(blob_xml.MAX_XML_BYTES), "KeyInfo")
        start, expiry = asked.findtext("Start") or "", asked.findtext("Expiry") or ""
        who, version = call.principal.id, call.headers.get("x-ms-version", VERSION)
        key = self._door.delegation_key(who, start, expiry, version)
        values = {
            "SignedOid": who,
            "SignedTid": TENANT,
            "SignedStart": start,
            "SignedExpiry": expiry,
            "SignedService": "b",
            "SignedVersion": version,
            "Value": key,
        }
        return _xml(blob_xml.delegation_key(values))

    def _list_all(self, call: Call) -> Reply:
        self._admit(call, "", f"{_CONTAINER}/read", data=False)
        prefix = call.query.get("prefix", "")
        with self._account.lock:
            names = sorted(name for name in self._account.containers if name.startswith(prefix))
            address = f"{call.base}/{self._account.name}"
            return _xml(blob_xml.containers(address, names, self._account.containers))

    # ----------------------------------------------------------------------------- containers

    def _create(self, call: Call) -> Reply:
        self._admit(call, "", f"{_CONTAINER}/write", data=False)
        if not _NAME.fullmatch(call.parts["container"]):
            raise Refused(
                400,
                "InvalidResourceName",
                "The specifed resource name contains invalid characters.",
            )
        public = call.headers.get("x-ms-blob-public-access", "")
        return _of(self._account.create(call.parts["container"], public=public), 201)

    def _look(self, call: Call) -> Reply:
        self._admit(call, "", f"{_CONTAINER}/read", data=False)
        return _of(self._account.container(call.parts["container"]))

    def _delete_container(self, call: Call) -> Reply:
        self._admit(call, "", f"{_CONTAINER}/delete", data=False)
        self._account.delete(call.parts["container"])
        return Reply(202)

    def _get_acl(self, call: Call) -> Reply:
        self._admit(call, "", f"{_CONTAINER}/getAcl/action", data=False)
        container = self._account.container(call.parts["container"])
        reply = _of(container)
        reply.body = blob_xml.policies(container)
        reply.headers["Content-Type"] = "application/xml"
        return reply

    def _set_acl(self, call: Call) -> Reply:
        self._admit(call, "", f"{_CONTAINER}/setAcl/action", data=False)
        policies = blob_xml.parse_policies(call.body(blob_xml.MAX_XML_BYTES))
        with self._account.lock:
            container = self._account.container(call.parts["container"])
            container.policies = policies
            container.public = call.headers.get("x-ms-blob-public-access", "")
            container.etag, container.modified = self._account.new_etag(), self._account.clock()
            return _of(container)

    def _list(self, call: Call) -> Reply:
        self._admit(call, "l", f"{_BLOB}/read", listing=True)
        query = call.query
        limit = query.get("maxresults", str(blob_xml.PAGE))
        if not limit.isdigit() or not int(limit) > 0:
            raise Refused(400, "OutOfRangeQueryParameterValue", "maxresults is out of range.")
        include = set(query.get("include", "").split(","))
        page = blob_xml.Listing(
            query.get("prefix", ""), query.get("delimiter", ""), min(int(limit), blob_xml.PAGE)
        )
        with self._account.lock:
            container = self._account.container(call.parts["container"])
            names: dict[str, Blob | None] = dict(container.blobs)
            if "uncommittedblobs" in include:
                names = {**dict.fromkeys(container.blocks), **names}
        page.fill(names, query.get("marker", ""))
        address = f"{call.base}/{self._account.name}"
        return _xml(page.document(address, call.parts["container"], metadata="metadata" in include))

    # ---------------------------------------------------------------------------------- blobs

    def _put(self, call: Call) -> Reply:
        letters = self._admit(call, "cw", f"{_BLOB}/write")
        if call.headers.get("x-ms-blob-type") != "BlockBlob":
            told = "x-ms-blob-type" in call.headers
            raise Refused(
                400,
                "InvalidHeaderValue" if told else "MissingRequiredHeader",
                "An HTTP header that's mandatory for this request is not specified.",
                detail={"HeaderName": "x-ms-blob-type"},
            )
        container, name = call.parts["container"], call.parts["blob"]
        self._account.container(container)
        content = self._take_in(call, MAX_PUT_BYTES)
        try:
            with self._account.lock:
                before = self._before(call, letters)
                headers = {"Content-MD5": content.md5, **_headers(call)}
                made = self._made(content, before, headers, _metadata(call))
                self._account.put(container, name, made)
        except Refused:
            self._account.drop(content)
            raise
        return _written(made, {"Content-MD5": content.md5})

    def _before(self, call: Call, letters: str) -> Blob | None:
        """What is there before a write, whose conditions hold and which may replace it."""
        container = self._account.container(call.parts["container"])
        before = container.blobs.get(call.parts["blob"])
        conditions.check_write(call, before)
        if before is not None and "w" not in letters:
            raise Refused(
                403,
                "UnauthorizedBlobOverwrite",
                "This request is not authorized to perform blob overwrites.",
            )
        return before

    def _made(
        self,
        content: Content,
        before: Blob | None,
        headers: dict[str, str],
        metadata: dict[str, str],
    ) -> Blob:
        now = self._account.clock()
        return Blob(
            content=content,
            etag=self._account.new_etag(),
            modified=now,
            created=now if before is None else before.created,
            headers={"Content-Type": "application/octet-stream", **headers},
            metadata=metadata,
        )

    def _take_in(self, call: Call, most: int) -> Content:
        content = self._account.take_in(call.environ["wsgi.input"], most)
        try:
            conditions.check_length(call, content)
            conditions.check_bytes(call, content)
        except Refused:
            self._account.drop(content)
            raise
        return content

    def _stage(self, call: Call) -> Reply:
        self._admit(call, "w", f"{_BLOB}/write")
        self._account.container(call.parts["container"])
        content = self._take_in(call, MAX_BLOCK_BYTES)
        try:
            self._account.stage(
                call.parts["container"],
                call.parts["blob"],
                call.query.get("blockid", ""),
                content,
            )
        except Refused:
            self._account.drop(content)
            raise
        return Reply(
            201,
            headers={"Content-MD5": content.md5, "x-ms-request-server-encrypted": "true"},
        )

    def _commit(self, call: Call) -> Reply:
        letters = self._admit(call, "w", f"{_BLOB}/write")
        listed = blob_xml.parse(call.body(blob_xml.MAX_XML_BYTES), "BlockList")
        if len(listed) > MAX_BLOCKS:
            raise Refused(400, "BlockListTooLong", "The block list may not contain so many blocks.")
        container, name = call.parts["container"], call.parts["blob"]
        with self._account.lock:
            before = self._before(call, letters)
            staged = self._account.uncommitted(container, name)
            if before is not None and any(one.tag == "Committed" for one in listed):
                raise Refused(501, "NotImplemented", "The mock commits uncommitted blocks only.")
            blocks = []
            for one in listed:
                block = staged.get(one.text or "")
                if block is None or one.tag == "Committed":
                    raise Refused(400, "InvalidBlockList", "The specified block list is invalid.")
                blocks.append((one.text or "", block.content))
            joined = self._account.joined([content for _, content in blocks])
            made = self._made(joined, before, _headers(call), _metadata(call))
            made.blocks = [(block, content.size) for block, content in blocks]
            self._account.put(container, name, made)
        return _written(made, {})

    def _blocks(self, call: Call) -> Reply:
        self._admit(call, "r", f"{_BLOB}/read")
        container, name = call.parts["container"], call.parts["blob"]
        asked = call.query.get("blocklisttype", "committed").lower()
        with self._account.lock:
            blob = self._account.container(container).blobs.get(name)
            staged = self._account.uncommitted(container, name)
        if blob is None and not staged:
            raise Refused(404, "BlobNotFound", "The specified blob does not exist.")
        kinds: dict[str, list[tuple[str, int]]] = {}
        if asked in {"committed", "all"}:
            kinds["CommittedBlocks"] = blob.blocks if blob else []
        if asked in {"uncommitted", "all"}:
            kinds["UncommittedBlocks"] = [
                (block, one.content.size) for block, one in staged.items()
            ]
        reply = _xml(blob_xml.block_list(dict(kinds)))
        if blob is not None:
            reply.headers["ETag"] = blob.etag
            reply.headers["x-ms-blob-content-length"] = str(blob.content.size)
        return reply

    def _set_metadata(self, call: Call) -> Reply:
        letters = self._admit(call, "w", f"{_BLOB}/write")
        with self._account.lock:
            self._account.blob(call.parts["container"], call.parts["blob"])
            before = self._before(call, letters)
            if before is None:  # it was looked for above
                raise conditions.not_met()
            made = replace(
                before,
                metadata=_metadata(call),
                etag=self._account.new_etag(),
                modified=self._account.clock(),
            )
            self._account.container(call.parts["container"]).blobs[call.parts["blob"]] = made
        return Reply(200, headers=_stamps(made))

    def _get(self, call: Call) -> Reply:
        self._admit(call, "r", f"{_BLOB}/read")
        with self._account.lock:
            blob = self._account.blob(call.parts["container"], call.parts["blob"])
            conditions.check_read(call, blob)
            asked = conditions.wanted(call, blob.content.size)
            file = self._account.open(blob.content)
        headers = _properties(blob)
        if asked is None:
            first, last = 0, blob.content.size - 1
        else:
            first, last = asked
            headers["Content-Range"] = f"bytes {first}-{last}/{blob.content.size}"
            if "Content-MD5" in headers:
                headers["x-ms-blob-content-md5"] = headers.pop("Content-MD5")
        headers["Content-Length"] = str(last - first + 1)

        def chunks() -> Iterator[bytes]:
            with file:
                file.seek(first)
                left = last - first + 1
                while left > 0 and (data := file.read(min(_CHUNK, left))):
                    left -= len(data)
                    yield data

        return Reply(200 if asked is None else 206, chunks(), headers)

    def _head(self, call: Call) -> Reply:
        self._admit(call, "r", f"{_BLOB}/read")
        blob = self._account.blob(call.parts["container"], call.parts["blob"])
        conditions.check_read(call, blob)
        headers = _properties(blob)
        headers["Content-Length"] = str(blob.content.size)
        return Reply(200, None, headers)

    def _delete(self, call: Call) -> Reply:
        self._admit(call, "d", f"{_BLOB}/delete")
        with self._account.lock:
            blob = self._account.blob(call.parts["container"], call.parts["blob"])
            conditions.check_write(call, blob)
            self._account.remove(call.parts["container"], call.parts["blob"])
        return Reply(202, headers={"x-ms-delete-type-permanent": "true"})


def _headers(call: Call) -> dict[str, str]:
    """Headers that a write sets for those who read."""
    found = {theirs: call.headers[ours] for ours, theirs in _SET.items() if ours in call.headers}
    if "Content-Type" not in found and call.headers.get("content-type"):
        found["Content-Type"] = call.headers["content-type"]
    return found


def _metadata(call: Call) -> dict[str, str]:
    start = "x-ms-meta-"
    return {
        name.removeprefix(start): value
        for name, value in call.headers.items()
        if name.startswith(start)
    }


def _stamps(blob: Blob | Container) -> dict[str, str]:
    return {"ETag": blob.etag, "Last-Modified": formatdate(blob.modified, usegmt=True)}


def _properties(blob: Blob) -> dict[str, str]:
    return {
        **blob.headers,
        **_stamps(blob),
        **{f"x-ms-meta-{name}": value for name, value in blob.metadata.items()},
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": "BlockBlob",
        "x-ms-creation-time": formatdate(blob.created, usegmt=True),
        "x-ms-lease-status": "unlocked",
        "x-ms-lease-state": "available",
        "x-ms-server-encrypted": "true",
    }


def _written(blob: Blob, headers: dict[str, str]) -> Reply:
    return Reply(201, headers={**_stamps(blob), "x-ms-request-server-encrypted": "true", **headers})


def _of(container: Container, status: int = 200) -> Reply:
    headers = _stamps(container)
    if container.public:
        headers["x-ms-blob-public-access"] = container.public
    return Reply(status, headers=headers)


def _xml(document: bytes) -> Reply:
    return Reply(200, document, {"Content-Type": "application/xml"})
