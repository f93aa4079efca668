"""Train, evaluate, register as a SageMaker pipeline, on the mock cloud, which runs each step."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import edgefleet
from edgefleet.errors import ConfigurationError, NotFoundError, TrainingFailedError
from edgefleet.fleet import Fleet
from edgefleet.interfaces.automation import Automation, Gate
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit.automation import (
    FOREVER,
    TIMEOUT_S,
    AutomationConformance,
    automation_of,
)
from edgefleet_aws.clients import Clients
from edgefleet_aws.mock import AwsMock
from edgefleet_aws.permissions import OPERATOR
from edgefleet_aws.registry import SageMakerRegistry
from edgefleet_aws.settings import AwsSettings
from edgefleet_aws.trainer import SageMakerTrainer


@pytest.fixture
def trainer(clients: Clients, settings: AwsSettings, tmp_path: Path) -> SageMakerTrainer:
    return SageMakerTrainer(clients, settings, base=tmp_path)


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., Automation]:
    """Makes an automation out of two scripts."""
    return partial(automation_of, tmp_path)


class TestAutomation(AutomationConformance):
    """The trainer is the module's."""

    @pytest.fixture
    def trainer(self, clients: Clients, settings: AwsSettings, tmp_path: Path) -> SageMakerTrainer:
        return SageMakerTrainer(clients, settings, base=tmp_path)

    @pytest.fixture
    def registry(self, clients: Clients, settings: AwsSettings) -> SageMakerRegistry:
        return SageMakerRegistry(clients, settings)


def test_the_same_automation_again_is_an_execution_of_the_same_pipeline(
    cloud: AwsMock, trainer: SageMakerTrainer, asked: Callable[..., Automation]
) -> None:
    automation = asked(accuracy=0.9)
    start = len(list(cloud.seen()))
    first = trainer.automate(automation).wait(timeout_s=TIMEOUT_S)
    second = trainer.automate(automation).wait(timeout_s=TIMEOUT_S)
    assert first.id != second.id
    assert first.id.rpartition("/")[0] == second.id.rpartition("/")[0]
    named = [line.split(" ")[1] for line in list(cloud.seen())[start:]]
    assert named.count("sagemaker.CreatePipeline") == 1
    assert "sagemaker.UpdatePipeline" not in named


def test_a_changed_script_updates_the_pipeline(
    cloud: AwsMock, trainer: SageMakerTrainer, asked: Callable[..., Automation]
) -> None:
    trainer.automate(asked(accuracy=0.9)).cancel()
    start = len(list(cloud.seen()))
    changed = trainer.automate(asked(evaluate="raise SystemExit(7)"))
    with pytest.raises(TrainingFailedError, match=r"evaluate: .*status 7"):
        changed.wait(timeout_s=TIMEOUT_S)
    named = [line.split(" ")[1] for line in list(cloud.seen())[start:]]
    assert named.count("sagemaker.UpdatePipeline") == 1


def test_an_answer_that_was_lost_starts_no_second_execution(
    cloud: AwsMock, trainer: SageMakerTrainer, asked: Callable[..., Automation]
) -> None:
    cloud.rules.add(Rule("sagemaker.StartPipelineExecution", cut_answer_at=0))
    trainer.automate(asked(accuracy=0.9)).wait(timeout_s=TIMEOUT_S)
    assert len(trainer.list()) == 2


def test_executions_of_another_fleet_are_not_this_ones(
    trainer: SageMakerTrainer,
    make_settings: Callable[..., AwsSettings],
    clients: Clients,
    asked: Callable[..., Automation],
    tmp_path: Path,
) -> None:
    other = SageMakerTrainer(clients, make_settings(), base=tmp_path)
    run = other.automate(asked(accuracy=0.9)).wait(timeout_s=TIMEOUT_S)
    with pytest.raises(NotFoundError):
        trainer.automation(run.id)
    assert trainer.list() == ()
    assert other.automation(run.id).id == run.id


def test_a_pipeline_without_a_role_names_the_setting(
    make_settings: Callable[..., AwsSettings],
    clients: Clients,
    asked: Callable[..., Automation],
    tmp_path: Path,
) -> None:
    trainer = SageMakerTrainer(clients, make_settings(pipeline_role=None), base=tmp_path)
    with pytest.raises(ConfigurationError, match="pipeline_role"):
        trainer.automate(asked())


def test_only_the_registering_step_has_the_pipelines_role(
    trainer: SageMakerTrainer,
    asked: Callable[..., Automation],
    clients: Clients,
    settings: AwsSettings,
) -> None:
    run = trainer.automate(asked())
    run.cancel()
    name = run.id.partition("/")[0]
    told = clients.sagemaker.describe_pipeline(PipelineName=name)
    train, evaluate, gate = json.loads(told["PipelineDefinition"])["Steps"]
    [register] = gate["Arguments"]["IfSteps"]
    roles = [step["Arguments"]["RoleArn"] for step in (train, evaluate, register)]
    assert roles == [settings.training_role, settings.training_role, settings.pipeline_role]


