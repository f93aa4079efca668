"""A pipeline's definition as JSON, of values alone.

Its form is the schema 2020-12-01,
https://github.com/aws-sagemaker-mlops/sagemaker-model-building-pipeline-definition-JSON-schema at
b4012b0a. That schema is behind the service in two points that are used here, both of which AWS's
own library sends: ``ContainerEntrypoint`` of a training step, ``Std:Join`` where a text is wanted.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from edgefleet.interfaces.automation import Gate

VERSION = "2020-12-01"


class Step(NamedTuple):
    """A training step: its name, and members of CreateTrainingJob."""

    name: str
    request: dict[str, Any]


def definition(
    *, train: Step, evaluate: Step, register: Step, gate: Gate, condition: str
) -> dict[str, Any]:
    """The definition: train, evaluate, and register where the gate is passed.

    The trained model reaches the other two in a channel ``model``, the metric's value the last one
    as a hyperparameter.
    """
    model = {"Get": f"Steps.{train.name}.ModelArtifacts.S3ModelArtifacts"}
    figure = {"Get": f"Steps.{evaluate.name}.FinalMetricDataList['{gate.metric}'].Value"}
    judging = _with_model(evaluate, model)
    judging["AlgorithmSpecification"]["MetricDefinitions"] = [
        {"Name": gate.metric, "Regex": metric_pattern(gate.metric)}
    ]
    registering = _with_model(register, model)
    registering["HyperParameters"] |= {
        "value": _text(figure),
        "run": _text('"', {"Get": f"Steps.{train.name}.TrainingJobName"}, '"'),
    }
    compared = ("GreaterThanOrEqualTo", gate.at_least)
    if gate.at_least is None:
        compared = ("LessThanOrEqualTo", gate.at_most)
    passing = {"Type": compared[0], "LeftValue": figure, "RightValue": compared[1]}
    return {
        "Version": VERSION,
        "Metadata": {},
        "Parameters": [],
        "Steps": [
            _step(train.name, copy.deepcopy(train.request)),
            _step(evaluate.name, judging),
            {
                "Name": condition,
                "Type": "Condition",
                "Arguments": {
                    "Conditions": [passing],
                    "IfSteps": [_step(register.name, registering)],
                    "ElseSteps": [],
                },
            },
        ],
    }


def metric_pattern(metric: str) -> str:
    """How SageMaker finds the values of a metric in a log: lines as `log_metric` writes them.

    Plain enough to mean the same in every dialect of regular expressions.
    """
    number = r"([-+]?[0-9]+[.]?[0-9]*(?:[eE][-+]?[0-9]+)?)"
    name = re.sub(r"[.]", "[.]", metric)
    return rf'edgefleet-metric [{{] *"name" *: *"{name}" *, *"value" *: *{number}'


def _step(name: str, request: dict[str, Any]) -> dict[str, Any]:
    return {"Name": name, "Type": "Training", "Arguments": request}


def _text(*parts: object) -> dict[str, Any]:
    return {"Std:Join": {"On": "", "Values": list(parts)}}


def _with_model(step: Step, address: dict[str, str]) -> dict[str, Any]:
    request = copy.deepcopy(step.request)
    channel = copy.deepcopy(request["InputDataConfig"][0])
    channel["ChannelName"] = "model"
    channel["DataSource"]["S3DataSource"]["S3Uri"] = address
    request["InputDataConfig"].append(channel)
    entry = request["AlgorithmSpecification"]["ContainerEntrypoint"]
    entry += ["--trained", "/opt/ml/input/data/model/model.tar.gz"]
    return request
