"""Recipes of the two components: the runtime, and the empty one whose configuration is the channel.

The runtime's recipe interpolates no configuration: the classic nucleus would restart it when that
changes, and the light one doesn't know how.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edgefleet_aws.names import RELEASE, RELEASE_VERSION, SHADOW, Names

_FORMAT = "2020-01-25"
_PUBLISHER = "EdgeFleet"
_DEVICE = "{iot:thingName}"
RUN_OPTIONS = (
    "--root {work:path}/state --device {iot:thingName} --channel greengrass "
    "-o artifacts={artifacts:decompressedPath}"
)
"""Of ``edgefleet_runtime run``; the last tells the runtime when a newer version of it has come."""
# Both nuclei take it: the light one passes over manifests that name no runtime.
_PLATFORM = {"os": "linux", "runtime": "*"}


def release_recipe() -> dict[str, Any]:
    """The empty component; only its configuration matters."""
    return {
        "RecipeFormatVersion": _FORMAT,
        "ComponentName": RELEASE,
        "ComponentVersion": RELEASE_VERSION,
        "ComponentDescription": "What the devices of a group should run. Runs nothing itself.",
        "ComponentPublisher": _PUBLISHER,
        "ComponentConfiguration": {"DefaultConfiguration": {"pointer": ""}},
        "Manifests": [{"Platform": _PLATFORM, "Lifecycle": {}}],
    }


def runtime_recipe(
    names: Names,
    version: str,
    lifecycle: dict[str, Any],
    artifacts: tuple[dict[str, str], ...] = (),
) -> dict[str, Any]:
    """The runtime's component.

    Args:
        names: of the fleet.
        version: of the runtime.
        lifecycle: its scripts.
        artifacts: that they need.
    """
    publish = [
        f"$aws/things/{_DEVICE}/shadow/name/{SHADOW}/update",
        names.hot_topic(_DEVICE),
    ]
    return {
        "RecipeFormatVersion": _FORMAT,
        "ComponentName": names.runtime,
        "ComponentVersion": version,
        "ComponentDescription": "Fetches, verifies, self-tests and serves a fleet's models.",
        "ComponentPublisher": _PUBLISHER,
        "ComponentConfiguration": {
            "DefaultConfiguration": {
                "accessControl": {
                    "aws.greengrass.ipc.mqttproxy": {
                        f"{names.runtime}:mqttproxy:1": {
                            "policyDescription": "report, and tell of alarms",
                            "operations": ["aws.greengrass#PublishToIoTCore"],
                            "resources": publish,
                        },
                        f"{names.runtime}:mqttproxy:2": {
                            "policyDescription": "hear operators' requests",
                            "operations": ["aws.greengrass#SubscribeToIoTCore"],
                            "resources": [names.invoke_topic(_DEVICE)],
                        },
                    }
                }
            }
        },
        "ComponentDependencies": {
            RELEASE: {"VersionRequirement": RELEASE_VERSION, "DependencyType": "SOFT"},
            "aws.greengrass.TokenExchangeService": {
                "VersionRequirement": ">=2.0.0",
                "DependencyType": "HARD",
            },
        },
        "Manifests": [
            {"Platform": _PLATFORM, "Lifecycle": lifecycle, "Artifacts": list(artifacts)}
        ],
    }


def run_lifecycle(python: str) -> dict[str, Any]:
    """The runtime's scripts where that Python has it installed already."""
    return {"run": f"exec {python} -m edgefleet_runtime run {RUN_OPTIONS}"}


def encoded(recipe: dict[str, Any]) -> bytes:
    """A recipe as it is sent: JSON, which is YAML too."""
    return msgspec.json.format(msgspec.json.encode(recipe), indent=2)
