"""The plugin and its settings: cheap to name, checked, documented."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgefleet.errors import ConfigurationError, UnsupportedError
from edgefleet.plugins import discovery
from edgefleet.plugins.provider import Context, ProviderSettings, Role
from edgefleet_gcp.clients import Clients
from edgefleet_gcp.mock import GcpMock
from edgefleet_gcp.plugin import GcpProvider
from edgefleet_gcp.settings import GcpSettings

HEAVY = ("gcp_storage_emulator", "google.auth", "google.cloud", "requests", "trustme", "werkzeug")
GOOD: dict[str, Any] = {"bucket": "plant-a-models"}
README = Path(__file__).parents[1] / "README.md"


def _context(base: Path) -> Context:
    return Context(base=base, name="gcp", state=lambda: None)


def test_the_entry_points_name_provider_and_mock() -> None:
    assert isinstance(discovery.provider("gcp"), GcpProvider)
    assert discovery.load("gcp", discovery.MOCKS) is GcpMock


@pytest.mark.parametrize("role", sorted(GcpProvider.roles))
def test_building_a_service_calls_nobody_and_writes_nothing(role: Role, tmp_path: Path) -> None:
    service = getattr(GcpProvider(), role.value)(GcpSettings(**GOOD), _context(tmp_path))
    assert (service.provider, service.role) == ("gcp", role.value)
    service.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", sorted(set(Role) - GcpProvider.roles))
def test_a_role_that_is_not_served_is_told(role: Role, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=role.value):
        getattr(GcpProvider(), role.value)(GcpSettings(**GOOD), _context(tmp_path))


def test_naming_it_imports_nothing_heavy() -> None:
    script = (
        "import json, sys; from edgefleet.plugins import discovery; "
        "provider = discovery.provider('gcp'); "
        "provider.settings_type(**json.loads(sys.argv[1])); "
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(GOOD)], capture_output=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": "gs://plant-a-models"},
        {"bucket": "Capitals"},
        {"project": "1"},
        {"topic": "projects/p/topics/t"},
        {"topic": "google-like"},
        {"subscription": "a"},
        {"prefix": "Capitals"},
        {"chunk_mib": 0},
        {"mirrors": ["https://user:secret@cdn.example.com/x"]},
        {"credentials": "key.json"},
    ],
    ids="-".join,
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GcpSettings.model_validate({**GOOD, **wrong})


def test_the_readme_has_every_setting() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == set(GcpSettings.model_fields) | set(ProviderSettings.model_fields)


def test_a_project_that_nobody_knows_is_asked_for(
    cloud: GcpMock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = json.loads(Path(cloud.environment["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    del key["project_id"]
    (tmp_path / "key.json").write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    clients = Clients(GcpSettings(**GOOD))
    with pytest.raises(ConfigurationError, match="`project`"):
        _ = clients.project
    clients.close()
