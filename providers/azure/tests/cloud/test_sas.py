"""Who may what in Blob storage of the mock: tokens, roles, and every kind of SAS.

Signatures are made by Azure's own library, which knows nothing of ours.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential
from azure.storage.blob import (
    AccessPolicy,
    BlobClient,
    BlobSasPermissions,
    BlobServiceClient,
    ContainerClient,
    ContainerSasPermissions,
    generate_blob_sas,
    generate_container_sas,
)
from azure.storage.filedatalake import generate_directory_sas

from edgefleet_azure.cloud.accounts import StorageAccount
from edgefleet_azure.mock import AzureMock

HOUR = timedelta(hours=1)


def later(by: timedelta = HOUR) -> datetime:
    return datetime.now(UTC) + by


@pytest.fixture
def storage(cloud: AzureMock) -> StorageAccount:
    return cloud.stage.storage


@pytest.fixture
def url(cloud: AzureMock, storage: StorageAccount) -> str:
    return f"{cloud.stage.url('blob')}/{storage.name}"


@pytest.fixture
def owner(url: str, storage: StorageAccount) -> Iterator[ContainerClient]:
    """A container, by the account's key."""
    with BlobServiceClient(url, credential=storage.keys[1], retry_total=0) as service:
        container = service.create_container(f"t-{uuid.uuid4().hex}")
        container.upload_blob("dir/a", b"a")
        container.upload_blob("dir/deep/b", b"b")
        container.upload_blob("other/c", b"c")
        yield container


@pytest.fixture
def guest(owner: ContainerClient) -> Callable[..., ContainerClient]:
    """The container, as somebody sees it who was given a SAS."""

    def come(signature: str) -> ContainerClient:
        return ContainerClient.from_container_url(f"{owner.url}?{signature}", retry_total=0)

    return come


def refused(do: Callable[[], Any]) -> tuple[int | None, str]:
    with pytest.raises(HttpResponseError) as raised:
        do()
    response: Any = raised.value.response
    return raised.value.status_code, response.headers["x-ms-error-code"]


def allowed(do: Callable[[], object]) -> bool:
    try:
        do()
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
        return False
    return True


def container_sas(owner: ContainerClient, storage: StorageAccount, **options: Any) -> str:
    given = {"permission": ContainerSasPermissions(read=True), "expiry": later(), **options}
    return generate_container_sas(
        storage.name, owner.container_name, account_key=storage.keys[0], **given
    )


MISMATCH = (403, "AuthorizationPermissionMismatch")
FAILED = (403, "AuthenticationFailed")


@pytest.mark.parametrize(
    "letters,may",
    [
        ("r", {"read"}),
        ("l", {"list"}),
        ("d", {"delete"}),
        ("c", {"create"}),
        ("w", {"create", "overwrite", "block"}),
        ("rwdlc", {"read", "list", "delete", "create", "overwrite", "block"}),
    ],
)
def test_a_sas_gives_what_its_letters_say(
    owner: ContainerClient,
    storage: StorageAccount,
    guest: Callable[[str], ContainerClient],
    letters: str,
    may: set[str],
) -> None:
    permission = ContainerSasPermissions.from_string(letters)
    container = guest(container_sas(owner, storage, permission=permission))
    attempts: dict[str, Callable[[], object]] = {
        "read": lambda: container.download_blob("dir/a"),
        "list": lambda: list(container.list_blobs()),
        "create": lambda: container.upload_blob("new", b"x"),
        "overwrite": lambda: container.upload_blob("dir/a", b"x", overwrite=True),
        "block": lambda: container.get_blob_client("blocks").stage_block("1", b"x"),
        "delete": lambda: container.delete_blob("other/c"),
    }
    assert {name for name, attempt in attempts.items() if allowed(attempt)} == may


def test_who_may_only_create_overwrites_nothing(
    owner: ContainerClient, storage: StorageAccount, guest: Callable[[str], ContainerClient]
) -> None:
    permission = ContainerSasPermissions.from_string("c")
    container = guest(container_sas(owner, storage, permission=permission))
    found = refused(lambda: container.upload_blob("dir/a", b"x", overwrite=True))
    assert found == (403, "UnauthorizedBlobOverwrite")
    assert owner.download_blob("dir/a").readall() == b"a"


