"""`optimize` with a device: its figures count for its target, in place of this machine's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import InvalidInputError, UnavailableError
from edgefleet.optimization import optimize
from edgefleet.optimization.choice import Offer, assign
from edgefleet.optimization.on_device import OnDevice
from edgefleet.protocol.orders import TrialAnswer, TrialFigures
from edgefleet.protocol.report import SelfTest
from edgefleet.protocol.target import find_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet.optimization import Bundle
    from edgefleet.protocol.layout import BundleLayout
    from tests.optimization.conftest import Digits

PI = "raspberry-pi-5"  # likes int8


class Measuring:
    """A device that takes so many milliseconds a call of each variant, or says why it can't."""

    name = "cam-07"

    def __init__(self, told: Mapping[str, float | str], *, target: str = PI) -> None:
        self.target = target
        self.told = dict(told)
        self.offered: list[str] = []
        self.vectors: dict[str, int] = {}

    def trial(self, bundle: BundleLayout, *, say: Callable[[str], object]) -> TrialAnswer:
        say("measuring")
        bundle.verify()
        self.offered = [variant.name for variant in bundle.variants]
        self.vectors = {name: len(bundle.details(name).self_test) for name in self.offered}
        return TrialAnswer(
            id="order-0001",
            bundle=bundle.digest,
            state="done",
            figures=tuple(self._figures(name) for name in self.offered),
            target=self.target,
        )

    def _figures(self, name: str) -> TrialFigures:
        told = self.told.get(name, "no engine")
        if isinstance(told, str):
            skipped = told == "no engine"
            return TrialFigures(
                variant=name, outcome="skipped" if skipped else "failed", reason=told
            )
        return TrialFigures(
            variant=name,
            outcome="measured",
            providers=("CPUExecutionProvider",),
            calls=50,
            p50_us=told * 1e3,
            p99_us=told * 2e3,
            memory_bytes=1 << 20,
            self_test=SelfTest(passed=True, cases=4, max_error=0.25),
        )


def optimized(digits: Digits, device: Measuring, *, targets: tuple[str, ...] = (PI,)) -> Bundle:
    return optimize(
        digits.path,
        targets=targets,
        calibration=digits.calibration,
        evaluate=digits.accuracy,
        max_accuracy_drop=0.05,
        candidates=["int8", "fp16"],
        device=device,
        progress=False,
    )


def test_a_devices_figures_are_told_of_its_target(digits: Digits) -> None:
    device = Measuring({"fp32": 4.0, "int8": 2.0, "fp16": 5.0})
    report = optimized(digits, device, targets=(PI, "jetson-orin")).report
    assert device.offered == ["fp32", "int8", "fp16"]
    assert all(device.vectors.values())
    pi, jetson = report.targets
    assert (pi.variant, pi.p50_ms, pi.p99_ms, pi.measured_on) == ("int8", 2.0, 4.0, "cam-07")
    assert (jetson.variant, jetson.p50_ms, jetson.measured_on) == ("fp16", None, None)
    row = report.on_device[1]
    assert (row.variant, row.device, row.outcome, row.max_error) == (
        *("int8", "cam-07", "measured"),
        0.25,
    )
    assert "cam-07" in str(report)
    assert "cam-07" in report._repr_html_()


def test_what_is_slower_there_is_not_shipped_there(digits: Digits) -> None:
    report = optimized(digits, Measuring({"fp32": 2.0, "int8": 3.0})).report
    (pi,) = report.targets
    assert pi.variant == "fp32"
    assert "slower on cam-07 than the model as given" in pi.why


def test_what_fails_its_self_test_there_is_not_shipped_there(digits: Digits) -> None:
    told: dict[str, float | str] = {
        "fp32": 4.0,
        "int8": "7 of 10 elements are out of tolerance",
        "fp16": 1.0,
    }
    report = optimized(digits, Measuring(told), targets=(PI, "raspberry-pi-4")).report
    assert report.targets[0].variant == "fp32"
    assert "failed on cam-07: 7 of 10 elements" in report.targets[0].why


def test_what_the_device_may_not_try_is_not_shipped_there_but_the_model_as_given(
    digits: Digits,
) -> None:
    (pi,) = optimized(digits, Measuring({})).report.targets
    assert (pi.variant, pi.p50_ms, pi.measured_on) == ("fp32", None, None)
    assert "skipped on cam-07: no engine" in pi.why


def test_what_was_measured_there_stays_out_of_the_bundle(digits: Digits) -> None:
    one = optimized(digits, Measuring({"fp32": 4.0, "int8": 2.0}))
    other = optimized(digits, Measuring({"fp32": 4.5, "int8": 1.5}))
    assert one.digest == other.digest
    assert "on_device" not in json.loads(one.details("int8").lineage["report"])


def test_a_device_of_no_target_asked_for_is_refused_at_once(digits: Digits) -> None:
    device = Measuring({}, target="jetson-orin")
    with pytest.raises(InvalidInputError, match="cam-07 is a jetson-orin") as caught:
        optimized(digits, device)
    assert "'jetson-orin'" in str(caught.value.cure)
    assert device.offered == []


def test_the_name_of_a_device_is_no_device(digits: Digits) -> None:
    name: Any = "cam-07"
    with pytest.raises(InvalidInputError) as refusal:
        optimized(digits, name)
    assert refusal.value.cure == "give device=fleet.device('cam-07')"


def test_a_device_that_can_not_be_reached_ends_it(digits: Digits) -> None:
    class Silent(Measuring):
        def trial(self, bundle: BundleLayout, *, say: Callable[[str], object]) -> TrialAnswer:
            raise UnavailableError("cam-07 doesn't answer")

    with pytest.raises(UnavailableError, match="cam-07"):
        optimized(digits, Silent({}))


def test_of_several_that_pass_there_the_clearly_fastest_is_chosen() -> None:
    offers = [
        Offer(name="fp32", precision="fp32"),
        Offer(name="int8", precision="int8", p50_s=0.001, slower="slower here"),
        Offer(name="int8-dynamic", precision="int8", p50_s=0.009),
    ]
    figures = {
        name: TrialFigures(variant=name, outcome="measured", calls=9, p50_us=us, p99_us=us)
        for name, us in (("fp32", 9000.0), ("int8", 5000.0), ("int8-dynamic", 3000.0))
    }
    there = OnDevice("cam-07", "x86-cpu", figures)
    on_devices = {"x86-cpu": there.offers(offers)}
    (found,) = assign([find_target("x86-cpu")], offers, arch="x86_64", on_devices=on_devices)
    assert (found.variant, "faster there than int8" in found.why) == ("int8-dynamic", True)