@pytest.mark.parametrize("bounds", [{}, {"at_least": 1.0, "at_most": 2.0}])
def test_a_gate_without_exactly_one_bound_is_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one bound"):
        Gate(metric="accuracy", **bounds)


# The fleet's own call


@pytest.fixture
def connect(settings: AwsSettings, tmp_path: Path) -> Callable[..., Fleet]:
    """Makes a fleet whose trainer is AWS."""

    def make(registry: str = "aws") -> Fleet:
        told = settings.model_dump(mode="json", exclude_none=True)
        table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in told.items())
        text = f'[profiles.p]\nprovider = "aws"\nregistry = "{registry}"\n[profiles.p.aws]\n{table}'
        (tmp_path / "edgefleet.toml").write_text(text, encoding="utf-8")
        return edgefleet.connect("p", config=tmp_path / "edgefleet.toml")

    return make


def test_a_fleet_automates_with_two_scripts_a_gate_and_a_name(
    connect: Callable[..., Fleet], asked: Callable[..., Automation]
) -> None:
    scripts = asked()
    with connect() as fleet:
        run = fleet.automate(
            scripts.train.script,
            evaluate=scripts.evaluate,
            gate=edgefleet.Gate(metric="accuracy", at_least=0.95),
            model="digits",
            params={"accuracy": 0.9},
        ).wait(timeout_s=TIMEOUT_S)
        assert (run.status.passed, run.version) == (False, None)


def test_automating_with_another_providers_registry_is_refused(
    connect: Callable[..., Fleet], asked: Callable[..., Automation]
) -> None:
    scripts = asked()
    with connect("local") as fleet, pytest.raises(ConfigurationError, match=r"fleet\.push"):
        fleet.automate(
            scripts.train.script, evaluate=scripts.evaluate, gate=scripts.gate, model="digits"
        )


# What an operator must be allowed


def test_operators_are_told_the_calls_that_automating_makes_and_no_more(
    trainer: SageMakerTrainer,
    asked: Callable[..., Automation],
    called: Callable[[], set[str]],
) -> None:
    run = trainer.automate(asked(accuracy=0.9)).wait(timeout_s=TIMEOUT_S)
    assert list(run.step("evaluate").logs())
    assert run.version is None
    trainer.automate(asked(FOREVER)).cancel()
    assert called() == set(OPERATOR["automating"])


# What the mock refuses, as SageMaker does


def pipeline(**changes: Any) -> dict[str, Any]:
    """A definition of one training step and a condition."""
    request = {
        "AlgorithmSpecification": {"TrainingImage": "i", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::123456789012:role/x",
        "OutputDataConfig": {"S3OutputPath": "s3://b/k"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    passing = {
        "Type": "GreaterThan",
        "LeftValue": {"Get": "Steps.one.FinalMetricDataList['a'].Value"},
        "RightValue": 0.5,
    }
    gate = {"Conditions": [passing], "IfSteps": [], "ElseSteps": []}
    return {
        "Version": "2020-12-01",
        "Steps": [
            {"Name": "one", "Type": "Training", "Arguments": request | changes.pop("request", {})},
            {"Name": "two", "Type": "Condition", "Arguments": gate | changes.pop("gate", {})},
        ],
        **changes,
    }


@pytest.mark.parametrize(
    "definition,word",
    [
        (pipeline(Version="2019-01-01"), "Version"),
        (pipeline(Colour="red"), "Version"),
        (pipeline(Steps=[]), "at least one"),
        (pipeline(Steps=[{"Name": "a b", "Type": "Training", "Arguments": {}}]), "no name"),
        (pipeline(request={"TrainingJobName": "mine"}), "names the job"),
        (pipeline(request={"OutputDataConfig": {}}), "S3OutputPath"),
        (pipeline(request={"RoleArn": {"Get": "Steps.three.RoleArn"}}), "three"),
        (pipeline(request={"HyperParameters": {"a": {"Get": "Steps.two.Name"}}}), "circle"),
        (pipeline(gate={"Conditions": []}), "Conditions"),
        (
            pipeline(gate={"Conditions": [{"Type": "Like", "LeftValue": 1, "RightValue": 1}]}),
            "Like",
        ),
    ],
)
def test_a_definition_that_is_not_as_the_schema_says_is_refused(
    definition: dict[str, Any], word: str, clients: Clients, settings: AwsSettings
) -> None:
    with pytest.raises(ClientError, match=word) as caught:
        clients.sagemaker.create_pipeline(
            PipelineName=f"{settings.prefix}-refused",
            PipelineDefinition=json.dumps(definition),
            RoleArn=settings.pipeline_role,
            ClientRequestToken="t" * 32,
        )
    assert caught.value.response["Error"]["Code"] == "ValidationException"
