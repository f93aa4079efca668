"""The messages are those of the published definitions, and the generated module is up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from device_runtime.tools.generate_pb2 import INFERENCE, described, generated
from edgefleet.protocol.digest import digest_of

if TYPE_CHECKING:
    from pathlib import Path

# Of these messages we serve some fields; of all others, all.
PARTLY = {
    "ModelConfig",
    "ModelEnsembling",
    "ModelEnsembling.Step",
    "ModelInput",
    "ModelOutput",
    "ModelVersionPolicy",
    "ModelStatistics",  # no memory_usage and response_stats: not measured here
}
# Not here: settings of logs and traces.
ABSENT = ("Trace", "Log")


def fields_of(message: Any, prefix: str = "") -> dict[str, dict[str, tuple[Any, ...]]]:
    """Message name -> field name -> number, label, type, type name and oneof."""
    name = prefix + message.name
    found = {
        name: {
            field.name: (
                field.number,
                field.label,
                field.type,
                field.type_name,
                message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else "",
            )
            for field in message.field
        }
    }
    for nested in message.nested_type:
        found.update(fields_of(nested, f"{name}."))
    return found


def messages_of(source: Path) -> dict[str, dict[str, tuple[Any, ...]]]:
    files = described(source).file
    assert {file.package for file in files} == {"inference"}
    return {
        key: fields
        for file in files
        for message in file.message_type
        for key, fields in fields_of(message).items()
    }


def methods_of(source: Path) -> dict[str, tuple[Any, ...]]:
    return {
        method.name: (
            method.input_type,
            method.output_type,
            method.client_streaming,
            method.server_streaming,
        )
        for file in described(source).file
        for service in file.service
        for method in service.method
        if service.name == "GRPCInferenceService"
    }


@pytest.fixture(scope="module")
def ours() -> dict[str, dict[str, tuple[Any, ...]]]:
    return messages_of(INFERENCE)


def test_each_field_is_tritons(ours: Any, contracts: Path) -> None:
    triton = messages_of(contracts / "triton" / "grpc_service.proto")
    oip = messages_of(contracts / "oip" / "open_inference_grpc.proto")
    assert len(ours) > 50
    for message, fields in ours.items():
        published = {**triton.get(message, {}), **oip.get(message, {})}
        assert fields.items() <= published.items(), message
        assert fields == published or message in PARTLY, message


def test_the_whole_of_open_inference_protocol_is_here(ours: Any, contracts: Path) -> None:
    for message, fields in messages_of(contracts / "oip" / "open_inference_grpc.proto").items():
        assert ours[message] == {**ours[message], **fields}


def test_each_method_is_tritons_and_what_lacks_is_known(contracts: Path) -> None:
    mine = methods_of(INFERENCE)
    triton = methods_of(contracts / "triton" / "grpc_service.proto")
    assert mine.items() <= triton.items()
    assert methods_of(contracts / "oip" / "open_inference_grpc.proto").items() <= mine.items()
    assert all(name.startswith(ABSENT) for name in triton.keys() - mine.keys())


def test_the_types_of_elements_are_tritons(contracts: Path) -> None:
    def elements(source: Path) -> dict[str, int]:
        kinds = [k for f in described(source).file for k in f.enum_type]
        return {v.name: v.number for k in kinds if k.name == "DataType" for v in k.value}

    assert elements(INFERENCE) == elements(contracts / "triton" / "model_config.proto") != {}


def test_generating_again_gives_the_same() -> None:
    for path, text in generated(INFERENCE).items():
        same = digest_of(path.read_bytes()) == digest_of(text.encode())
        assert same, f"{path.name} is not as made: run device_runtime/tools/generate_pb2.py"
