"""What is put into Azure ML, by us and by its own library, against the published schema.

The schema is Azure Resource Manager's for templates of the version that `workspace` names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator, ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT4

from edgefleet.interfaces.automation import Automation, Gate
from edgefleet.interfaces.training import Resources, TrainingJob
from edgefleet.testing.kit import samples
from edgefleet_azure.clients import Clients
from edgefleet_azure.mock import ML_REGISTRY, AzureMock
from edgefleet_azure.registry import AzureMLRegistry, model_name
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.trainer import AzureMLTrainer
from edgefleet_azure.workspace import API

COMMON = "https://schema.management.azure.com/schemas/common/definitions.json"
Validate = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def validate(contracts: Path) -> Validate:
    """Checks properties against one of the schema's definitions."""
    folder = contracts / "azureml"
    text = (folder / f"Microsoft.MachineLearningServices.{API}.json").read_text("utf-8")
    schema = _joined(json.loads(text))
    common = json.loads((folder / "common-definitions.json").read_text("utf-8"))
    documents = Registry[Any]().with_resources(
        (uri, DRAFT4.create_resource(found))
        for uri, found in ((COMMON, common), ("urn:ml", schema))
    )

    def check(definition: str, properties: dict[str, Any]) -> None:
        known = _members(schema["definitions"], definition, properties)
        assert set(properties) <= known, f"{definition} has no {set(properties) - known}"
        wanted = {"$ref": f"urn:ml#/definitions/{definition}"}
        Draft4Validator(wanted, registry=documents).validate(properties)

    return check


def _joined(schema: Any) -> Any:
    """The schema without what it says against itself.

    Each kind of job, input and so on is all of a base that takes no other members, and of one that
    has them: nothing fits both.
    """
    if isinstance(schema, dict):
        return {
            key: [{k: v for k, v in part.items() if k != "additionalProperties"} for part in value]
            if key == "allOf" and all(isinstance(part, dict) for part in value)
            else _joined(value)
            for key, value in schema.items()
        }
    return [_joined(part) for part in schema] if isinstance(schema, list) else schema


def _members(definitions: dict[str, Any], name: str, properties: dict[str, Any]) -> set[str]:
    definition = definitions[name]
    found = set(definition.get("properties", {}))
    for part in definition.get("allOf", ()):
        found |= set(part.get("properties", {}))
    kind = {"Command": "CommandJob", "Pipeline": "PipelineJob"}.get(properties.get("jobType", ""))
    kind = kind or {"AzureBlob": "AzureBlobDatastore"}.get(properties.get("datastoreType", ""))
    return found if kind is None else found | set(definitions[kind]["properties"])


@pytest.fixture
def put(cloud: AzureMock) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Every document that is put: operation, properties."""
    seen: list[tuple[str, dict[str, Any]]] = []
    before = cloud.ml.watch
    cloud.ml.watch = lambda operation, body: seen.append((operation, body["properties"]))
    yield seen
    cloud.ml.watch = before


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "code" / "train.py"
    path.parent.mkdir()
    path.write_text("print('done')", encoding="utf-8")
    return path


DEFINITIONS = {
    "PutJob": "JobBaseProperties",
    "PutDatastore": "DatastoreProperties",
    "PutModelVersion": "ModelVersionProperties",
    "PutComponentVersion": "ComponentVersionProperties",
    "PutEnvironmentVersion": "EnvironmentVersionProperties",
}


def test_versions_are_put_as_the_schema_says(
    validate: Validate,
    put: list[tuple[str, dict[str, Any]]],
    clients: Clients,
    settings: AzureSettings,
    tmp_path: Path,
) -> None:
    registry = AzureMLRegistry(clients, settings)
    registry.push(samples.bundle(tmp_path, metrics={"a": 1.0}), "digits", labels={"b": "c"})
    registry.approve("digits:1", by="ada")
    registry.delete("digits:1")
    assert [operation for operation, _ in put].count("PutModelVersion") == 3
    for operation, properties in put:
        validate(DEFINITIONS[operation], properties)


def test_versions_in_a_shared_registry_are_as_the_schema_says(
    validate: Validate,
    cloud: AzureMock,
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    tmp_path: Path,
) -> None:
    settings = make_settings(ml_registry=ML_REGISTRY)
    registry = AzureMLRegistry(make_clients(settings), settings)
    registry.push(samples.bundle(tmp_path, metrics={"a": 1.0}), "digits", labels={"b": "c"})
    name = model_name(settings.prefix, "digits")
    validate("ModelVersionProperties", cloud.stage.shared.assets.read("models", name, "1"))


def test_runs_are_put_as_the_schema_says(
    validate: Validate,
    put: list[tuple[str, dict[str, Any]]],
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    script: Path,
) -> None:
    settings = make_settings(environment="mcr.example.org/train:1", training_spot=True)
    trainer = AzureMLTrainer(make_clients(settings), settings, base=script.parent)
    resources = Resources(count=2, gpus=1, max_runtime_s=60)
    job = TrainingJob(script=script, data=script, params={"a": 1}, resources=resources)
    trainer.submit(job).cancel()
    assert {"PutJob", "PutDatastore", "PutEnvironmentVersion"} <= {one for one, _ in put}
    for operation, properties in put:
        validate(DEFINITIONS[operation], properties)


def test_pipelines_are_put_as_the_schema_says(
    validate: Validate,
    put: list[tuple[str, dict[str, Any]]],
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    script: Path,
) -> None:
    identity = "00000000-aaaa-bbbb-cccc-000000000000"
    settings = make_settings(pipeline_identity=identity)
    trainer = AzureMLTrainer(make_clients(settings), settings, base=script.parent)
    gate = Gate(metric="a", at_least=1)
    job = TrainingJob(script=script)
    asked = Automation(train=job, evaluate=script, gate=gate, model="digits", name="nightly")
    trainer.automate(asked).cancel()
    assert [operation for operation, _ in put].count("PutComponentVersion") == 3
    for operation, properties in put:
        validate(DEFINITIONS[operation], properties)
    [pipeline] = [properties for operation, properties in put if operation == "PutJob"]
    assert pipeline["jobs"]["register"]["identity"]["client_id"] == identity
    assert not any("identity" in pipeline["jobs"][step] for step in ("train", "evaluate"))


@pytest.mark.parametrize(
    "definition,properties",
    [
        ("ModelVersionProperties", {"modelUri": "x", "colour": "red"}),
        ("JobBaseProperties", {"jobType": "Command", "environmentId": "e"}),
        ("DatastoreProperties", {"datastoreType": "AzureBlob", "accountName": "a"}),
    ],
    ids=["unknown", "no-command", "no-credentials"],
)
def test_the_schema_refuses_what_is_wrong(
    definition: str, properties: dict[str, Any], validate: Validate
) -> None:
    with pytest.raises((AssertionError, ValidationError), match=r"has no|required|valid"):
        validate(definition, properties)
