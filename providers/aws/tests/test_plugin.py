from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgefleet.errors import UnsupportedError
from edgefleet.plugins import discovery
from edgefleet.plugins.provider import Context, Role
from edgefleet_aws.plugin import AwsProvider
from edgefleet_aws.settings import AwsSettings

HEAVY = ("boto3", "botocore", "moto", "flask", "werkzeug", "urllib3")
BUCKET = "plant-a-models"


def _context(base: Path) -> Context:
    return Context(base=base, name="aws", state=lambda: None)


def test_the_entry_points_name_it() -> None:
    assert isinstance(discovery.provider("aws"), AwsProvider)
    assert discovery.load("aws", discovery.MOCKS).name == "aws"


@pytest.mark.parametrize("role", sorted(AwsProvider.roles))
def test_building_a_service_calls_nobody_and_writes_nothing(role: Role, tmp_path: Path) -> None:
    service = getattr(AwsProvider(), role.value)(AwsSettings(bucket=BUCKET), _context(tmp_path))
    assert (service.provider, service.role) == ("aws", role.value)
    service.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", sorted(set(Role) - AwsProvider.roles))
def test_a_role_that_is_not_served_is_told(role: Role, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=role.value):
        getattr(AwsProvider(), role.value)(AwsSettings(bucket=BUCKET), _context(tmp_path))


def test_naming_it_imports_nothing_heavy() -> None:
    script = (
        "import json, sys; from edgefleet.plugins import discovery; "
        "provider = discovery.provider('aws'); provider.settings_type(bucket='plant-a'); "
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    loaded = json.loads(done.stdout)
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": "Has_Capitals"},
        {"bucket": "../x"},
        {},
        {"bucket": BUCKET, "part_mib": 4},
        {"bucket": BUCKET, "training_role": "admin"},
        {"bucket": BUCKET, "endpoint_url": "ftp://x"},
        {"bucket": BUCKET, "mirrors": ["https://user:secret@cdn.example.com/x"]},
        {"bucket": BUCKET, "secret_key": "x"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AwsSettings.model_validate(wrong)


def test_everything_lies_below_the_prefix() -> None:
    assert AwsSettings(bucket=BUCKET, prefix="line-3").root == "s3://plant-a-models/line-3"
