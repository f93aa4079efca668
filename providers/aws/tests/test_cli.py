"""``edgefleet install`` and ``edgefleet doctor`` on the mock, as operators run them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from edgefleet.cli.app import cli
from edgefleet_aws.cloud.strictness import check_request, service_model
from edgefleet_aws.names import Names
from edgefleet_aws.permissions import OPERATOR, policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

    Run = Callable[..., str]


@pytest.fixture
def settings(make_settings: Callable[..., AwsSettings]) -> AwsSettings:
    """Of a fleet that uses all that install can do, and whose bucket is not there."""
    prefix = make_settings().prefix
    return make_settings(
        prefix=prefix,
        bucket=f"{prefix}-cli",
        runtime_python="/opt/edgefleet/bin/python",
        fleet_indexing=True,
        provision_group="new",
    )


@pytest.fixture
def run(
    cloud: AwsMock, settings: AwsSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Runs the command line with a profile of the test's fleet; gives what it printed."""
    config = tmp_path / "edgefleet.toml"
    monkeypatch.setenv("EDGEFLEET_CONFIG", str(config))

    def run(*arguments: str, expect: int = 0, user: str | None = None) -> str:
        told = settings.model_copy(update={"credentials_profile": user})
        table = told.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        profile = ['[profiles.plant]\nprovider = "aws"\n[profiles.plant.aws]', *lines]
        config.write_text("\n".join(profile) + "\n", encoding="utf-8")
        result = CliRunner().invoke(cli, [*arguments, "--profile", "plant"])
        assert result.exit_code == expect, result.output
        return result.stdout

    yield run
    cloud.fleet.remove()


def test_a_dry_run_writes_every_document_and_sends_nothing(
    run: Run, clients: Clients, settings: AwsSettings, tmp_path: Path
) -> None:
    run("install", "--provider", "aws", "--dry-run", "--output", str(tmp_path / "out"))
    written = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    stack = f"edgefleet-{settings.prefix}"
    assert {
        f"{stack}.json",
        f"{stack}-parameters.json",
        "indexing.json",
        "new-device-classic.yaml",
        "new-device-lite.yaml",
        f"deployment-{settings.prefix}.json",
        "plan.json",
    } <= written
    assert clients.cloudformation.describe_stacks()["Stacks"] == []
    (indexing,) = (tmp_path / "out").rglob("indexing.json")
    operation = service_model("iot").operation_model("UpdateIndexingConfiguration")
    check_request(operation, json.loads(indexing.read_bytes()))


def test_installing_twice_and_tearing_down_with_data_leaves_nothing(
    run: Run, clients: Clients, settings: AwsSettings
) -> None:
    assert "installed" in run("install", "--provider", "aws", "--group", "line-3")
    run("install", "--provider", "aws")
    listed = json.loads(run("install", "--provider", "aws", "--dry-run", "--json"))["documents"]
    assert {one["action"] for one in listed} == {"unchanged"}
    run("install", "--provider", "aws", "--teardown", "--data", "--yes")
    assert clients.cloudformation.describe_stacks()["Stacks"] == []
    s3: Any = clients.s3
    assert settings.bucket not in {one["Name"] for one in s3.list_buckets()["Buckets"]}


def test_doctor_names_what_the_identity_may_not_do(
    run: Run, cloud: AwsMock, settings: AwsSettings
) -> None:
    run("install", "--provider", "aws")
    actions = {action for part in OPERATOR.values() for action in part}
    missing = {"sagemaker:CreateTrainingJob", "greengrass:CreateDeployment"}
    user = f"doctor-{settings.prefix}"
    cloud.add_user(user, policy(Names(settings), tuple(sorted(actions - missing))))
    found = json.loads(run("doctor", "--json", expect=1, user=user))
    checks = [one for one in found["checks"] if one["area"] == "permission"]
    assert {one["name"] for one in checks if one["state"] == "error"} == {
        "trainer: sagemaker:CreateTrainingJob",
        "deployer: greengrass:CreateDeployment",
        "install: greengrass:CreateDeployment",
    }
    parts = {one["name"].partition(":")[0] for one in checks if one["state"] == "ok"}
    assert parts == set(OPERATOR) - {"receiving"}  # a gateway's, which no operator needs
    text = run("doctor", expect=1, user=user)
    assert "let the identity in use do greengrass:CreateDeployment" in text
    run("install", "--provider", "aws", "--teardown", "--data", "--yes")
