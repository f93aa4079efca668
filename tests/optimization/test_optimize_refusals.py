"""What `optimize` refuses, and what it leaves behind."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from edgefleet.errors import (
    InvalidInputError,
    InvalidModelError,
    MissingExtraError,
    NotFoundError,
)
from edgefleet.optimization import optimize
from edgefleet.protocol.layout import BundleLayout
from edgefleet.protocol.target import HardwareTarget

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.optimization.conftest import Digits

PI = ["raspberry-pi-5"]  # prefers int8, and no figure measured on this machine speaks for it


def raises(_: object) -> float:
    msg = "no such column"
    raise KeyError(msg)


@pytest.mark.parametrize(
    "evaluate, says",
    [
        (raises, "failed on the model as given: KeyError.*no such column"),
        (lambda predict: math.nan, "gave nan .*finite number"),
        (lambda predict: math.inf, "gave inf"),
        (lambda predict: None, "gave None"),
        (lambda predict: "0.97", "gave '0.97'"),
        (lambda predict: True, "gave True"),
        (lambda predict: 1j, "gave 1j"),
        (lambda predict: np.zeros(3), "gave array"),
    ],
    ids=["raises", "nan", "inf", "none", "text", "bool", "complex", "array"],
)
def test_an_evaluate_without_a_number_is_refused(
    digits: Digits, evaluate: Callable[[Any], Any], says: str, scratch: Path
) -> None:
    with pytest.raises(InvalidInputError, match=says):
        optimize(digits.path, targets=PI, calibration=digits.calibration, evaluate=evaluate)
    assert list(scratch.iterdir()) == []


def test_an_evaluate_that_fails_on_the_candidate_only_says_which(digits: Digits) -> None:
    calls: list[int] = []

    def second_fails(predict: Callable[[Any], Any]) -> float:
        calls.append(1)
        return float(np.float32(0.9)) if len(calls) == 1 else math.nan

    with pytest.raises(InvalidInputError, match="the int8 candidate"):
        optimize(digits.path, targets=PI, calibration=digits.calibration, evaluate=second_fails)


def test_numpy_scalars_are_numbers(digits: Digits) -> None:
    bundle = optimize(digits.path, targets=["any"], evaluate=lambda predict: np.float32(0.5))
    assert bundle.report.row("fp32").accuracy == 0.5


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"targets": []}, "no list"),
        ({"targets": "x86-cpu"}, "no list"),
        ({"max_accuracy_drop": -0.1}, "max_accuracy_drop"),
        ({"max_accuracy_drop": math.nan}, "max_accuracy_drop"),
        ({"name": "Not A Name"}, "model name"),
        ({"calibration": np.zeros((20, 63))}, "shape"),
        ({"calibration": {"pixels": np.zeros((20, 64))}}, "lacks X and has pixels"),
        ({"calibration": np.full((20, 64), np.nan)}, "NaN"),
        ({"calibration": np.zeros((3, 64))}, "3 samples"),
        ({"calibration": np.zeros((20, 64), complex)}, "complex"),
    ],
    ids=range(10),
)
def test_bad_arguments_are_refused_before_any_work(
    digits: Digits, arguments: dict[str, Any], says: str, scratch: Path
) -> None:
    with pytest.raises(InvalidInputError, match=says):
        optimize(digits.path, **{"targets": PI, "evaluate": raises, **arguments})
    assert list(scratch.iterdir()) == []


def test_an_unknown_target_an_existing_output_and_a_model_in_memory_are_refused(
    digits: Digits, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="no hardware target 'abacus'"):
        optimize(digits.path, targets=["abacus"])
    with pytest.raises(InvalidInputError, match="exists already"):
        optimize(digits.path, targets=PI, output=tmp_path)
    with pytest.raises(InvalidInputError, match=r"onnx\.save"):
        optimize(onnx.load(digits.path), targets=PI)
    with pytest.raises(InvalidModelError, match="'zipmap': False"):
        optimize(digits.zipmap_path, targets=PI)


@pytest.mark.parametrize("call", [1, 2])
def test_ctrl_c_leaves_nothing_behind(
    digits: Digits, call: int, tmp_path: Path, scratch: Path
) -> None:
    calls: list[int] = []

    def interrupted(predict: Callable[[Any], Any]) -> float:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        optimize(
            digits.path,
            targets=PI,
            calibration=digits.calibration,
            evaluate=interrupted,
            output=tmp_path / "bundle",
        )
    assert list(tmp_path.iterdir()) == [scratch]
    assert list(scratch.iterdir()) == []


def test_a_bundle_without_output_goes_with_its_object(digits: Digits, scratch: Path) -> None:
    bundle = optimize(digits.path, targets=["any"])
    root = bundle.root
    assert root.is_relative_to(scratch)
    BundleLayout(root).verify()
    del bundle
    gc.collect()
    assert not root.exists()
    assert list(scratch.iterdir()) == []


def test_a_bundle_with_output_stays(digits: Digits, tmp_path: Path) -> None:
    optimize(digits.path, targets=["any"], output=tmp_path / "bundle")
    gc.collect()
    BundleLayout(tmp_path / "bundle").verify()


def test_the_callers_logging_is_left_alone(digits: Digits) -> None:
    script = (
        "import logging, sys, numpy as np\n"
        "from edgefleet.optimization import optimize\n"
        "c = np.random.default_rng(0).random((20, 64))\n"
        "optimize(sys.argv[1], targets=['raspberry-pi-5'], calibration=c, evaluate=lambda p: 1.0)\n"
        "assert not logging.getLogger().handlers, logging.getLogger().handlers\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(digits.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_the_package_imports_no_heavy_library() -> None:
    script = (
        "import sys, edgefleet.optimization\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'datasketches', 'rich', 'google.protobuf'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_a_target_that_nothing_can_serve_is_refused_with_the_reason(digits: Digits) -> None:
    dead = HardwareTarget(
        name="dead", about="", arch="any", precisions=("fp32",), status="impossible", why="no Linux"
    )
    with pytest.raises(InvalidInputError, match="nothing can serve target dead: no Linux"):
        optimize(digits.path, targets=["any", dead])


def test_a_missing_library_names_the_extra(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgefleet\[optimize\]'"):
        optimize(digits.path, targets=PI)