@pytest.mark.parametrize(
    "options",
    [
        {"expiry": later(-HOUR)},
        {"start": later(HOUR), "expiry": later(2 * HOUR)},
    ],
    ids=["ended", "not begun"],
)
def test_a_sas_counts_in_its_time(
    owner: ContainerClient,
    storage: StorageAccount,
    guest: Callable[[str], ContainerClient],
    options: dict[str, Any],
) -> None:
    container = guest(container_sas(owner, storage, **options))
    assert refused(lambda: container.download_blob("dir/a")) == FAILED


def test_a_sas_for_one_blob_is_for_no_other(
    owner: ContainerClient, storage: StorageAccount, guest: Callable[[str], ContainerClient]
) -> None:
    signature = generate_blob_sas(
        storage.name,
        owner.container_name,
        "dir/a",
        account_key=storage.keys[0],
        permission=BlobSasPermissions(read=True),
        expiry=later(),
    )
    assert guest(signature).download_blob("dir/a").readall() == b"a"
    assert refused(lambda: guest(signature).download_blob("other/c")) == FAILED


def test_who_changes_a_sas_has_none(
    owner: ContainerClient, storage: StorageAccount, guest: Callable[[str], ContainerClient]
) -> None:
    signature = container_sas(owner, storage)
    assert guest(signature).download_blob("dir/a").readall() == b"a"
    changed = signature.replace("sp=r&", "sp=racwdl&")
    assert changed != signature
    assert refused(lambda: guest(changed).download_blob("dir/a")) == FAILED


def test_a_sas_by_another_account_s_key_is_none(
    owner: ContainerClient,
    storage: StorageAccount,
    guest: Callable[[str], ContainerClient],
    tmp_path: Path,
) -> None:
    stranger = StorageAccount(storage.name, tmp_path)
    assert refused(lambda: guest(container_sas(owner, stranger)).download_blob("dir/a")) == FAILED


def test_a_sas_ends_with_its_stored_policy(
    owner: ContainerClient, storage: StorageAccount, guest: Callable[[str], ContainerClient]
) -> None:
    owner.set_container_access_policy({"g1": AccessPolicy(permission="r", expiry=later())})
    signature = container_sas(owner, storage, policy_id="g1", permission=None, expiry=None)
    container = guest(signature)
    assert container.download_blob("dir/a").readall() == b"a"
    assert refused(lambda: container.delete_blob("dir/a")) == MISMATCH
    owner.set_container_access_policy({"g1": AccessPolicy(permission="r", expiry=later(-HOUR))})
    assert refused(lambda: container.download_blob("dir/a")) == FAILED
    owner.set_container_access_policy({"g1": AccessPolicy(permission="r", expiry=later())})
    assert container.download_blob("dir/a").readall() == b"a"
    owner.set_container_access_policy({})
    assert refused(lambda: container.download_blob("dir/a")) == FAILED


def test_what_policy_and_sas_share_is_said_once(
    owner: ContainerClient, storage: StorageAccount, guest: Callable[[str], ContainerClient]
) -> None:
    owner.set_container_access_policy({"g1": AccessPolicy(permission="r")})
    once = guest(container_sas(owner, storage, policy_id="g1", permission=None))
    assert once.download_blob("dir/a").readall() == b"a"
    twice = guest(container_sas(owner, storage, policy_id="g1"))
    assert refused(lambda: twice.download_blob("dir/a"))[0] == 400
    never = guest(container_sas(owner, storage, policy_id="g1", permission=None, expiry=None))
    assert refused(lambda: never.download_blob("dir/a")) == FAILED


