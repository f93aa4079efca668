from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet_runtime import doctor
from edgefleet_runtime.report.jetson import Jetson, detect_jetson

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = "# R{major} (release), REVISION: {minor}, GCID: 38968081, BOARD: generic, EABI: aarch64\n"


def machine(root: Path, *, board: str | None, release: tuple[int, str] | None = None) -> Path:
    (root / "etc").mkdir()
    (root / "proc/device-tree").mkdir(parents=True)
    if board is not None:
        (root / "proc/device-tree/model").write_bytes(board.encode() + b"\0")
    if release is not None:
        text = RELEASE.format(major=release[0], minor=release[1])
        (root / "etc/nv_tegra_release").write_text(text)
    return root


@pytest.mark.parametrize(
    "release,l4t,jetpack,advice",
    [
        ((38, "2.0"), "38.2.0", "7", "JetPack 7"),
        ((36, "4.3"), "36.4.3", "6.1 or 6.2", "jp6/cu129"),
        ((36, "3.0"), "36.3.0", "6.0", "jp6/cu126"),
        ((35, "5.0"), "35.5.0", "5", "'external' engine"),
        ((32, "7.4"), "32.7.4", "4", "'external' engine"),
        ((28, "2.1"), "28.2.1", "", "container"),
    ],
)
def test_each_jetpack_gets_advice_that_fits(
    tmp_path: Path, release: tuple[int, str], l4t: str, jetpack: str, advice: str
) -> None:
    board = "NVIDIA Jetson Orin NX Engineering Reference Developer Kit"
    found = detect_jetson(machine(tmp_path, board=board, release=release))
    assert found == Jetson(board=board, l4t=l4t, jetpack=jetpack)
    assert advice in (found.advice(gpu_engine=False) or "")
    assert found.advice(gpu_engine=True) is None


def test_in_a_container_the_board_alone_tells(tmp_path: Path) -> None:
    found = detect_jetson(machine(tmp_path, board="NVIDIA Jetson AGX Orin"))
    assert found == Jetson(board="NVIDIA Jetson AGX Orin")


@pytest.mark.parametrize("board", [None, "Raspberry Pi 5 Model B Rev 1.0"])
def test_other_machines_are_none(tmp_path: Path, board: str | None) -> None:
    assert detect_jetson(machine(tmp_path, board=board)) is None


def test_doctor_names_the_jetson_and_what_to_do(tmp_path: Path) -> None:
    board = "NVIDIA Jetson Orin Nano Developer Kit"
    found = doctor.facts(machine(tmp_path, board=board, release=(36, "4.0")))
    assert found["jetson"] == {"board": board, "l4t": "36.4.0", "jetpack": "6.1 or 6.2"}
    assert any("jp6/cu129" in advice for advice in found["advice"])
    assert "  JetPack: 6.1 or 6.2 (L4T 36.4.0)" in doctor.lines(found)


def test_doctor_names_builds_that_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_builds", lambda: ("onnxruntime", "onnxruntime-gpu"))
    assert any("pip uninstall" in advice for advice in doctor.facts()["advice"])
