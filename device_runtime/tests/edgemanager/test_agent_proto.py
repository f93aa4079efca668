"""The messages are those of AWS's agent, and the generated module is up to date."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from device_runtime.tools.generate_pb2 import AGENT, described, generated
from edgefleet.protocol.digest import digest_of
from edgefleet_runtime.serve.edgemanager import agent_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

ONE_OF = re.compile(r"^\s+(\w+ \w+) = (\d+);\s*// oneof data$", re.MULTILINE)


def about(source: Path) -> dict[str, Any]:
    """Messages, enums and methods by name, with everything that travels or is spelled out."""
    (file,) = described(source).file
    assert file.package == "AWS.SageMaker.Edge"
    found: dict[str, Any] = {}
    for message in file.message_type:
        found[message.name] = {
            f.name: (f.number, f.label, f.type, f.type_name) for f in message.field
        }
    for enum in file.enum_type:
        found[enum.name] = {value.name: value.number for value in enum.value}
    for service in file.service:
        found[f"service {service.name}"] = {
            m.name: (m.input_type, m.output_type, m.client_streaming, m.server_streaming)
            for m in service.method
        }
    return found


def test_names_numbers_types_and_calls_are_aws_own(contracts: Path) -> None:
    published = about(contracts / "edgemanager" / "agent.proto")
    assert len(published) == 24
    assert about(AGENT) == published


def test_data_is_one_of_the_two_where_aws_says_so(contracts: Path) -> None:
    (file,) = described(AGENT).file
    ours = [
        (field.name, str(field.number))
        for message in file.message_type
        for field in message.field
        if field.HasField("oneof_index") and message.oneof_decl[field.oneof_index].name == "data"
    ]
    text = (contracts / "edgemanager" / "agent.proto").read_text(encoding="utf-8")
    theirs = [(kind.split()[1], number) for kind, number in ONE_OF.findall(text)]
    assert sorted(ours) == sorted(theirs) != []


def test_values_of_enums_are_names_of_the_module() -> None:
    assert (pb.UINT8, pb.FLOAT64, pb.BASE64, pb.IN_PROGRESS) == (0, 6, 3, 2)


def test_generating_again_gives_the_same() -> None:
    for path, text in generated(AGENT).items():
        same = digest_of(path.read_bytes()) == digest_of(text.encode())
        assert same, f"{path.name} is not as made: run device_runtime/tools/generate_pb2.py"
