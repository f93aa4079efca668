from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from edgefleet.errors import (
    AccuracyGateError,
    InvalidInputError,
)
from edgefleet.optimization import optimize, trials
from edgefleet.optimization.reference import MAX_ANSWERED
from edgefleet.optimization.session import Latency
from edgefleet.protocol.hardware_target import architecture
from edgefleet.protocol.sketch import ClassSketch, NumberSketch, quantiles
from edgefleet.protocol.target import HardwareTarget, choose_variant, find_target
from tests.optimization import models
from tests.optimization.device import repeat_self_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.optimization import Bundle
    from tests.optimization.conftest import Digits

HERE = architecture(platform.machine())
PI = ["raspberry-pi-5"]  # prefers int8, and no figure measured on this machine speaks for it


@pytest.fixture(scope="session")
def bundle(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return optimize(
        digits.path,
        targets=["x86-cpu", "raspberry-pi-5", "jetson-orin"],
        calibration=digits.calibration,
        evaluate=digits.accuracy,
        max_accuracy_drop=0.02,
        name="digits",
        labels=[str(digit) for digit in range(10)],
        metrics={"accuracy": 0.5, "loss": 0.1},
        output=tmp_path_factory.mktemp("optimized") / "bundle",
    )


def test_a_bundle_verifies_and_each_target_chooses_what_the_report_says(bundle: Bundle) -> None:
    bundle.verify()
    assert [variant.name for variant in bundle.variants] == ["fp32", "int8", "fp16"]
    for target in bundle.report.targets:
        choice = choose_variant(bundle.variants, find_target(target.target))
        assert choice.variant.name == target.variant
    assert {row.target: row.variant for row in bundle.report.targets} == {
        "x86-cpu": "int8",
        "raspberry-pi-5": "int8",
        "jetson-orin": "fp16",
    }


def test_hardware_that_was_not_asked_for_gets_the_model_as_given(bundle: Bundle) -> None:
    for name in ("any", "raspberry-pi-4", "nvidia-gpu"):
        assert choose_variant(bundle.variants, find_target(name)).variant.name == "fp32"


def test_int8_is_smaller_and_keeps_its_accuracy(bundle: Bundle, digits: Digits) -> None:
    fp32, int8 = bundle.report.row("fp32"), bundle.report.row("int8")
    assert fp32.size_bytes == digits.path.stat().st_size
    assert int8.size_bytes is not None
    assert int8.size_bytes < 0.5 * fp32.size_bytes
    assert fp32.accuracy is not None
    assert int8.accuracy is not None
    assert fp32.accuracy - int8.accuracy == pytest.approx(int8.accuracy_drop)
    assert int8.accuracy >= fp32.accuracy - 0.02 > 0.8


def test_latency_is_told_of_this_machines_kind_and_of_no_other(bundle: Bundle) -> None:
    here = {row.target: row.p50_ms for row in bundle.report.targets}
    assert here["raspberry-pi-5"] is None or HERE == "aarch64"
    assert here["jetson-orin"] is None
    if HERE == "x86_64":
        fp32 = bundle.report.row("fp32")
        assert fp32.p50_ms is not None
        assert fp32.p99_ms is not None
        assert 0 < fp32.p50_ms <= fp32.p99_ms
        assert (fp32.memory_bytes is not None) == sys.platform.startswith("linux")
        assert here["x86-cpu"] == bundle.report.row("int8").p50_ms


def test_a_target_that_prefers_fp16_gets_it_with_the_same_inputs_and_outputs(
    bundle: Bundle,
) -> None:
    jetson, fp16 = bundle.report.targets[-1], bundle.report.row("fp16")
    assert (jetson.variant, jetson.why) == ("fp16", "the precision it runs best")
    assert fp16.size_bytes is not None
    assert fp16.size_bytes < 0.7 * bundle.variant("fp32").bytes
    assert bundle.details("fp16").interface == bundle.details("fp32").interface


def test_closeness_to_the_model_as_given_is_told_by_output(bundle: Bundle) -> None:
    (int8,), (fp16,) = (bundle.report.row(name).outputs for name in ("int8", "fp16"))
    assert int8.output == fp16.output == "probabilities"
    assert int8.snr_db is not None
    assert fp16.snr_db is not None
    assert 10 < int8.snr_db < fp16.snr_db
    assert 0 < fp16.max_error < int8.max_error < 0.5
    assert bundle.report.row("fp32").outputs == ()


def test_the_report_rides_in_the_lineage_without_what_differs_between_runs(bundle: Bundle) -> None:
    told = json.loads(bundle.details("int8").lineage["report"])
    assert [row["variant"] for row in told["rows"]] == [
        "fp32",
        *("int8", "int8-percentile", "int8-entropy", "int8-mixed", "fp16"),
    ]
    assert [row["outcome"] for row in told["rows"]] == ["shipped"] * 2 + ["not tried"] * 3 + [
        "shipped"
    ]
    assert told["rows"][1]["accuracy"] == bundle.report.row("int8").accuracy
    assert "p50_ms" not in json.dumps(told)


def test_details_tell_labels_figures_and_where_it_came_from(bundle: Bundle) -> None:
    fp32, int8 = bundle.details("fp32"), bundle.details("int8")
    assert fp32.labels == int8.labels == tuple("0123456789")
    assert fp32.interface == int8.interface
    assert fp32.metrics["loss"] == 0.1
    assert int8.metrics["accuracy"] == bundle.report.row("int8").accuracy
    assert int8.lineage["source"] == fp32.lineage["source"]
    assert {"calibration", "onnx", "onnxruntime", "numpy", "seed"} <= int8.lineage.keys()
    assert "per channel" in int8.lineage["quantization"]
    assert "quantization" not in fp32.lineage


@pytest.mark.parametrize("variant", ["fp32", "int8", "fp16"])
def test_a_device_repeats_the_self_test(bundle: Bundle, variant: str, tmp_path: Path) -> None:
    assert repeat_self_test(bundle, variant, tmp_path / "device") == 4


def test_the_tolerance_is_far_below_what_another_input_gives(bundle: Bundle) -> None:
    details = bundle.details("int8")
    outputs = [
        np.frombuffer(tensor.data, "<f4")
        for vector in details.self_test
        for tensor in vector.outputs
        if tensor.name == "probabilities"
    ]
    apart = max(float(np.abs(outputs[0] - other).max()) for other in outputs[1:])
    assert details.tolerance.absolute < 0.1 * apart


def test_reference_sketches_hold_the_calibration_data(bundle: Bundle, digits: Digits) -> None:
    sketches = bundle.details("fp32").sketches
    inputs = [name for name in sketches if name.startswith("X")]
    assert sorted(inputs) == sorted(f"X[{index}]" for index in range(64))
    sketch = msgspec.convert(sketches["X[27]"], NumberSketch)
    (median,) = quantiles(sketch, [0.5])
    assert median == pytest.approx(float(np.median(digits.calibration[:, 27])), abs=1 / 16)


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_reference_sketches_hold_what_each_variant_answers(
    bundle: Bundle, digits: Digits, variant: str, tmp_path: Path
) -> None:
    from edgefleet.optimization.session import OnnxSession

    details = bundle.details(variant)
    session = OnnxSession(bundle.materialize(variant, tmp_path / "device"), details.interface)
    answers = session.predict(digits.calibration)["probabilities"]
    tops = msgspec.convert(details.sketches["probabilities:top"], ClassSketch)
    scores = msgspec.convert(details.sketches["probabilities:score"], NumberSketch)
    assert len(digits.calibration) <= MAX_ANSWERED
    counts = np.bincount(answers.argmax(-1), minlength=10)
    assert tops.counts == {str(index): count for index, count in enumerate(counts) if count}
    (median,) = quantiles(scores, [0.5])
    assert median == pytest.approx(float(np.median(answers.max(-1))), abs=0.01)


def test_what_a_device_materializes_is_what_was_judged(
    bundle: Bundle, digits: Digits, tmp_path: Path
) -> None:
    from edgefleet.optimization.session import OnnxSession

    entry = bundle.materialize("int8", tmp_path / "device")
    session = OnnxSession(entry, bundle.details("int8").interface)
    assert digits.accuracy(session.predict) == bundle.report.row("int8").accuracy


def test_an_int8_file_names_no_domain_that_it_does_not_use(bundle: Bundle, tmp_path: Path) -> None:
    model = onnx.load(bundle.materialize("int8", tmp_path / "device"))
    used = {node.domain for node in model.graph.node} | {""}
    assert {opset.domain for opset in model.opset_import} <= used
    assert len(model.metadata_props) == 0
    onnx.checker.check_model(model)


def test_the_bundle_shows_itself(bundle: Bundle) -> None:
    assert "int8" in repr(bundle)
    assert "x86-cpu" in repr(bundle)
    assert "\n" not in repr(bundle)
    assert bundle._repr_html_().count("<table>") == 3


DETERMINISM = """
import sys, tempfile
import numpy as np
from edgefleet.optimization import optimize
tempfile.tempdir = sys.argv[2]
data = np.load(sys.argv[3])
accuracy = lambda predict: float((predict(data["x"])["label"] == data["y"]).mean())
bundle = optimize(sys.argv[1], targets=["raspberry-pi-5"], calibration=data["c"],
                  evaluate=accuracy, max_accuracy_drop=0.02, seed=3)
print(bundle.digest, len(bundle.variants))
"""


def test_the_same_inputs_and_seed_give_the_same_digest_in_any_process(
    digits: Digits, tmp_path: Path, scratch: Path
) -> None:
    np.savez(tmp_path / "data.npz", x=digits.images, y=digits.labels, c=digits.calibration)
    seen = {
        subprocess.run(
            [sys.executable, "-c", DETERMINISM, digits.path, scratch, tmp_path / "data.npz"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "33")
    }
    (line,) = seen
    assert line.split()[1] == "2"
    assert list(scratch.iterdir()) == []


def test_another_seed_records_other_samples(digits: Digits) -> None:
    one, two = (
        optimize(digits.path, targets=["any"], calibration=digits.calibration, seed=seed)
        for seed in (0, 1)
    )
    assert one.digest != two.digest


def test_a_model_that_int8_ruins_is_caught_by_the_gate_and_rescued_by_the_guilty_nodes(
    wide_in_part: Digits,
) -> None:
    bundle = optimize(
        wide_in_part.path,
        targets=["raspberry-pi-5"],
        calibration=wide_in_part.calibration,
        evaluate=wide_in_part.accuracy,
        max_accuracy_drop=0.01,
    )
    int8, mixed = bundle.report.row("int8"), bundle.report.row("int8-mixed")
    assert [variant.name for variant in bundle.variants] == ["fp32", "int8-mixed"]
    assert int8.outcome == "rejected"
    assert int8.accuracy_drop is not None
    assert int8.accuracy_drop > 0.1
    assert "0.01 allowed" in int8.why
    assert mixed.accuracy_drop is not None
    assert mixed.accuracy_drop <= 0.01
    assert "in floats: MatMul1" in mixed.why
    assert bundle.details("int8-mixed").lineage["floats"] in mixed.why
    assert bundle.variant("int8-mixed").bytes < 0.7 * bundle.variant("fp32").bytes
    assert bundle.report.targets[0].variant == "int8-mixed"


def test_a_rescue_that_leaves_nothing_smaller_is_not_shipped(wide_range: Digits) -> None:
    bundle = optimize(
        wide_range.path,
        targets=["raspberry-pi-5"],
        calibration=wide_range.calibration,
        evaluate=wide_range.accuracy,
        max_accuracy_drop=0.01,
    )
    mixed = bundle.report.row("int8-mixed")
    assert [variant.name for variant in bundle.variants] == ["fp32"]
    assert (mixed.outcome, mixed.why) == ("rejected", "it is not smaller than the model as given")


def test_no_candidate_that_passes_is_an_error_with_the_table_in_it(
    wide_range: Digits, scratch: Path
) -> None:
    npu = HardwareTarget(name="npu", about="int8 only", arch="any", precisions=("int8",))
    with pytest.raises(AccuracyGateError, match=r"(?s)candidate .*int8 +rejected.*npu +none"):
        optimize(
            wide_range.path,
            targets=[npu],
            calibration=wide_range.calibration,
            evaluate=wide_range.accuracy,
        )
    assert list(scratch.iterdir()) == []


def test_a_target_whose_format_nothing_here_makes_is_an_input_error(digits: Digits) -> None:
    coral = HardwareTarget(
        name="coral", about="", arch="any", precisions=("int8",), formats=("tflite",)
    )
    with pytest.raises(InvalidInputError, match="tflite-int8: needs calibration data"):
        optimize(digits.path, targets=[coral])
    bundle = optimize(digits.path, targets=[coral, "any"])
    assert bundle.report.targets[0].variant is None


def test_int8_that_is_slower_here_is_not_for_targets_like_this_machine(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = {"fp32": 0.001, "int8": 0.002}
    spread = itertools.count()
    monkeypatch.setattr(
        trials,
        "compare_latency",
        lambda sessions, feed: {
            n: Latency(p50_s=slow[n] + 1e-5 * next(spread), p99_s=1.0, calls=9) for n in sessions
        },
    )
    here = HardwareTarget(
        name="here",
        about="",
        arch="aarch64" if HERE == "aarch64" else "x86_64",
        precisions=("int8", "fp32"),
    )
    far = HardwareTarget(
        name="far",
        about="",
        arch="x86_64" if HERE == "aarch64" else "aarch64",
        precisions=("int8", "fp32"),
    )
    bundle, again = (
        optimize(
            digits.path,
            targets=[here, far],
            calibration=digits.calibration,
            evaluate=digits.accuracy,
            max_accuracy_drop=0.02,
        )
        for _ in range(2)
    )
    assert again.report != bundle.report, "or the figures don't differ here"
    assert again.digest == bundle.digest
    assert bundle.variant("int8").targets == ("far",)
    first = bundle.report.targets[0]
    assert first.variant == "fp32"
    assert first.p50_ms == pytest.approx(1.0, abs=0.1)
    assert first.why == "int8: slower here than the model as given"


@pytest.mark.parametrize(
    "given, says",
    [
        ({"calibration": None}, "give calibration="),
        ({"evaluate": None}, "give evaluate="),
    ],
    ids=["no calibration", "no evaluate"],
)
def test_what_int8_lacks_is_named_and_the_model_ships_as_given(
    digits: Digits, given: dict[str, Any], says: str
) -> None:
    arguments = {"calibration": digits.calibration, "evaluate": digits.accuracy, **given}
    bundle = optimize(digits.path, targets=PI, **arguments)
    assert [variant.name for variant in bundle.variants] == ["fp32"]
    assert bundle.report.row("int8").outcome == "not made"
    assert says in bundle.report.row("int8").why


def test_a_model_without_operators_for_int8_ships_as_given(tmp_path: Path) -> None:
    model = models.model_of(
        [helper.make_node("Sin", ["x"], ["y"])],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 8)],
    )
    path = models.save(model, tmp_path / "m.onnx")
    bundle = optimize(
        path, targets=PI, calibration=models.inputs_for(), evaluate=lambda predict: 1.0
    )
    assert "no operator" in bundle.report.row("int8").why


def test_an_int8_file_that_is_not_smaller_is_not_shipped(tmp_path: Path) -> None:
    path = models.save(models.linear(), tmp_path / "tiny.onnx")
    bundle = optimize(
        path, targets=PI, calibration=models.inputs_for(), evaluate=lambda predict: 1.0
    )
    assert bundle.report.row("int8").outcome == "rejected"
    assert "not smaller" in bundle.report.row("int8").why


def test_several_inputs_and_external_data_are_quantized_too(tmp_path: Path) -> None:
    width = 128
    names = [f"w{index}" for index in range(3)]
    nodes = [helper.make_node("MatMul", ["a", names[0]], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{i}", names[i + 1]], [f"h{i + 1}"]) for i in (0, 1)]
    nodes += [helper.make_node("Add", ["h2", "b"], ["y"])]
    model = models.model_of(
        nodes,
        [models.floats("a", 4, width), models.floats("b", 4, width)],
        [models.floats("y", 4, width)],
        [models.weights(name, width, width, seed=i) for i, name in enumerate(names)],
    )
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="data.bin", size_threshold=0)
    feed = {
        "a": models.inputs_for(18, width=width).astype("float64"),
        "b": models.inputs_for(18, width=width, seed=2),
    }
    seen: list[tuple[int, ...]] = []

    def close(predict: Callable[[Any], Any]) -> float:
        seen.append(predict(feed).shape)
        return 1.0

    bundle = optimize(path, targets=PI, calibration=feed, evaluate=close, output=tmp_path / "b")
    assert bundle.report.row("int8").outcome == "shipped"
    assert seen == [(18, width), (18, width)]
    for variant in ("fp32", "int8"):
        assert repeat_self_test(bundle, variant, tmp_path / f"device-{variant}")


def test_a_model_of_an_old_opset_is_converted_before_it_is_quantized(tmp_path: Path) -> None:
    width = 128
    model = models.model_of(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        [models.floats("x", "N", width)],
        [models.floats("y", "N", width)],
        [models.weights("w", width, width)],
        opset_imports=[helper.make_opsetid("", 9)],
        ir_version=3,
    )
    model.graph.input.append(models.floats("w", width, width))  # as files of format 3 have it
    path = models.save(model, tmp_path / "old.onnx")
    bundle = optimize(
        path,
        targets=PI,
        calibration=models.inputs_for(width=width),
        evaluate=lambda predict: 1.0,
    )
    assert [variant.opset for variant in bundle.variants] == [9, 13]
    assert repeat_self_test(bundle, "int8", tmp_path / "device") == 4
