"""Installing a fleet's side of AWS, and taking it away again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import AccessDeniedError, ConfigurationError, ConflictError
from edgefleet.interfaces.values import Action
from edgefleet.testing.cloud.rules import Rule
from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.strictness import check_request, service_model
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.install import latest
from edgefleet_aws.names import RELEASE, Names
from edgefleet_aws.state import S3StateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

    MakeDeployer = Callable[[str | None], GreengrassDeployer]

PYTHON = "/opt/edgefleet/bin/python"
CAMERA = {"componentVersion": "2.1.0"}


@pytest.fixture
def make_deployer(
    cloud: AwsMock, clients: Clients, settings: AwsSettings
) -> Iterator[MakeDeployer]:
    def make(python: str | None) -> GreengrassDeployer:
        store = S3StateStore(clients, settings)
        told = settings.model_copy(update={"runtime_python": python})
        return GreengrassDeployer(clients, told, state=lambda: store)

    yield make
    cloud.fleet.remove()


@pytest.fixture
def deployer(make_deployer: MakeDeployer) -> GreengrassDeployer:
    return make_deployer(PYTHON)


def base(clients: Clients, settings: AwsSettings) -> dict[str, Any]:
    group = clients.iot.describe_thing_group(thingGroupName=settings.prefix)
    found = latest(clients.greengrass, group["thingGroupArn"])
    assert found is not None
    return found


def test_devices_are_told_to_install_the_runtime(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    deployer.install(group="line-3")
    components = base(clients, settings)["components"]
    assert components.keys() == {Names(settings).runtime, RELEASE}
    told = json.loads(components[RELEASE]["configurationUpdate"]["merge"])
    assert told["bucket"] == settings.bucket
    assert "pointer" not in told
    assert [group.name for group in deployer.groups()] == ["line-3"]


def test_installing_again_changes_nothing(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    deployer.install()
    before = base(clients, settings)["deploymentId"]
    deployer.install()
    assert base(clients, settings)["deploymentId"] == before


def test_what_others_deploy_to_the_fleet_stays(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    arn = clients.iot.create_thing_group(thingGroupName=settings.prefix)["thingGroupArn"]
    clients.greengrass.create_deployment(
        targetArn=arn, deploymentName="theirs", components={"camera": CAMERA}
    )
    deployer.install()
    found = base(clients, settings)
    assert found["components"].keys() == {"camera", Names(settings).runtime, RELEASE}
    assert found["deploymentName"] == "theirs"
    deployer.uninstall()
    assert base(clients, settings)["components"] == {"camera": CAMERA}


def test_uninstalling_removes_the_stack_and_may_be_repeated(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    deployer.install()
    deployer.uninstall()
    deployer.uninstall()
    iot: Any = clients.iot
    assert clients.cloudformation.describe_stacks()["Stacks"] == []
    assert iot.list_policies()["policies"] == []
    assert iot.list_role_aliases()["roleAliases"] == []
    assert iot.list_topic_rules()["rules"] == []
    deployer.install()
    assert base(clients, settings)["components"].keys() == {Names(settings).runtime, RELEASE}


def test_another_recipe_of_the_same_version_is_refused(
    make_deployer: MakeDeployer, settings: AwsSettings
) -> None:
    make_deployer(PYTHON).install()
    with pytest.raises(ConflictError, match=Names(settings).runtime):
        make_deployer("/usr/bin/python3").install()


def test_without_a_runtime_to_install_nothing_is_begun(
    make_deployer: MakeDeployer, cloud: AwsMock
) -> None:
    before = len(list(cloud.seen()))
    with pytest.raises(ConfigurationError, match="get the runtime from"):
        make_deployer(None).install()
    assert len(list(cloud.seen())) == before


def test_a_missing_permission_is_named(deployer: GreengrassDeployer, cloud: AwsMock) -> None:
    denied = Fault(
        "AccessDeniedException",
        "User: ada is not authorized to perform: greengrass:CreateComponentVersion",
        403,
    )
    cloud.rules.add(Rule("greengrassv2.CreateComponentVersion", fault=denied))
    with pytest.raises(AccessDeniedError, match="greengrass:CreateComponentVersion"):
        deployer.install()


def test_documents_are_what_is_sent(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    documents = {one.path: one for one in deployer.install_documents()}
    request = json.loads(documents[f"deployment-{settings.prefix}.json"].content)
    check_request(service_model("greengrassv2").operation_model("CreateDeployment"), request)
    deployer.install()
    assert base(clients, settings)["components"] == request["components"]
    after = {one.path: one.action for one in deployer.install_documents()}
    assert after[f"deployment-{settings.prefix}.json"] is Action.UNCHANGED


def test_fleets_of_other_prefixes_have_runtimes_of_their_own(
    make_deployer: MakeDeployer, clients: Clients, settings: AwsSettings
) -> None:
    make_deployer(PYTHON).install()
    other = settings.model_copy(update={"prefix": f"{settings.prefix}-b", "runtime_python": PYTHON})
    store = S3StateStore(clients, other)
    GreengrassDeployer(clients, other, state=lambda: store).install()
    for one in (settings, other):
        assert base(clients, one)["components"].keys() == {Names(one).runtime, RELEASE}
    assert Names(settings).runtime != Names(other).runtime
