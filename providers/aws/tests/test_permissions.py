"""The README's least policy for an operator of devices, against the calls that are made."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import UnavailableError
from edgefleet.testing.kit import samples
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.state import S3StateStore

if TYPE_CHECKING:
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

README = Path(__file__).parents[1] / "README.md"
# Where IAM's prefix isn't boto3's name of the service.
PREFIXES = {"greengrassv2": "greengrass", "iot-data": "iot"}


def written() -> set[str]:
    """The actions in the README's policy for operators of devices."""
    text = README.read_text(encoding="utf-8")
    marked = r"<!-- policy: operator of devices -->\n```json\n(.*?)```"
    (block,) = re.findall(marked, text, re.DOTALL)
    return {action for one in json.loads(block)["Statement"] for action in one["Action"]}


def called(cloud: AwsMock, start: int) -> set[str]:
    """The actions that calls since then need, those on S3 left out."""
    names = [line.split()[1].partition(".") for line in list(cloud.seen())[start:]]
    return {
        f"{PREFIXES.get(service, service)}:{operation}"
        for service, _, operation in names
        if service != "s3"
    }


def test_operators_of_devices_are_given_what_they_call_and_no_more(
    cloud: AwsMock, clients: Clients, settings: AwsSettings
) -> None:
    start = len(list(cloud.seen()))
    store = S3StateStore(clients, settings)
    told = settings.model_copy(update={"runtime_python": "/usr/bin/python3"})
    deployer = GreengrassDeployer(clients, told, state=lambda: store)
    deployer.install(group="line-3")
    deployer.install()
    list(deployer.install_documents())
    deployer.enroll("cam-1", group="line-3", labels={"site": "north"})
    deployer.render("line-3", samples.pointer(1))
    deployer.publish("line-3", samples.pointer(1))
    deployer.progress("line-3")
    cloud.fleet.greengrass.devices.role_alias = f"{settings.prefix}-devices"
    cloud.fleet.power_on("cam-1", {})
    list(deployer.devices())
    deployer.device("cam-1")
    with suppress(UnavailableError):
        deployer.invoke("cam-1", "/v2", timeout_s=0.01)
    deployer.retire("cam-1")
    deployer.uninstall()
    cloud.fleet.remove()
    assert called(cloud, start) == written()
