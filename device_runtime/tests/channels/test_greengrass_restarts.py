"""When an update that would restart the runtime has to wait, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet_runtime.channels.greengrass.restarts import MAX_S, Restarts


class Component:
    """The runtime's component on a disk, and whether the runtime is busy."""

    def __init__(self, root: Path) -> None:
        self._versions = root
        self.busy = True
        self.restarts = Restarts(lambda: self.busy, self.prepare("1.0.0"))

    def prepare(self, version: str) -> Path:
        """Put a version's artifacts there, as a nucleus does before it announces them."""
        folder = self._versions / version
        folder.mkdir()
        return folder

    def wait_s(self, deployment: str = "a", *, nucleus_restarts: bool = False) -> float:
        return self.restarts.wait_s(deployment, nucleus_restarts=nucleus_restarts)


@pytest.fixture
def component(tmp_path: Path) -> Component:
    return Component(tmp_path)


def test_what_leaves_the_runtime_alone_is_never_put_off(component: Component) -> None:
    assert component.wait_s() == 0


def test_a_newer_version_waits_for_what_is_under_way(component: Component) -> None:
    component.prepare("1.1.0")
    assert component.wait_s() > 0
    component.busy = False
    assert component.wait_s() == 0


def test_a_restart_of_the_nucleus_waits_as_well(component: Component) -> None:
    assert component.wait_s(nucleus_restarts=True) > 0


def test_one_deployment_waits_a_minute_in_all(component: Component) -> None:
    waits = [component.wait_s(nucleus_restarts=True) for _ in range(100)]
    assert sum(waits) == MAX_S == 60
    assert waits[-1] == 0


def test_the_next_deployment_waits_anew(component: Component) -> None:
    while component.wait_s("a", nucleus_restarts=True):
        pass
    assert component.wait_s("b", nucleus_restarts=True) > 0


def test_a_version_that_was_there_before_is_no_newer_one(tmp_path: Path) -> None:
    (tmp_path / "0.9.0").mkdir()
    assert Component(tmp_path).wait_s() == 0


@pytest.mark.parametrize("nowhere", [None, Path("/nonexistent/1.0.0")])
def test_a_component_without_artifacts_is_put_off_for_the_nucleus_only(
    nowhere: Path | None,
) -> None:
    restarts = Restarts(lambda: True, nowhere)
    assert restarts.wait_s("a", nucleus_restarts=False) == 0
    assert restarts.wait_s("a", nucleus_restarts=True) > 0
