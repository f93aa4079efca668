"""The documents that EdgeFleet puts into AWS, against AWS's own contracts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft7Validator

from edgefleet.cli.app import cli
from edgefleet.errors import DocumentError
from edgefleet.protocol.release import read_release
from edgefleet.testing.kit import models
from edgefleet.testing.mock import mock
from edgefleet_aws.cloud.components import MAX_RECIPE
from edgefleet_aws.cloud.strictness import check_request, service_model
from edgefleet_aws.names import RELEASE, RELEASE_VERSION, Names
from edgefleet_aws.recipes import encoded, release_recipe, run_lifecycle, runtime_recipe
from edgefleet_aws.revisions import pointer_of
from edgefleet_aws.settings import AwsSettings
from edgefleet_aws.template import device_statements, iot_statements, template
from edgefleet_aws.wheelhouse import Archive

SETTINGS = AwsSettings(bucket="fleet-bucket", prefix="plant-3", region="eu-central-1")
NAMES = Names(SETTINGS)
ARCHIVE = Archive(Path("wheels.zip"), "0" * 64)
RECIPES = {
    "release": release_recipe(),
    "archived": runtime_recipe(
        NAMES,
        "0.1.0",
        ARCHIVE.lifecycle(),
        ({"Uri": ARCHIVE.address(SETTINGS), "Unarchive": "ZIP"},),
    ),
    "runtime": runtime_recipe(NAMES, "0.1.0", run_lifecycle("/usr/bin/python3")),
}


@pytest.fixture
def recipe_contract(contracts: Path) -> Draft7Validator:
    text = (contracts / "greengrass" / "nucleus_common_recipe_schema.json").read_text()
    return Draft7Validator(json.loads(text))


def lowered(value: Any) -> Any:
    """Keys as the schema has them: lower-case, except where a user chooses them."""
    if isinstance(value, list):
        return [lowered(item) for item in value]
    if not isinstance(value, dict):
        return value
    free = {"defaultconfiguration", "setenv"}
    return {
        key.lower(): item if key.lower() in free else lowered(item) for key, item in value.items()
    }


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_are_what_greengrass_reads(name: str, recipe_contract: Draft7Validator) -> None:
    recipe = RECIPES[name]
    recipe_contract.validate(lowered(recipe))
    assert yaml.safe_load(encoded(recipe)) == recipe
    assert len(encoded(recipe)) < MAX_RECIPE


def test_the_contract_refuses_a_recipe_that_is_wrong(recipe_contract: Draft7Validator) -> None:
    wrong = {**lowered(RECIPES["release"]), "manifest": []}
    assert not recipe_contract.is_valid(wrong)


@pytest.mark.parametrize("name", list(RECIPES))
def test_both_nuclei_take_every_manifest(name: str) -> None:
    for manifest in RECIPES[name]["Manifests"]:
        assert manifest["Platform"]["runtime"] == "*"


@pytest.mark.parametrize("name", ["archived", "runtime"])
def test_the_runtimes_scripts_know_no_configuration(name: str) -> None:
    for manifest in RECIPES[name]["Manifests"]:
        assert "{configuration:" not in json.dumps(manifest["Lifecycle"])


def test_every_name_in_a_template_begins_with_the_fleets_prefix() -> None:
    keys = {
        "LogGroupName",
        "ManagedPolicyName",
        "PolicyName",
        "RoleAlias",
        "RoleName",
        "RuleName",
        "TemplateName",
    }
    resources = dict(template(SETTINGS)["Resources"])
    assert resources.pop("Bucket")["Properties"]["BucketName"] == SETTINGS.bucket
    named = [
        one["Properties"][key]
        for one in resources.values()
        for key in keys & set(one["Properties"])
    ]
    assert len(named) == len(resources)
    assert all(name.startswith(("plant-3-", "plant_3_", "/edgefleet/plant-3/")) for name in named)


def test_devices_are_given_nothing_wholesale() -> None:
    for statement in device_statements(NAMES) + iot_statements(NAMES):
        assert "*" not in statement["Action"]
        for resource in json.dumps(statement["Resource"]).split(","):
            assert "plant-3" in resource or "plant_3" in resource or "ThingName" in resource


class DryRun(NamedTuple):
    """What ``edgefleet deploy … --dry-run --output`` wrote, and what it asked the cloud.

    Attributes:
        folder: with the documents.
        first: whether the account had nothing of ours but a thing in a group.
        calls: service and operation of each call that it made.
    """

    folder: Path
    first: bool
    calls: frozenset[str]

    @property
    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()
        }


@pytest.fixture(scope="module", params=["first", "later"])
def dry_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DryRun:
    """A dry run in an account that has nothing of ours yet, and in one where a model is out."""
    place, first = tmp_path_factory.mktemp("dry-run"), request.param == "first"
    with mock("aws") as session, session.connect() as fleet:
        fleet.push(models.write_model(place / "model.onnx", 1), "digits")
        fleet.enroll("cam-1", group="line-3")
        if not first:
            fleet.push(models.write_model(place / "other.onnx", 2), "letters")
            fleet.deploy("letters:1", to="line-3")
        before = len(list(session.clouds[0].seen()))
        result = CliRunner(env=session.environment).invoke(
            cli,
            ["deploy", "digits:1", "--to", "line-3", "--dry-run", "--output", str(place / "made")],
        )
        assert result.exit_code == 0, result.output
        seen = list(session.clouds[0].seen())[before:]
    return DryRun(place / "made", first, frozenset(line.split(" ")[1] for line in seen))


def test_a_dry_run_writes_every_document_and_no_other(dry_run: DryRun) -> None:
    (release,) = (name for name in dry_run.files if name.startswith("releases/"))
    recipe = {f"recipe-{RELEASE}-{RELEASE_VERSION}.yaml"} if dry_run.first else set()
    assert dry_run.files == {"deployment-line-3.json", "plan.json", release} | recipe
    assert read_release((dry_run.folder / release).read_bytes()).models


def test_a_dry_run_writes_deployments_as_aws_would_take_them(dry_run: DryRun) -> None:
    (deployment,) = dry_run.folder.rglob("deployment-*.json")
    operation = service_model("greengrassv2").operation_model("CreateDeployment")
    check_request(operation, json.loads(deployment.read_bytes()))


def test_a_dry_run_writes_recipes_as_aws_would_take_them(
    dry_run: DryRun, recipe_contract: Draft7Validator
) -> None:
    for path in dry_run.folder.rglob("recipe-*.yaml"):
        recipe_contract.validate(lowered(yaml.safe_load(path.read_bytes())))
        assert path.stat().st_size < MAX_RECIPE


def test_a_dry_run_only_looks(dry_run: DryRun) -> None:
    operations = {call.partition(".")[2] for call in dry_run.calls}
    looking = ("Get", "Head", "List", "Describe")
    assert {one for one in operations if not one.startswith(looking)} == set()


@pytest.mark.parametrize(
    "merge", ["[]", "none", '{"pointer":' + "[" * 100_000], ids=["list", "word", "deep"]
)
def test_what_somebody_wrote_into_a_deployment_is_told_where_it_is_no_configuration(
    merge: str,
) -> None:
    deployment = {"components": {RELEASE: {"configurationUpdate": {"merge": merge}}}}
    with pytest.raises(DocumentError, match="is no JSON object"):
        pointer_of(deployment)
