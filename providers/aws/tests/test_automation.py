"""Train, evaluate, register as a SageMaker pipeline, on the mock cloud, which runs each step."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import edgefleet
from edgefleet.errors import (
    CancelledError,
    ConfigurationError,
    NotFoundError,
    TrainingFailedError,
)
from edgefleet.fleet import Fleet
from edgefleet.interfaces.automation import Automation, AutomationRun, Gate
from edgefleet.interfaces.training import RunState, TrainingJob
from edgefleet.interfaces.values import ApprovalState
from edgefleet_aws.clients import Clients
from edgefleet_aws.cloud.rules import Rule
from edgefleet_aws.mock import AwsMock
from edgefleet_aws.permissions import OPERATOR
from edgefleet_aws.registry import SageMakerRegistry
from edgefleet_aws.settings import AwsSettings
from edgefleet_aws.trainer import SageMakerTrainer

TIMEOUT_S = 300.0

TRAIN = """
    import onnx
    from onnx import TensorProto, helper

    from edgefleet import training

    shape = ["n", 2]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("w", TensorProto.FLOAT, [2], [training.params()["bias"], 0.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, training.output_dir() / "model.onnx")
"""

LEAVES_A_FILE = """
    from edgefleet import training

    (training.output_dir() / "model.onnx").write_bytes(b"no model")
"""

EVALUATE = """
    from edgefleet import training

    size = (training.model_dir() / "model.onnx").stat().st_size
    print("evaluating", size > 0)
    training.log_metric("accuracy", 0.1)
    training.log_metric("accuracy", training.params()["accuracy"])
"""


@pytest.fixture
def trainer(clients: Clients, settings: AwsSettings, tmp_path: Path) -> SageMakerTrainer:
    return SageMakerTrainer(clients, settings, base=tmp_path)


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., Automation]:
    """Makes an automation out of two scripts."""

    def make(
        train: str = LEAVES_A_FILE, evaluate: str = EVALUATE, *, accuracy: float = 0.97, **more: Any
    ) -> Automation:
        for name, text in (("train.py", train), ("evaluate.py", evaluate)):
            (tmp_path / "code").mkdir(exist_ok=True)
            (tmp_path / "code" / name).write_text(textwrap.dedent(text), encoding="utf-8")
        params: dict[str, str | int | float | bool | None] = {"bias": 0.5, "accuracy": accuracy}
        return Automation(
            train=TrainingJob(script=tmp_path / "code" / "train.py", params=params),
            evaluate=tmp_path / "code" / "evaluate.py",
            gate=more.pop("gate", Gate(metric="accuracy", at_least=0.95)),
            model="digits",
            name="nightly",
        )

    return make


def states(run: AutomationRun) -> dict[str, RunState]:
    return {step.name: step.state for step in run.status.steps}


def test_a_model_that_passes_its_gate_becomes_a_version_that_waits_for_approval(
    trainer: SageMakerTrainer,
    asked: Callable[..., Automation],
    clients: Clients,
    settings: AwsSettings,
    tmp_path: Path,
) -> None:
    run = trainer.automate(asked(TRAIN)).wait(timeout_s=TIMEOUT_S)
    assert run.status.passed is True
    assert list(states(run)) == ["train", "evaluate", "gate", "register"]
    registry = SageMakerRegistry(clients, settings)
    version = registry.get(run.version or "none")
    assert version.reference == "digits:1"
    assert version.approval.state is ApprovalState.PENDING
    assert version.metrics == {"accuracy": 0.97}
    assert version.lineage["run"] == run.step("train").id
    pulled = registry.pull("digits:1", tmp_path / "pulled")
    assert [variant.format for variant in pulled.variants] == ["onnx"]
    assert "evaluating True" in list(run.step("evaluate").logs())


def test_a_model_below_its_gate_is_not_registered(
    trainer: SageMakerTrainer,
    asked: Callable[..., Automation],
    clients: Clients,
    settings: AwsSettings,
) -> None:
    run = trainer.automate(asked(accuracy=0.9)).wait(timeout_s=TIMEOUT_S)
    assert run.status.passed is False
    assert list(states(run)) == ["train", "evaluate", "gate"]
    assert run.version is None
    assert SageMakerRegistry(clients, settings).list() == ()


def test_a_gate_may_be_an_upper_bound(
    trainer: SageMakerTrainer, asked: Callable[..., Automation]
) -> None:
    automation = asked(accuracy=0.2, gate=Gate(metric="accuracy", at_most=0.1))
    assert trainer.automate(automation).wait(timeout_s=TIMEOUT_S).status.passed is False


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


def test_a_metric_that_is_never_logged_fails_at_the_gate_and_says_so(
    trainer: SageMakerTrainer, asked: Callable[..., Automation]
) -> None:
    run = trainer.automate(asked(evaluate="print('no figures')"))
    with pytest.raises(TrainingFailedError, match="does the evaluating script log that metric"):
        run.wait(timeout_s=TIMEOUT_S)
    assert states(run)["gate"] is RunState.FAILED


def test_an_automation_is_cancelled_with_the_step_that_runs(
    trainer: SageMakerTrainer, asked: Callable[..., Automation]
) -> None:
    run = trainer.automate(asked(train="import threading; threading.Event().wait()"))
    run.cancel()
    with pytest.raises(CancelledError):
        run.wait(timeout_s=TIMEOUT_S)
    assert set(states(run).values()) <= {RunState.CANCELLED}
    run.cancel()


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
    trainer.automate(asked("import threading; threading.Event().wait()")).cancel()
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
