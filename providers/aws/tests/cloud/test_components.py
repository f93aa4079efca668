"""Greengrass's components on the mock, called with boto3 and held to botocore's model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from edgefleet_aws.errors import code_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings


def recipe(version: str = "1.0.0", **changes: Any) -> bytes:
    content = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": "com.acme.Camera",
        "ComponentVersion": version,
        "Manifests": [{"Platform": {"os": "linux"}, "Lifecycle": {"run": "true"}}],
        **changes,
    }
    return json.dumps(content).encode()


@pytest.fixture
def greengrass(cloud: AwsMock, clients: Clients) -> Iterator[Any]:
    yield clients.greengrass
    cloud.fleet.remove()


def refused(greengrass: Any, data: bytes) -> str:
    with pytest.raises(ClientError) as caught:
        greengrass.create_component_version(inlineRecipe=data)
    return code_of(caught.value)


def test_a_recipe_is_read_back_as_written(greengrass: Any) -> None:
    made = greengrass.create_component_version(inlineRecipe=recipe())
    told = greengrass.describe_component(arn=made["arn"])
    assert told["status"]["componentState"] == "DEPLOYABLE"
    found = greengrass.get_component(arn=made["arn"], recipeOutputFormat="JSON")
    assert json.loads(found["recipe"]) == json.loads(recipe())


def test_a_version_is_never_made_twice(greengrass: Any) -> None:
    greengrass.create_component_version(inlineRecipe=recipe())
    assert refused(greengrass, recipe()) == "ConflictException"


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"a: [",
        recipe("1.0"),
        recipe(ComponentName="a b"),
        recipe(Manifests=[]),
        recipe(RecipeFormatVersion="2026-01-01"),
        recipe(ComponentDescription="x" * 16_000),
    ],
)
def test_what_is_no_recipe_is_refused(greengrass: Any, data: bytes) -> None:
    assert refused(greengrass, data) == "ValidationException"


def test_an_artifact_that_is_not_there_is_refused(greengrass: Any, settings: AwsSettings) -> None:
    artifact = {"Uri": f"s3://{settings.bucket}/nowhere.zip"}
    missing = recipe(Manifests=[{"Platform": {"os": "linux"}, "Artifacts": [artifact]}])
    assert refused(greengrass, missing) == "ValidationException"


def test_the_newest_version_is_the_highest_number(greengrass: Any) -> None:
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        greengrass.create_component_version(inlineRecipe=recipe(version))
    pages = greengrass.get_paginator("list_components").paginate(scope="PRIVATE")
    (only,) = [one for page in pages for one in page["components"]]
    assert only["latestVersion"]["componentVersion"] == "1.10.0"
    pages = greengrass.get_paginator("list_component_versions").paginate(arn=only["arn"])
    versions = [one["componentVersion"] for page in pages for one in page["componentVersions"]]
    assert versions == ["1.10.0", "1.9.0", "1.2.0"]


def test_an_operation_that_the_mock_lacks_says_so(greengrass: Any) -> None:
    with pytest.raises(ClientError) as caught:
        greengrass.list_client_devices_associated_with_core_device(coreDeviceThingName="cam-1")
    assert code_of(caught.value) == "NotImplementedException"
