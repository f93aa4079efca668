from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgefleet.errors import ProfileError, UnsupportedError
from edgefleet.plugins import discovery
from edgefleet.plugins.provider import Context, Role
from edgefleet_azure.clients import Clients
from edgefleet_azure.plugin import AzureProvider
from edgefleet_azure.settings import AzureSettings

HEAVY = ("amqtt", "azure", "msal", "msrest", "requests", "trustme", "uamqp", "werkzeug")
GOOD: dict[str, Any] = {
    "storage_url": "https://plantamodels.blob.core.windows.net",
    "subscription": "00000000-1111-2222-3333-444444444444",
    "resource_group": "plant-a",
}
HUBS = ("plant-a.azure-devices.net",)


def _context(base: Path) -> Context:
    return Context(base=base, name="azure", state=lambda: None)


def test_the_entry_point_names_it() -> None:
    assert isinstance(discovery.provider("azure"), AzureProvider)


@pytest.mark.parametrize("role", sorted(AzureProvider.roles))
def test_building_a_service_calls_nobody_and_writes_nothing(role: Role, tmp_path: Path) -> None:
    settings = AzureSettings(**GOOD, hubs=HUBS)
    service = getattr(AzureProvider(), role.value)(settings, _context(tmp_path))
    assert (service.provider, service.role) == ("azure", role.value)
    service.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", sorted(set(Role) - AzureProvider.roles))
def test_a_role_that_is_not_served_is_told(role: Role, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=role.value):
        getattr(AzureProvider(), role.value)(AzureSettings(**GOOD), _context(tmp_path))


def test_naming_it_imports_nothing_heavy() -> None:
    script = (
        "import json, sys; from edgefleet.plugins import discovery; "
        "provider = discovery.provider('azure'); "
        "provider.settings_type(**json.loads(sys.argv[1])); "
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(GOOD)], capture_output=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert [name for name in HEAVY if name in loaded] == []


def test_storage_needs_neither_iot_hub_nor_azure_ml() -> None:
    script = (
        "import json, sys; from edgefleet_azure.clients import Clients; "
        "from edgefleet_azure.settings import AzureSettings; "
        "from edgefleet_azure.state import BlobStateStore; "
        "settings = AzureSettings(**json.loads(sys.argv[1])); "
        "BlobStateStore(Clients(settings), settings); "
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(GOOD)], capture_output=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert [name for name in ("azure.ai.ml", "azure.iot.hub", "uamqp") if name in loaded] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"storage_url": "http://plantamodels.blob.core.windows.net"},
        {"storage_url": "https://plantamodels.blob.core.windows.net/?sv=2024&sig=x"},
        {"storage_url": "https://user:secret@plantamodels.blob.core.windows.net"},
        {"subscription": "plant-a"},
        {"resource_group": "ends-with-a-dot."},
        {"prefix": "two--hyphens"},
        {"prefix": "Capitals"},
        {"hubs": ["https://hub.azure-devices.net"]},
        {"hubs": ["hub.azure-devices.net", "HUB.azure-devices.net"]},
        {"events_endpoint": {"hub": "sb://namespace"}},
        {"block_mib": 0},
        {"mirrors": ["https://user:secret@cdn.example.com/x"]},
        {"arm_url": "http://management.azure.com"},
        {"account_key": "x"},
    ],
    ids="-".join,
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AzureSettings.model_validate({**GOOD, **wrong})


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_storage_subscription_and_group_are_needed(missing: str) -> None:
    with pytest.raises(ValidationError):
        AzureSettings.model_validate({name: GOOD[name] for name in GOOD if name != missing})


def test_containers_are_named_by_the_prefix() -> None:
    settings = AzureSettings(
        **{**GOOD, "prefix": "line-3", "storage_url": GOOD["storage_url"] + "/"}
    )
    assert settings.models_url == "https://plantamodels.blob.core.windows.net/line-3-models"


def test_what_needs_a_setting_that_is_not_there_says_which() -> None:
    clients = Clients(AzureSettings(**GOOD))
    with pytest.raises(ProfileError, match="set `hubs`"):
        clients.hub()
    with pytest.raises(ProfileError, match="set `workspace`"):
        clients.ml()
    clients.close()


def test_azure_ml_in_another_cloud_needs_that_clouds_metadata(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ARM_CLOUD_METADATA_URL", raising=False)
    settings = AzureSettings(
        **GOOD, workspace="plant-a", arm_url="https://management.chinacloudapi.cn"
    )
    with pytest.raises(ProfileError, match="ARM_CLOUD_METADATA_URL"):
        Clients(settings).ml()


def test_tokens_are_sent_by_https_only() -> None:
    clients = Clients(AzureSettings(**GOOD))
    with pytest.raises(ValueError, match="HTTPS"):
        clients.call("GET", "http://example.com", audience="https://storage.azure.com")
