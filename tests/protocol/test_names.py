"""Names, paths and references."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import InvalidInputError
from edgefleet.protocol import names as n
from tests.protocol import strategies

DIGEST = "sha256:" + "0" * 64

# Each from its own specification.
OCI_COMPONENT = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")  # distribution-spec v1.1
KUBERNETES_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


@pytest.mark.parametrize("kind", ["model", "version", "alias", "group", "device"])
@pytest.mark.parametrize("name", ["a", "0", "digits", "resnet-50", "v1.2.3", "a_b", "a" * 63])
def test_plain_name_is_legal_for_everything(kind: str, name: str) -> None:
    assert n.check_name(kind, name) == name


@pytest.mark.parametrize("kind", ["model", "version", "alias", "group", "device"])
@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "-a",
        "a-",
        ".a",
        "a.",
        "_a",
        "a/b",
        "a\\b",
        "a b",
        "a\n",
        "a:b",
        "a@b",
        "é",
        "a\x00",
        "../a",
        "a" * 129,
        "\ud800",
        "a٣",
    ],
    ids=ascii,
)
def test_name_that_would_break_a_path_or_an_address_is_refused(kind: str, name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"not a {kind} name") as refusal:
        n.check_name(kind, name)
    assert "cure: " in str(refusal.value)


@pytest.mark.parametrize(
    "kind, name, legal",
    [
        ("model", "Digits", False),
        ("group", "Line-3", True),
        ("device", "CAM_07", True),
        ("model", "a" * 64, False),
        ("version", "a" * 64, False),
        ("group", "a" * 64, False),
        ("device", "a" * 128, True),
        ("model", "a__b", True),
        ("model", "a--b", True),
        ("model", "a..b", False),  # OCI joins parts by one dot
        ("model", "a___b", False),
        ("model", "a.-b", False),
        ("version", "1..2", True),
    ],
)
def test_limits_of_each_kind_of_name(kind: str, name: str, legal: bool) -> None:  # noqa: FBT001
    if legal:
        assert n.check_name(kind, name) == name
    else:
        with pytest.raises(InvalidInputError):
            n.check_name(kind, name)


@given(strategies.models)
def test_model_name_is_legal_wherever_it_travels(name: str) -> None:
    assert n.check_name("model", name) == name
    assert OCI_COMPONENT.fullmatch(name)
    assert KUBERNETES_LABEL_VALUE.fullmatch(name)
    assert len(name) <= 63
    assert n.check_path(name) == name


# ------------------------------------------------------------------------------------------ paths


@pytest.mark.parametrize(
    "path", ["a", "model.onnx", "weights/model.onnx.data", ".hidden", "a/b/c", "ü/é", "a b", "..a"]
)
def test_path_below_its_root_is_legal(path: str) -> None:
    assert n.check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "//host/share",
        "..",
        "../a",
        "a/..",
        "a/../../b",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "..\\a",
        "C:/a",
        "C:a",
        "a:stream",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "a ",
        "a.",
        "a./b",
        "a" * 256,
        "é" * 128,
        "a/" * 512 + "a",
        "\ud800",
        "a\udcff",
    ],
    ids=lambda path: ascii(path[:20]),
)
def test_path_trick_is_refused_and_named(path: str) -> None:
    with pytest.raises(InvalidInputError, match="unsafe file path: ") as refusal:
        n.check_path(path)
    assert repr(path[:200]) in str(refusal.value)


@given(st.text(st.sampled_from("./\\:a \0\u00e9"), max_size=12) | st.text(max_size=12))
def test_every_legal_path_stays_below_its_root(path: str) -> None:
    try:
        n.check_path(path)
    except InvalidInputError:
        return
    root = "/somewhere/deep"
    assert os.path.normpath(f"{root}/{path}") == f"{root}/{path}"
    assert Path(root, path).parts[:3] == ("/", "somewhere", "deep")


# ------------------------------------------------------------------------------------- references


@pytest.mark.parametrize(
    "text, reference",
    [
        ("digits", n.Reference("digits")),
        ("digits:3", n.Reference("digits", tag="3")),
        ("digits:production", n.Reference("digits", tag="production")),
        (f"digits@{DIGEST}", n.Reference("digits", digest=DIGEST)),
    ],
)
def test_reference_has_one_of_four_forms_and_prints_as_typed(
    text: str, reference: n.Reference
) -> None:
    assert n.parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":3",
        "digits:",
        "digits@",
        "digits@sha256:",
        "@" + DIGEST,
        "a:b:c",
        "A",
        "a/b",
        f"digits:3@{DIGEST}",
        f"digits@{DIGEST.upper()}",
        f"digits@{DIGEST}\n",
        " digits",
        "digits:-",
    ],
)
def test_what_is_no_reference_is_refused_with_a_cure(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"\n  cure: "):
        n.parse_reference(text)


@pytest.mark.parametrize("given_", [5, None, ["cam-07"], b"cam-07"], ids=repr)
def test_what_is_no_text_is_no_name_and_no_reference(given_: object) -> None:
    for check in (lambda one: n.check_name("device", one), n.parse_reference, n.check_group):
        with pytest.raises(InvalidInputError, match=r"\n  cure: give "):
            check(given_)


@given(strategies.models, st.none() | strategies.models)
def test_reference_reads_back_as_printed(name: str, tag: str | None) -> None:
    reference = n.Reference(name, tag=tag)
    assert n.parse_reference(str(reference)) == reference
