"""Train, evaluate, register as an Azure ML pipeline, on the mock cloud, which runs each step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import NotFoundError, TrainingFailedError
from edgefleet.interfaces.automation import Automation
from edgefleet.interfaces.training import RunState
from edgefleet.interfaces.values import ApprovalState
from edgefleet.testing.kit.automation import (
    FOREVER,
    LEAVES_A_FILE,
    TIMEOUT_S,
    TRAIN,
    AutomationConformance,
    automation_of,
    states,
)
from edgefleet_azure.clients import Clients
from edgefleet_azure.mock import ML_REGISTRY, AzureMock
from edgefleet_azure.registry import AzureMLRegistry, model_name
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.trainer import AzureMLTrainer

EVALUATE = """
    from edgefleet import training

    size = (training.model_dir() / "model.onnx").stat().st_size
    print("evaluating", size > 0, (training.data_dir() / "a.txt").read_text())
    training.log_metric("accuracy", 0.1)
    training.log_metric("accuracy", training.params()["accuracy"])
"""


@pytest.fixture
def trainer(clients: Clients, settings: AzureSettings, tmp_path: Path) -> AzureMLTrainer:
    return AzureMLTrainer(clients, settings, base=tmp_path)


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., Automation]:
    """Makes an automation out of two scripts, with data."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("seen")

    def make(train: str = LEAVES_A_FILE, evaluate: str = EVALUATE, **more: Any) -> Automation:
        found = automation_of(tmp_path, train, evaluate, **more)
        job = found.train.model_copy(update={"data": tmp_path / "data"})
        return found.model_copy(update={"train": job})

    return make


class TestAutomation(AutomationConformance):
    @pytest.fixture
    def trainer(self, clients: Clients, settings: AzureSettings, tmp_path: Path) -> AzureMLTrainer:
        return AzureMLTrainer(clients, settings, base=tmp_path)

    @pytest.fixture
    def registry(self, clients: Clients, settings: AzureSettings) -> AzureMLRegistry:
        return AzureMLRegistry(clients, settings)


def test_a_model_that_passes_its_gate_becomes_a_version_that_waits_for_approval(
    trainer: AzureMLTrainer,
    asked: Callable[..., Automation],
    clients: Clients,
    settings: AzureSettings,
    tmp_path: Path,
) -> None:
    run = trainer.automate(asked(TRAIN)).wait(timeout_s=TIMEOUT_S)
    assert run.status.passed is True
    assert list(states(run)) == ["train", "evaluate", "gate", "register"]
    assert set(states(run).values()) == {RunState.SUCCEEDED}
    registry = AzureMLRegistry(clients, settings)
    version = registry.get(run.version or "none")
    assert version.reference == "digits:1"
    assert version.approval.state is ApprovalState.PENDING
    assert version.metrics == {"accuracy": 0.97}
    assert version.lineage["run"] == run.step("train").id
    pulled = registry.pull("digits:1", tmp_path / "pulled")
    assert [variant.format for variant in pulled.variants] == ["onnx"]
    assert "evaluating True seen" in list(run.step("evaluate").logs())


def test_the_last_step_shows_its_version_in_the_shared_registry_of_the_profile(
    cloud: AzureMock,
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    asked: Callable[..., Automation],
    tmp_path: Path,
) -> None:
    settings = make_settings(ml_registry=ML_REGISTRY)
    trainer = AzureMLTrainer(make_clients(settings), settings, base=tmp_path)
    run = trainer.automate(asked(TRAIN)).wait(timeout_s=TIMEOUT_S)
    assert run.version == "digits:1"
    models = cloud.stage.shared.assets
    assert models.has("models", model_name(settings.prefix, "digits"), "1")


def test_a_step_is_a_run_that_can_be_looked_at(
    trainer: AzureMLTrainer, asked: Callable[..., Automation]
) -> None:
    run = trainer.automate(asked(accuracy=0.9)).wait(timeout_s=TIMEOUT_S)
    step = run.step("train")
    assert step.status.state is RunState.SUCCEEDED
    assert step.status.params["bias"] == 0.5
    assert step.model.read_bytes() == b"no model"
    assert trainer.list() == ()  # what nobody submitted as a run isn't listed as one


def test_a_step_that_fails_is_named_with_its_reason(
    trainer: AzureMLTrainer, asked: Callable[..., Automation]
) -> None:
    run = trainer.automate(asked(evaluate="raise SystemExit(7)"))
    with pytest.raises(TrainingFailedError, match=r"evaluate: .*status code 7"):
        run.wait(timeout_s=TIMEOUT_S)
    assert states(run) == {"train": RunState.SUCCEEDED, "evaluate": RunState.FAILED}


def test_executions_of_another_fleet_are_not_this_ones(
    trainer: AzureMLTrainer,
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    asked: Callable[..., Automation],
    tmp_path: Path,
) -> None:
    others = make_settings()
    other = AzureMLTrainer(make_clients(others), others, base=tmp_path)
    run = other.automate(asked(train=FOREVER))
    try:
        with pytest.raises(NotFoundError):
            trainer.automation(run.id)
        assert other.automation(run.id).id == run.id
    finally:
        run.cancel()
