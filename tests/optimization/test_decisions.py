"""Gate, choice and report: pure functions over values."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest

from edgefleet.errors import NotFoundError
from edgefleet.interfaces.amounts import size_text
from edgefleet.optimization.choice import Offer, assign, runs_here
from edgefleet.optimization.evaluation import Scores
from edgefleet.optimization.gate import SLOWER_FLOOR_S, is_slower, judge
from edgefleet.optimization.recipes import RECIPES, Recipe, select
from edgefleet.optimization.report import CandidateRow, OptimizationReport, TargetRow
from edgefleet.optimization.session import Latency
from edgefleet.protocol.bundle import Descriptor, Variant
from edgefleet.protocol.target import BUILTIN, HardwareTarget, choose_variant, find_target

NOWHERE = Descriptor(media_type="x", digest="sha256:" + "0" * 64, size=0)


@pytest.mark.parametrize(
    "baseline, candidate, allowed, passed",
    [
        (0.97, 0.97, 0.0, True),
        (0.97, 0.96, 0.01, True),
        (0.97, 0.9599, 0.01, False),
        (0.97, 0.98, 0.0, True),
        (97.0, 95.5, 1.0, False),
        (0.97, math.nan, 0.5, False),
    ],
)
def test_the_gate_holds_a_candidate_against_the_model_as_given(
    baseline: float, candidate: float, allowed: float, *, passed: bool
) -> None:
    verdict = judge(Scores(baseline), Scores(candidate), max_drop=allowed)
    assert verdict.passed is passed
    assert verdict.reason


def test_a_refusal_tells_the_figures() -> None:
    reason = judge(Scores(0.9731), Scores(0.8912), max_drop=0.01).reason
    assert all(figure in reason for figure in ("0.9731", "0.8912", "0.0819", "0.01"))


@pytest.mark.parametrize(
    "floor, passed",
    [(None, True), (0.7, True), (0.75, False), ({"seven": 0.75}, False), ({"two": 0.95}, True)],
    ids=["no floor", "kept", "for all", "for one", "the model as given is below it"],
)
def test_a_class_has_a_floor_of_its_own(
    floor: float | dict[str, float] | None, *, passed: bool
) -> None:
    baseline = Scores(0.9, {"seven": 0.9, "two": 0.9})
    candidate = Scores(0.9, {"seven": 0.72, "two": 0.9})
    verdict = judge(baseline, candidate, max_drop=0.05, min_class=floor)
    assert verdict.passed is passed
    assert passed or "class seven" in verdict.reason


def latency(p50_s: float) -> Latency:
    return Latency(p50_s=p50_s, p99_s=p50_s, calls=9)


def test_slower_means_noticeably_so() -> None:
    assert is_slower(latency(0.013), latency(0.010))
    assert not is_slower(latency(0.0105), latency(0.010))
    assert not is_slower(latency(0.007), latency(0.010))
    assert not is_slower(latency(12e-6), latency(8e-6))
    assert not is_slower(latency(SLOWER_FLOOR_S), latency(1e-6))


FP32 = Offer(name="fp32", precision="fp32", opset=17)
INT8 = Offer(name="int8", precision="int8", opset=17)


def assigned(*names: str, int8: Offer = INT8, arch: str = "x86_64") -> dict[str, str | None]:
    targets = [find_target(name) for name in names]
    found = assign(targets, [FP32, int8], arch=arch)
    return {assignment.target: assignment.variant for assignment in found}


def test_each_target_gets_the_first_of_its_precisions_that_there_is() -> None:
    assert assigned("x86-cpu", "jetson-orin", "raspberry-pi-4", "raspberry-pi-5", "any") == {
        "x86-cpu": "int8",
        "jetson-orin": "fp32",
        "raspberry-pi-4": "fp32",
        "raspberry-pi-5": "int8",
        "any": "fp32",
    }


def test_what_failed_the_gate_goes_to_nobody_and_the_reason_is_told() -> None:
    refused = Offer(name="int8", precision="int8", opset=17, refused="too inaccurate")
    assert assigned("x86-cpu", "raspberry-pi-5", int8=refused) == {
        "x86-cpu": "fp32",
        "raspberry-pi-5": "fp32",
    }
    (found,) = assign([find_target("x86-cpu")], [FP32, refused], arch="x86_64")
    assert found.why == "int8: too inaccurate"


def test_what_is_slower_here_is_kept_from_targets_like_this_machine_only() -> None:
    slower = Offer(name="int8", precision="int8", opset=17, slower="slower here")
    assert assigned("x86-cpu", "raspberry-pi-5", int8=slower) == {
        "x86-cpu": "fp32",
        "raspberry-pi-5": "int8",
    }


def test_a_target_that_prefers_what_was_not_made_says_so() -> None:
    (found,) = assign([find_target("jetson-orin")], [FP32], arch="x86_64")
    assert (found.variant, found.why) == ("fp32", "fp16: no candidate was made")


def test_a_target_that_nothing_suits_gets_nothing_and_why() -> None:
    coral = HardwareTarget(
        name="coral", about="", arch="any", precisions=("int8",), formats=("tflite",)
    )
    old = HardwareTarget(name="old", about="", arch="any", precisions=("fp32",), opset_ceiling=11)
    only_int8 = HardwareTarget(name="npu", about="", arch="any", precisions=("int8",))
    found = assign([coral, old, only_int8], [FP32], arch="x86_64")
    assert [assignment.variant for assignment in found] == [None, None, None]
    assert "tflite" in found[0].why
    assert "opset 17 is newer than the 11" in found[1].why
    assert "int8: no candidate was made" in found[2].why


def test_among_several_of_a_precision_the_clearly_fastest_here_goes_to_targets_like_this() -> None:
    offers = [
        FP32,
        Offer(name="int8", precision="int8", p50_s=0.0100),
        Offer(name="int8-signed", precision="int8", activations="signed", p50_s=0.0080),
    ]
    found = assign([find_target("x86-cpu"), find_target("raspberry-pi-5")], offers, arch="x86_64")
    assert [assignment.variant for assignment in found] == ["int8-signed", "int8"]
    assert "faster here than int8" in found[0].why
    close = [*offers[:2], Offer(name="int8-signed", precision="int8", p50_s=0.0095)]
    assert assign([find_target("x86-cpu")], close, arch="x86_64")[0].variant == "int8"


def test_what_computes_less_goes_before_the_model_as_given_unless_it_is_slower_here() -> None:
    lean = Offer(name="channels-25", precision="fp32", leaner=True, p50_s=0.010)
    given = Offer(name="fp32", precision="fp32", p50_s=0.010)
    targets = [find_target("raspberry-pi-4")]
    assert assign(targets, [given, lean], arch="x86_64")[0].variant == "channels-25"
    refused = replace(lean, refused="too inaccurate")
    assert assign(targets, [given, refused], arch="x86_64")[0].variant == "fp32"
    slower = replace(lean, slower="slower here")
    here = HardwareTarget(name="here", about="", arch="x86_64", precisions=("fp32",))
    assert assign([here], [given, slower], arch="x86_64")[0].variant == "fp32"


def test_an_engine_that_wants_signed_activations_gets_them() -> None:
    npu = HardwareTarget(
        name="npu", about="", arch="any", precisions=("int8",), activations="signed"
    )
    signed = Offer(name="int8-signed", precision="int8", activations="signed")
    unsigned = Offer(name="int8", precision="int8", activations="unsigned")
    assert assign([npu], [FP32, unsigned, signed], arch="")[0].variant == "int8-signed"
    assert assign([npu], [FP32, unsigned], arch="")[0].variant == "int8"


def test_a_latency_of_this_cpu_says_nothing_of_an_accelerator() -> None:
    assert runs_here(find_target("x86-cpu"), "x86_64")
    assert not runs_here(find_target("nvidia-gpu"), "x86_64")
    assert not runs_here(find_target("raspberry-pi-5"), "x86_64")


def names(*targets: str, **options: object) -> list[str]:
    found = select([find_target(name) for name in targets], given="fp32", **options)  # type: ignore[arg-type]
    return [recipe.name for recipe in found]


INT8_LADDER = ["int8", "int8-percentile", "int8-entropy", "int8-mixed"]


def test_a_candidate_is_only_made_for_somebody() -> None:
    assert names("raspberry-pi-4", "any") == []
    assert names("x86-cpu") == INT8_LADDER
    assert names("jetson-orin") == ["fp16"]
    assert names("jetson-orin", "x86-cpu") == [*INT8_LADDER, "fp16"]


def test_thorough_tries_what_seldom_pays_too() -> None:
    found = names("x86-cpu", thorough=True)
    assert {"int8-signed", "int8-dynamic", "fp32-graph", "channels-25", "weights-50"} <= {*found}
    assert "fp16" not in found


def test_candidates_are_asked_for_by_name_or_pattern() -> None:
    assert names("x86-cpu", asked=["fp16"]) == ["fp16"]
    assert names("x86-cpu", asked=["int8-signed*"]) == [
        "int8-signed",
        "int8-signed-percentile",
        "int8-signed-entropy",
        "int8-signed-mixed",
    ]
    assert names("x86-cpu", asked=["all"]) == [recipe.name for recipe in RECIPES]
    own = Recipe(name="mine", kind="weights", precision="fp32", about="", options=(("share", 0.9),))
    assert names("x86-cpu", asked=[own]) == ["mine"]
    with pytest.raises(NotFoundError, match="int8-entropy"):
        names("x86-cpu", asked=["int7"])


def test_what_another_candidate_starts_from_is_made_first() -> None:
    assert names("x86-cpu", asked=["openvino-int8"]) == [*INT8_LADDER, "openvino-int8"]
    assert names("x86-cpu", asked=["openvino-int8", "int8"]) == [*INT8_LADDER, "openvino-int8"]


def test_every_recipe_is_data_with_a_digest_of_its_own() -> None:
    assert len({recipe.digest() for recipe in RECIPES}) == len(RECIPES)
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)


@pytest.mark.parametrize("refused", ["", "failed"])
@pytest.mark.parametrize("slower", ["", "slower"])
def test_devices_choose_what_was_assigned(refused: str, slower: str) -> None:
    """If this fails, a device runs another variant than the report promised."""
    int8 = Offer(name="int8", precision="int8", opset=17, refused=refused, slower=slower)
    onnx = [t for t in BUILTIN if "onnx" in t.formats and (t.opset_ceiling or 17) >= 17]
    for count in (1, 2, len(onnx)):
        for wanted in itertools.combinations(onnx, count):
            found = assign(wanted, [FP32, int8], arch="x86_64")
            marked = tuple(a.target for a in found if a.variant == "int8")
            variants = [variant("fp32", (), 100)]
            variants += [variant("int8", marked, 30)] if marked else []
            for target, assignment in zip(wanted, found, strict=True):
                assert choose_variant(variants, target).variant.name == assignment.variant


def variant(name: str, targets: tuple[str, ...], size: int) -> Variant:
    return Variant(
        name=name,
        format="onnx",
        precision=name,
        targets=targets,
        bytes=size,
        opset=17,
        manifest=NOWHERE,
    )


def test_an_unknown_target_lists_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="raspberry-pi-5"):
        find_target("raspbery")


REPORT = OptimizationReport(
    model="digits",
    machine="x86_64",
    max_accuracy_drop=0.01,
    calibration_samples=200,
    rows=(
        CandidateRow(
            variant="fp32",
            precision="fp32",
            outcome="shipped",
            why="the model as given",
            size_bytes=70_189,
            accuracy=0.97,
            accuracy_drop=0.0,
            p50_ms=1.25,
            p99_ms=2.5,
        ),
        CandidateRow(variant="int8", precision="int8", outcome="not made", why="<none> wants it"),
    ),
    targets=(TargetRow(target="jetson-orin", variant="fp32", why="fp16: not made"),),
)


def test_the_report_prints_figures_reasons_and_what_was_not_measured() -> None:
    text = str(REPORT)
    for part in ("fp32", "70.2 kB", "0.9700", "1.25 ms", "2.5 ms", "int8: <none> wants it"):
        assert part in text
    assert "jetson-orin" in text
    assert "not measured" in text


def test_the_report_in_a_notebook_is_escaped() -> None:
    page = REPORT._repr_html_()
    assert "&lt;none&gt; wants it" in page
    assert page.count("<table>") == 2


def test_the_report_as_a_dict_is_plain_data() -> None:
    facts = REPORT.to_dict()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["rows"][0]["accuracy"] == 0.97


def test_a_row_is_found_by_name() -> None:
    assert REPORT.row("int8").outcome == "not made"
    with pytest.raises(NotFoundError, match="fp32, int8"):
        REPORT.row("fp16")


def test_sizes_read_well() -> None:
    sizes = (None, 0, 999, 26_296, 2_621_442_752)
    assert [size_text(size) for size in sizes] == ["-", "0 B", "999 B", "26.3 kB", "2.62 GB"]
