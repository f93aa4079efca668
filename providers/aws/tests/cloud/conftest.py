"""A core device of the mock, and deployments to it by boto3."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.testing.waiting import eventually
from edgefleet_aws.cloud.recipes import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.cloud.nucleus import Nucleus
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

THING = "cam-1"


class Bench:
    """One core device, and who operates it."""

    def __init__(self, cloud: AwsMock, clients: Clients, settings: AwsSettings, kind: Kind) -> None:
        self.greengrass: Any = clients.greengrass
        self.cloud, self._clients, self._bucket = cloud, clients, settings.bucket
        self.site = cloud.fleet.greengrass.site
        self.target = clients.iot.create_thing(thingName=THING)["thingArn"]
        self.site.add(THING, kind, {"PATH": os.environ["PATH"]})

    @property
    def nucleus(self) -> Nucleus:
        return self.site.nucleus(THING)

    def component(
        self,
        name: str,
        version: str = "1.0.0",
        *,
        artifacts: tuple[dict[str, str], ...] = (),
        **lifecycle: Any,
    ) -> dict[str, Any]:
        """Make a component; what a deployment says of it."""
        manifest = {
            "Platform": {"os": "linux", "runtime": "*"},
            "Lifecycle": lifecycle,
            "Artifacts": list(artifacts),
        }
        recipe = {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": name,
            "ComponentVersion": version,
            "ComponentConfiguration": {"DefaultConfiguration": {"speed": 1}},
            "Manifests": [manifest],
        }
        self.greengrass.create_component_version(inlineRecipe=json.dumps(recipe).encode())
        return {name: {"componentVersion": version}}

    def put(self, key: str, data: bytes) -> dict[str, str]:
        """Store an artifact; what a recipe says of it."""
        self._clients.s3.put_object(Bucket=self._bucket, Key=key, Body=data)
        return {"Uri": f"s3://{self._bucket}/{key}"}

    def deploy(self, components: dict[str, Any], **more: Any) -> str:
        """Deploy and wait; how it ended."""
        made = self.greengrass.create_deployment(
            targetArn=self.target, components=components, **more
        )
        self.site.settle(THING)
        found = self.greengrass.list_effective_deployments(coreDeviceThingName=THING)
        (mine,) = (
            one
            for one in found["effectiveDeployments"]
            if one["deploymentId"] == made["deploymentId"]
        )
        self.reason = str(mine.get("reason", ""))
        return str(mine["coreDeviceExecutionStatus"])

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the device work until it is so."""
        eventually(condition, lambda: self.nucleus.state, meanwhile=self.site.wake)


@pytest.fixture(params=list(Kind), ids=lambda kind: kind.value)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each of the two nuclei."""
    found: Kind = request.param
    return found


@pytest.fixture
def bench(cloud: AwsMock, clients: Clients, settings: AwsSettings, kind: Kind) -> Iterator[Bench]:
    """A core device of that kind."""
    yield Bench(cloud, clients, settings, kind)
    cloud.fleet.remove()
