"""What a whole fleet must do, whatever serves it: the rules of its pointers and releases, and the
way of a model from training data to devices that serve it and say so.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

import edgefleet as ef
from edgefleet.errors import WaitTimeoutError
from edgefleet.fleet import Fleet
from edgefleet.testing.kit import models
from edgefleet.testing.kit.devices import AddDevice
from edgefleet.testing.kit.fleet_edits import EditRules
from edgefleet.testing.kit.fleet_pointers import PointerRules
from edgefleet.testing.kit.orders import OrderRules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.deployment import Deployment

TIMEOUT_S = 120.0  # for what takes a second where nothing is wrong
RELEASES = 10  # over which a runtime's process must not change


class FleetConformance(PointerRules, EditRules, OrderRules):
    """Fixtures: those of `PointerRules`, and for the tests with real devices ``power_on`` and
    ``expire_access``.
    """

    @pytest.fixture
    def power_on(self) -> AddDevice:
        """Adds a device on which the real runtime runs until the test ends."""
        return self.lacks("power_on", "adds a device to the fleet and starts a real runtime for it")

    @pytest.fixture
    def expire_access(self) -> Callable[[str], Callable[[], None]]:
        """Lets run out what a device reads with, while its reports still come; the result
        renews it.
        """
        return self.lacks(
            "expire_access",
            "called with a device's name: what it reads with runs out, while its reports still "
            "come; gives a callable that renews it",
        )

    def test_the_nine_lines(self, fleet: Fleet, power_on: AddDevice, tmp_path: Path) -> None:
        """If this fails, the example that the documentation opens with doesn't work here."""
        power_on("cam-07", group="line-3", labels={"target": "x86-cpu"})
        data, script = models.write_data(tmp_path / "digits"), models.write_script(tmp_path)
        cal, (x, y) = models.points(2)[0], models.points(3)

        run = fleet.train(script, data=data, params={"epochs": 5}).wait(timeout_s=TIMEOUT_S)
        bundle = ef.optimize(
            run.model,
            targets=["x86-cpu", "jetson-orin"],
            calibration=cal,
            evaluate=models.accuracy(),
            max_accuracy_drop=0.01,
            cache=False,
        )
        model = fleet.push(bundle, "digits")
        plan = fleet.plan(model, to="line-3")
        assert "cam-07" in str(plan)
        assert plan.bytes > 0
        d = fleet.deploy(model, to="line-3")
        status = d.wait(min_attested=0.95, timeout_s=TIMEOUT_S)
        assert status.models == (model.reference,) == ("digits:1",)
        scores = fleet.device("cam-07").infer("digits", x)["scores"]
        assert models.share_right(scores, y) > 0.95
        back = fleet.rollback("line-3").wait(timeout_s=TIMEOUT_S)
        assert (back.models, back.attested) == ((), 1)

    def test_ten_releases_leave_the_runtime_alone(
        self, fleet: Fleet, power_on: AddDevice, tmp_path: Path
    ) -> None:
        """If this fails, your channel restarts the runtime, or redeploys it, with each release."""
        power_on("cam-07", group="line-3")
        processes = set()
        for number in range(RELEASES):
            model = models.write_model(tmp_path / f"{number}.onnx", number)
            deployment = fleet.deploy(fleet.push(model, "digits"), to="line-3")
            deployment.wait(timeout_s=TIMEOUT_S, progress=False)
            report = fleet.device("cam-07").info.report
            assert report is not None
            processes.add((report.health.pid, report.health.started, report.health.starts))
        assert len(processes) == 1

    def test_expired_access_waits_and_then_goes_on(
        self,
        fleet: Fleet,
        power_on: AddDevice,
        expire_access: Callable[[str], Callable[[], None]],
        tmp_path: Path,
    ) -> None:
        """If this fails, a device whose access ran out rejects the release, or needs a new one."""
        power_on("cam-07", group="line-3")
        renew = expire_access("cam-07")
        model = fleet.push(models.write_model(tmp_path / "model.onnx", 0), "digits")
        deployment = fleet.deploy(model, to="line-3")
        _await_words(deployment, "access expired")
        renew()
        status = deployment.wait(timeout_s=TIMEOUT_S, progress=False)
        assert status.number == deployment.number


def _await_words(deployment: Deployment, words: str) -> None:
    """Wait until the only device of a deployment, still pending, says why in these words."""
    deadline = time.monotonic() + TIMEOUT_S
    while words not in (device := deployment.status().devices[0]).why:
        assert device.outcome == "pending", device.why
        assert time.monotonic() < deadline, device.why
        with suppress(WaitTimeoutError):
            deployment.wait(timeout_s=0.1, progress=False)
