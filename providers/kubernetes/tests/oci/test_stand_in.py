"""The stand-in refuses what the real registry refuses, and what the specification says besides."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from edgefleet.protocol.bundle import INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE
from edgefleet.protocol.digest import digest_of
from edgefleet.testing.cloud.oci import Kind, OciRegistry
from edgefleet_kubernetes.cloud.oci_registry import DockerRegistry, installed, registry_in

NOWHERE = digest_of(b"nowhere")
CONFIG = b"{}"
DATA = bytes(range(256)) * 40
BYTES = {"Content-Type": "application/octet-stream"}
Start = Callable[..., OciRegistry]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.data)["errors"][0]["code"]) if self.data else ""


def call(
    host: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    parts = urlsplit(path)
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, body, dict(headers or {}))
        reply = connection.getresponse()
        try:
            data = reply.read()
        except http.client.IncompleteRead as error:  # see `edgefleet_kubernetes.oci`
            data = error.partial
        return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, data)
    finally:
        connection.close()


def push(host: str, data: bytes, name: str = "a/b") -> str:
    at = call(host, "POST", f"/v2/{name}/blobs/uploads/").headers["location"]
    mark = "&" if "?" in at else "?"
    done = call(host, "PUT", f"{at}{mark}digest={digest_of(data)}", data, BYTES)
    assert done.status == 201
    return digest_of(data)


def manifest(**changes: object) -> bytes:
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(CONFIG)}
    told = {"schemaVersion": 2, "mediaType": MANIFEST_MEDIA_TYPE, "layers": []}
    return json.dumps({**told, "config": {**config, "size": 2}, **changes}).encode()


def put(host: str, reference: str, data: bytes, media_type: str = MANIFEST_MEDIA_TYPE) -> Answer:
    path = f"/v2/a/b/manifests/{reference}"
    return call(host, "PUT", path, data, {"Content-Type": media_type})


@pytest.fixture(params=["stand-in", "docker-registry"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The rules below hold for either."""
    real = request.param == "docker-registry"
    if real and not installed():
        pytest.skip("docker-registry is not installed here")
    registry = registry_in(tmp_path / "registry", real=real)
    registry.start()
    push(registry.host, CONFIG)
    yield registry.host
    registry.stop()


def test_what_was_never_pushed_is_unknown(host: str) -> None:
    assert call(host, "GET", f"/v2/a/b/blobs/{NOWHERE}").code == "BLOB_UNKNOWN"
    assert call(host, "GET", "/v2/a/b/manifests/none").code == "MANIFEST_UNKNOWN"
    assert call(host, "GET", "/v2/never/tags/list").code == "NAME_UNKNOWN"
    assert call(host, "HEAD", f"/v2/a/b/blobs/{NOWHERE}").status == 404


def test_an_upload_that_was_never_begun_is_refused(host: str) -> None:
    upload = "/v2/a/b/blobs/uploads/00000000-0000-4000-8000-000000000000"
    assert call(host, "PATCH", upload, b"x", BYTES).status == 404
    assert call(host, "GET", upload).status == 404


def test_another_digest_than_the_bytes_have_is_refused(host: str) -> None:
    at = call(host, "POST", "/v2/a/b/blobs/uploads/").headers["location"]
    mark = "&" if "?" in at else "?"
    answer = call(host, "PUT", f"{at}{mark}digest={NOWHERE}", b"something", BYTES)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert call(host, "HEAD", f"/v2/a/b/blobs/{NOWHERE}").status == 404


def test_a_manifest_names_nothing_that_is_not_there(host: str) -> None:
    layer = {"mediaType": "application/vnd.cncf.model.weight.v1.raw", "digest": NOWHERE, "size": 1}
    answer = put(host, "tag", manifest(layers=[layer]))
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_an_index_names_no_manifest_that_is_not_there(host: str) -> None:
    one = {"mediaType": MANIFEST_MEDIA_TYPE, "digest": NOWHERE, "size": 1}
    index = {"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": [one]}
    answer = put(host, "tag", json.dumps(index).encode(), INDEX_MEDIA_TYPE)
    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.parametrize(
    "data", [b"no json", b"{}", json.dumps({"schemaVersion": 1}).encode()], ids=["text", "{}", "1"]
)
def test_what_is_no_manifest_is_refused(host: str, data: bytes) -> None:
    # distribution/distribution 2.8 says 500 of a schema that it doesn't know.
    assert put(host, "tag", data).status in {400, 500}


def test_a_manifest_under_another_digest_is_refused(host: str) -> None:
    answer = put(host, NOWHERE, manifest())
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_a_manifest_reads_back_by_tag_and_digest_as_it_was(host: str) -> None:
    data = manifest(annotations={"b": "1", "a": "2"})
    assert put(host, "tag", data).status == 201
    for reference in ("tag", digest_of(data)):
        read = call(
            host, "GET", f"/v2/a/b/manifests/{reference}", headers={"Accept": MANIFEST_MEDIA_TYPE}
        )
        assert read.data == data
        assert read.headers["docker-content-digest"] == digest_of(data)


def test_ranges_are_answered_and_those_beyond_the_end_refused(host: str) -> None:
    path = f"/v2/a/b/blobs/{push(host, DATA)}"
    part = call(host, "GET", path, headers={"Range": "bytes=10000-"})
    assert part.status == 206
    assert part.headers["content-range"] == f"bytes 10000-{len(DATA) - 1}/{len(DATA)}"
    assert part.data == DATA[10000:]
    assert call(host, "GET", path, headers={"Range": f"bytes={len(DATA)}-"}).status == 416


