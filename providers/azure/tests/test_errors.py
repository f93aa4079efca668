"""What Azure answers, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
from azure.core.exceptions import HttpResponseError
from msrest.exceptions import HttpOperationError

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConflictError,
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet.testing.cloud.rules import Rule
from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.calls import Call, throttled
from edgefleet_azure.cloud.server import Route
from edgefleet_azure.errors import code_of, status_of, translate, without_signature
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.state import BlobStateStore

Make = Callable[..., AzureSettings]
MakeClients = Callable[[AzureSettings], Clients]


def _statuses(cloud: AzureMock, operation: str, below: str) -> list[str]:
    lines = [line.split(" ") for line in cloud.seen()]
    return [line[3] for line in lines if line[1] == operation and below in line[2]]


@pytest.fixture
def state(clients: Clients, settings: AzureSettings) -> BlobStateStore:
    return BlobStateStore(clients, settings)


@pytest.mark.parametrize(
    "fault,kind,cure",
    [
        (Refused(401, "InvalidAuthenticationInfo"), AccessDeniedError, "az login"),
        (Refused(403, "AuthenticationFailed"), AccessDeniedError, "clock"),
        (Refused(403, "AuthorizationFailure"), AccessDeniedError, "Storage Blob Data Contributor"),
        (Refused(404, "ContainerNotFound"), NotFoundError, "edgefleet install"),
        (Refused(413, "RequestBodyTooLarge"), LimitExceededError, "send less"),
        (Refused(400, "InvalidHeaderValue"), InvalidInputError, "change what"),
        (Refused(409, "ContainerBeingDeleted"), UnavailableError, "half a minute"),
    ],
    ids=lambda value: value.code if isinstance(value, Refused) else "",
)
def test_what_storage_refuses_comes_with_its_cure(
    cloud: AzureMock,
    state: BlobStateStore,
    fault: Refused,
    kind: type[EdgeFleetError],
    cure: str,
) -> None:
    cloud.rules.add(Rule("blob.GetBlob", fault=fault))
    with pytest.raises(kind, match=cure) as caught:
        state.read("doc")
    assert caught.value.provider == "azure"


def test_a_throttled_call_is_repeated(
    cloud: AzureMock, state: BlobStateStore, settings: AzureSettings
) -> None:
    cloud.rules.add(Rule("blob.PutBlob", times=2, fault=throttled(0)))
    state.write("doc", b"x", expect=None)
    assert _statuses(cloud, "blob.PutBlob", f"/{settings.prefix}-state/") == ["429", "429", "201"]


def test_a_stale_tag_is_a_conflict_and_is_not_repeated(
    cloud: AzureMock, state: BlobStateStore, settings: AzureSettings
) -> None:
    tag = state.write("doc", b"1", expect=None)
    state.write("doc", b"2", expect=tag)
    with pytest.raises(ConflictError):
        state.write("doc", b"3", expect=tag)
    with pytest.raises(ConflictError):
        state.delete("doc", expect=tag)
    found = state.read("doc")
    assert found is not None
    assert found.data == b"2"
    assert _statuses(cloud, "blob.PutBlob", f"/{settings.prefix}-state/").count("412") == 1


def test_a_document_whose_making_lost_its_answer_conflicts_not_with_itself(
    cloud: AzureMock, state: BlobStateStore
) -> None:
    cloud.rules.add(Rule("blob.PutBlob", cut_answer_at=0))
    tag = state.write("doc", b"1", expect=None)
    found = state.read("doc")
    assert found is not None
    assert found.tag == tag


def test_a_write_of_the_same_bytes_is_still_somebody_elses(
    cloud: AzureMock, state: BlobStateStore
) -> None:
    state.write("doc", b"1", expect=None)
    with pytest.raises(ConflictError):
        state.write("doc", b"1", expect=None)


def test_resource_manager_names_the_action_that_is_missing(
    cloud: AzureMock, clients: Clients, settings: AzureSettings
) -> None:
    def refuse(call: Call) -> Reply:
        call.principal = None
        call.require("Microsoft.Storage/storageAccounts/listKeys/action", call.path)
        raise AssertionError

    class Keys:
        routes = (Route("arm.ListKeys", "POST", f"{settings.group_path}/keys", refuse),)

    cloud.stage.mount("arm", Keys())
    with pytest.raises(HttpResponseError, match="AuthorizationFailed") as caught:
        clients.arm("POST", f"{settings.group_path}/keys", api_version="2023-05-01")
    found = translate(caught.value)
    assert isinstance(found, AccessDeniedError)
    assert found.cure is not None
    assert "'Microsoft.Storage/storageAccounts/listKeys/action'" in found.cure


def test_resource_manager_is_asked_again_when_it_is_busy(
    cloud: AzureMock, clients: Clients, settings: AzureSettings
) -> None:
    class Group:
        routes = (
            Route("arm.Create", "POST", f"{settings.group_path}/busy", lambda _: Reply(body={})),
        )

    cloud.stage.mount("arm", Group())
    cloud.rules.add(Rule("arm.Create", times=2, fault=throttled(0)))
    path = f"{settings.group_path}/busy"
    assert clients.arm("POST", path, api_version="2023-05-01", body={}).json() == {}
    assert _statuses(cloud, "arm.Create", "/busy") == ["429", "429", "200"]


def test_the_hub_is_asked_again_when_it_is_busy_and_its_codes_are_known(
    cloud: AzureMock, clients: Clients
) -> None:
    cloud.rules.add(Rule("hub.Devices_GetIdentity", times=2, fault=throttled(0)))
    with pytest.raises(HttpOperationError, match="Not Found") as caught:
        clients.hub().get_device("gone")
    assert (code_of(caught.value), status_of(caught.value)) == ("DeviceNotFound", 404)
    assert isinstance(translate(caught.value), NotFoundError)
    assert _statuses(cloud, "hub.Devices_GetIdentity", "/gone") == ["429", "429", "404"]


def test_a_hub_that_stays_busy_is_told(
    cloud: AzureMock, make_settings: Make, make_clients: MakeClients
) -> None:
    cloud.rules.add(Rule("hub.Devices_GetIdentity", times=None, fault=throttled(0)))
    clients = make_clients(make_settings(max_attempts=2))
    with pytest.raises(HttpOperationError, match="Too Many") as caught:
        clients.hub().get_device("busy")
    assert isinstance(translate(caught.value), ThrottledError)
    assert _statuses(cloud, "hub.Devices_GetIdentity", "/busy") == ["429", "429"]


def test_nobody_signed_in_is_told_how_to(
    make_settings: Make, make_clients: MakeClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(max_attempts=1)
    monkeypatch.setenv("AZURE_CLIENT_ID", "nobody")
    with pytest.raises(AccessDeniedError, match="az login"):
        BlobStateStore(make_clients(settings), settings).read("doc")


def test_a_host_that_is_not_there_is_unavailable(
    make_settings: Make, make_clients: MakeClients
) -> None:
    settings = make_settings(max_attempts=1)
    away = settings.model_copy(update={"storage_url": "https://localhost:1/account"})
    with pytest.raises(UnavailableError, match="network"):
        BlobStateStore(make_clients(away), away).read("doc")


def test_an_expired_signature_is_told_apart() -> None:
    class Response:
        status_code = 403
        headers = {"x-ms-error-code": "AuthenticationFailed"}  # noqa: RUF012 - a simulated answer
        text = (
            "<Error><Code>AuthenticationFailed</Code><Message>no</Message>"
            "<AuthenticationErrorDetail>Signature not valid in the specified time frame: "
            "Start [] - Expiry [] - Current []</AuthenticationErrorDetail></Error>"
        )
        url = "https://a.blob.core.windows.net/c/b?sig=secret"

    error = Exception("no")
    error.response = Response()  # type: ignore[attr-defined]  # as Azure's errors have it
    found = translate(error)
    assert isinstance(found, AccessExpiredError)
    assert "edgefleet access renew" in str(found)
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    "body", ['{"error":' + "[" * 100_000, "[]", "<p>"], ids=["deep", "list", "page"]
)
def test_an_answer_that_is_none_of_azures_is_known_by_its_status(body: str) -> None:
    class Response:
        status_code = 404
        headers: ClassVar[dict[str, str]] = {}
        text = body
        url = "https://plant.azure-devices.net/devices/cam-07"

    error = Exception("no")
    error.response = Response()  # type: ignore[attr-defined]  # as Azure's errors have it
    assert isinstance(translate(error), NotFoundError)


def test_no_signature_stays_in_a_text() -> None:
    text = "GET https://a.blob.core.windows.net/c/b?sv=2024-11-04&se=2026&sp=r&sig=aB%2Bc%3D: no"
    left = without_signature(text)
    assert "aB%2Bc" not in left
    assert "sig=…" in left
