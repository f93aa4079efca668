from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import AlreadyExistsError, UnavailableError
from edgefleet.interfaces.values import ApprovalState
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet_azure.clients import Clients
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.registry import AzureMLRegistry, model_name, number_of
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.workspace import Workspace

BUSY = Refused(503, "ServiceUnavailable", "busy")


@pytest.fixture
def settings(make_settings: Callable[..., AzureSettings]) -> AzureSettings:
    return make_settings(max_attempts=1)


@pytest.fixture
def registry(clients: Clients, settings: AzureSettings) -> AzureMLRegistry:
    return AzureMLRegistry(clients, settings)


@pytest.fixture
def shown(clients: Clients, settings: AzureSettings) -> Callable[[int], dict[str, Any]]:
    """Gives a version of the model ``digits`` as Azure ML tells it."""
    workspace = Workspace(clients, settings)

    def show(number: int) -> dict[str, Any]:
        found = workspace.read(f"models/{settings.prefix}.digits/versions/{number}")
        assert found is not None
        properties: dict[str, Any] = found["properties"]
        return properties

    return show


def test_a_version_is_a_model_that_people_can_read(
    registry: AzureMLRegistry,
    shown: Callable[[int], dict[str, Any]],
    settings: AzureSettings,
    tmp_path: Path,
) -> None:
    bundle = samples.bundle(tmp_path, metrics={"accuracy": 0.97}, lineage={"run": "train-1"})
    pushed = registry.push(bundle, "digits", labels={"line": "3"})
    model = shown(1)
    assert model["description"] == f"digits:1 {pushed.digest}"
    assert model["stage"] == "Development"
    assert model["properties"] == {"edgefleet.digest": pushed.digest}
    assert model["modelUri"].endswith(f"blobs/sha256/{pushed.digest.partition(':')[2]}")
    assert f"datastores/{settings.prefix}_models/" in model["modelUri"]
    assert model["tags"]["metric.accuracy"] == "0.97"
    assert {"lineage.run", "label.line"} <= model["tags"].keys()


def test_a_named_version_has_a_number_that_its_name_gives(
    registry: AzureMLRegistry, shown: Callable[[int], dict[str, Any]], tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits", version="2026.11")
    assert shown(number_of("2026.11"))["tags"]["edgefleet.version"] == "2026.11"


def test_a_decision_made_here_shows_in_azure_ml(
    registry: AzureMLRegistry, shown: Callable[[int], dict[str, Any]], tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    registry.approve("digits:1", by="ada", reason="looks right")
    assert shown(1)["stage"] == "Production"
    assert "ada looks right" in shown(1)["tags"]["edgefleet.decided"]
    registry.reject("digits:1", by="grace")
    assert shown(1)["stage"] == "Archived"


def test_a_stage_that_a_person_sets_in_azure_ml_holds_here(
    registry: AzureMLRegistry, cloud: AzureMock, settings: AzureSettings, tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    registry.reject("digits:1", by="ada")
    name = model_name(settings.prefix, "digits")
    cloud.ml.assets.decide(name, "1", stage="Production", by="grace@example.org")
    approval = registry.get("digits:1").approval
    assert (approval.state, approval.by) == (ApprovalState.APPROVED, "grace@example.org")
    assert registry.versions("digits")[0].approval == approval
    # and it survives a change of something else
    assert registry.label("digits:1", {"line": "3"}).approval == approval


def test_a_stage_that_means_no_decision_leaves_the_record_as_it_is(
    registry: AzureMLRegistry, cloud: AzureMock, settings: AzureSettings, tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    name = model_name(settings.prefix, "digits")
    cloud.ml.assets.decide(name, "1", stage="Staging", by="grace")
    assert registry.get("digits:1").approval.state is ApprovalState.PENDING


def test_a_model_that_lags_behind_a_decision_here_does_not_undo_it(
    registry: AzureMLRegistry, cloud: AzureMock, tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    registry.approve("digits:1", by="ada")
    cloud.rules.add(Rule("ml.PutModelVersion", fault=BUSY))
    with pytest.raises(UnavailableError):
        registry.reject("digits:1", by="grace")
    assert registry.get("digits:1").approval.state is ApprovalState.REJECTED


def test_a_push_that_ended_before_its_model_was_made_is_whole_and_gets_one_later(
    registry: AzureMLRegistry,
    cloud: AzureMock,
    shown: Callable[[int], dict[str, Any]],
    tmp_path: Path,
) -> None:
    bundle = samples.bundle(tmp_path)
    cloud.rules.add(Rule("ml.PutModelVersion", fault=BUSY))
    with pytest.raises(UnavailableError):
        registry.push(bundle, "digits")
    assert [version.version for version in registry.versions("digits")] == ["1"]
    assert registry.push(bundle, "digits").version == "1"
    assert shown(1)["properties"]["edgefleet.digest"] == bundle.digest


def test_a_number_that_is_another_models_is_passed_over(
    registry: AzureMLRegistry,
    cloud: AzureMock,
    shown: Callable[[int], dict[str, Any]],
    settings: AzureSettings,
    tmp_path: Path,
) -> None:
    somebodys = {"modelUri": "azureml://datastores/workspaceblobstore/paths/x"}
    cloud.ml.assets.put("models", f"{settings.prefix}.digits", "1", somebodys)
    registry.push(samples.bundle(tmp_path), "digits")
    assert shown(2)["tags"]["edgefleet.version"] == "1"
    assert registry.approve("digits:1", by="ada").approval.state is ApprovalState.APPROVED
    assert shown(2)["stage"] == "Production"


def test_of_two_who_push_one_version_the_document_in_blob_storage_decides(
    registry: AzureMLRegistry,
    make_clients: Callable[[AzureSettings], Clients],
    settings: AzureSettings,
    shown: Callable[[int], dict[str, Any]],
    tmp_path: Path,
) -> None:
    first, second = (samples.bundle(tmp_path / name, seed=n) for n, name in enumerate("ab"))
    other = AzureMLRegistry(make_clients(settings), settings)
    other.push(first, "digits", version="7")
    with pytest.raises(AlreadyExistsError):
        registry.push(second, "digits", version="7")
    assert registry.get("digits:7").digest == first.digest
    assert shown(7)["properties"]["edgefleet.digest"] == first.digest


def test_a_deleted_version_is_archived_in_azure_ml(
    registry: AzureMLRegistry, shown: Callable[[int], dict[str, Any]], tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    registry.delete("digits:1")
    assert shown(1)["isArchived"] is True
    assert registry.versions("digits") == ()


@given(st.integers(min_value=1, max_value=999_999_999))
def test_a_whole_number_is_its_own(number: int) -> None:
    assert number_of(str(number)) == number


@given(st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,20}\Z"))
def test_every_version_has_a_number_that_azure_ml_takes(version: str) -> None:
    assert 1 <= number_of(version) < 2**31


def test_long_names_of_models_stay_apart() -> None:
    first, second = (model_name("p", "m" * 300 + end) for end in "ab")
    assert first != second
    assert max(len(first), len(second)) <= 255
