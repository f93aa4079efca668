"""Core devices of the mock: what deployments do to components that really run."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet_aws.cloud.recipes import Kind

if TYPE_CHECKING:
    from .conftest import Bench

SLEEPS = "exec sleep 1000"
KEEP = {"deploymentPolicies": {"failureHandlingPolicy": "DO_NOTHING"}}


def merging(components: dict[str, Any], **values: Any) -> dict[str, Any]:
    """The same components with a configuration update."""
    update = {"configurationUpdate": {"merge": json.dumps(values)}}
    return {name: {**one, **update} for name, one in components.items()}


def test_a_component_is_installed_and_runs(bench: Bench) -> None:
    camera = bench.component("camera", install="touch made", run="test -e made && exec sleep 1000")
    assert bench.deploy(camera) == "SUCCEEDED"
    assert bench.nucleus.state == {"camera": "RUNNING"}
    assert bench.nucleus.process_id("camera") is not None


def test_a_revision_leaves_alone_what_it_does_not_change(bench: Bench) -> None:
    camera = bench.component("camera", run=SLEEPS)
    bench.deploy(camera)
    before = bench.nucleus.process_id("camera")
    assert bench.deploy({**camera, **bench.component("other", run=SLEEPS)}) == "SUCCEEDED"
    assert bench.nucleus.process_id("camera") == before


def test_only_the_light_nucleus_restarts_for_an_update_of_configuration(
    bench: Bench, kind: Kind
) -> None:
    camera = bench.component("camera", run=SLEEPS)
    bench.deploy(camera)
    before = bench.nucleus.process_id("camera")
    bench.deploy(merging(camera, speed=2))
    assert (bench.nucleus.process_id("camera") == before) is (kind is Kind.CLASSIC)
    assert bench.nucleus.configuration("camera") == {"speed": 2}


def test_pointers_in_a_component_of_their_own_restart_nothing(bench: Bench, kind: Kind) -> None:
    """If this fails, the mock doesn't show why the runtime's own component carries no pointer."""
    runtime, release = bench.component("runtime", run=SLEEPS), bench.component("release")
    bench.deploy({**runtime, **release})
    processes = {bench.nucleus.process_id("runtime")}
    for number in range(10):
        bench.deploy({**runtime, **merging(release, pointer=number)})
        processes.add(bench.nucleus.process_id("runtime"))
    assert len(processes) == 1
    for number in range(10):
        bench.deploy({**merging(runtime, pointer=number), **release})
        processes.add(bench.nucleus.process_id("runtime"))
    assert len(processes) == (1 if kind is Kind.CLASSIC else 11)


def test_only_the_classic_nucleus_knows_configuration_in_scripts(bench: Bench, kind: Kind) -> None:
    camera = bench.component("camera", run="echo {configuration:/speed}; exec sleep 1000")
    bench.deploy(camera)
    before = bench.nucleus.process_id("camera")
    if kind is Kind.CLASSIC:
        bench.deploy(merging(camera, speed=2))
        assert bench.nucleus.process_id("camera") != before, "its script differs now"
        bench.until(lambda: bench.nucleus.log("camera")[-1:] == ["2"])
    else:
        bench.until(lambda: bench.nucleus.log("camera") == ["{configuration:/speed}"])


def test_a_component_that_is_left_out_is_removed(bench: Bench) -> None:
    camera, other = bench.component("camera", run=SLEEPS), bench.component("other", run=SLEEPS)
    bench.deploy({**camera, **other})
    assert bench.deploy(other) == "SUCCEEDED"
    assert bench.nucleus.state == {"other": "RUNNING"}
    assert bench.nucleus.configuration("camera") is None


def test_a_component_that_keeps_dying_is_broken_and_its_device_unhealthy(bench: Bench) -> None:
    bench.deploy(bench.component("camera", run="echo started; exit 3"), **KEEP)
    bench.until(lambda: bench.nucleus.state == {"camera": "BROKEN"})
    assert bench.nucleus.log("camera") == ["started"] * 3

    def status() -> str:
        return str(bench.greengrass.get_core_device(coreDeviceThingName="cam-1")["status"])

    bench.until(lambda: status() == "UNHEALTHY")


def test_a_failed_install_fails_the_deployment_and_tells_what_it_printed(bench: Bench) -> None:
    camera = bench.component("camera", install="echo no disk; exit 1", run=SLEEPS)
    assert bench.deploy(camera, **KEEP) == "FAILED"
    assert "INSTALL_ERROR" in bench.reason
    assert "no disk" in bench.reason


def test_only_the_classic_nucleus_rolls_a_failed_deployment_back(bench: Bench, kind: Kind) -> None:
    camera = bench.component("camera", run=SLEEPS)
    bench.deploy(camera)
    before = bench.nucleus.process_id("camera")
    worse = {**merging(camera, speed=9), **bench.component("other", install="exit 1")}
    assert bench.deploy(worse) == "FAILED"
    went_back = kind is Kind.CLASSIC
    assert (bench.nucleus.process_id("camera") == before) is went_back
    assert bench.nucleus.configuration("camera") == {"speed": 1 if went_back else 9}


def test_artifacts_are_unpacked_for_the_scripts(bench: Bench) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("word.txt", "hello")
    artifact = {**bench.put("tool.zip", packed.getvalue()), "Unarchive": "ZIP"}
    camera = bench.component(
        "camera", run="cat {artifacts:decompressedPath}/tool/word.txt", artifacts=(artifact,)
    )
    assert bench.deploy(camera) == "SUCCEEDED"
    bench.until(lambda: bench.nucleus.log("camera") == ["hello"])


def test_an_artifact_that_was_replaced_is_not_used(bench: Bench) -> None:
    artifact = bench.put("tool", b"as it was")
    camera = bench.component("camera", run=SLEEPS, artifacts=(artifact,))
    bench.put("tool", b"somebody else's")
    assert bench.deploy(camera, **KEEP) == "FAILED"
    assert "ARTIFACT_CHECKSUM_MISMATCH" in bench.reason
    assert bench.nucleus.process_id("camera") is None


def test_a_dependency_that_nobody_deploys_is_refused(bench: Bench) -> None:
    recipe = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": "camera",
        "ComponentVersion": "1.0.0",
        "ComponentDependencies": {"lens": {"VersionRequirement": "1.0.0"}},
        "Manifests": [{"Platform": {"runtime": "*"}, "Lifecycle": {"run": SLEEPS}}],
    }
    bench.greengrass.create_component_version(inlineRecipe=json.dumps(recipe).encode())
    assert bench.deploy({"camera": {"componentVersion": "1.0.0"}}) == "FAILED"
    assert "lens" in bench.reason


def test_a_power_cut_keeps_what_is_installed_and_its_configuration(bench: Bench) -> None:
    camera = bench.component("camera", run=SLEEPS)
    bench.deploy(merging(camera, speed=5))
    before = bench.nucleus.process_id("camera")
    bench.site.power_off("cam-1")
    assert bench.nucleus.process_id("camera") is None
    bench.site.power_on("cam-1")
    assert bench.nucleus.process_id("camera") not in {None, before}
    assert bench.nucleus.configuration("camera") == {"speed": 5}


@pytest.mark.parametrize("kind", [Kind.CLASSIC], indirect=True)
def test_a_canceled_deployment_reaches_no_device_that_had_not_begun(bench: Bench) -> None:
    camera = bench.component("camera", run=SLEEPS)
    bench.site.power_off("cam-1")
    made = bench.greengrass.create_deployment(targetArn=bench.target, components=camera)
    bench.greengrass.cancel_deployment(deploymentId=made["deploymentId"])
    bench.site.power_on("cam-1")
    bench.site.settle("cam-1")
    assert bench.nucleus.state == {}


def test_a_device_that_is_woken_while_it_is_shut_down_ends(bench: Bench) -> None:
    bench.deploy(bench.component("camera", run=SLEEPS))
    nucleus = bench.nucleus

    async def both() -> None:
        nucleus.wake()
        await nucleus.stop()

    bench.site._call(asyncio.wait_for(both(), 60))
    assert nucleus.process_id("camera") is None
