"""Versions in a shared registry of Azure ML, which lies in another subscription."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConfigurationError,
    NotFoundError,
    ProfileError,
    UnavailableError,
    WaitTimeoutError,
)
from edgefleet.interfaces.values import ApprovalState
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet_azure import shared_registry
from edgefleet_azure.clients import Clients
from edgefleet_azure.ml_library import load_library
from edgefleet_azure.mock import ML_REGISTRY, AzureMock
from edgefleet_azure.registry import AzureMLRegistry, model_name
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.shared_registry import DISCOVERY_VARIABLE, FILE, SOURCE, SharedRegistry

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

BUSY = Refused(503, "ServiceUnavailable", "busy")
Shown = Callable[[int], dict[str, Any]]


@pytest.fixture
def settings(make_settings: Callable[..., AzureSettings]) -> AzureSettings:
    return make_settings(ml_registry=ML_REGISTRY, workspace=None, max_attempts=1)


@pytest.fixture
def registry(clients: Clients, settings: AzureSettings) -> AzureMLRegistry:
    return AzureMLRegistry(clients, settings)


@pytest.fixture
def shown(cloud: AzureMock, settings: AzureSettings) -> Shown:
    """Gives a version of the model ``digits`` as the registry has it."""
    assets, name = cloud.stage.shared.assets, model_name(settings.prefix, "digits")
    return lambda number: assets.read("models", name, str(number))


@pytest.fixture
def library(cloud: AzureMock) -> Iterator[MLClient]:
    """Azure ML's own library, as people in other subscriptions use it."""
    load_library()
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    with DefaultAzureCredential() as credential:
        yield MLClient(credential, registry_name=ML_REGISTRY, enable_telemetry=False)


