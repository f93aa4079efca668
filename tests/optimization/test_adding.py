"""A file that was made elsewhere, as one more variant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.optimization.adding import add_variant
from edgefleet.optimization.bundle import Bundle
from edgefleet.optimization.packaging import bundle_from_onnx
from edgefleet.optimization.report import OptimizationReport
from edgefleet.protocol.layout import BundleLayout

if TYPE_CHECKING:
    from tests.optimization.conftest import Digits

REPORT = OptimizationReport(
    model="digits",
    machine="x86_64",
    max_accuracy_drop=0.01,
    calibration_samples=0,
    rows=(),
    targets=(),
)


@pytest.fixture
def plain(digits: Digits, tmp_path: Path) -> BundleLayout:
    return bundle_from_onnx(digits.path, tmp_path / "plain", name="digits")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"made elsewhere")
    return path


def test_a_bundle_with_one_more_variant_is_another_bundle_and_the_first_stays(
    plain: BundleLayout, file: Path, tmp_path: Path
) -> None:
    before = plain.digest
    bundle = Bundle(plain.root, report=REPORT)
    more = bundle.add_variant(file, target="coral", model_format="tflite", precision="int8")
    more.verify()
    assert BundleLayout(plain.root).digest == before
    added = more.variant("coral-tflite")
    assert (added.format, added.precision, added.targets) == ("tflite", "int8", ("coral",))
    assert more.variant("fp32") == plain.variant("fp32")


def test_the_same_file_gives_the_same_digest(
    plain: BundleLayout, file: Path, tmp_path: Path
) -> None:
    made = [
        add_variant(plain, file, tmp_path / to, model="m", target="t", model_format="f").digest
        for to in ("a", "b")
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    "changes,word",
    [
        ({"name": "fp32"}, "has a variant"),
        ({"precision": "fp8"}, "fp8"),
        ({"file": Path("nothing")}, "no file"),
    ],
)
def test_what_cannot_be_a_variant_is_refused_and_leaves_nothing(
    changes: dict[str, object], word: str, plain: BundleLayout, file: Path, tmp_path: Path
) -> None:
    asked: dict[str, object] = {"file": file, "model": "m", "target": "t", "model_format": "f"}
    with pytest.raises(InvalidInputError, match=word):
        add_variant(plain, to=tmp_path / "more", **(asked | changes))  # type: ignore[arg-type]
    assert not (tmp_path / "more").exists()