def test_a_mount_takes_what_the_other_repository_has(host: str) -> None:
    digest = push(host, DATA, "c/d")
    begin = "/v2/a/b/blobs/uploads/"
    assert call(host, "POST", f"{begin}?mount={NOWHERE}&from=c/d").status == 202
    assert call(host, "HEAD", f"/v2/a/b/blobs/{digest}").status == 404
    assert call(host, "POST", f"{begin}?mount={digest}&from=c/d").status == 201
    assert call(host, "HEAD", f"/v2/a/b/blobs/{digest}").status == 200


def test_an_upload_tells_how_far_it_came(host: str) -> None:
    at = call(host, "POST", "/v2/a/b/blobs/uploads/").headers["location"]
    sent = call(host, "PATCH", at, DATA, {**BYTES, "Content-Range": f"0-{len(DATA) - 1}"})
    assert (sent.status, sent.headers["range"]) == (202, f"0-{len(DATA) - 1}")
    status = call(host, "GET", sent.headers["location"])
    assert (status.status, status.headers["range"]) == (204, f"0-{len(DATA) - 1}")


def tags(host: str) -> list[str]:
    for tag in ("b", "c", "a"):
        assert put(host, tag, manifest()).status == 201
    found: list[str] = json.loads(call(host, "GET", "/v2/a/b/tags/list").data)["tags"]
    return found


def test_tags_are_listed(host: str) -> None:
    # distribution/distribution 2.8 lists them as its file system does, in any order.
    assert sorted(tags(host)) == ["a", "b", "c"]


# What distribution/distribution 2.8 doesn't do, by the specification


def test_tags_are_listed_in_lexical_order(stand_in: Start) -> None:
    host = stand_in().host
    push(host, CONFIG)
    assert tags(host) == ["a", "b", "c"]


def test_a_chunk_out_of_order_is_refused(stand_in: Start) -> None:
    host = stand_in().host
    at = call(host, "POST", "/v2/a/b/blobs/uploads/").headers["location"]
    call(host, "PATCH", at, b"0123", {**BYTES, "Content-Range": "0-3"})
    answer = call(host, "PATCH", at, b"89", {**BYTES, "Content-Range": "8-9"})
    assert (answer.status, answer.headers["range"]) == (416, "0-3")


@pytest.mark.parametrize("name", ["Large", "a//b", "-a"])
def test_bad_names_are_refused(stand_in: Start, name: str) -> None:
    assert call(stand_in().host, "POST", f"/v2/{name}/blobs/uploads/").code == "NAME_INVALID"


@pytest.mark.parametrize("tag", [".a", "-a", 129 * "a", "a%20b"])
def test_bad_tags_are_refused(stand_in: Start, tag: str) -> None:
    host = stand_in().host
    push(host, CONFIG)
    assert put(host, tag, manifest()).code == "MANIFEST_INVALID"


def test_what_refers_to_a_manifest_is_listed_by_its_type(stand_in: Start) -> None:
    host = stand_in().host
    push(host, CONFIG)
    subject = {"mediaType": MANIFEST_MEDIA_TYPE, "digest": NOWHERE, "size": 1}
    for kind in ("a/x", "a/y"):
        told = put(host, kind[-1], manifest(subject=subject, artifactType=kind))
        assert told.headers["oci-subject"] == NOWHERE
    every = call(host, "GET", f"/v2/a/b/referrers/{NOWHERE}")
    assert len(json.loads(every.data)["manifests"]) == 2
    some = call(host, "GET", f"/v2/a/b/referrers/{NOWHERE}?artifactType=a/x")
    assert [one["artifactType"] for one in json.loads(some.data)["manifests"]] == ["a/x"]
    assert some.headers["oci-filters-applied"] == "artifactType"


def test_a_registry_without_referrers_knows_no_such_page(stand_in: Start) -> None:
    host = stand_in(kind=Kind(referrers=False)).host
    assert call(host, "GET", f"/v2/a/b/referrers/{NOWHERE}").status == 404


def test_content_is_there_after_a_restart(tmp_path: Path) -> None:
    with OciRegistry(tmp_path / "registry") as first:
        digest = push(first.host, CONFIG)
        put(first.host, "tag", manifest())
        kept = json.loads(json.dumps(first.content.kept()))
    second = OciRegistry(tmp_path / "registry")
    second.content.restore(kept)
    with second:
        assert call(second.host, "GET", f"/v2/a/b/blobs/{digest}").data == CONFIG
        assert call(second.host, "GET", "/v2/a/b/manifests/tag").data == manifest()


def test_a_real_registry_whose_port_somebody_has_takes_another(tmp_path: Path) -> None:
    if not installed():
        pytest.skip("docker-registry is not installed here")
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        port = theirs.getsockname()[1]
        registry = DockerRegistry(tmp_path)
        registry.start(port)
        try:
            assert registry.port != port
            assert call(registry.host, "GET", "/v2/").status == 200
        finally:
            registry.stop()


def test_a_real_registry_that_cannot_start_is_told(tmp_path: Path) -> None:
    if not installed():
        pytest.skip("docker-registry is not installed here")
    (tmp_path / "content").write_text("in the way")
    with pytest.raises(OSError, match="content"):
        DockerRegistry(tmp_path).start()
