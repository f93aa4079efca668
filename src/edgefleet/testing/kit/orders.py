"""What an operator's orders to one device must do, over whatever carries requests to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

from edgefleet.errors import NotFoundError
from edgefleet.fleet import Fleet
from edgefleet.interfaces.abilities import CanInvoke
from edgefleet.optimization.packaging import bundle_from_onnx
from edgefleet.protocol.event import Sample
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.release import (
    Budget,
    Release,
    ReleaseModel,
    RuntimeSettings,
)
from edgefleet.testing.kit import models
from edgefleet.testing.kit.devices import AddDevice
from edgefleet.testing.kit.fleet_fixtures import FleetFixtures, first_deployer
from edgefleet.testing.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.protocol.report import Report

T = TypeVar("T")

TIMEOUT_S = 120.0  # for what takes a second where nothing is wrong


class OrderRules(FleetFixtures):
    """Fixtures: those of `FleetFixtures`, and ``power_on`` as of `FleetConformance`."""

    def test_a_device_is_rolled_back_by_order_until_a_newer_pointer(
        self, fleet: Fleet, power_on: AddDevice, tmp_path: Path
    ) -> None:
        """If this fails, an operator can't bring one device's release before back in an emergency,
        or the device doesn't say so.
        """
        _require_orders(first_deployer(fleet))
        power_on("cam-07", group="line-3")
        x, _ = models.points(3, count=2)
        _deploy(fleet, tmp_path, 1)
        before = _scores(fleet, x)
        device = fleet.device("cam-07")
        with pytest.raises(NotFoundError, match="before"):
            device.rollback(timeout_s=TIMEOUT_S)
        _deploy(fleet, tmp_path, 2)
        assert _scores(fleet, x) != before

        answer = device.rollback(reason="it sees ghosts", timeout_s=TIMEOUT_S)
        assert (answer.changed, answer.remembered) == (True, True)
        assert _scores(fleet, x) == before
        assert not device.rollback(timeout_s=TIMEOUT_S).changed

        report = eventually(lambda: _rolled_back(device.status(timeout_s=TIMEOUT_S)))
        assert report.state == "rejected"
        assert report.health.starts == 1
        eventually(lambda: "it sees ghosts" in fleet.group_status("line-3").devices[0].why)
        assert "newer pointer" in fleet.why("cam-07").cure

        _deploy(fleet, tmp_path, 3)
        assert _scores(fleet, x) != before

    def test_a_request_is_captured_by_order(
        self, fleet: Fleet, power_on: AddDevice, tmp_path: Path
    ) -> None:
        """If this fails, an operator can't see what a model is asked and answers just now."""
        _require_orders(first_deployer(fleet))
        power_on("cam-07", group="line-3")
        _deploy(fleet, tmp_path, 1)
        device = fleet.device("cam-07")
        with pytest.raises(NotFoundError):
            device.capture("faces", timeout_s=TIMEOUT_S)
        asked = device.capture("digits", reason="odd", timeout_s=TIMEOUT_S)
        assert (asked.count, asked.captured, asked.open) == (1, 0, True)
        x, _ = models.points(3, count=2)
        device.infer("digits", x, timeout_s=TIMEOUT_S)

        def kept() -> tuple[str, ...]:
            order = device.capture("digits", order=asked.id, timeout_s=TIMEOUT_S)
            return order.ids if order.captured else ()

        (identity,) = eventually(kept)

        def arrived() -> list[Sample]:
            found = (e for e in fleet.events(kind="sample") if e.id == identity)
            return [data for e in found if isinstance(data := e.payload(), Sample)]

        (sample,) = eventually(arrived)
        assert (sample.model, sample.model_version) == ("digits", "1")
        assert sample.reason.endswith(": odd")
        assert list(sample.outputs) == ["scores"]
        assert not sample.inputs, "the policy doesn't allow inputs"

    def test_a_candidate_is_measured_by_order(
        self, fleet: Fleet, power_on: AddDevice, tmp_path: Path
    ) -> None:
        """If this fails, what a model costs on a real device can't be told before it is deployed,
        or to tell it leaves something behind.
        """
        _require_orders(first_deployer(fleet))
        power_on("cam-07", group="line-3")
        pushed = fleet.push(models.write_model(tmp_path / "1.onnx", 1), "digits")
        release = Release(
            models=(ReleaseModel(name="digits", version=pushed.version, bundle=pushed.digest),),
            settings=RuntimeSettings(budget=Budget(trial_s=0.1)),
            telemetry=TelemetryPolicy(heartbeat_s=0.5),
        )
        fleet.deploy(release, to="line-3").wait(timeout_s=TIMEOUT_S, progress=False)
        device = fleet.device("cam-07")
        before = device.status(timeout_s=TIMEOUT_S).health.store_bytes
        model = models.write_model(tmp_path / "2.onnx", 2)
        bundle = bundle_from_onnx(model, tmp_path / "bundle", name="digits")
        answer = device.trial(bundle, calls=5, timeout_s=TIMEOUT_S, progress=False)
        (figures,) = answer.figures
        assert (figures.outcome, figures.calls, figures.reason) == ("measured", 5, "")
        assert figures.self_test is not None
        assert figures.self_test.passed
        assert figures.providers
        assert [version.version for version in fleet.registry.versions("digits")] == ["1"]
        told = device.status(timeout_s=TIMEOUT_S).sequence

        def cleared() -> Report | None:
            report = device.status(timeout_s=TIMEOUT_S)
            newer = report.sequence > told
            return report if newer and report.health.store_bytes == before else None

        report = eventually(cleared)
        assert (report.state, report.health.starts) == ("active", 1)


def _require_orders(deployer: Deployer) -> None:
    if not isinstance(deployer, CanInvoke):
        pytest.skip("this deployer can't carry requests to devices")


def _deploy(fleet: Fleet, folder: Path, seed: int) -> None:
    model = fleet.push(models.write_model(folder / f"{seed}.onnx", seed), "digits")
    fleet.deploy(model, to="line-3").wait(timeout_s=TIMEOUT_S, progress=False)


def _scores(fleet: Fleet, x: NDArray[np.float32]) -> list[list[float]]:
    outputs = fleet.device("cam-07").infer("digits", x, timeout_s=TIMEOUT_S)
    scores: list[list[float]] = outputs["scores"].tolist()
    return scores


def _rolled_back(report: Report) -> Report | None:
    return report if report.rolled_back is not None else None
