"""The table of hardware targets keeps the rules that its module states."""

from __future__ import annotations

import itertools
from urllib.parse import urlsplit

import pytest

from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.hardware import BUILTIN
from edgefleet.protocol.hardware_target import ANY, HardwareTarget, architecture
from edgefleet.protocol.target import choose_variant, find_target
from tests.protocol.test_target import variant

EACH = pytest.mark.parametrize("target", BUILTIN, ids=lambda target: target.name)
NEEDED = (
    *("x86-cpu", "x86-cpu-avx2", "x86-cpu-vnni", "x86-cpu-amx", "intel-gateway", "nvidia-gpu"),
    *("raspberry-pi-4", "raspberry-pi-5", "jetson-nano", "jetson-xavier-nx", "jetson-agx-xavier"),
    *("jetson-orin", "jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin"),
    *("coral-dev-board", "coral-usb", "qualcomm-rb3-gen2", "ambarella-cv25"),
)


def test_targets_have_names_of_their_own_and_any_comes_first() -> None:
    names = [target.name for target in BUILTIN]
    assert names[0] == ANY
    assert sorted(names) == sorted({ANY, *NEEDED})


@pytest.mark.parametrize(
    "machine, due",
    [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("arm64", "aarch64"), ("riscv64", "riscv64")],
)
def test_every_system_has_its_own_name_for_an_architecture(machine: str, due: str) -> None:
    assert architecture(machine) == due


@EACH
def test_row_is_valid_as_a_document(target: HardwareTarget) -> None:
    assert decode(HardwareTarget, encode(target)) == target


@EACH
def test_row_says_where_engine_and_figures_come_from_and_why_its_status(
    target: HardwareTarget,
) -> None:
    assert target.engine_source
    assert target.why
    pages = (target.source, *target.sources)
    assert len(pages) == len(set(pages)) >= 2
    assert all(urlsplit(page).scheme == "https" and urlsplit(page).netloc for page in pages)


@EACH
def test_memory_of_the_largest_board_is_not_less_than_of_the_smallest(
    target: HardwareTarget,
) -> None:
    if target.memory_bytes is None:
        assert target.max_memory_bytes is None
    else:
        assert target.memory_bytes <= (target.max_memory_bytes or target.memory_bytes)


KIN = [(target, find_target(name)) for target in BUILTIN for name in target.kin]


@pytest.mark.parametrize("target, kin", KIN, ids=lambda target: target.name if target else target)
def test_what_suits_the_kin_suits_the_target(target: HardwareTarget, kin: HardwareTarget) -> None:
    assert kin.precisions == target.precisions
    assert set(kin.formats) <= set(target.formats)
    assert kin.opset_ceiling == target.opset_ceiling
    assert kin.arch == target.arch
    made = [
        variant("x", targets=(kin.name,), precision=precision, format=form)
        for precision, form in itertools.product(kin.precisions, kin.formats)
    ]
    for one in made:
        assert choose_variant([one], target).variant == one


def test_every_target_but_those_of_one_format_takes_a_plain_fp32_model() -> None:
    without = set()
    for target in BUILTIN:
        if "onnx" in target.formats:
            assert choose_variant([variant("fp32", opset=13)], target).variant.name == "fp32"
        else:
            without.add(target.name)
    assert without == {"coral-dev-board", "coral-usb", "ambarella-cv25"}


def test_only_what_runs_here_is_called_tested() -> None:
    tested = {target.name for target in BUILTIN if target.status == "tested"}
    assert tested == {ANY, "x86-cpu", "x86-cpu-vnni", "x86-cpu-amx"}


@pytest.mark.parametrize(
    "name, ceiling", [("jetson-nano", 13), ("jetson-xavier-nx", 17), ("jetson-agx-xavier", 17)]
)
def test_jetsons_of_old_pythons_have_tensorrt_s_ceiling_and_an_external_engine(
    name: str, ceiling: int
) -> None:
    target = find_target(name)
    assert target.opset_ceiling == ceiling
    assert "external engine" in target.engine_source
    assert tuple(map(int, target.python.split("."))) < (3, 11)


def test_coral_takes_nothing_but_8_bit_litert() -> None:
    for name in ("coral-usb", "coral-dev-board"):
        target = find_target(name)
        assert (target.formats, target.precisions) == (("tflite",), ("int8",))
