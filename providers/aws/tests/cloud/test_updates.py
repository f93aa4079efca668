"""What a nucleus asks its components before it updates them, and what the channel answers."""

from __future__ import annotations

import io
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import UnavailableError
from edgefleet_aws.cloud.recipes import Kind
from edgefleet_runtime.channels.greengrass.channel import GreengrassChannel
from edgefleet_runtime.channels.greengrass.ipc import SOCKET_VARIABLE, TOKEN_VARIABLE, Nucleus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Bench

SLEEPS = "exec sleep 1000"
UPDATE = "componentUpdatePolicy"

only_classic = pytest.mark.parametrize("kind", [Kind.CLASSIC], indirect=True)
only_lite = pytest.mark.parametrize("kind", [Kind.LITE], indirect=True)


class Camera:
    """A component that answers announcements with the next of ``answers``, then with 0."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        bench.deploy(bench.component("camera", run=SLEEPS))
        told = bench.nucleus.environment("camera")
        self.lost = threading.Event()
        self.ipc = Nucleus(told[SOCKET_VARIABLE], told[TOKEN_VARIABLE], lost=self.lost.set)
        self.answers: list[float] = []
        self.announced: list[str] = []
        self.deaf = False

    def hear(self) -> bool:
        def announced(deployment: str, _: bool) -> None:  # noqa: FBT001 - as it comes
            self.announced.append(deployment)
            wait_s = self.answers.pop(0) if self.answers else 0.0
            if not self.deaf:
                threading.Thread(target=self.ipc.put_off, args=(deployment, wait_s)).start()

        return self.ipc.announce_updates(announced)

    def with_another(self, **policies: Any) -> str:
        """Deploy something else beside it; how that ended."""
        camera = {"camera": {"componentVersion": "1.0.0"}}
        other = self._bench.component("other", run=SLEEPS)
        return self._bench.deploy({**camera, **other}, deploymentPolicies=policies)


@pytest.fixture
def camera(bench: Bench) -> Iterator[Camera]:
    made = Camera(bench)
    yield made
    made.ipc.close()


@only_lite
def test_the_light_nucleus_announces_nothing(camera: Camera) -> None:
    assert camera.hear() is False
    assert camera.ipc.configuration("camera") == {"speed": 1}
    assert not camera.lost.is_set(), "a refusal is no lost connection"


@only_classic
def test_a_subscription_that_is_refused_is_no_lost_connection(camera: Camera) -> None:
    """If this fails, a device that has no release yet asks for it without a pause."""
    assert camera.ipc.watch("other", lambda: None) is False
    assert camera.ipc.configuration("camera") == {"speed": 1}
    assert not camera.lost.is_set()


@only_classic
def test_each_deployment_is_announced(camera: Camera) -> None:
    camera.hear()
    assert camera.with_another() == "SUCCEEDED"
    assert len(camera.announced) == 1


@only_classic
def test_a_deployment_waits_and_is_announced_again(camera: Camera) -> None:
    camera.answers = [0.05, 0.05]
    camera.hear()
    assert camera.with_another() == "SUCCEEDED"
    assert len(camera.announced) == 3
    assert len(set(camera.announced)) == 1


@only_classic
def test_a_component_that_does_not_answer_holds_up_for_the_policys_time(camera: Camera) -> None:
    camera.deaf = True
    camera.hear()
    policy = {"action": "NOTIFY_COMPONENTS", "timeoutInSeconds": 1}
    assert camera.with_another(componentUpdatePolicy=policy) == "SUCCEEDED"
    with pytest.raises(UnavailableError, match="ServiceError"):
        camera.ipc.put_off(camera.announced[0], 0.0)


@only_classic
def test_a_policy_may_skip_the_announcement(camera: Camera) -> None:
    camera.hear()
    policy = {"action": "SKIP_NOTIFY_COMPONENTS"}
    assert camera.with_another(componentUpdatePolicy=policy) == "SUCCEEDED"
    assert camera.announced == []


@only_classic
def test_whoever_did_not_subscribe_can_put_off_nothing(camera: Camera) -> None:
    with pytest.raises(UnavailableError, match="InvalidArgumentsError"):
        camera.ipc.put_off("a", 1.0)


# --------------------------------------------------------------------------------- the channel


class Busy:
    """Says that something is under way, so many times."""

    def __init__(self, times: int) -> None:
        self._times = times
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked <= self._times


def archive(bench: Bench, version: str) -> dict[str, str]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("version.txt", version)
    return {**bench.put(f"camera-{version}.zip", packed.getvalue()), "Unarchive": "ZIP"}


def camera_of(bench: Bench, version: str) -> dict[str, Any]:
    return bench.component(
        "camera",
        version,
        run=f"echo {{artifacts:decompressedPath}}; {SLEEPS}",
        artifacts=(archive(bench, version),),
    )


@pytest.fixture
def channel(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Busy], GreengrassChannel]]:
    made: list[GreengrassChannel] = []

    def make(busy: Busy) -> GreengrassChannel:
        bench.deploy(camera_of(bench, "1.0.0"))
        bench.until(lambda: bool(bench.nucleus.log("camera")))
        for name, value in bench.nucleus.environment("camera").items():
            monkeypatch.setenv(name, value)
        artifacts = Path(bench.nucleus.log("camera")[0])
        made.append(GreengrassChannel("cam-1", artifacts=artifacts, put_off_s=0.05))
        made[0].delay_restarts(busy)
        made[0].pointer()
        return made[0]

    yield make
    for one in made:
        one.close()


@only_classic
def test_an_update_that_restarts_the_runtime_waits_until_it_is_idle(
    bench: Bench, channel: Callable[[Busy], GreengrassChannel]
) -> None:
    busy = Busy(3)
    channel(busy)
    before = bench.nucleus.process_id("camera")
    assert bench.deploy(camera_of(bench, "2.0.0")) == "SUCCEEDED"
    assert busy.asked == 4
    assert bench.nucleus.process_id("camera") != before


@only_classic
def test_an_update_that_leaves_the_runtime_alone_waits_for_nothing(
    bench: Bench, channel: Callable[[Busy], GreengrassChannel]
) -> None:
    busy = Busy(1000)
    channel(busy)
    camera = {"camera": {"componentVersion": "1.0.0"}}
    assert bench.deploy({**camera, **bench.component("other", run=SLEEPS)}) == "SUCCEEDED"
    assert busy.asked == 0


@only_lite
def test_a_channel_works_on_a_nucleus_that_does_not_ask(
    bench: Bench, channel: Callable[[Busy], GreengrassChannel]
) -> None:
    found = channel(Busy(1000))
    assert found.wait(0), "serving requests is news"
    assert found.pointer() is None
    assert not found.wait(0), "and nothing is news after that"
    assert bench.deploy(camera_of(bench, "2.0.0")) == "SUCCEEDED"
