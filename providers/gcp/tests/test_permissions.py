"""Least roles: each part works with its own and needs all of it, and doctor tells what lacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import ConflictError
from edgefleet.testing.kit import samples
from edgefleet_gcp.clients import Clients
from edgefleet_gcp.mock import PROJECT, GcpMock
from edgefleet_gcp.permissions import DEVICE, OPERATOR, below, operators, role
from edgefleet_gcp.permissions_page import page
from edgefleet_gcp.registry import GcsRegistry
from edgefleet_gcp.settings import MIB, GcpSettings
from edgefleet_gcp.state import GcsStateStore
from edgefleet_gcp.telemetry import GcsTelemetry
from edgefleet_runtime.channels.pubsub import PubSubSender
from edgefleet_runtime.store.gcs import GcsSource
from edgefleet_runtime.store.gcs_upload import GcsUploads
from edgefleet_runtime.store.google import GoogleTokens

if TYPE_CHECKING:
    from edgefleet_gcp.cloud.accounts import Account

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "gcp-permissions.md"
Acting = Callable[[str], "Account"]
# google-cloud-storage asks for the bucket now and then, for traces, and goes without the answer.
OF_THE_LIBRARY = {"storage.buckets.get"}


@pytest.fixture
def settings(make_settings: Callable[..., GcpSettings]) -> GcpSettings:
    return make_settings(trust_senders=True, chunk_mib=1)


@pytest.fixture
def acting(
    cloud: GcpMock, settings: GcpSettings, become: Callable[[str], None]
) -> Callable[[str], Account]:
    """Makes this process somebody who does one part, and may nothing else."""

    def act(part: str) -> Account:
        name = f"{settings.prefix}-{part}"
        cloud.add_account(name, OPERATOR[part], subscription=settings.subscription or "")
        become(name)
        account = cloud.stage.identities.get(name)
        assert account is not None
        return account

    return act


def _needed(part: str) -> set[str]:
    return {one for given in OPERATOR[part].values() for one in given}


def test_the_registry_needs_what_its_role_has_and_no_more(
    acting: Acting,
    settings: GcpSettings,
    make_clients: Callable[[GcpSettings], Clients],
    tmp_path: Path,
) -> None:
    account = acting("registry")
    registry = GcsRegistry(make_clients(settings), settings)
    registry.push(samples.bundle(tmp_path, 1), "digits")
    registry.blobs.put_bytes(samples.noise(2 * MIB, 1), "")  # a resumable upload
    registry.alias("digits:1", "production")
    registry.approve("digits:1", by="ada")
    assert [version.name for version in registry.versions("digits")] == ["digits"]
    registry.pull("digits:production", tmp_path / "pulled")
    assert account.asked - OF_THE_LIBRARY == _needed("registry")


def test_the_state_store_needs_what_its_role_has_and_no_more(
    acting: Acting, settings: GcpSettings, make_clients: Callable[[GcpSettings], Clients]
) -> None:
    account = acting("state")
    state = GcsStateStore(make_clients(settings), settings)
    tag = state.write("a/doc", b"1", expect=None)
    tag = state.write("a/doc", b"2", expect=tag)
    with pytest.raises(ConflictError):
        state.write("a/doc", b"3", expect=None)
    assert list(state.keys("a/")) == ["a/doc"]
    assert state.read("a/doc") is not None
    state.delete("a/doc", expect=tag)
    assert account.asked - OF_THE_LIBRARY == _needed("state")


def test_telemetry_needs_what_its_role_has_and_no_more(
    acting: Acting,
    settings: GcpSettings,
    make_clients: Callable[[GcpSettings], Clients],
    device_tokens: Callable[[str], GoogleTokens],
    tmp_path: Path,
) -> None:
    (tmp_path / "hot").write_bytes(b'{"events":[]}')
    tokens = device_tokens("cam-1")
    GcsUploads(settings.root, "cam-1", tokens).put("hot/1.json", tmp_path / "hot")
    PubSubSender(f"pubsub://{PROJECT}/{settings.topic}", "cam-1", tokens).send([samples.alarm(1)])
    account = acting("telemetry")
    telemetry = GcsTelemetry(make_clients(settings), settings)
    assert [event.device for event in telemetry.query(kind="alarm")] == ["cam-1"]
    assert account.asked - OF_THE_LIBRARY == _needed("telemetry")


def test_receiving_for_devices_needs_no_more_than_reading(
    acting: Acting,
    settings: GcpSettings,
    make_clients: Callable[[GcpSettings], Clients],
    tmp_path: Path,
) -> None:
    (file := tmp_path / "segment").write_bytes(b"x")
    account = acting("telemetry")
    telemetry = GcsTelemetry(make_clients(settings), settings)
    for _ in range(2):
        telemetry.receive_file("cam-1", "segments/date=2026-11-21/model=digits/1.seg", file)
        telemetry.receive_hot("cam-1", [samples.alarm(1)])
    # What is there already would be replaced, were it allowed; so it is asked for and not needed.
    assert account.asked - OF_THE_LIBRARY - {"storage.objects.delete"} <= _needed("telemetry")


def test_a_device_needs_what_its_roles_have_and_no_more(
    cloud: GcpMock,
    settings: GcpSettings,
    clients: Clients,
    device_tokens: Callable[[str], GoogleTokens],
    tmp_path: Path,
) -> None:
    digest = GcsRegistry(clients, settings).blobs.put_bytes(b"weights", "").digest
    (tmp_path / "a").write_bytes(b"x")
    tokens = device_tokens("cam-1")
    account = cloud.stage.identities.get(f"{settings.prefix}-cam-1")
    assert account is not None
    GcsSource(settings.root, tokens).open(digest, 0).close()
    GcsUploads(settings.root, "cam-1", tokens).put("segments/a", tmp_path / "a")
    PubSubSender(f"pubsub://{PROJECT}/{settings.topic}", "cam-1", tokens).send([samples.alarm(1)])
    assert account.asked == {one for given in DEVICE.values() for one in given}


@pytest.mark.parametrize("part", sorted(OPERATOR))
def test_doctor_proves_a_part_with_its_own_role(
    acting: Acting,
    settings: GcpSettings,
    make_clients: Callable[[GcpSettings], Clients],
    part: str,
) -> None:
    acting(part)
    clients = make_clients(settings)
    service = {"registry": GcsRegistry, "state": GcsStateStore, "telemetry": GcsTelemetry}[part]
    proofs = list(service(clients, settings).proofs())
    assert {proof.action for proof in proofs} == _needed(part)
    assert [proof.problem for proof in proofs if proof.problem] == []


def test_doctor_names_each_permission_that_lacks(
    cloud: GcpMock,
    settings: GcpSettings,
    make_clients: Callable[[GcpSettings], Clients],
    become: Callable[[str], None],
) -> None:
    cloud.add_account("lacking", {"bucket": ["storage.objects.get"]})
    become("lacking")
    proofs = GcsTelemetry(make_clients(settings), settings).proofs()
    lacking = {proof.action: proof.problem for proof in proofs if proof.problem}
    assert set(lacking) == _needed("telemetry") - {"storage.objects.get"}
    assert settings.bucket in str(lacking["storage.objects.list"])


def test_doctor_tells_of_a_bucket_that_is_not_there(
    make_settings: Callable[..., GcpSettings], make_clients: Callable[[GcpSettings], Clients]
) -> None:
    settings = make_settings(bucket="nobody-made-it")
    proofs = list(GcsStateStore(make_clients(settings), settings).proofs())
    assert {proof.action for proof in proofs} == _needed("state")
    assert all("`bucket` of the profile" in str(proof.problem) for proof in proofs)


def test_a_profile_without_a_subscription_leaves_it_untried(
    make_settings: Callable[..., GcpSettings], make_clients: Callable[[GcpSettings], Clients]
) -> None:
    settings = make_settings(subscription=None)
    proofs = GcsTelemetry(make_clients(settings), settings).proofs()
    assert [proof.action for proof in proofs if not proof.tried] == ["pubsub.subscriptions.consume"]


def test_parts_together_need_what_each_needs() -> None:
    assert operators(["state", "telemetry"])["bucket"] == (
        "storage.objects.create",
        "storage.objects.delete",
        "storage.objects.get",
        "storage.objects.list",
    )


def test_a_role_is_what_gcloud_takes() -> None:
    made = json.loads(json.dumps(role("EdgeFleet state", OPERATOR["state"]["bucket"])))
    assert made["includedPermissions"] == sorted(OPERATOR["state"]["bucket"])
    assert made["stage"] == "GA"


def test_a_folders_condition_ends_with_a_slash() -> None:
    expression = below("models", "line/devices/cam-1")["expression"]
    assert expression == (
        'resource.name.startsWith("projects/_/buckets/models/objects/line/devices/cam-1/")'
    )


def test_the_page_is_what_the_list_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_asking_for_a_subscription_that_is_not_there_is_told(
    make_settings: Callable[..., GcpSettings], make_clients: Callable[[GcpSettings], Clients]
) -> None:
    settings = make_settings(subscription="nobody-made-it")
    proofs = list(GcsTelemetry(make_clients(settings), settings).proofs())
    assert "`subscription`" in str(proofs[-1].problem)
