"""Blobs in blocks: interrupted, resumed, raced, refused."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from edgefleet.errors import (
    AccessDeniedError,
    IntegrityError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.interfaces.sending import SENDERS
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit.samples import Content, noise
from edgefleet.testing.waiting import eventually
from edgefleet_azure.blobs import AzureBlobStore
from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.calls import throttled
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import MIB, AzureSettings

BLOCKS = 4
DATA = noise((BLOCKS - 1) * MIB + 1234, 7)  # three whole blocks and a rest
DESCRIPTOR = Descriptor(media_type="", digest=digest_of(DATA), size=len(DATA))
BUSY = Refused(503, "ServerBusy", "The server is busy.", headers={"Retry-After": "0"})


@pytest.fixture
def settings(make_settings: Callable[..., AzureSettings]) -> AzureSettings:
    return make_settings(block_mib=1, max_attempts=1)


@pytest.fixture
def blobs(clients: Clients, settings: AzureSettings) -> AzureBlobStore:
    return AzureBlobStore(clients, settings)


@pytest.fixture
def patient(
    make_clients: Callable[[AzureSettings], Clients], settings: AzureSettings
) -> AzureBlobStore:
    """A store that repeats calls, of the same fleet."""
    again = settings.model_copy(update={"max_attempts": 4})
    return AzureBlobStore(make_clients(again), again)


def _source() -> BinaryIO:
    return io.BytesIO(DATA)


def _count(cloud: AzureMock, operation: str, settings: AzureSettings, status: str = "201") -> int:
    lines = [line.split(" ") for line in cloud.seen()]
    return sum(
        line[1] == f"blob.{operation}"
        and line[3] == status
        and f"/{settings.container('models')}/" in line[2]
        for line in lines
    )


def _staged(clients: Clients) -> int:
    blob = clients.container("models").get_blob_client(blob_path(DESCRIPTOR.digest))
    return len(blob.get_block_list("all")[1])


def _read(blobs: AzureBlobStore, offset: int = 0) -> Content:
    with blobs.open(DESCRIPTOR.digest, offset=offset) as stream:
        return Content.of(b"".join(iter(lambda: stream.read(MIB), b"")))


def test_a_large_blob_goes_in_blocks_and_reads_back(
    cloud: AzureMock, blobs: AzureBlobStore, clients: Clients, settings: AzureSettings
) -> None:
    steps: list[int] = []
    assert blobs.put(DESCRIPTOR, _source, progress=steps.append)
    assert (sum(steps), len(steps)) == (len(DATA), BLOCKS)
    assert _count(cloud, "PutBlock", settings) == BLOCKS
    assert blobs.size(DESCRIPTOR.digest) == len(DATA)
    assert _read(blobs) == Content.of(DATA)
    assert _staged(clients) == 0


def test_an_upload_whose_connection_was_lost_goes_on_with_what_is_missing(
    cloud: AzureMock, blobs: AzureBlobStore, clients: Clients, settings: AzureSettings
) -> None:
    cloud.rules.add(Rule("blob.PutBlock", skip=2, cut_request_at=MIB // 2))
    with pytest.raises(UnavailableError, match="repeat the call"):
        blobs.put(DESCRIPTOR, _source)
    assert blobs.size(DESCRIPTOR.digest) is None
    there = _count(cloud, "PutBlock", settings)
    assert 2 <= there < BLOCKS
    assert _staged(clients) == there

    steps: list[int] = []
    assert blobs.put(DESCRIPTOR, _source, progress=steps.append)
    assert sum(steps) == len(DATA)
    assert _count(cloud, "PutBlock", settings) == BLOCKS
    assert _read(blobs) == Content.of(DATA)


def test_an_operator_that_is_killed_leaves_nothing_visible_and_can_be_followed(
    cloud: AzureMock, blobs: AzureBlobStore, settings: AzureSettings, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(DATA)
    work = f"""
import os, signal, sys
from edgefleet.protocol.bundle import Descriptor
from edgefleet_azure.blobs import AzureBlobStore
from edgefleet_azure.clients import Clients
from edgefleet_azure.settings import AzureSettings
settings = AzureSettings.model_validate_json(sys.argv[1])
told = []
def die(count):
    told.append(count)
    if len(told) == {BLOCKS}:
        os.kill(os.getpid(), signal.SIGKILL)
