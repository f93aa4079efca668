"""Access of devices to storage, against Blob storage of the mock, which enforces it."""

from __future__ import annotations

import logging
import ssl
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from edgefleet.errors import EdgeFleetError, LimitExceededError
from edgefleet.interfaces.access import AccessKind
from edgefleet.testing.cloud.rules import Rule
from edgefleet_azure.access import AccessGrants, account_of
from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.calls import throttled
from edgefleet_azure.errors import translate
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import AzureSettings

NAME = f"blobs/sha256/{'0' * 64}"
READ, WRITE = AccessKind.READ, AccessKind.WRITE


@pytest.fixture
def grants(clients: Clients, settings: AzureSettings) -> AccessGrants:
    clients.container("models").upload_blob(NAME, b"weights")
    return AccessGrants(clients, settings)


def ask(method: str, url: str, query: str, body: bytes | None = None, **headers: str) -> int:
    """What storage answers to a device."""
    request = urllib.request.Request(f"{url}?{query}", body, headers, method=method)
    try:
        # A context of its own: from Python 3.12 on, urlopen keeps the first that it made.
        with urllib.request.urlopen(request, context=ssl.create_default_context()) as reply:
            reply.read()
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def read(content: Any, name: str = NAME) -> int:
    return ask("GET", f"{content['at']}/{name}", content["read"])


def write(given: dict[str, str], name: str = "segments/a", body: bytes = b"x") -> int:
    url = f"{given['address']}/{name}"
    return ask("PUT", url, given["write"], body, **{"x-ms-blob-type": "BlockBlob"})


# Reading


def test_a_group_reads_blobs_with_what_it_was_given(grants: AccessGrants) -> None:
    assert read(grants.current("line-3").content) == 200


def test_a_group_reads_and_does_nothing_else(grants: AccessGrants, settings: AzureSettings) -> None:
    content = grants.current("line-3").content
    blob = f"{content['at']}/{NAME}"
    headers = {"x-ms-blob-type": "BlockBlob"}
    assert ask("PUT", f"{blob}x", content["read"], b"x", **headers) == 403
    assert ask("DELETE", blob, content["read"]) == 403
    assert ask("GET", content["at"], f"restype=container&comp=list&{content['read']}") == 403
    other = f"{settings.storage_url}/{settings.container('state')}/x"
    assert ask("GET", other, content["read"]) == 403


def test_access_ends_when_it_says(clients: Clients, settings: AzureSettings) -> None:
    clients.container("models").upload_blob(NAME, b"weights")
    long_ago = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    given = AccessGrants(clients, settings, clock=lambda: long_ago).current("line-3").content
    assert given["expires"] == "2020-01-31T00:00:00Z"
    assert read(given) == 403


def test_on_the_same_day_it_is_the_same(clients: Clients, settings: AzureSettings) -> None:
    now = [datetime(2030, 5, 1, 0, 10, tzinfo=UTC).timestamp()]
    first = AccessGrants(clients, settings, clock=lambda: now[0]).current("a")
    now[0] += 23 * 3600
    assert AccessGrants(clients, settings, clock=lambda: now[0]).current("a") == first


def test_on_the_next_day_its_generation_is_higher(
    clients: Clients, settings: AzureSettings
) -> None:
    now = [datetime(2030, 5, 1, tzinfo=UTC).timestamp()]
    grants = AccessGrants(clients, settings, clock=lambda: now[0])
    first = grants.current("a").generation
    now[0] += 24 * 3600
    assert grants.current("a").generation == first + 1


# Writing


def test_a_device_writes_below_its_own_name(grants: AccessGrants, clients: Clients) -> None:
    assert write(grants.upload("cam-1")) == 201
    assert clients.container("devices").download_blob("cam-1/segments/a").readall() == b"x"


def test_a_device_writes_no_other_ones(grants: AccessGrants) -> None:
    given = grants.upload("cam-1")
    for other in ("cam-2", "cam-10", "cam-1x"):
        moved = {**given, "address": given["address"].removesuffix("cam-1") + other}
        assert write(moved) == 403


def test_a_device_replaces_reads_lists_and_deletes_nothing(
    grants: AccessGrants, settings: AzureSettings
) -> None:
    given = grants.upload("cam-1")
    assert write(given) == 201
    assert write(given, body=b"other") == 403
    blob = f"{given['address']}/segments/a"
    assert ask("GET", blob, given["write"]) == 403
    assert ask("DELETE", blob, given["write"]) == 403
    listing = f"{settings.storage_url}/{settings.container('devices')}"
    assert ask("GET", listing, f"restype=container&comp=list&{given['write']}") == 403