def test_a_directory_sas_needs_a_hierarchical_namespace_and_stays_below(
    owner: ContainerClient,
    storage: StorageAccount,
    guest: Callable[[str], ContainerClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signature = generate_directory_sas(
        storage.name,
        owner.container_name,
        "dir",
        storage.keys[0],
        permission="rcl",
        expiry=later(),
    )
    container = guest(signature)
    monkeypatch.setattr(storage, "hierarchical", False)
    assert refused(lambda: container.download_blob("dir/a")) == FAILED
    monkeypatch.setattr(storage, "hierarchical", True)
    assert container.download_blob("dir/a").readall() == b"a"
    assert container.download_blob("dir/deep/b").readall() == b"b"
    container.upload_blob("dir/new", b"n")
    assert sorted(container.list_blob_names(name_starts_with="dir/")) == [
        "dir/a",
        "dir/deep/b",
        "dir/new",
    ]
    for attempt in (
        lambda: container.download_blob("other/c"),
        lambda: container.upload_blob("dirty", b"x"),
        lambda: list(container.list_blobs()),
    ):
        assert refused(attempt) == FAILED


@pytest.fixture
def signed_in(
    cloud: AzureMock, url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., BlobServiceClient]]:
    made: list[Any] = []

    def come(*roles: str) -> BlobServiceClient:
        monkeypatch.setenv("AZURE_CLIENT_ID", cloud.add_user(uuid.uuid4().hex, roles))
        credential = DefaultAzureCredential()
        made.extend((credential, BlobServiceClient(url, credential=credential, retry_total=0)))
        return made[-1]  # type: ignore[no-any-return]

    yield come
    for one in made:
        one.close()


@pytest.mark.parametrize(
    "role,may",
    [
        ("Storage Blob Data Reader", {"read", "list"}),
        ("Storage Blob Data Contributor", {"read", "list", "write", "delete", "make"}),
        ("Reader", set()),
        ("Contributor", {"make", "policies"}),
        ("IoT Hub Data Contributor", set()),
    ],
)
def test_a_token_gives_what_its_roles_say(
    owner: ContainerClient, signed_in: Callable[..., BlobServiceClient], role: str, may: set[str]
) -> None:
    service = signed_in(role)
    container = service.get_container_client(owner.container_name)
    attempts: dict[str, Callable[[], object]] = {
        "read": lambda: container.download_blob("dir/a"),
        "list": lambda: list(container.list_blobs()),
        "write": lambda: container.upload_blob("new", b"x"),
        "delete": lambda: container.delete_blob("other/c"),
        "make": lambda: service.create_container(f"t-{uuid.uuid4().hex}"),
        "policies": lambda: container.set_container_access_policy({}),
    }
    assert {name for name, attempt in attempts.items() if allowed(attempt)} == may


def test_a_token_for_something_else_is_none(cloud: AzureMock, owner: ContainerClient) -> None:
    token = cloud.stage.identities.token(
        cloud.stage.identities.operator, "https://management.azure.com"
    )

    class Wrong:
        def get_token(self, *_: str, **__: Any) -> Any:
            from azure.core.credentials import AccessToken

            return AccessToken(token, int(later().timestamp()))

    with BlobClient.from_blob_url(f"{owner.url}/dir/a", credential=Wrong(), retry_total=0) as blob:
        assert refused(blob.download_blob) == (401, "InvalidAuthenticationInfo")


def test_a_users_delegation_gives_no_more_than_the_user_has(
    cloud: AzureMock,
    owner: ContainerClient,
    storage: StorageAccount,
    guest: Callable[[str], ContainerClient],
    signed_in: Callable[..., BlobServiceClient],
) -> None:
    service = signed_in("Storage Blob Data Reader")
    key = service.get_user_delegation_key(later(-HOUR), later())
    signature = generate_container_sas(
        storage.name,
        owner.container_name,
        user_delegation_key=key,
        permission=ContainerSasPermissions.from_string("rw"),
        expiry=later(),
    )
    container = guest(signature)
    assert container.download_blob("dir/a").readall() == b"a"
    assert refused(lambda: container.upload_blob("new", b"x")) == MISMATCH
    user = cloud.stage.identities.get(str(key.signed_oid))
    assert user is not None
    user.roles.clear()
    assert refused(lambda: container.download_blob("dir/a")) == MISMATCH


def test_a_delegation_key_is_for_those_who_may_delegate(
    signed_in: Callable[..., BlobServiceClient],
) -> None:
    service = signed_in("IoT Hub Data Contributor")
    assert refused(lambda: service.get_user_delegation_key(later(-HOUR), later())) == MISMATCH
