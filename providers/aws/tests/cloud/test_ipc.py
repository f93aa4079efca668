"""The IPC stand-in, spoken to by the AWS IoT Device SDK's own client."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import AccessDeniedError, UnavailableError
from edgefleet_aws.cloud.recipes import Kind
from edgefleet_runtime.channels.greengrass.channel import GreengrassChannel
from edgefleet_runtime.channels.greengrass.ipc import SOCKET_VARIABLE, TOKEN_VARIABLE, Nucleus
from edgefleet_runtime.channels.greengrass.settings import COMPONENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Bench

TIMEOUT_S = 90.0


class Component:
    """A component's connection, and what it was called back with."""

    def __init__(self, bench: Bench) -> None:
        told = bench.nucleus.environment("camera")
        self.changed, self.lost = threading.Event(), threading.Event()
        self.ipc = Nucleus(told[SOCKET_VARIABLE], told[TOKEN_VARIABLE], lost=self.lost.set)


@pytest.fixture
def kind() -> Kind:
    return Kind.CLASSIC


@pytest.fixture
def component(bench: Bench) -> Iterator[Component]:
    bench.deploy(bench.component("camera", run="exec sleep 1000"))
    made = Component(bench)
    yield made
    made.ipc.close()


def faster(bench: Bench) -> dict[str, Any]:
    update = {"merge": '{"speed": 2}'}
    return {"camera": {"componentVersion": "1.0.0", "configurationUpdate": update}}


def test_a_configuration_is_read(component: Component) -> None:
    assert component.ipc.configuration("camera") == {"speed": 1}


def test_a_component_that_is_not_installed_has_none(component: Component) -> None:
    assert component.ipc.configuration("other") is None
    assert component.ipc.watch("other", component.changed.set) is False


def test_a_change_is_told_to_who_watches(bench: Bench, component: Component) -> None:
    assert component.ipc.watch("camera", component.changed.set)
    bench.deploy(faster(bench))
    assert component.changed.wait(TIMEOUT_S)
    assert component.ipc.configuration("camera") == {"speed": 2}


def test_a_lost_subscription_is_told_by_nothing(bench: Bench, component: Component) -> None:
    component.ipc.watch("camera", component.changed.set)
    bench.nucleus.lose_subscriptions()
    bench.deploy(faster(bench))
    assert component.ipc.configuration("camera") == {"speed": 2}
    assert not component.changed.is_set()


def test_a_nucleus_that_goes_away_is_noticed_and_found_again(
    bench: Bench, component: Component
) -> None:
    component.ipc.configuration("camera")
    bench.site.power_off("cam-1")
    assert component.lost.wait(TIMEOUT_S)
    with pytest.raises(UnavailableError, match="nucleus"):
        component.ipc.configuration("camera")


def test_publishing_needs_the_recipes_leave(component: Component) -> None:
    with pytest.raises(AccessDeniedError, match="recipe"):
        component.ipc.publish("some/topic", b"")


def test_a_wrong_token_is_turned_away(bench: Bench, component: Component) -> None:
    socket = bench.nucleus.environment("camera")[SOCKET_VARIABLE]
    stranger = Nucleus(socket, "guessed", lost=lambda: None)
    with pytest.raises(UnavailableError):
        stranger.configuration("camera")
    stranger.close()


@pytest.mark.usefixtures("component")
def test_a_channel_reads_again_although_it_was_told_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = bench.component(COMPONENT)
    bench.deploy({**faster(bench), **release})
    for name, value in bench.nucleus.environment("camera").items():
        monkeypatch.setenv(name, value)
    channel = GreengrassChannel("cam-1", read_again_s=0.0)
    assert channel.pointer() is None
    bench.nucleus.lose_subscriptions()
    update = {"configurationUpdate": {"merge": json.dumps({"pointer": "newer"})}}
    bench.deploy({**faster(bench), COMPONENT: {**release[COMPONENT], **update}})
    assert channel.wait(0)
    assert channel.pointer() == b"newer"
    channel.close()