descriptor = Descriptor(media_type="", digest={DESCRIPTOR.digest!r}, size={len(DATA)})
AzureBlobStore(Clients(settings), settings).put(
    descriptor, lambda: open("blob", "rb"), progress=die
)
"""
    command = [sys.executable, "-c", work, settings.model_dump_json()]
    done = subprocess.run(command, cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    assert blobs.size(DESCRIPTOR.digest) is None
    assert blobs.put(DESCRIPTOR, _source)
    assert _count(cloud, "PutBlockList", settings) == 1
    assert _read(blobs) == Content.of(DATA)


def test_a_block_that_holds_other_bytes_is_not_taken_for_ours(
    blobs: AzureBlobStore, clients: Clients
) -> None:
    blob = clients.container("models").get_blob_client(blob_path(DESCRIPTOR.digest))
    blob.stage_block("a" * 48, noise(MIB, 8))
    blobs.put(DESCRIPTOR, _source)
    assert _read(blobs) == Content.of(DATA)


def test_an_upload_whose_blocks_were_dropped_is_begun_anew(
    cloud: AzureMock, blobs: AzureBlobStore, clients: Clients, settings: AzureSettings
) -> None:
    blob = clients.container("models").get_blob_client(blob_path(DESCRIPTOR.digest))
    opened: list[BinaryIO] = []
    steps: list[int] = []

    def opening() -> BinaryIO:
        opened.append(_source())
        return opened[-1]

    def progress(count: int) -> None:
        steps.append(count)
        if len(steps) == BLOCKS:  # every block was begun
            eventually(lambda: _count(cloud, "PutBlock", settings) >= BLOCKS - 1)
            blob.upload_blob(b"half")
            blob.delete_blob()

    assert blobs.put(DESCRIPTOR, opening, progress=progress)
    assert len(opened) == 2
    assert sum(steps) == len(DATA)
    assert _read(blobs) == Content.of(DATA)


def test_a_blob_that_another_operator_stored_meanwhile_is_left_as_it_is(
    blobs: AzureBlobStore, clients: Clients
) -> None:
    blob = clients.container("models").get_blob_client(blob_path(DESCRIPTOR.digest))

    def overtaken() -> BinaryIO:
        blob.upload_blob(DATA, max_concurrency=1)
        return _source()

    blobs.put(DESCRIPTOR, overtaken)
    tags = {blob.get_blob_properties().etag}
    blobs.put(DESCRIPTOR, _source)
    assert tags == {blob.get_blob_properties().etag}


@pytest.mark.parametrize("data", [DATA, b"small"], ids=["blocks", "whole"])
def test_what_somebody_else_wrote_in_a_blobs_place_is_told(
    data: bytes, blobs: AzureBlobStore, clients: Clients, settings: AzureSettings
) -> None:
    descriptor = Descriptor(media_type="", digest=digest_of(data), size=len(data))
    clients.container("models").upload_blob(blob_path(descriptor.digest), b"half")
    with pytest.raises(IntegrityError, match=f"delete {settings.models_url}/blobs/sha256/"):
        blobs.put(descriptor, lambda: io.BytesIO(data))


def test_wrong_content_is_never_committed(
    cloud: AzureMock, blobs: AzureBlobStore, settings: AzureSettings
) -> None:
    with pytest.raises(IntegrityError):
        blobs.put(DESCRIPTOR, lambda: io.BytesIO(DATA[:-1] + b"?"))
    assert blobs.size(DESCRIPTOR.digest) is None
    assert _count(cloud, "PutBlockList", settings) == 0


def test_reading_goes_on_where_the_connection_was_lost(
    cloud: AzureMock, blobs: AzureBlobStore
) -> None:
    blobs.put(DESCRIPTOR, _source)
    cloud.rules.add(Rule("blob.GetBlob", cut_answer_at=MIB))
    cloud.rules.add(Rule("blob.GetBlob", cut_answer_at=MIB // 2))
    assert _read(blobs, 10) == Content.of(DATA[10:])


def test_a_blob_that_is_replaced_while_it_is_read_is_told(
    cloud: AzureMock, blobs: AzureBlobStore, clients: Clients
) -> None:
    blobs.put(DESCRIPTOR, _source)
    cloud.rules.add(Rule("blob.GetBlob", cut_answer_at=MIB))
    with blobs.open(DESCRIPTOR.digest) as stream:
        stream.read(1)
        clients.container("models").upload_blob(
            blob_path(DESCRIPTOR.digest), noise(len(DATA), 1), overwrite=True
        )
        with pytest.raises(IntegrityError, match="replaced"):
            list(iter(lambda: stream.read(MIB), b""))


def test_a_connection_that_is_lost_again_and_again_is_told(
    cloud: AzureMock, blobs: AzureBlobStore
) -> None:
    blobs.put(DESCRIPTOR, _source)
    cloud.rules.add(Rule("blob.GetBlob", times=None, cut_answer_at=0))
    with (
        pytest.raises(UnavailableError, match="repeat the call"),
        blobs.open(DESCRIPTOR.digest) as stream,
    ):
        stream.read(MIB)


def test_the_source_is_read_no_further_ahead_than_memory_allows(
    cloud: AzureMock, blobs: AzureBlobStore, settings: AzureSettings
) -> None:
    block, blocks = MIB, 3 * SENDERS
    data = bytes(block) * blocks
    ahead: list[int] = []

    class Watched(io.BytesIO):
        def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
            ahead.append(self.tell() - block * _count(cloud, "PutBlock", settings))
            return super().readinto(buffer)

    descriptor = Descriptor(media_type="", digest=digest_of(data), size=len(data))
    blobs.put(descriptor, lambda: Watched(data))
    assert max(ahead) <= (SENDERS + 2) * block


@pytest.mark.parametrize(
    "fault", [BUSY, throttled(0), throttled(1)], ids=["503", "429", "429 in a second"]
)
def test_what_storage_answers_later_is_sent_and_read_later(
    cloud: AzureMock, patient: AzureBlobStore, settings: AzureSettings, fault: Refused
) -> None:
    for operation in ("PutBlock", "PutBlockList", "GetBlob"):
        cloud.rules.add(Rule(f"blob.{operation}", fault=fault))
    patient.put(DESCRIPTOR, _source)
    assert _read(patient) == Content.of(DATA)
    for operation in ("PutBlock", "PutBlockList", "GetBlob"):
        assert _count(cloud, operation, settings, str(fault.status)) == 1


def test_storage_that_stays_busy_is_told_with_how_long_to_wait(
    cloud: AzureMock, blobs: AzureBlobStore
) -> None:
    cloud.rules.add(Rule("blob.PutBlock", times=None, fault=throttled(7)))
    with pytest.raises(ThrottledError) as raised:
        blobs.put(DESCRIPTOR, _source)
    assert raised.value.retry_after_s == 7


def test_a_wait_that_is_too_long_is_told_at_once(
    cloud: AzureMock, patient: AzureBlobStore, settings: AzureSettings
) -> None:
    cloud.rules.add(Rule("blob.GetBlobProperties", times=None, fault=throttled(3600)))
    with pytest.raises(ThrottledError, match="wait") as raised:
        patient.size(DESCRIPTOR.digest)
    assert raised.value.retry_after_s == 3600
    assert _count(cloud, "GetBlobProperties", settings, "429") == 1


def test_a_commit_whose_answer_was_lost_is_found_done(
    cloud: AzureMock, patient: AzureBlobStore
) -> None:
    cloud.rules.add(Rule("blob.PutBlockList", cut_answer_at=0))
    patient.put(DESCRIPTOR, _source)
    assert _read(patient) == Content.of(DATA)


def test_who_may_only_read_is_told_the_role_that_is_missing(
    cloud: AzureMock,
    blobs: AzureBlobStore,
    make_clients: Callable[[AzureSettings], Clients],
    settings: AzureSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blobs.put(DESCRIPTOR, _source)
    monkeypatch.setenv("AZURE_CLIENT_ID", cloud.add_user("ada", ["Storage Blob Data Reader"]))
    reader = AzureBlobStore(make_clients(settings), settings)
    assert _read(reader) == Content.of(DATA)
    with pytest.raises(AccessDeniedError, match="Storage Blob Data Contributor") as raised:
        reader.put_bytes(b"other", "text/plain")
    assert "az account show" in str(raised.value)


def test_a_container_that_is_not_there_is_told_with_what_makes_it(
    make_settings: Callable[..., AzureSettings], make_clients: Callable[[AzureSettings], Clients]
) -> None:
    settings = make_settings().model_copy(update={"prefix": "nobody-made-it"})
    with pytest.raises(NotFoundError, match="edgefleet install"):
        AzureBlobStore(make_clients(settings), settings).size(DESCRIPTOR.digest)
