"""A plan tells what devices will do, because it makes the same choice as they do."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from edgefleet.interfaces.values import DeviceInfo
from edgefleet.protocol.bundle import Descriptor, Variant
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.release import EMPTY, Release, ReleaseModel
from edgefleet.protocol.report import Health, ModelReport, Report
from edgefleet.protocol.target import BUILTIN, HardwareTarget
from edgefleet.rollout.plan import (
    BundleFacts,
    Plan,
    PlannedDevice,
    changes_between,
    plan_device,
    warnings_of,
)

OLD, NEW = digest_of(b"old bundle"), digest_of(b"new bundle")
SHARED, OWN = digest_of(b"shared blob"), digest_of(b"own blob")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def variant(name: str, precision: str, targets: tuple[str, ...] = ()) -> Variant:
    manifest = Descriptor(media_type="m", digest=digest_of(name.encode()), size=1)
    return Variant(
        name=name,
        format="onnx",
        precision=precision,
        targets=targets,
        bytes=10,
        opset=17,
        manifest=manifest,
    )


FACTS = {
    NEW: BundleFacts(
        variants=(variant("fp32", "fp32"), variant("int8", "int8", ("x86-cpu",))),
        blobs={"fp32": {SHARED: 70, OWN: 30}, "int8": {OWN: 30}},
    ),
    OLD: BundleFacts(variants=(variant("fp32", "fp32"),), blobs={"fp32": {SHARED: 70}}),
}
RELEASE = Release(models=(ReleaseModel(name="digits", version="2", bundle=NEW),))


def device(labels: dict[str, str], report: Report | None = None) -> DeviceInfo:
    return DeviceInfo(name="cam", group="line", labels=labels, report=report)


def running(state: str) -> Report:
    model = ModelReport(name="digits", version="1", bundle=OLD, variant="fp32", state=state)  # type: ignore[arg-type]
    return Report(
        sequence=1,
        time=NOW,
        state="active",
        runtime="0",
        health=Health(pid=1, started=NOW),
        models=(model,),
    )


def test_devices_of_different_targets_get_different_variants() -> None:
    gateway = plan_device(device({"target": "x86-cpu"}), RELEASE, FACTS, BUILTIN)
    jetson = plan_device(device({"target": "jetson-orin"}), RELEASE, FACTS, BUILTIN)
    assert (gateway.variants, jetson.variants) == ({"digits": "int8"}, {"digits": "fp32"})


def test_a_device_that_reported_its_target_needs_no_label() -> None:
    report = Report(
        sequence=1,
        time=NOW,
        state="idle",
        runtime="0",
        health=Health(pid=1, started=NOW),
        labels={"target": "x86-cpu"},
    )
    assert plan_device(device({}, report), RELEASE, FACTS, BUILTIN).target == "x86-cpu"


def test_blobs_that_the_device_has_are_not_fetched_again() -> None:
    labels = {"target": "jetson-orin"}
    fresh = plan_device(device(labels), RELEASE, FACTS, BUILTIN)
    holder = plan_device(device(labels, running("active")), RELEASE, FACTS, BUILTIN)
    assert (fresh.bytes, holder.bytes) == (100, 30)


def test_a_rejected_bundle_counts_for_nothing() -> None:
    labels = {"target": "jetson-orin"}
    assert plan_device(device(labels, running("rejected")), RELEASE, FACTS, BUILTIN).bytes == 100


def test_a_device_that_nothing_fits_is_a_problem_with_the_reason() -> None:
    only = {NEW: BundleFacts(variants=(variant("a", "int8", ("x86-cpu",)),), blobs={"a": {}})}
    planned = plan_device(device({"target": "jetson-orin"}), RELEASE, only, BUILTIN)
    assert planned.problem is not None
    assert "made for x86-cpu" in planned.problem


def test_a_device_takes_what_was_made_for_its_family() -> None:
    planned = plan_device(device({"target": "x86-cpu-vnni"}), RELEASE, FACTS, BUILTIN)
    assert planned.variants == {"digits": "int8"}
    assert planned.note == "made for x86-cpu, fits x86-cpu-vnni, int8 preferred among 2"


def test_a_target_that_nobody_tried_is_noted_not_warned_of() -> None:
    planned = plan_device(device({"target": "jetson-orin"}), RELEASE, FACTS, BUILTIN)
    assert planned.note.endswith("; target jetson-orin is untested")
    assert (planned.problem, planned.warnings) == (None, ())


def test_a_target_that_nothing_can_serve_is_a_problem() -> None:
    dead = HardwareTarget(
        name="dead", about="", arch="any", precisions=("fp32",), status="impossible", why="no Linux"
    )
    planned = plan_device(device({"target": "dead"}), RELEASE, FACTS, [dead])
    assert planned.problem == "nothing can serve target dead: no Linux"


@pytest.mark.parametrize("size, what", [(3 << 29, "warnings"), (9 << 30, "problem")])
def test_a_model_too_large_for_the_target_s_boards_is_said(size: int, what: str) -> None:
    large = msgspec.structs.replace(variant("fp32", "fp32"), bytes=size)
    facts = {NEW: BundleFacts(variants=(large,), blobs={"fp32": {}})}
    planned = plan_device(device({"target": "raspberry-pi-4"}), RELEASE, facts, BUILTIN)
    assert "its files take" in str(getattr(planned, what))
    assert [bool(planned.warnings), bool(planned.problem)].count(True) == 1


def test_a_label_that_names_no_known_target_is_warned_of_with_the_devices() -> None:
    planned = plan_device(device({"target": "toaster"}), RELEASE, FACTS, BUILTIN)
    assert planned.variants == {"digits": "fp32"}
    (warning,) = warnings_of((planned,), "local/line")
    assert warning == "label target=toaster names a target that is unknown here (cam)"


def test_the_same_warning_of_many_devices_is_one_line() -> None:
    planned = [
        PlannedDevice(device=name, target="x", variants={}, bytes=0, warnings=("it is hot",))
        for name in "abcd"
    ]
    assert warnings_of(planned, "local/line") == ("it is hot (a, b, c…)",)


def test_changes_name_what_is_added_replaced_removed_kept() -> None:
    before = Release(
        models=(
            ReleaseModel(name="a", version="1", bundle=OLD),
            ReleaseModel(name="b", version="1", bundle=OLD),
            ReleaseModel(name="c", version="1", bundle=OLD),
        )
    )
    after = before.without_model("a").with_model(ReleaseModel(name="b", version="2", bundle=NEW))
    after = after.with_model(ReleaseModel(name="d", version="1", bundle=NEW))
    assert [str(change) for change in changes_between(before, after)] == [
        "remove a 1",
        "replace b 1→2",
        "keep c 1→1",
        "add d 1",
    ]
    assert changes_between(EMPTY, EMPTY) == ()


def test_an_empty_group_and_unlabelled_devices_are_warned_of() -> None:
    assert "no devices yet" in warnings_of((), "local/line")[0]
    planned = PlannedDevice(device="cam", target="any", variants={}, bytes=0)
    assert "no target label" in warnings_of((planned,), "local/line")[0]


def test_a_shadow_is_planned_beside_the_active_model_and_its_blobs_count() -> None:
    shadow = ReleaseModel(name="digits", version="1", bundle=OLD, role="shadow")
    both = RELEASE.with_model(shadow)
    assert [str(change) for change in changes_between(RELEASE, both)] == [
        "keep digits 2→2",
        "add digits (shadow) 1",
    ]
    planned = plan_device(device({}), both, FACTS, BUILTIN)
    assert planned.variants == {"digits": "fp32", "digits (shadow)": "fp32"}
    assert planned.bytes == 100


def test_a_shadow_that_becomes_active_is_no_shadow_any_more() -> None:
    shadow = ReleaseModel(name="digits", version="3", bundle=OLD, role="shadow")
    both = RELEASE.with_model(shadow)
    assert both.without_shadow("digits", NEW) == both
    assert both.without_shadow("digits", OLD) == RELEASE


def test_what_a_bundle_says_is_text_in_a_notebook_never_markup() -> None:
    plan = Plan(
        group="local/line",
        before=None,
        after=NEW,
        changes=(),
        devices=(),
        problems=("cam: made for <script>alert(1)</script>",),
    )
    assert repr(plan) == str(plan)
    shown = plan._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
