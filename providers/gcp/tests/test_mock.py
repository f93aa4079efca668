"""The mock refuses what Cloud Storage and Pub/Sub refuse, and the bare emulator lets pass."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from google.api_core.exceptions import GoogleAPICallError, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from edgefleet_gcp.clients import Clients, pubsub_url, storage_url
from edgefleet_gcp.cloud.emulator import Emulator
from edgefleet_gcp.cloud.sessions import QUANTUM
from edgefleet_gcp.mock import BUCKET_NAME, PROJECT, GcpMock
from edgefleet_gcp.settings import GcpSettings


@pytest.fixture
def upload(clients: Clients) -> Callable[..., str]:
    """Begins a resumable upload and gives its address."""

    def begin(name: str) -> str:
        address: str = clients.bucket.blob(name).create_resumable_upload_session(checksum=None)
        return address

    return begin


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Any]:
    """A bucket of the emulator, with nothing in front of it."""
    emulator = Emulator(tmp_path / "bare")
    emulator.start()
    emulator.create_bucket("bare-bucket")
    client: Any = storage.Client(
        project=PROJECT,
        credentials=_nobody(),
        client_options={"api_endpoint": f"http://127.0.0.1:{emulator._port}"},
    )
    yield client.bucket("bare-bucket")
    client.close()
    emulator.stop()


_nobody: Any = AnonymousCredentials  # it has no types


def _write_and_delete_against_preconditions(bucket: Any) -> list[str]:
    """What is let pass that must be refused."""
    passed = []
    bucket.blob("doc").upload_from_string(b"1")
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: bucket.blob("doc").upload_from_string(b"2", if_generation_match=0),
        "replace": lambda: bucket.blob("doc").upload_from_string(b"3", if_generation_match=7),
        "read": lambda: bucket.blob("doc").download_as_bytes(if_generation_match=7),
        "delete": lambda: bucket.blob("doc").delete(if_generation_match=7),
    }
    for name, call in calls.items():
        try:
            call()
        except PreconditionFailed:
            continue
        passed.append(name)
    return passed


def test_the_bare_emulator_ignores_every_precondition(bare: Any) -> None:
    assert _write_and_delete_against_preconditions(bare) == ["create", "replace", "read", "delete"]


def test_the_mock_refuses_what_its_preconditions_do_not_allow(clients: Clients) -> None:
    assert _write_and_delete_against_preconditions(clients.bucket) == []
    assert clients.bucket.blob("doc").download_as_bytes() == b"1"


def test_nobody_calls_without_a_token_and_none_with_an_old_one(
    cloud: GcpMock, settings: GcpSettings
) -> None:
    url = f"{storage_url()}/storage/v1/b/{settings.bucket}/o"
    trusted = cloud.environment["REQUESTS_CA_BUNDLE"]
    assert requests.get(url, timeout=60, verify=trusted).status_code == 401
    account = cloud.stage.identities.get("operator")
    assert account is not None
    for lasts_s, status in ((60.0, 200), (-1.0, 401)):
        token = cloud.stage.identities.token(account, lasts_s=lasts_s)["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert requests.get(url, headers=headers, timeout=60, verify=trusted).status_code == status


def test_a_condition_on_a_folder_reaches_no_other_folder(
    cloud: GcpMock,
    clients: Clients,
    settings: GcpSettings,
    make_clients: Callable[[GcpSettings], Clients],
    become: Callable[[str], None],
) -> None:
    for name in ("a/doc", "ab/doc"):
        clients.bucket.blob(name).upload_from_string(b"1")
    cloud.add_account("folder-a", {"bucket": ["storage.objects.get"]}, folder="a")
    become("folder-a")
    bucket = make_clients(settings).bucket
    assert bucket.blob("a/doc").download_as_bytes() == b"1"
    with pytest.raises(GoogleAPICallError, match=r"storage\.objects\.get access"):
        bucket.blob("ab/doc").download_as_bytes()


def test_whoever_may_create_only_replaces_nothing(
    cloud: GcpMock,
    settings: GcpSettings,
    make_clients: Callable[[GcpSettings], Clients],
    become: Callable[[str], None],
) -> None:
    cloud.add_account("creator", {"bucket": ["storage.objects.create"]})
    become("creator")
    blob = make_clients(settings).bucket.blob(f"{settings.prefix}/new")
    blob.upload_from_string(b"1")
    with pytest.raises(GoogleAPICallError, match=r"storage\.objects\.delete access"):
        blob.upload_from_string(b"2")


@pytest.mark.parametrize(
    "told, size, status",
    [
        ("bytes 0-262143/*", QUANTUM, 308),
        ("bytes 0-99/*", 100, 400),  # no multiple of 256 KiB, and not the last
        ("bytes 0-99/100", 100, 200),
        ("bytes 262144-524287/*", QUANTUM, 400),  # a gap
        ("bytes 0-99/100", 99, 400),
        ("bytes 0-/100", 100, 400),
        ("bytes */100", 0, 308),
    ],
)
def test_a_chunk_keeps_to_the_rules_or_is_refused(
    clients: Clients, upload: Callable[..., str], told: str, size: int, status: int
) -> None:
    address = upload(f"chunk-{told}-{size}".replace("/", "-"))
    if status == 400:
        with pytest.raises(GoogleAPICallError) as raised:
            clients.call("PUT", address, data=bytes(size), headers={"Content-Range": told})
        assert raised.value.code == 400
    else:
        answer = clients.call("PUT", address, data=bytes(size), headers={"Content-Range": told})
        assert answer.status_code == status


def test_bytes_that_are_there_already_are_passed_over(
    clients: Clients, upload: Callable[..., str]
) -> None:
    address, data = upload("overlap"), bytes(QUANTUM) + b"rest"
    headers = {"Content-Range": f"bytes 0-{QUANTUM - 1}/{len(data)}"}
    answer = clients.call("PUT", address, data=data[:QUANTUM], headers=headers)
    assert answer.headers["Range"] == f"bytes=0-{QUANTUM - 1}"
    headers = {"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"}
    clients.call("PUT", address, data=data, headers=headers)
    assert clients.bucket.get_blob("overlap").size == len(data)


def test_a_session_needs_no_token_and_is_over_when_it_is_ended(
    cloud: GcpMock, upload: Callable[..., str]
) -> None:
    address, trusted = upload("ended"), cloud.environment["REQUESTS_CA_BUNDLE"]
    asked = {"Content-Range": "bytes */10"}
    assert requests.put(address, headers=asked, timeout=60, verify=trusted).status_code == 308
    assert requests.delete(address, timeout=60, verify=trusted).status_code == 499
    assert requests.put(address, headers=asked, timeout=60, verify=trusted).status_code == 404


def test_a_checksum_that_does_not_fit_stores_nothing(clients: Clients) -> None:
    blob = clients.bucket.blob("checked")
    blob.crc32c = "AAAAAA=="
    with pytest.raises(GoogleAPICallError, match="CRC32C"):
        blob.upload_from_string(b"other", checksum=None)
    assert not clients.bucket.blob("checked").exists()


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{}],
        [{"data": "no base64!"}],
        [{"data": "AAAA"}] * 1001,
        [{"data": base64.b64encode(bytes(7_600_000)).decode()}],
        [{"attributes": {"googclient": "1"}}],
        [{"attributes": {"a": "x" * 1025}}],
        [{"attributes": {f"k{number}": "1" for number in range(101)}}],
    ],
    ids=["none", "empty", "base64", "many", "large", "reserved", "long", "attributes"],
)
def test_what_pubsub_does_not_take_is_refused(
    clients: Clients, settings: GcpSettings, messages: list[Any]
) -> None:
    url = f"{pubsub_url()}/v1/projects/{PROJECT}/topics/{settings.topic}:publish"
    with pytest.raises(GoogleAPICallError) as raised:
        clients.call("POST", url, json={"messages": messages})
    assert raised.value.code == 400


def test_a_message_comes_again_until_it_is_acknowledged_in_time(
    cloud: GcpMock, clients: Clients, settings: GcpSettings
) -> None:
    root = f"{pubsub_url()}/v1/projects/{PROJECT}"
    sent = {"messages": [{"data": "AAAA"}]}
    clients.call("POST", f"{root}/topics/{settings.topic}:publish", json=sent)

    def pull() -> list[Any]:
        url = f"{root}/subscriptions/{settings.subscription}:pull"
        found: list[Any] = (
            clients.call("POST", url, json={"maxMessages": 10}).json().get("receivedMessages", [])
        )
        return found

    def acknowledge(message: Any) -> None:
        url = f"{root}/subscriptions/{settings.subscription}:acknowledge"
        clients.call("POST", url, json={"ackIds": [message["ackId"]]})

    [first] = pull()
    assert pull() == []
    cloud.stage.pubsub.pass_time(61)
    acknowledge(first)  # too late
    [second] = pull()
    assert second["message"]["messageId"] == first["message"]["messageId"]
    acknowledge(second)
    cloud.stage.pubsub.pass_time(61)
    assert pull() == []


def test_a_mock_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    tag = address = ""
    for run in range(2):
        cloud = GcpMock(tmp_path)
        cloud.start()
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        clients = Clients(GcpSettings(**cloud.settings))
        blob = clients.bucket.blob("kept")
        if run == 0:
            blob.upload_from_string(b"1")
            tag = blob.generation
            address = clients.bucket.blob("large").create_resumable_upload_session(checksum=None)
            headers = {"Content-Range": f"bytes 0-{QUANTUM - 1}/*"}
            clients.call("PUT", address, data=bytes(QUANTUM), headers=headers)
        else:
            assert blob.download_as_bytes(if_generation_match=tag) == b"1"
            headers = {"Content-Range": f"bytes */{QUANTUM + 1}"}
            answer = clients.call("PUT", address, headers=headers)
            assert answer.headers["Range"] == f"bytes=0-{QUANTUM - 1}"
        found.append((cloud.environment, cloud.settings))
        clients.close()
        cloud.stop()
    assert found[0] == found[1]


def test_the_mock_has_the_bucket_that_its_settings_name(cloud: GcpMock) -> None:
    assert cloud.settings["bucket"] == BUCKET_NAME
    assert cloud.stage.emulator.has_bucket(BUCKET_NAME)
