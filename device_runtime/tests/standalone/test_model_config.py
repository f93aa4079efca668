from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import EdgeFleetError, InvalidModelError, UnsupportedError
from edgefleet_runtime.standalone.model_config import MAX_BYTES, read_model_config
from edgefleet_runtime.standalone.model_config_schema import ENUMS, MESSAGES

if TYPE_CHECKING:
    from pathlib import Path

DENSENET = b"""
# A comment, and fields that tune Triton's own scheduler.
name: "densenet"
platform: "onnxruntime_onnx"
max_batch_size : 8
input [ { name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ]
          reshape { shape: [ 1, 3, 224, 224 ] } } ]
output [ { name: "label" data_type: TYPE_STRING dims: [ 1 ] label_filename: "labels.txt" } ]
version_policy: { specific { versions: [ 2, 4 ] } }
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
optimization { execution_accelerators { gpu_execution_accelerator : [ {
  name : "tensorrt"
  parameters { key: "precision_mode" value: "FP16" } } ] } }
model_warmup [ { name: "one" batch_size: 1 inputs: { key: "data_0" value: {
  data_type: TYPE_FP32 dims: [ 3, 224, 224 ] zero_data: true } } } ]
metric_tags [ { key: "a" value: "b" } ]
"""


def test_a_configuration_of_tritons_own_examples_is_read() -> None:
    config = read_model_config(DENSENET, name="densenet")
    assert config.max_batch_size == 8
    assert config.inputs == (("data_0", "FP32"),)
    assert config.outputs == (("label", "BYTES"),)
    assert config.versions == (2, 4)
    assert config.device == "cpu"


def test_an_empty_configuration_says_nothing() -> None:
    config = read_model_config(b"", name="m")
    assert not config.versions
    assert not config.filename


@pytest.mark.parametrize(
    "text,said",
    [
        ('name: "other"', "names it 'other'"),
        ('default_model_filename: "../../secret"', "leaves its folder"),
        ("max_batch_size: -1", "max_batch_size"),
        ("max_batch_size: 99999999999", "malformed"),
        ("input { dims: [ 1 ] }", "without name"),
        ("name: ", "malformed"),
        ("input [ {", "malformed"),
        ("\x00\x01", "malformed"),
        ("a {" * 5000, "nests"),
        ("x" * (MAX_BYTES + 1), "are allowed"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_reason(text: str, said: str) -> None:
    with pytest.raises(InvalidModelError, match=said):
        read_model_config(text.encode(), name="m")


@pytest.mark.parametrize(
    "text,said",
    [
        ("sequence_batching { max_sequence_idle_microseconds: 1 }", "sequence"),
        ('model_operations { op_library_filename: "evil.so" }', "custom operators"),
        ('model_repository_agents { agents [ { name: "checksum" } ] }', "agents"),
        ("model_transaction_policy { decoupled: true }", "decoupled"),
        ('backend: "python"', "python"),
        ('platform: "tensorflow_savedmodel"', "tensorflow"),
    ],
)
def test_what_would_change_answers_or_run_code_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        read_model_config(text.encode(), name="m")


@given(st.binary(max_size=200) | st.text("abcdimnptu_ :{}[]\"'<>0123456789-#\n", max_size=200))
def test_any_bytes_give_a_configuration_or_an_error_of_ours(data: bytes | str) -> None:
    text = data.encode() if isinstance(data, str) else data
    with contextlib.suppress(EdgeFleetError):
        read_model_config(text, name="m")


def test_names_and_numbers_are_tritons(contracts: Path) -> None:
    published = _declared((contracts / "triton" / "model_config.proto").read_text())
    for message, fields in MESSAGES.items():
        for name, kind, number in fields:
            short = kind.lstrip("*%").rpartition(".")[2]
            form = kind[0] if kind[0] in "*%" else ""
            assert (form, short, number) == published[message][name], name
    for enum, values in ENUMS.items():
        for name, number in values.items():
            assert published[enum][name] == ("", "", number)


def _declared(text: str) -> dict[str, dict[str, tuple[str, str, int]]]:
    """Fields and enum values by the path of their message, from the text of a .proto file."""
    found: dict[str, dict[str, tuple[str, str, int]]] = {}
    path: list[str] = []
    text = re.sub(r"//.*", "", text)
    for token in re.finditer(
        r"(?:message|enum)\s+(\w+)\s*\{|oneof\s+(\w+)\s*\{|(\})"
        r"|(?:(repeated)\s+)?(map<string, *)?([\w.]+)>?\s+(\w+)\s*=\s*(\d+)\s*;"
        r"|(\w+)\s*=\s*(\d+)\s*;",
        text,
    ):
        opened, choice, closed, repeated, mapped, kind, name, number, value, numbered = (
            token.groups()
        )
        if opened or choice:
            path.append(opened or "")
            found.setdefault(".".join(filter(None, path)), {})
        elif closed:
            path.pop()
        else:
            fields = found[".".join(filter(None, path))]
            if value:
                fields[value] = ("", "", int(numbered))
            else:
                form = "*" if repeated else "%" if mapped else ""
                fields[name] = (form, kind.rpartition(".")[2], int(number))
    return found