def test_writing_that_ended_is_extended_for_every_device_at_once(
    clients: Clients, settings: AzureSettings
) -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    given = AccessGrants(clients, settings, clock=lambda: long_ago).upload("cam-1")
    assert write(given) == 403
    grants = AccessGrants(clients, settings)
    assert grants.extend_writing().renewed
    assert write(given) == 201


# Policies


def test_what_was_revoked_stays_so(grants: AccessGrants) -> None:
    before = grants.current("a")
    upload = grants.upload("cam-1")
    grants.revoke(READ)
    assert read(before.content) == 403
    after = grants.current("a")
    assert read(after.content) == 200
    assert read(before.content) == 403
    assert after.generation > before.generation
    assert write(upload) == 201


def test_revoking_writing_ends_every_devices(grants: AccessGrants) -> None:
    given = [grants.upload(name) for name in ("cam-1", "cam-2")]
    grants.revoke(WRITE)
    assert [write(one) for one in given] == [403, 403]
    assert write(grants.upload("cam-1")) == 201


def test_policies_of_others_stay(grants: AccessGrants, clients: Clients) -> None:
    from azure.storage.blob import AccessPolicy

    container = clients.container("models")
    theirs = AccessPolicy(permission="r", expiry="2031-01-01T00:00:00Z")
    container.set_container_access_policy({"theirs": theirs})
    grants.current("a")
    grants.revoke(READ)
    there = container.get_container_access_policy()["signed_identifiers"]
    assert {one.id for one in there} == {"theirs", "edgefleet-read-2"}


def test_a_container_full_of_policies_is_refused_before_anything_is_sent(
    grants: AccessGrants, clients: Clients
) -> None:
    from azure.storage.blob import AccessPolicy

    container = clients.container("models")
    full = {f"theirs-{n}": AccessPolicy(permission="r") for n in range(5)}
    container.set_container_access_policy(full)
    with pytest.raises(LimitExceededError, match="5"):
        grants.current("a")
    there = container.get_container_access_policy()["signed_identifiers"]
    assert {one.id for one in there} == set(full)


def test_two_who_give_access_at_once_give_the_same(
    clients: Clients, settings: AzureSettings
) -> None:
    clients.container("models").upload_blob(NAME, b"weights")
    both = [AccessGrants(clients, settings), AccessGrants(clients, settings)]
    given: list[Any] = []
    start = threading.Barrier(2)

    def give(grants: AccessGrants) -> None:
        start.wait(60)
        given.append(grants.current("a"))

    threads = [threading.Thread(target=give, args=(one,)) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert given[0] == given[1]
    assert [read(one.content) for one in given] == [200, 200]


# Terms


def test_terms_say_when_access_ends(grants: AccessGrants) -> None:
    grants.upload("cam-1")
    content = grants.current("a").content
    first, missing, writing = grants.terms({"a": content, "b": None})
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert first.ends == today + timedelta(days=30)
    assert missing.ends is None
    assert (writing.group, writing.ends) == (None, today + timedelta(days=365))


def test_access_that_was_revoked_is_due(grants: AccessGrants) -> None:
    content = grants.current("a").content
    grants.revoke(READ)
    [reading, _] = grants.terms({"a": content})
    assert reading.ends is None
    assert reading.is_due(datetime.now(UTC))


# Faults


def test_a_throttled_account_is_asked_again(
    cloud: AzureMock, clients: Clients, settings: AzureSettings
) -> None:
    cloud.rules.add(Rule("storageAccounts.ListKeys", times=2, fault=throttled(0)))
    assert AccessGrants(clients, settings).upload("cam-1")["write"]


def test_who_may_not_read_keys_is_told_so(
    cloud: AzureMock, settings: AzureSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = cloud.add_user("reader", ["Reader", "Storage Blob Data Contributor"])
    monkeypatch.setenv("AZURE_CLIENT_ID", user)
    clients = Clients(settings)
    with pytest.raises(HttpResponseError) as refused:
        AccessGrants(clients, settings).upload("cam-1")
    clients.close()
    assert isinstance(translate(refused.value), EdgeFleetError)


def test_keys_and_signatures_are_shown_nowhere(
    grants: AccessGrants, cloud: AzureMock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    given = grants.current("a")
    upload = grants.upload("cam-1")
    grants.revoke(READ)
    shown = f"{grants!r} {vars(grants)} {list(grants.terms({'a': given.content}))} {caplog.text}"
    for key in cloud.stage.storage.keys:
        assert key not in shown
    assert "sig=" not in shown.replace("%3D", "=")
    assert upload["write"] not in shown


@pytest.mark.parametrize(
    "url, name",
    [
        ("https://mine.blob.core.windows.net", "mine"),
        ("https://localhost:10000/devstoreaccount1", "devstoreaccount1"),
    ],
)
def test_the_account_is_in_its_address(url: str, name: str) -> None:
    assert account_of(url) == name