def test_azure_mls_own_library_reads_what_was_pushed(
    registry: AzureMLRegistry, library: MLClient, settings: AzureSettings, tmp_path: Path
) -> None:
    bundle = samples.bundle(tmp_path, metrics={"accuracy": 0.97}, lineage={"run": "train-1"})
    pushed = registry.push(bundle, "digits", labels={"line": "3"})
    registry.approve("digits:1", by="ada")
    model = library.models.get(model_name(settings.prefix, "digits"), version="1")
    assert (model.stage, model.description) == ("Production", f"digits:1 {pushed.digest}")
    assert model.tags["metric.accuracy"] == "0.97"
    assert {"lineage.run", "label.line"} <= model.tags.keys()
    assert model.properties[SOURCE] == settings.models_url
    listed = library.models.list(model_name(settings.prefix, "digits"))
    assert [one.version for one in listed] == ["1"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the library's own use of storage's
def test_azure_mls_own_library_downloads_the_bundles_index(
    registry: AzureMLRegistry, library: MLClient, settings: AzureSettings, tmp_path: Path
) -> None:
    pushed = registry.push(samples.bundle(tmp_path), "digits")
    name = model_name(settings.prefix, "digits")
    library.models.download(name, "1", download_path=tmp_path / "down")
    [found] = (tmp_path / "down").rglob(FILE)
    assert found.read_bytes() == registry.blobs.read_bytes(pushed.digest, max_bytes=1 << 20)


def test_a_number_that_the_library_gave_somebodys_model_is_passed_over(
    registry: AzureMLRegistry,
    library: MLClient,
    settings: AzureSettings,
    shown: Shown,
    tmp_path: Path,
) -> None:
    from azure.ai.ml.entities import Model

    file = tmp_path / "theirs.txt"
    file.write_text("theirs", encoding="utf-8")
    name = model_name(settings.prefix, "digits")
    library.models.create_or_update(Model(name=name, version="1", path=str(file)))
    registry.push(samples.bundle(tmp_path), "digits")
    assert shown(1)["modelUri"].endswith("/theirs.txt")
    assert shown(2)["tags"]["edgefleet.version"] == "1"
    assert registry.approve("digits:1", by="ada").approval.state is ApprovalState.APPROVED
    assert (shown(2)["stage"], shown(1).get("stage")) == ("Production", None)


def test_a_version_that_somebody_archived_there_is_shown_again_when_it_changes(
    registry: AzureMLRegistry,
    library: MLClient,
    settings: AzureSettings,
    shown: Shown,
    tmp_path: Path,
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    library.models.archive(model_name(settings.prefix, "digits"), version="1")
    assert shown(1)["isArchived"] is True
    registry.approve("digits:1", by="ada")
    assert (shown(1)["isArchived"], shown(1)["stage"]) == (False, "Production")
    with pytest.raises(KeyError):
        shown(2)


def test_fleets_of_one_prefix_on_other_storage_keep_their_versions_apart(
    registry: AzureMLRegistry,
    cloud: AzureMock,
    settings: AzureSettings,
    shown: Shown,
    tmp_path: Path,
) -> None:
    others = {
        "modelUri": "https://elsewhere/c/index.json",
        "stage": "Archived",
        "tags": {"edgefleet.version": "1"},
        "properties": {SOURCE: "https://elsewhere.blob.core.windows.net/x-models"},
    }
    cloud.stage.shared.assets.put("models", model_name(settings.prefix, "digits"), "1", others)
    registry.push(samples.bundle(tmp_path), "digits")
    assert registry.get("digits:1").approval.state is ApprovalState.PENDING
    assert shown(1) == {**shown(1), **others}
    assert shown(2)["properties"][SOURCE] == settings.models_url


def test_a_stage_that_a_person_sets_there_holds_here(
    registry: AzureMLRegistry, cloud: AzureMock, settings: AzureSettings, tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    name = model_name(settings.prefix, "digits")
    cloud.stage.shared.assets.decide(name, "1", stage="Production", by="grace@example.org")
    approval = registry.get("digits:1").approval
    assert (approval.state, approval.by) == (ApprovalState.APPROVED, "grace@example.org")


def test_a_deleted_version_is_archived_there(
    registry: AzureMLRegistry, shown: Shown, tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    registry.delete("digits:1")
    assert shown(1)["isArchived"] is True
    assert registry.versions("digits") == ()


def test_who_reads_the_fleets_storage_and_the_registry_uses_a_version_from_anywhere(
    registry: AzureMLRegistry,
    cloud: AzureMock,
    settings: AzureSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pushed = registry.push(samples.bundle(tmp_path), "digits")
    roles = ["Storage Blob Data Reader", "AzureML Registry User"]
    monkeypatch.setenv("AZURE_CLIENT_ID", cloud.add_user("elsewhere", roles))
    theirs = {"subscription": "77777777-1111-2222-3333-444444444444", "resource_group": "theirs"}
    there = settings.model_copy(update=theirs)
    with closing(AzureMLRegistry(Clients(there), there)) as other:
        assert other.pull("digits:1", tmp_path / "pulled").digest == pushed.digest
        with pytest.raises(AccessDeniedError):
            other.approve("digits:1", by="eve")


def test_a_version_of_before_the_setting_is_shown_there_when_it_is_pushed_again(
    registry: AzureMLRegistry,
    cloud: AzureMock,
    settings: AzureSettings,
    shown: Shown,
    tmp_path: Path,
) -> None:
    before = settings.model_copy(
        update={"ml_registry": None, "workspace": cloud.settings["workspace"]}
    )
    bundle = samples.bundle(tmp_path)
    with closing(AzureMLRegistry(Clients(before), before)) as in_workspace:
        in_workspace.push(bundle, "digits")
    assert [one.version for one in registry.versions("digits")] == ["1"]
    with pytest.raises(KeyError):
        shown(1)
    assert registry.push(bundle, "digits").version == "1"
    assert shown(1)["properties"]["edgefleet.digest"] == bundle.digest


def test_the_workspace_is_not_asked(
    registry: AzureMLRegistry, cloud: AzureMock, tmp_path: Path
) -> None:
    before = len(list(cloud.seen()))
    registry.push(samples.bundle(tmp_path), "digits")
    lines = list(cloud.seen())[before:]
    assert any("registry.PutModelVersion" in line for line in lines)
    assert [line for line in lines if " ml." in line] == []


# What goes wrong


@pytest.mark.parametrize(
    "fault",
    [
        Rule("registry.PutTemporaryDataReference", fault=BUSY),
        Rule("blob.PutBlob", caller="sas", fault=BUSY),  # of the registry's storage alone
        Rule("registry.PutModelVersion", fault=BUSY),
        Rule("registry.PutModelVersion", cut_answer_at=0),
    ],
    ids=["place", "upload", "asset", "answer"],
)
def test_a_push_that_ended_before_its_asset_was_known_gets_one_when_it_is_repeated(
    fault: Rule, registry: AzureMLRegistry, cloud: AzureMock, shown: Shown, tmp_path: Path
) -> None:
    bundle = samples.bundle(tmp_path)
    before = set(cloud.stage.shared.storage.containers)
    cloud.rules.add(replace(fault))
    with pytest.raises(UnavailableError):
        registry.push(bundle, "digits")
    assert registry.push(bundle, "digits").version == "1"
    assert shown(1)["properties"]["edgefleet.digest"] == bundle.digest
    assert len(set(cloud.stage.shared.storage.containers) - before) == 1


def test_two_who_show_one_version_at_once_show_it_once(
    registry: AzureMLRegistry, cloud: AzureMock, shown: Shown, tmp_path: Path
) -> None:
    bundle = samples.bundle(tmp_path)
    cloud.rules.add(Rule("registry.PutTemporaryDataReference", fault=BUSY))
    with pytest.raises(UnavailableError):
        registry.push(bundle, "digits")  # the version is there, and nothing shows it
    held = threading.Event()
    first = Rule("registry.PutTemporaryDataReference", hold=held)
    cloud.rules.add(first)
    slow = threading.Thread(target=lambda: registry.push(bundle, "digits"))
    slow.start()
    try:
        waited = threading.Event()
        assert any(first.times == 0 or waited.wait(0.05) for _ in range(1200)), "it never began"
        registry.push(bundle, "digits")
    finally:
        held.set()
        slow.join(60)
    assert shown(1)["tags"]["edgefleet.version"] == "1"
    with pytest.raises(KeyError):
        shown(2)


def test_of_two_who_push_one_version_the_document_in_blob_storage_decides(
    registry: AzureMLRegistry,
    make_clients: Callable[[AzureSettings], Clients],
    settings: AzureSettings,
    shown: Shown,
    tmp_path: Path,
) -> None:
    first, second = (samples.bundle(tmp_path / name, seed=n) for n, name in enumerate("ab"))
    AzureMLRegistry(make_clients(settings), settings).push(first, "digits", version="7")
    with pytest.raises(AlreadyExistsError):
        registry.push(second, "digits", version="7")
    assert shown(7)["properties"]["edgefleet.digest"] == first.digest


def test_an_asset_that_takes_a_while_is_waited_for(
    registry: AzureMLRegistry, cloud: AzureMock, tmp_path: Path
) -> None:
    cloud.stage.shared.told.append({"status": "InProgress"})
    registry.push(samples.bundle(tmp_path), "digits")
    assert not cloud.stage.shared.told


def test_an_asset_that_is_refused_late_is_told(
    registry: AzureMLRegistry, cloud: AzureMock, tmp_path: Path
) -> None:
    failed = {"status": "Failed", "error": {"code": "UserError", "message": "no such flavour"}}
    cloud.stage.shared.told.append(failed)
    with pytest.raises(ConfigurationError, match="no such flavour"):
        registry.push(samples.bundle(tmp_path), "digits")


def test_an_asset_that_never_is_ready_is_given_up(
    registry: AzureMLRegistry,
    cloud: AzureMock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(shared_registry, "TIMEOUT_S", 0.0)
    cloud.stage.shared.told.extend([{"status": "InProgress"}] * 2)
    with pytest.raises(WaitTimeoutError):
        registry.push(samples.bundle(tmp_path), "digits")
    cloud.stage.shared.told.clear()


def test_a_registry_that_is_not_there_is_named(
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    tmp_path: Path,
) -> None:
    settings = make_settings(ml_registry="nobodys")
    registry = AzureMLRegistry(make_clients(settings), settings)
    with pytest.raises(NotFoundError, match="no shared Azure ML registry 'nobodys'") as told:
        registry.push(samples.bundle(tmp_path), "digits")
    assert "ml_registry" in str(told.value.cure)


def test_who_lacks_the_registrys_role_is_told_of_it(
    cloud: AzureMock,
    make_clients: Callable[[AzureSettings], Clients],
    settings: AzureSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    blobs = "Storage Blob Data Contributor"
    monkeypatch.setenv("AZURE_CLIENT_ID", cloud.add_user("blobs-only", [blobs]))
    with pytest.raises(AccessDeniedError, match="registries") as told:
        AzureMLRegistry(make_clients(settings), settings).push(samples.bundle(tmp_path), "digits")
    assert "registries/read" in str(told.value.cure)
    monkeypatch.setenv("AZURE_CLIENT_ID", cloud.add_user("user", [blobs, "AzureML Registry User"]))
    other = AzureMLRegistry(make_clients(settings), settings)
    assert other.push(samples.bundle(tmp_path / "b", seed=1), "lines").version == "1"


def test_a_cloud_without_a_known_discovery_service_is_refused(
    registry: AzureMLRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(DISCOVERY_VARIABLE)
    with pytest.raises(ProfileError, match="discovery"):
        registry.push(samples.bundle(tmp_path), "digits")


def test_no_message_has_the_signature_of_the_registrys_storage(
    registry: AzureMLRegistry, cloud: AzureMock, tmp_path: Path
) -> None:
    refused = Refused(403, "AuthenticationFailed", "Signature was wrong: sig=abc%2Bdef")
    cloud.rules.add(Rule("blob.PutBlob", caller="sas", fault=refused))
    with pytest.raises(AccessDeniedError) as told:
        registry.push(samples.bundle(tmp_path), "digits")
    assert "sig=abc" not in str(told.value)
    assert "?sv=" not in str(told.value)


def test_a_mock_that_is_started_again_has_its_registry_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = samples.bundle(tmp_path)
    for first in (True, False):
        cloud = AzureMock(tmp_path / "cloud")
        cloud.start()
        for key, value in cloud.authority.alone(cloud.environment).items():
            monkeypatch.setenv(key, value)
        settings = AzureSettings(**cloud.settings, ml_registry=ML_REGISTRY)
        with closing(AzureMLRegistry(Clients(settings), settings)) as registry:
            if first:
                registry.push(bundle, "digits")
            place = SharedRegistry(Clients(settings), settings, registry.blobs)
            [found] = place.versions(f"{settings.prefix}.digits")
            assert found["properties"]["properties"]["edgefleet.digest"] == bundle.digest
        cloud.stop()
