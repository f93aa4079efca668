"""New devices that register themselves with a claim certificate."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import AccessDeniedError
from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.recipes import Kind
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.names import Names
from edgefleet_aws.state import S3StateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.cloud.provisioning import Provisioning
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

GROUP = "line-3"


@pytest.fixture
def settings(make_settings: Callable[..., AwsSettings]) -> AwsSettings:
    """Of a fleet that takes new devices."""
    return make_settings(runtime_python=sys.executable, provision_group=GROUP)


@pytest.fixture
def deployer(
    cloud: AwsMock, clients: Clients, settings: AwsSettings
) -> Iterator[GreengrassDeployer]:
    cloud.fleet.greengrass.devices.role_alias = f"{settings.prefix}-devices"
    deployer = GreengrassDeployer(clients, settings, state=lambda: S3StateStore(clients, settings))
    deployer.install()
    yield deployer
    cloud.fleet.remove()


@pytest.fixture
def provisioning(cloud: AwsMock) -> Provisioning:
    return cloud.fleet.greengrass.provisioning


@pytest.fixture
def claim(deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings) -> str:
    """A claim certificate as the how-to makes one."""
    iot: Any = clients.iot
    arn = str(iot.create_keys_and_certificate(setAsActive=True)["certificateArn"])
    iot.attach_policy(policyName=Names(settings).claim, target=arn)
    return arn


def register(provisioning: Provisioning, settings: AwsSettings, claim: str, name: str) -> str:
    template = Names(settings).provisioning
    return provisioning.provision(template, claim, {"ThingName": name})


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_a_new_device_comes_into_the_group_and_gets_the_runtime(
    kind: Kind,
    cloud: AwsMock,
    settings: AwsSettings,
    deployer: GreengrassDeployer,
    claim: str,
) -> None:
    parameters = {"ThingName": "cam-1"}
    provisioning = cloud.fleet.greengrass.provisioning
    template = Names(settings).provisioning
    made = provisioning.provision(template, claim, parameters, csr=kind is Kind.LITE)
    cloud.fleet.nuclei = (kind,)
    cloud.fleet.power_on(made, {})
    assert [device.name for device in deployer.devices(GROUP)] == ["cam-1"]
    assert (
        cloud.fleet.greengrass.site.nucleus("cam-1").process_id(Names(settings).runtime) is not None
    )


def test_a_name_that_is_taken_is_refused(
    settings: AwsSettings, clients: Clients, provisioning: Provisioning, claim: str
) -> None:
    clients.iot.create_thing(thingName="cam-1")
    with pytest.raises(Fault, match="cam-1 is there already"):
        register(provisioning, settings, claim, "cam-1")
    iot: Any = clients.iot
    assert iot.list_thing_principals(thingName="cam-1")["principals"] == []


def test_only_certificates_with_the_claims_policy_register(
    deployer: GreengrassDeployer,
    settings: AwsSettings,
    clients: Clients,
    provisioning: Provisioning,
) -> None:
    iot: Any = clients.iot
    bare = str(iot.create_keys_and_certificate(setAsActive=True)["certificateArn"])
    with pytest.raises(AccessDeniedError, match="iot:Connect"):
        register(provisioning, settings, bare, "cam-1")


def test_a_claim_that_was_taken_back_registers_nothing(
    settings: AwsSettings, clients: Clients, provisioning: Provisioning, claim: str
) -> None:
    iot: Any = clients.iot
    iot.update_certificate(certificateId=claim.rpartition("/")[2], newStatus="INACTIVE")
    with pytest.raises(AccessDeniedError, match="not active"):
        register(provisioning, settings, claim, "cam-1")


def test_a_claim_registers_by_the_fleets_own_template_only(
    clients: Clients, settings: AwsSettings, provisioning: Provisioning, claim: str
) -> None:
    iot: Any = clients.iot
    template = iot.describe_provisioning_template(templateName=Names(settings).provisioning)
    iot.create_provisioning_template(
        templateName="theirs",
        templateBody=template["templateBody"],
        enabled=True,
        provisioningRoleArn=template["provisioningRoleArn"],
    )
    with pytest.raises(AccessDeniedError, match="provisioning-templates/theirs"):
        provisioning.provision("theirs", claim, {"ThingName": "cam-1"})


def test_a_claim_may_do_nothing_that_devices_do(
    cloud: AwsMock, settings: AwsSettings, clients: Clients, claim: str
) -> None:
    iot: Any = clients.iot
    clients.iot.create_thing(thingName="stranger")
    iot.attach_thing_principal(thingName="stranger", principal=claim)
    devices = cloud.fleet.greengrass.devices
    with pytest.raises(AccessDeniedError, match="iot:Publish"):
        devices.publish("stranger", Names(settings).hot_topic("stranger"), b"{}")


def test_without_the_setting_no_device_can_register_itself(
    cloud: AwsMock, clients: Clients, settings: AwsSettings, deployer: GreengrassDeployer
) -> None:
    told = settings.model_copy(update={"provision_group": None})
    GreengrassDeployer(clients, told, state=lambda: S3StateStore(clients, told)).install()
    iot: Any = clients.iot
    assert iot.list_provisioning_templates()["templates"] == []
    names = [one["policyName"] for one in iot.list_policies()["policies"]]
    assert names == [Names(settings).devices]


def test_a_dry_run_writes_what_new_devices_start_with(
    settings: AwsSettings, deployer: GreengrassDeployer
) -> None:
    documents = {one.path: one.content for one in deployer.install_documents()}
    classic = json.loads(documents["new-device-classic.yaml"])["services"]
    plugin = classic["aws.greengrass.FleetProvisioningByClaim"]["configuration"]
    lite = json.loads(documents["new-device-lite.yaml"])["services"]
    own = lite["aws.greengrass.fleet_provisioning"]["configuration"]
    names = Names(settings)
    assert plugin["provisioningTemplate"] == own["templateName"] == names.provisioning
    assert plugin["iotRoleAlias"] == names.devices
    assert lite["aws.greengrass.NucleusLite"]["configuration"]["iotRoleAlias"] == names.devices
    assert "-ats.iot." in plugin["iotDataEndpoint"]
    assert ".credentials.iot." in own["iotCredEndpoint"]


def test_a_template_fits_what_aws_takes(
    clients: Clients, settings: AwsSettings, deployer: GreengrassDeployer
) -> None:
    iot: Any = clients.iot
    template = iot.describe_provisioning_template(templateName=Names(settings).provisioning)
    assert template["enabled"]
    assert json.loads(template["templateBody"])["Parameters"].keys() == {
        "ThingName",
        "AWS::IoT::Certificate::Id",
    }


def test_the_apis_own_call_registers_a_thing_as_well(
    clients: Clients, settings: AwsSettings, deployer: GreengrassDeployer
) -> None:
    iot: Any = clients.iot
    template = iot.describe_provisioning_template(templateName=Names(settings).provisioning)
    claim = iot.create_provisioning_claim(templateName=Names(settings).provisioning)
    certificate = {"AWS::IoT::Certificate::Id": claim["certificateId"]}
    made = iot.register_thing(
        templateBody=template["templateBody"], parameters={"ThingName": "cam-9", **certificate}
    )
    assert made["resourceArns"]["thing"].endswith(":thing/cam-9")
    assert [device.name for device in deployer.devices(GROUP)] == ["cam-9"]
