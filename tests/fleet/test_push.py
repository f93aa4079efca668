"""A push is checked by the table of targets, before anything is sent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

import edgefleet
from edgefleet.errors import InvalidInputError
from edgefleet.protocol.bundle import Details, Interface
from edgefleet.protocol.layout import BundleLayout, BundleWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.fleet import Fleet


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    with edgefleet.connect() as opened:
        yield opened


def bundle(tmp_path: Path, *targets: str, opset: int = 17, size: int = 10) -> BundleLayout:
    file = tmp_path / "model.onnx"
    with file.open("wb") as stream:
        stream.truncate(size)
    details = Details(variant="fp32", entry=file.name, interface=Interface(inputs=(), outputs=()))
    with BundleWriter(tmp_path / "bundle") as writer:
        writer.add_variant(
            details,
            {file.name: file},
            model_name="m",
            model_format="onnx",
            precision="fp32",
            targets=targets,
            opset=opset,
        )
        return writer.finish()


def test_a_variant_that_its_target_can_never_run_is_refused_and_nothing_is_stored(
    fleet: Fleet, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="opset 17 is newer than the 13") as refusal:
        fleet.push(bundle(tmp_path, "x86-cpu", "jetson-nano"), "m", progress=False)
    assert "convert_version(model, 13)" in str(refusal.value.cure)
    assert list(fleet.registry.list()) == []


def test_what_is_no_file_is_refused_with_what_makes_one_of_it(fleet: Fleet) -> None:
    estimator: Any = object()
    with pytest.raises(InvalidInputError, match="object is neither a bundle nor a path") as refusal:
        fleet.push(estimator, "m", progress=False)
    assert "edgefleet.convert" in str(refusal.value.cure)


def test_a_bundle_s_folder_is_checked_too(fleet: Fleet, tmp_path: Path) -> None:
    folder = bundle(tmp_path, "coral-usb").root
    with pytest.raises(InvalidInputError, match="format onnx is not opened there"):
        fleet.push(folder, "m", progress=False)


@pytest.mark.parametrize(
    "target, said",
    [
        ("abacus", "WARNING variant fp32 is made for target abacus, which is unknown here; check"),
        ("jetson-orin", "INFO target jetson-orin is untested"),
    ],
)
def test_what_may_fail_is_logged_and_pushed(
    target: str, said: str, fleet: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="edgefleet.models"):
        assert fleet.push(bundle(tmp_path, target), "m", progress=False).version == "1"
    (record,) = caplog.records
    assert f"{record.levelname} {record.getMessage()}".startswith(said)


def test_a_variant_made_for_none_in_particular_is_pushed_in_silence(
    fleet: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="edgefleet.models"):
        fleet.push(bundle(tmp_path, opset=99), "m", progress=False)
    assert caplog.records == []
