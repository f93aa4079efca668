"""Blob storage of the mock, by Azure's own client; and by Azurite, where that is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.storage.blob import (
    AccessPolicy,
    BlobBlock,
    BlobClient,
    BlobServiceClient,
    ContainerClient,
    ContentSettings,
)

from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.waiting import eventually
from edgefleet_azure.cloud.accounts import UNCOMMITTED_S
from edgefleet_azure.mock import AzureMock

# Azurite's account, which everybody knows
# (https://learn.microsoft.com/azure/storage/common/storage-use-azurite)
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
API_VERSION = "2024-11-04"  # a version that both speak


@dataclass(frozen=True)
class Account:
    url: str
    key: str


@pytest.fixture(params=["mock", "azurite"])
def account(
    request: pytest.FixtureRequest, cloud: AzureMock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Account]:
    if request.param == "mock":
        storage = cloud.stage.storage
        yield Account(f"{cloud.stage.url('blob')}/{storage.name}", storage.keys[0])
        return
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed")
    yield from _azurite(program, tmp_path_factory.mktemp("azurite"))


def _azurite(program: str, folder: Path) -> Iterator[Account]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [program, "--silent", "--location", str(folder), "--blobPort", str(port)]
    running = subprocess.Popen(command)
    try:
        connection = eventually(
            lambda: socket.create_connection(("127.0.0.1", port), 1), ignoring=OSError
        )
        connection.close()
        yield Account(f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}", AZURITE_KEY)
    finally:
        running.terminate()
        running.wait()


@pytest.fixture
def service(account: Account) -> Iterator[BlobServiceClient]:
    with BlobServiceClient(
        account.url, credential=account.key, api_version=API_VERSION, retry_total=0
    ) as found:
        yield found


@pytest.fixture
def container(service: BlobServiceClient) -> ContainerClient:
    return service.create_container(f"t-{uuid.uuid4().hex}")


@pytest.fixture
def blob(container: ContainerClient) -> BlobClient:
    return container.get_blob_client("a folder/ä b+c%2F.bin")


def _code(raised: pytest.ExceptionInfo[HttpResponseError]) -> tuple[int | None, str]:
    response: Any = raised.value.response
    return raised.value.status_code, response.headers.get("x-ms-error-code", "")


def test_a_blob_keeps_what_was_set_with_it(blob: BlobClient) -> None:
    blob.upload_blob(
        b"one",
        metadata={"who": "ada"},
        content_settings=ContentSettings(content_type="text/plain", cache_control="no-store"),
    )
    found = blob.download_blob()
    assert (found.readall(), found.properties.metadata) == (b"one", {"who": "ada"})
    settings = found.properties.content_settings
    assert (settings.content_type, settings.cache_control) == ("text/plain", "no-store")
    assert blob.get_blob_properties().size == 3


def test_an_empty_blob_is_read(blob: BlobClient) -> None:
    blob.upload_blob(b"")
    assert blob.download_blob().readall() == b""


def test_every_write_changes_the_etag(blob: BlobClient) -> None:
    tags = {blob.upload_blob(b"same", overwrite=True)["etag"] for _ in range(3)}
    assert len(tags) == 3
    assert blob.get_blob_properties().etag in tags


@pytest.mark.parametrize(
    "condition,there,answer",
    [
        ({"match_condition": MatchConditions.IfMissing}, True, (409, "BlobAlreadyExists")),
        ({"match_condition": MatchConditions.IfMissing}, False, None),
        ({"match_condition": MatchConditions.IfPresent}, False, (412, "ConditionNotMet")),
        ({"match_condition": MatchConditions.IfPresent}, True, None),
        (
            {"match_condition": MatchConditions.IfNotModified, "etag": '"0x1"'},
            True,
            (412, "ConditionNotMet"),
        ),
        (
            {"match_condition": MatchConditions.IfNotModified, "etag": '"0x1"'},
            False,
            (412, "ConditionNotMet"),
        ),
    ],
)
def test_a_write_is_conditional(
    blob: BlobClient,
    condition: dict[str, object],
    there: bool,  # noqa: FBT001 - a parameter of the test
    answer: tuple[int, str] | None,
) -> None:
    if there:
        blob.upload_blob(b"before")
    if answer is None:
        blob.upload_blob(b"after", overwrite=True, **condition)  # type: ignore[arg-type]
        assert blob.download_blob().readall() == b"after"
        return
    with pytest.raises(HttpResponseError) as raised:
        blob.upload_blob(b"after", overwrite=True, **condition)  # type: ignore[arg-type]
    assert _code(raised) == answer


def test_of_two_writes_with_one_etag_the_second_is_refused(blob: BlobClient) -> None:
    tag = blob.upload_blob(b"0")["etag"]
    blob.upload_blob(b"1", overwrite=True, etag=tag, match_condition=MatchConditions.IfNotModified)
    with pytest.raises(HttpResponseError) as raised:
        blob.upload_blob(
            b"2", overwrite=True, etag=tag, match_condition=MatchConditions.IfNotModified
        )
    assert raised.value.status_code == 412
    with pytest.raises(HttpResponseError) as raised:
        blob.delete_blob(etag=tag, match_condition=MatchConditions.IfNotModified)
    assert raised.value.status_code == 412


def test_a_read_is_conditional(blob: BlobClient) -> None:
    tag = blob.upload_blob(b"0")["etag"]
    with pytest.raises(HttpResponseError) as raised:
        blob.download_blob(etag=tag, match_condition=MatchConditions.IfModified)
    assert raised.value.status_code == 304
    with pytest.raises(HttpResponseError) as raised:
        blob.download_blob(etag='"0x1"', match_condition=MatchConditions.IfNotModified)
    assert raised.value.status_code == 412


@pytest.mark.parametrize("offset,length", [(0, 3), (2, 5), (9, 1), (3, None), (8, 100)])
def test_a_range_is_read(blob: BlobClient, offset: int, length: int | None) -> None:
    data = b"0123456789"
    blob.upload_blob(data)
    end = None if length is None else offset + length
    assert blob.download_blob(offset, length).readall() == data[offset:end]


def test_a_range_behind_the_end_is_refused(blob: BlobClient) -> None:
    blob.upload_blob(b"0123456789")
    with pytest.raises(HttpResponseError) as raised:
        blob.download_blob(10, 1)
    assert _code(raised) == (416, "InvalidRange")


def test_blocks_are_a_blob_when_they_are_committed(blob: BlobClient) -> None:
    for name, data in (("1", b"one"), ("2", b"two"), ("3", b"three")):
        blob.stage_block(name, data)
    with pytest.raises(ResourceNotFoundError):
        blob.get_blob_properties()
    committed, staged = blob.get_block_list("all")
    assert ([one.id for one in committed], sorted(one.id for one in staged)) == (
        [],
        ["1", "2", "3"],
    )
    blob.commit_block_list([BlobBlock("3"), BlobBlock("1")])
    assert blob.download_blob().readall() == b"threeone"
    committed, staged = blob.get_block_list("all")
    assert ([one.id for one in committed], staged) == (["3", "1"], [])


def test_a_block_that_nobody_staged_is_not_committed(blob: BlobClient) -> None:
    blob.stage_block("1", b"one")
    with pytest.raises(HttpResponseError) as raised:
        blob.commit_block_list([BlobBlock("1"), BlobBlock("2")])
    assert _code(raised) == (400, "InvalidBlockList")


def test_ids_of_blocks_have_one_length(blob: BlobClient) -> None:
    blob.stage_block("1", b"one")
    with pytest.raises(HttpResponseError) as raised:
        blob.stage_block("twenty-two", b"two")
    assert raised.value.status_code == 400


def test_a_block_staged_again_is_the_newer(blob: BlobClient) -> None:
    blob.stage_block("1", b"one")
    blob.stage_block("1", b"other")
    blob.commit_block_list([BlobBlock("1")])
    assert blob.download_blob().readall() == b"other"


def test_a_whole_blob_drops_blocks(blob: BlobClient) -> None:
    blob.stage_block("1", b"one")
    blob.upload_blob(b"whole")
    with pytest.raises(HttpResponseError) as raised:
        blob.commit_block_list([BlobBlock("1")])
    assert raised.value.status_code == 400


def test_a_commit_is_conditional(blob: BlobClient) -> None:
    blob.upload_blob(b"there")
    blob.stage_block("1", b"one")
    with pytest.raises(ResourceExistsError):
        blob.commit_block_list([BlobBlock("1")], match_condition=MatchConditions.IfMissing)
    assert blob.download_blob().readall() == b"there"


def test_bytes_that_are_not_as_summed_up_are_refused(blob: BlobClient, account: Account) -> None:
    with pytest.raises(HttpResponseError) as raised:
        blob.upload_blob(
            b"other", headers={"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
        )  # that of no bytes
    assert _code(raised) == (400, "Md5Mismatch")


def test_a_listing_has_prefixes_pages_and_markers(container: ContainerClient) -> None:
    names = ["a/1", "a/2", "b/1", "c", "d"]
    for name in names:
        container.upload_blob(name, b"x", metadata={"n": name[0]})
    assert [blob.name for blob in container.list_blobs()] == names
    assert list(container.list_blob_names(name_starts_with="a/")) == ["a/1", "a/2"]
    assert [one.name for one in container.walk_blobs()] == ["a/", "b/", "c", "d"]
    pages = [
        [blob.name for blob in page] for page in container.list_blobs(results_per_page=2).by_page()
    ]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sum(pages, []) == names  # noqa: RUF017 - three short lists
    (found, *_) = container.list_blobs(include=["metadata"])
    assert found.metadata == {"n": "a"}


def test_what_is_gone_is_not_found(blob: BlobClient, container: ContainerClient) -> None:
    blob.upload_blob(b"x")
    blob.delete_blob()
    for attempt in (blob.get_blob_properties, blob.download_blob, blob.delete_blob):
        with pytest.raises(ResourceNotFoundError) as raised:
            attempt()
        assert _code(raised) == (404, "BlobNotFound")
    container.delete_container()
    with pytest.raises(ResourceNotFoundError) as raised:
        blob.upload_blob(b"x")
    assert raised.value.status_code == 404


def test_a_container_is_made_once(container: ContainerClient) -> None:
    with pytest.raises(ResourceExistsError):
        container.create_container()


@pytest.mark.parametrize("name", ["Capitals", "two--hyphens", "ab", "-a-b"])
def test_a_container_has_a_proper_name(service: BlobServiceClient, name: str) -> None:
    with pytest.raises(HttpResponseError) as raised:
        service.create_container(name)
    assert raised.value.status_code == 400


def test_policies_are_kept_and_at_most_five(container: ContainerClient) -> None:
    policies = {
        f"p{n}": AccessPolicy(permission="r", expiry="2099-01-01T00:00:00Z") for n in range(5)
    }
    container.set_container_access_policy(policies)
    found = container.get_container_access_policy()["signed_identifiers"]
    assert [one.id for one in found] == list(policies)
    assert {one.access_policy.permission for one in found} == {"r"}
    one_more = {**policies, "p5": AccessPolicy(permission="r", expiry="2099-01-01T00:00:00Z")}
    with pytest.raises((HttpResponseError, ValueError)):
        container.set_container_access_policy(one_more)


# Ours only: what Azurite does otherwise, or only a mock can show


@pytest.fixture
def own(cloud: AzureMock) -> Iterator[ContainerClient]:
    """A container of the mock."""
    storage = cloud.stage.storage
    url = f"{cloud.stage.url('blob')}/{storage.name}"
    with BlobServiceClient(
        url, credential=storage.keys[0], retry_total=0, max_single_get_size=1 << 20
    ) as service:
        yield service.create_container(f"t-{uuid.uuid4().hex}")


def test_a_blob_of_another_type_is_refused(own: ContainerClient) -> None:
    with pytest.raises(HttpResponseError) as raised:
        own.upload_blob("x", b"x", headers={"x-ms-blob-type": "AppendBlob"})
    assert _code(raised) == (400, "InvalidHeaderValue")


def test_blocks_are_forgotten_after_a_week(
    cloud: AzureMock, own: ContainerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = own.get_blob_client("b")
    now = [1_800_000_000.0]
    monkeypatch.setattr(cloud.stage.storage, "clock", lambda: now[0])
    blob.stage_block("1", b"one")
    now[0] += UNCOMMITTED_S - 1
    assert [one.id for one in blob.get_block_list("uncommitted")[1]] == ["1"]
    now[0] += 2
    with pytest.raises(ResourceNotFoundError):
        blob.get_block_list("uncommitted")


def test_who_reads_reads_one_state_of_a_blob(own: ContainerClient) -> None:
    blob = own.get_blob_client("b")
    size = 3 << 20
    blob.upload_blob(b"1" * size)
    reading = blob.download_blob()
    blob.upload_blob(b"2" * size, overwrite=True)
    with pytest.raises(HttpResponseError) as raised:
        reading.readall()
    assert raised.value.status_code == 412


def test_a_public_container_is_read_by_anybody_and_written_by_nobody(
    cloud: AzureMock, own: ContainerClient
) -> None:
    own.upload_blob("b", b"x")
    with BlobClient.from_blob_url(own.get_blob_client("b").url, retry_total=0) as anybody:
        with pytest.raises(HttpResponseError) as raised:
            anybody.download_blob()
        assert _code(raised) == (401, "NoAuthenticationInformation")
        own.set_container_access_policy({}, public_access="blob")
        assert anybody.download_blob().readall() == b"x"
        with pytest.raises(HttpResponseError) as raised:
            anybody.upload_blob(b"y", overwrite=True)
        assert raised.value.status_code == 401


def test_what_the_mock_does_not_know_is_refused(own: ContainerClient) -> None:
    blob = own.get_blob_client("b")
    blob.upload_blob(b"x")
    for attempt in (blob.create_snapshot, blob.acquire_lease):
        with pytest.raises(HttpResponseError) as raised:
            attempt()
        assert raised.value.status_code in {404, 405}


def test_a_request_that_is_cut_leaves_nothing(cloud: AzureMock, own: ContainerClient) -> None:
    cloud.rules.add(Rule("blob.PutBlob", cut_request_at=1000))
    with pytest.raises(AzureError):
        own.upload_blob("b", bytes(1 << 20))
    assert list(own.list_blob_names()) == []
