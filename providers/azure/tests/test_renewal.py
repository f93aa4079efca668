"""Access of a fleet, given with its pointers and renewed: deployer, hub and storage together."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import NotFoundError
from edgefleet.interfaces.access import AccessKind, AccessTerm
from edgefleet.testing.kit import samples
from edgefleet_azure.access import AccessGrants
from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.hub_state import HubState
from edgefleet_azure.manifests import MODULE, UPLOAD, WANTED
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.renewal import RenewingDeployer
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.state import BlobStateStore

READ, WRITE = AccessKind.READ, AccessKind.WRITE
FUNCTION = Path(__file__).parents[3] / "examples" / "azure_function_renew"
IMAGE = "plant.azurecr.io/edgefleet/runtime:1.0"


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(cloud: AzureMock) -> HubState:
    return cloud.stage.iot_hubs["hub-1"].state


@pytest.fixture
def deployer(
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    clock: Clock,
    tmp_path: Path,
) -> Iterator[RenewingDeployer]:
    settings = make_settings(runtime_image=IMAGE)
    clients = make_clients(settings)
    store = BlobStateStore(clients, settings)
    grants = AccessGrants(clients, settings, clock=clock)
    made = RenewingDeployer(clients, settings, state=lambda: store, grants=grants, base=tmp_path)
    yield made
    for device in list(made.devices()):
        made.retire(device.name)
    for name in [name for name in hub_of(made) if f"-{settings.prefix}-" in name]:
        made._hubs[settings.hubs[0]].delete_configuration(name)


def hub_of(deployer: RenewingDeployer) -> list[str]:
    """Names of all configurations of the hub."""
    [hub] = list(deployer._hubs)
    return [str(one["id"]) for one in hub.configurations()]


def given(hub: HubState, device: str) -> Any:
    return hub.twin(device, MODULE)["desired"][WANTED]["access"]


def by_group(terms: tuple[AccessTerm, ...]) -> dict[str | None, AccessTerm]:
    return {term.group: term for term in terms}


def test_a_pointer_brings_access_and_enrolment_brings_what_to_write_with(
    deployer: RenewingDeployer, hub: HubState
) -> None:
    deployer.enroll("cam-1", group="line-3")
    deployer.publish("line-3", samples.pointer(1))
    assert "si=edgefleet-read-1" in given(hub, "cam-1")["read"]
    upload = hub.twin("cam-1", MODULE)["desired"][UPLOAD]
    assert upload["address"].endswith("-devices/cam-1")
    assert "si=edgefleet-write-1" in upload["write"]


def test_groups_with_a_pointer_have_access_that_ends(deployer: RenewingDeployer) -> None:
    deployer.enroll("cam-1", group="line-3")
    deployer.enroll("cam-2", group="line-4")
    deployer.publish("line-3", samples.pointer(1))
    terms = by_group(deployer.access())
    assert set(terms) == {"line-3", None}
    assert all(term.ends is not None for term in terms.values())


def test_fresh_access_is_left_alone(deployer: RenewingDeployer) -> None:
    deployer.enroll("cam-1", group="line-3")
    deployer.publish("line-3", samples.pointer(1))
    before = hub_of(deployer)
    assert [term.renewed for term in deployer.renew_access()] == [False, False]
    assert hub_of(deployer) == before


def test_renewed_access_comes_with_the_pointer_that_was_there(
    deployer: RenewingDeployer, hub: HubState, clock: Clock
) -> None:
    deployer.enroll("cam-1", group="line-3")
    clock.now -= timedelta(days=20)
    deployer.publish("line-3", samples.pointer(1))
    before = given(hub, "cam-1")
    clock.now += timedelta(days=20)
    assert by_group(deployer.renew_access())["line-3"].renewed
    after = given(hub, "cam-1")
    assert after["expires"] > before["expires"]
    assert after["read"] != before["read"]
    assert deployer.pointer("line-3") == samples.pointer(1)


def test_only_the_group_that_was_asked_for_is_renewed(
    deployer: RenewingDeployer, clock: Clock
) -> None:
    clock.now -= timedelta(days=20)
    for number in (3, 4):
        deployer.enroll(f"cam-{number}", group=f"line-{number}")
        deployer.publish(f"line-{number}", samples.pointer(number))
    clock.now += timedelta(days=20)
    done = deployer.renew_access(group="line-4")
    assert [(term.group, term.renewed) for term in done] == [("line-4", True)]
    with pytest.raises(NotFoundError):
        deployer.renew_access(group="line-5")


def test_calls_grow_with_groups_and_not_with_devices(
    deployer: RenewingDeployer, cloud: AzureMock, clock: Clock
) -> None:
    def calls() -> int:
        clock.now -= timedelta(days=20)
        deployer.publish("line-3", samples.pointer(len(hub_of(deployer)) + 10))
        clock.now += timedelta(days=20)
        before = sum(1 for _ in cloud.seen())
        deployer.renew_access()
        return sum(1 for _ in cloud.seen()) - before

    deployer.enroll("cam-0", group="line-3")
    few = calls()
    for number in range(1, 6):
        deployer.enroll(f"cam-{number}", group="line-3")
    assert calls() <= few + 2  # a layer more may be retired


def test_revoked_reading_is_renewed_on_the_same_day(
    deployer: RenewingDeployer, hub: HubState
) -> None:
    deployer.enroll("cam-1", group="line-3")
    deployer.publish("line-3", samples.pointer(1))
    deployer.revoke_access(READ)
    assert by_group(deployer.access())["line-3"].ends is None
    deployer.renew_access()
    assert "si=edgefleet-read-2" in given(hub, "cam-1")["read"]


def test_revoked_writing_is_given_anew_to_each_device(
    deployer: RenewingDeployer, hub: HubState
) -> None:
    for name in ("cam-1", "cam-2"):
        deployer.enroll(name, group="line-3")
    deployer.revoke_access(WRITE)
    for name in ("cam-1", "cam-2"):
        assert "si=edgefleet-write-2" in hub.twin(name, MODULE)["desired"][UPLOAD]["write"]


def test_plans_and_logs_show_no_signature(
    deployer: RenewingDeployer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    deployer.enroll("cam-1", group="line-3")
    rendered = deployer.render("line-3", samples.pointer(1))
    deployer.publish("line-3", samples.pointer(1))
    shown = [*(one.content.decode() for one in rendered), caplog.text, repr(deployer.access())]
    assert not [text for text in shown if "sig=" in text.replace("%3D", "=")]


@pytest.fixture
def due(deployer: RenewingDeployer, clock: Clock, tmp_path: Path) -> Path:
    """A fleet whose access has passed half of its time; the file of its profile."""
    deployer.enroll("cam-1", group="line-3")
    clock.now -= timedelta(days=20)
    deployer.publish("line-3", samples.pointer(1))
    told = deployer._settings.model_dump(mode="json", exclude_none=True)
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in told.items() if value != {})
    config = tmp_path / "edgefleet.toml"
    config.write_text(
        f'[profiles.default]\nprovider = "azure"\n[profiles.default.azure]\n{table}\n'
    )
    return config


def test_the_function_renews_by_its_profile(due: Path) -> None:
    spec = importlib.util.spec_from_file_location("renewal", FUNCTION / "renewal.py")
    assert spec is not None
    assert spec.loader is not None
    renewal = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(renewal)
    assert renewal.renew(due) == 1
    assert renewal.renew(due) == 0


def test_the_function_app_is_a_timer_that_renews(
    due: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("azure.functions", reason="azure-functions isn't installed")
    from azure.functions.timer import TimerRequest

    published = shutil.copytree(FUNCTION, tmp_path / "published")
    shutil.copy(due, published)
    monkeypatch.syspath_prepend(published)
    caplog.set_level(logging.INFO)
    app = importlib.import_module("function_app").app
    for name in ("function_app", "renewal"):
        sys.modules.pop(name)  # others have modules of these names, too
    [function] = app.get_functions()
    trigger = function.get_trigger().get_dict_repr()
    assert (trigger["type"], trigger["schedule"]) == ("timerTrigger", "0 17 4 * * 1")
    renew = function.get_user_function()
    renew(TimerRequest(past_due=True))
    renew(TimerRequest(past_due=False))
    said = [one.getMessage() for one in caplog.records if one.name == "function_app"]
    assert said == ["renewed: 1, late", "renewed: 0"]
