"""Each part with the least roles that the documentation gives it, against the calls it makes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import HttpResponseError

from edgefleet.errors import AccessDeniedError, ConflictError, UnavailableError
from edgefleet.interfaces.automation import Automation, Gate
from edgefleet.interfaces.training import TrainingJob
from edgefleet.testing.kit import samples
from edgefleet_azure.access import AccessGrants
from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.hub_values import Identity, Message
from edgefleet_azure.cloud.ml_workspace import COMPUTE
from edgefleet_azure.cloud.roles import Principal, Role
from edgefleet_azure.deployer import IotEdgeDeployer
from edgefleet_azure.mock import ML_REGISTRY
from edgefleet_azure.permissions import OPERATOR, PLACES, permissions, scopes
from edgefleet_azure.permissions_page import page
from edgefleet_azure.registry import AzureMLRegistry
from edgefleet_azure.renewal import RenewingDeployer
from edgefleet_azure.resource_names import ResourceNames, name_of_host
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.state import BlobStateStore
from edgefleet_azure.telemetry import AzureTelemetry
from edgefleet_azure.template import HUBS, STORAGE
from edgefleet_azure.trainer import AzureMLTrainer

if TYPE_CHECKING:
    from edgefleet_azure.cloud.management import Management
    from edgefleet_azure.mock import AzureMock

    Operate = Callable[..., tuple[Clients, AzureSettings]]

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "azure-permissions.md"
_users = itertools.count(1)


@pytest.fixture
def somebody(cloud: AzureMock) -> Principal:
    """Who may do nothing yet."""
    return cloud.stage.identities.add(f"somebody-{next(_users)}", ())


@pytest.fixture
def operate(
    cloud: AzureMock,
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    somebody: Principal,
    monkeypatch: pytest.MonkeyPatch,
) -> Operate:
    """Makes clients of somebody who may do what parts need, and no more."""

    def make(*parts: str, without: str = "", **changes: Any) -> tuple[Clients, AzureSettings]:
        if "shared registry" in parts:
            changes["ml_registry"] = ML_REGISTRY
        settings = make_settings(dps=cloud.stage.authority_of("dps"), **changes)
        cloud.add_fleet(settings.prefix)
        where = scopes(
            ResourceNames(settings),
            settings.workspace,
            name_of_host(settings.dps or ""),
            cloud.stage.shared.scope,
        )
        for place in PLACES:
            held = {one for part in parts for one in OPERATOR[part].get(place, ())} - {without}
            roles = permissions(held)
            role = Role("r", tuple(roles["actions"]), (), tuple(roles["dataActions"]))
            for scope in where[place]:
                cloud.stage.identities.add(somebody.name, (role,), scope)
        monkeypatch.setenv("AZURE_CLIENT_ID", somebody.id)
        return make_clients(settings), settings

    return make


@pytest.fixture
def asked(somebody: Principal) -> Callable[[], set[str]]:
    """Gives the actions that requests needed, in lower case."""
    return lambda: {action.lower() for action in somebody.asked}


def listed(*parts: str) -> set[str]:
    return {
        action.lower()
        for part in parts
        for actions in OPERATOR[part].values()
        for action in actions
    }


def test_the_state_store_is_given_what_it_calls_and_no_more(
    operate: Operate, asked: Callable[[], set[str]]
) -> None:
    state = BlobStateStore(*operate("state"))
    tag = state.write("fleet/x", b"1", expect=None)
    state.read("fleet/x")
    list(state.keys("fleet/"))
    state.delete("fleet/x", expect=tag)
    assert asked() == listed("state")


def test_telemetry_is_given_what_it_calls_and_no_more(
    operate: Operate, asked: Callable[[], set[str]], cloud: AzureMock
) -> None:
    clients, settings = operate("telemetry")
    state = cloud.stage.iot_hubs["hub-1"].state
    state.add(Identity("cam-1", None, {"type": "sas"}))
    state.add(Identity("cam-1", "edgefleet", {"type": "sas"}))
    state.send(Message("cam-1", "edgefleet", b'{"events": []}'))
    list(AzureTelemetry(clients, settings).query())
    assert asked() == listed("telemetry")


def test_receiving_is_given_what_it_calls_and_no_more(
    operate: Operate, asked: Callable[[], set[str]], tmp_path: Path
) -> None:
    telemetry = AzureTelemetry(*operate("receiving"))
    (file := tmp_path / "segment").write_bytes(b"x")
    telemetry.receive_file("cam-1", "segments/date=2026-11-21/model=digits/1.seg", file)
    telemetry.receive_hot("cam-1", [samples.alarm(1)])
    assert asked() == listed("receiving")


def registry_of(clients: Clients, settings: AzureSettings) -> AzureMLRegistry:
    return AzureMLRegistry(clients, settings)


def trainer_of(clients: Clients, settings: AzureSettings) -> AzureMLTrainer:
    return AzureMLTrainer(clients, settings, base=Path())


@pytest.mark.parametrize("part", ["registry", "shared registry"])
def test_the_registry_is_given_what_it_calls_and_no_more(
    part: str, operate: Operate, asked: Callable[[], set[str]], tmp_path: Path
) -> None:
    registry = registry_of(*operate(part))
    registry.push(samples.bundle(tmp_path), "digits")
    registry.versions(registry.list()[0])
    registry.approve("digits:1", by="ada")
    registry.pull("digits:1", tmp_path / "pulled")
    registry.delete("digits:1")
    assert asked() == listed(part)


def test_the_trainer_is_given_what_it_calls_and_no_more(
    operate: Operate, asked: Callable[[], set[str]], tmp_path: Path
) -> None:
    script = tmp_path / "code" / "train.py"
    script.parent.mkdir()
    script.write_text("print('done')", encoding="utf-8")
    clients, settings = operate("trainer", compute=COMPUTE)
    trainer = trainer_of(clients, settings)
    data = tmp_path / "data.txt"
    data.write_text("1", encoding="utf-8")
    run = trainer.submit(TrainingJob(script=script, data=data)).wait(timeout_s=120)
    assert list(run.logs()) == ["done"]
    trainer.list()
    script.write_text("import threading; threading.Event().wait()", encoding="utf-8")
    trainer.submit(TrainingJob(script=script)).cancel()
    image = settings.model_copy(update={"environment": "mock/python"})
    trainer_of(clients, image).submit(TrainingJob(script=script)).cancel()
    labelled = settings.model_copy(update={"environment": "azureml:python@latest"})
    trainer_of(clients, labelled).submit(TrainingJob(script=script)).cancel()
    gate = Gate(metric="accuracy", at_least=0.95)
    job = TrainingJob(script=script, data=data)
    asks = Automation(name="nightly", train=job, evaluate=script, gate=gate, model="digits")
    trainer.automate(asks).cancel()
    assert asked() == listed("trainer")


def deployer_of(clients: Clients, settings: AzureSettings) -> RenewingDeployer:
    store = BlobStateStore(clients, settings)
    grants = AccessGrants(clients, settings)
    return RenewingDeployer(clients, settings, state=lambda: store, grants=grants, base=Path())


def test_the_deployer_is_given_what_it_calls_and_no_more(
    operate: Operate, asked: Callable[[], set[str]], cloud: AzureMock
) -> None:
    clients, settings = operate("deployer", hubs=(cloud.stage.authority_of("hub-1"),))
    deployer = deployer_of(clients, settings)
    deployer.enroll("cam-1", group="line-3", labels={"site": "north"})
    theirs = Identity("cam-2", None, {"type": "sas"}, edge=True)
    cloud.stage.iot_hubs["hub-1"].state.add(theirs)
    deployer.enroll("cam-2", group="line-3")
    deployer.groups()
    deployer.render("line-3", samples.pointer(1))
    deployer.publish("line-3", samples.pointer(1))
    deployer.publish("line-3", samples.pointer(2))
    deployer.publish("line-3", samples.pointer(3))
    deployer_of(clients, settings).pointer("line-3")
    deployer.renew_access(within=timedelta(days=4000))
    deployer.progress("line-3")
    list(deployer.devices())
    deployer.device("cam-1")
    with suppress(UnavailableError):
        deployer.invoke("cam-1", "/v2", timeout_s=5)
    deployer.retire("cam-1")
    assert asked() == listed("deployer")


def test_installing_is_given_what_it_calls_and_no_more(
    operate: Operate, asked: Callable[[], set[str]], cloud: AzureMock, management: Management
) -> None:
    ada = cloud.add_user("ada", ())
    clients, settings = operate("install", operators=(ada,), provision_group="new")
    names = ResourceNames(settings)
    for host in settings.hubs[1:]:
        management.resources.delete(names.of(HUBS, names.hubs[host]))
    management.resources.delete(names.of(STORAGE, names.storage))
    for container in [one for one in cloud.stage.storage.containers if "edgefleet-" in one]:
        cloud.stage.storage.delete(container)
    theirs = {"name": "x", "source": "DeviceMessages", "isEnabled": True}
    hub = names.of(HUBS, names.hubs[settings.hubs[0]])
    management.adopt(HUBS, names.hubs[settings.hubs[0]])
    found = management.resources.get(hub)
    assert found is not None
    found["properties"]["routing"] = {"routes": [theirs]}
    store = BlobStateStore(clients, settings)

    def deployer(**changes: Any) -> IotEdgeDeployer:
        told = settings.model_copy(update=changes)
        return IotEdgeDeployer(clients, told, state=lambda: store)

    deployer().install()
    deployer().install_documents()
    deployer(provision_group="newer", operators=()).install()
    deployer().install()
    deployer().uninstall(data=True)
    assert asked() == listed("install")


PARTS: dict[str, Callable[[Clients, AzureSettings], Any]] = {
    "registry": registry_of,
    "shared registry": registry_of,
    "trainer": trainer_of,
    "state": BlobStateStore,
    "telemetry": AzureTelemetry,
    "deployer": deployer_of,
    "install": deployer_of,
}


@pytest.mark.parametrize("part", sorted(PARTS))
def test_what_is_allowed_is_proven(part: str, operate: Operate) -> None:
    parts = ("deployer", "install") if part in {"deployer", "install"} else (part,)
    service = PARTS[part](*operate(*parts))
    found = [proof for proof in service.proofs() if proof.part == part]
    assert {proof.action.lower() for proof in found} == listed(part)
    assert [proof for proof in found if proof.tried and proof.problem] == []
    assert all(proof.problem for proof in found if not proof.tried)


@pytest.mark.parametrize(
    "part,end",
    [
        ("registry", "/models/versions/write"),
        ("shared registry", "/assets/write"),
        ("trainer", "/jobs/cancel/action"),
        ("trainer", "/experiments/runs/read"),
        ("trainer", "/vmSizes/read"),
        ("state", "/blobs/delete"),
        ("state", "/blobs/write"),
        ("deployer", "/directMethods/invoke/action"),
        ("deployer", "/getAcl/action"),
        ("install", "/roleAssignments/write"),
        ("install", "/whatIf/action"),
    ],
)
def test_what_is_missing_is_named(part: str, end: str, operate: Operate) -> None:
    places = OPERATOR[part].values()
    action = next(one for actions in places for one in actions if one.endswith(end))
    service = PARTS[part](*operate(part, without=action))
    found = [proof for proof in service.proofs() if proof.part == part]
    denied = [proof for proof in found if proof.tried and proof.problem]
    assert {proof.action for proof in denied} == {action}
    assert all("Azure's own" in str(proof.problem) for proof in denied)


@pytest.mark.parametrize("part", sorted(PARTS))
def test_who_may_do_nothing_is_told_all_that_is_missing(part: str, operate: Operate) -> None:
    shared = {"ml_registry": ML_REGISTRY} if part == "shared registry" else {}
    found = [one for one in PARTS[part](*operate(**shared)).proofs() if one.part == part]
    assert {proof.action.lower() for proof in found} == listed(part)
    assert all(proof.problem for proof in found)


def test_a_shared_registry_that_is_not_there_is_told(operate: Operate) -> None:
    clients, settings = operate("shared registry")
    gone = settings.model_copy(update={"ml_registry": "nobodys"})
    problems = [str(one.problem) for one in registry_of(clients, gone).proofs() if one.problem]
    assert [one for one in problems if "nobodys" in one]


def test_what_a_gateway_needs_is_proven_when_it_is_asked_for(operate: Operate) -> None:
    (allowed,) = AzureTelemetry(*operate("receiving")).receiving_proofs()
    assert (allowed.part, allowed.problem) == ("receiving", None)
    (denied,) = AzureTelemetry(*operate("telemetry")).receiving_proofs()
    assert denied.action == allowed.action
    assert "Azure's own" in str(denied.problem)


def test_proving_changes_nothing(
    operate: Operate, management: Management, cloud: AzureMock
) -> None:
    clients, settings = operate("deployer", "install")
    for hub in cloud.stage.iot_hubs.values():
        hub.state.add(Identity("press-7", None, {"type": "sas"}, edge=True))

    def everything() -> str:
        counters = {"number"}  # of calls, not of things
        hubs = [
            {key: value for key, value in hub.kept().items() if key not in counters}
            for hub in cloud.stage.iot_hubs.values()
        ]
        storage = sorted(cloud.stage.storage.container(f"{settings.prefix}-state").blobs)
        return json.dumps([hubs, storage, management.kept()], sort_keys=True, default=str)

    management.resources.refresh()
    before = everything()
    list(deployer_of(clients, settings).proofs())
    management.resources.refresh()
    after = everything()
    at = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None)
    assert at is None, after[max(0, at - 80) : at + 40]


def test_a_missing_permission_stops_the_call_that_needs_it(operate: Operate) -> None:
    action = next(one for one in OPERATOR["state"]["state"] if one.endswith("/write"))
    state = BlobStateStore(*operate("state", without=action))
    with pytest.raises(AccessDeniedError):
        state.update("fleet/x", lambda _: b"1")


def test_a_role_reaches_no_further_than_its_place(operate: Operate) -> None:
    clients, settings = operate("state")
    blob = clients.container("models").get_blob_client("x")
    with pytest.raises(HttpResponseError, match="not authorized"):
        blob.upload_blob(b"1")
    assert BlobStateStore(clients, settings).write("x", b"1", expect=None)
    with pytest.raises(ConflictError):
        BlobStateStore(clients, settings).write("x", b"1", expect=None)


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_roles_on_the_page_are_json() -> None:
    blocks = page().split("```json\n")[1:]
    documents = [json.loads(block.partition("```")[0]) for block in blocks]
    assert all(
        one["AssignableScopes"] and (one["Actions"] or one["DataActions"]) for one in documents
    )
    assert len(documents) == sum(len(places) for places in OPERATOR.values())
