"""What a group's pods tell their channel is what the channel takes."""

from __future__ import annotations

from typing import Any

import pytest

from edgefleet_kubernetes.pod import pod_spec
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_runtime.access_options import access_settings
from edgefleet_runtime.channels.kubernetes.settings import Settings, read_settings
from edgefleet_runtime.cli import _parser
from edgefleet_runtime.commands.common import pairs

ALL = {
    "events": "mqtts://broker.test:8883/plant/{device}",
    "segments": "oci://registry.test/plant/telemetry",
    "segments_secret": "writers",
    "pull_secret": "readers",
}


def spec(**more: Any) -> dict[str, Any]:
    told = {"prefix": "plant", "runtime_image": "registry.test/runtime:1", **more}
    return pod_spec(KubernetesSettings.model_validate(told), "line-3")


def told(pod: dict[str, Any]) -> tuple[Any, Settings]:
    (container,) = pod["containers"]
    arguments = [text.replace("$(NODE_NAME)", "edge-7") for text in container["args"]]
    given = _parser(arguments[0]).parse_args(arguments)
    return given, read_settings(pairs(given.option, "-o"))


@pytest.mark.parametrize("more", [{}, ALL])
def test_a_channel_takes_what_its_pod_is_told(more: dict[str, str]) -> None:
    given, settings = told(spec(**more))
    assert (given.channel, given.device) == ("kubernetes", "edge-7")
    assert settings.reports.namespace == "edgefleet-reports"
    assert settings.segments == more.get("segments")


def test_files_that_options_name_are_mounted() -> None:
    pod = spec(**ALL)
    (container,) = pod["containers"]
    folders = [mount["mountPath"] for mount in container["volumeMounts"]]
    given, settings = told(pod)
    files = (
        settings.pointer,
        settings.token,
        settings.registry_credentials,
        settings.segments_credentials,
        access_settings(given)["token_file"],
        given.root,
    )
    for file in files:
        assert any(str(file).startswith(folder) for folder in folders), file
    assert len({volume["name"] for volume in pod["volumes"]}) == len(container["volumeMounts"])
