"""Targets, and the choice of a variant for one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import NotFoundError
from edgefleet.protocol import target as t
from edgefleet.protocol.bundle import MANIFEST_MEDIA_TYPE, Descriptor, Variant
from tests.contract import samples

MANIFEST = Descriptor(media_type=MANIFEST_MEDIA_TYPE, digest=samples.BLOB, size=1)
BOARD = t.HardwareTarget(
    name="board",
    about="for these tests",
    arch="aarch64",
    precisions=("int8", "fp32"),
    formats=("tflite", "onnx"),
    opset_ceiling=21,
)


def variant(name: str, **fields: object) -> Variant:
    plain = Variant(
        name=name,
        format="onnx",
        precision="fp32",
        targets=(),
        bytes=100,
        opset=17,
        manifest=MANIFEST,
    )
    return msgspec.structs.replace(plain, **fields)


@pytest.mark.parametrize(
    "better, worse",
    [
        pytest.param({"targets": ("board",)}, {"precision": "int8"}, id="made for this target"),
        pytest.param({"targets": ("x", "board")}, {}, id="made for this target among others"),
        pytest.param({"precision": "int8"}, {"format": "tflite"}, id="order of precisions"),
        pytest.param({"format": "tflite"}, {"bytes": 1}, id="order of formats"),
        pytest.param({"bytes": 99}, {"bytes": 100, "opset": 21}, id="fewer bytes"),
        pytest.param({}, {}, id="name"),
    ],
)
def test_rule_decides_where_those_before_it_tie(
    better: dict[str, object], worse: dict[str, object]
) -> None:
    names = ("b", "a") if better or worse else ("a", "b")
    one, other = variant(names[0], **better), variant(names[1], **worse)
    assert t.choose_variant([one, other], BOARD).variant == one
    assert t.choose_variant([other, one], BOARD).variant == one


@pytest.mark.parametrize(
    "change, why",
    [
        ({"targets": ("jetson-orin", "x86-cpu")}, "made for jetson-orin, x86-cpu"),
        ({"format": "openvino"}, "format openvino is not opened there"),
        ({"precision": "fp16"}, "precision fp16 does not suit it"),
        ({"opset": 22}, "opset 22 is newer than the 21 that its engine loads"),
        ({"requires": ("holograms",)}, "requires features unknown here: holograms"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_variant_that_cannot_run_is_refused_with_the_reason(
    change: dict[str, object], why: str
) -> None:
    with pytest.raises(NotFoundError, match=f"fits target board: x: {why}") as refusal:
        t.choose_variant([variant("x", **change)], BOARD)
    assert "optimize with targets=[…, 'board']" in str(refusal.value)


def test_reasons_are_given_for_every_variant() -> None:
    variants = [variant("a", precision="fp16"), variant("b", opset=99)]
    with pytest.raises(NotFoundError, match="a: precision fp16 does not suit it; b: opset 99"):
        t.choose_variant(variants, BOARD)


def test_engines_that_are_really_there_decide_over_the_target_s_list() -> None:
    tflite, onnx = variant("a", format="tflite"), variant("b")
    assert t.choose_variant([tflite, onnx], BOARD, formats={"onnx"}).variant == onnx
    with pytest.raises(NotFoundError, match="no engine for format tflite is installed"):
        t.choose_variant([tflite], BOARD, formats={"onnx"})


@pytest.mark.parametrize("opset", [None, 21])
def test_opset_up_to_the_ceiling_or_unknown_is_fine(opset: int | None) -> None:
    assert t.choose_variant([variant("x", opset=opset)], BOARD).variant.opset == opset


def test_target_without_a_ceiling_takes_any_opset() -> None:
    board = msgspec.structs.replace(BOARD, opset_ceiling=None)
    assert t.choose_variant([variant("x", opset=999)], board).variant.name == "x"


def test_device_without_a_target_takes_what_was_made_for_another() -> None:
    made = variant("x", targets=("jetson-orin",))
    assert t.choose_variant([made], t.find_target(t.ANY)).variant == made


def test_choice_says_why() -> None:
    variants = [variant("a"), variant("b", precision="int8", targets=("board",))]
    assert t.choose_variant(variants, BOARD).why == "made for board, int8 preferred among 2"
    assert t.choose_variant(variants[:1], BOARD).why == "fits board, fp32 preferred among 1"


variants = st.lists(
    st.builds(
        variant,
        st.sampled_from("abcdefgh"),
        precision=st.sampled_from(["int8", "fp32", "fp16"]),
        format=st.sampled_from(["onnx", "tflite", "other"]),
        targets=st.sampled_from([(), ("board",), ("other",), ("board", "other")]),
        bytes=st.integers(0, 2),
        opset=st.sampled_from([None, 17, 22]),
        requires=st.sampled_from([(), ("holograms",)]),
    ),
    max_size=6,
    unique_by=lambda v: v.name,
)


def outcome(offered: list[Variant]) -> object:
    try:
        return t.choose_variant(offered, BOARD)
    except NotFoundError:
        return None


@given(variants, st.randoms())
def test_choice_does_not_depend_on_the_order(offered: list[Variant], random: object) -> None:
    shuffled = list(offered)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert outcome(shuffled) == outcome(offered)


@given(variants)
def test_choice_is_one_that_the_target_can_run(offered: list[Variant]) -> None:
    try:
        chosen = t.choose_variant(offered, BOARD).variant
    except NotFoundError:
        return
    assert chosen in offered
    assert chosen.precision in BOARD.precisions
    assert chosen.format in BOARD.formats
    assert not chosen.targets or "board" in chosen.targets
    assert (chosen.opset or 0) <= 21
    assert not chosen.requires


@given(variants, variants)
def test_more_to_choose_from_never_ends_in_nothing(
    some: list[Variant], more: list[Variant]
) -> None:
    if outcome(some) is not None:
        known = {v.name for v in some}
        assert outcome(some + [v for v in more if v.name not in known]) is not None


# ----------------------------------------------------------------------------------------- targets


def test_target_is_found_by_its_name() -> None:
    assert t.find_target("x86-cpu").arch == "x86_64"
    assert t.find_target("board", [BOARD]) == BOARD


def test_unknown_target_is_refused_with_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="no hardware target 'toaster'") as refusal:
        t.find_target("toaster")
    assert "use one of any, x86-cpu" in str(refusal.value)


@pytest.mark.parametrize(
    "labels, name", [({"target": "x86-cpu"}, "x86-cpu"), ({"site": "a"}, "any")]
)
def test_device_s_label_names_its_target(labels: dict[str, str], name: str) -> None:
    assert t.target_of(labels) == t.find_target(name)


def test_target_of_a_plugin_is_found_and_any_is_always_there() -> None:
    assert t.target_of({"target": "board"}, [BOARD]) == BOARD
    assert t.target_of({}, [BOARD]).name == t.ANY


# -------------------------------------------------------------------- targets that aren't known


TOASTER = t.target_of({"target": "toaster"})
"""What a device makes of a label that names a target which only a plugin knows."""


def test_device_of_an_unknown_target_takes_what_any_device_takes() -> None:
    offered = [variant("a", targets=("x86-cpu",)), variant("b", precision="int8")]
    ranked = [choice.variant.name for choice in t.rank_variants(offered, TOASTER)]
    assert ranked == [c.variant.name for c in t.rank_variants(offered, t.find_target(t.ANY))]


def test_what_was_made_for_an_unknown_target_goes_first_there_whatever_it_is() -> None:
    own = variant("own", targets=("toaster",), format="crumbs", precision="int4", opset=999)
    assert t.choose_variant([variant("plain"), own], TOASTER).variant == own


def test_what_was_made_for_an_unknown_target_still_needs_an_engine_there() -> None:
    own = variant("own", targets=("toaster",), format="crumbs")
    with pytest.raises(NotFoundError, match="no engine for format crumbs is installed"):
        t.choose_variant([own], TOASTER, formats={"onnx"})


# --------------------------------------------------------------------------------------------- kin


SMALL = msgspec.structs.replace(BOARD, name="board-small", kin=("board", "shelf"))


def test_variant_made_for_kin_goes_after_its_own_and_before_what_was_made_for_none() -> None:
    plain = variant("plain", precision="int8")
    shelf, board, own = (
        variant(name, targets=(name,)) for name in ("shelf", "board", "board-small")
    )
    ranked = t.rank_variants([plain, shelf, board, own], SMALL)
    assert [choice.variant for choice in ranked] == [own, board, shelf, plain]


def test_kin_does_not_hold_the_other_way_round() -> None:
    with pytest.raises(NotFoundError, match="made for board-small"):
        t.choose_variant([variant("x", targets=("board-small",))], BOARD)


def test_choice_says_whose_variant_it_took() -> None:
    why = t.choose_variant([variant("x", targets=("board",))], SMALL).why
    assert why == "made for board, fits board-small, fp32 preferred among 1"


def test_others_that_fit_follow_the_choice_in_the_rules_order() -> None:
    offered = [
        variant("a", precision="fp32"),
        variant("b", precision="int8"),
        variant("c", opset=99),
    ]
    ranked = t.rank_variants(offered, BOARD)
    assert [choice.variant.name for choice in ranked] == ["b", "a"]
    assert ranked[0] == t.choose_variant(offered, BOARD)
    assert ranked[1].why == "fits board, fp32 number 2 among 2"
