"""Triton's ``config.pbtxt``: the fields that matter here, read by protobuf's own text format.

Rules kept here:

- What `model_config_schema` doesn't declare is skipped: it tunes Triton's own scheduler, and a
  model gives the same answers without it.
- What would change answers, or run code, is refused by name and never skipped.
- Any text at all gives a configuration or `InvalidModelError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import InvalidModelError, MissingExtraError, UnsupportedError
from edgefleet_runtime.ensemble.declare import Ensemble
from edgefleet_runtime.standalone.model_config_ensemble import read_ensemble
from edgefleet_runtime.standalone.model_config_schema import ENUMS, message_type

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES = 256 << 10
_MAX_DEPTH = 32  # of braces; Triton's own messages nest six deep

_KINDS = {0: "", 1: "cuda", 2: "cpu", 3: ""}


class RepositoryModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``config.pbtxt`` says, as far as it matters here.

    Attributes:
        max_batch_size: 0 where the model's shapes include the batch; else clients may batch so far.
        inputs: names and Open Inference Protocol datatypes; may be fewer than the model has.
        outputs: likewise.
        filename: of the model in its version's folder; empty for the format's own.
        versions: those that may be served; empty for any.
        device: short name of what it must run on; empty for no wish.
        ensemble: the graph that it describes; None where it describes a model.
    """

    max_batch_size: int = 0
    inputs: tuple[tuple[str, str], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    filename: str = ""
    versions: tuple[int, ...] = ()
    device: str = ""
    ensemble: Ensemble | None = None


def read_model_config(text: bytes, *, name: str) -> RepositoryModelConfig:
    """Read a ``config.pbtxt``.

    Args:
        text: the file.
        name: of the model's folder, with which a name in the file must agree.

    Raises:
        InvalidModelError: it is malformed; the message tells the line.
        UnsupportedError: it asks for what isn't served here.
        MissingExtraError: protobuf is not installed.
    """
    return _read(_parsed(text, name), name)


def read_model_config_json(text: str, *, name: str) -> RepositoryModelConfig:
    """Read a configuration as a load request brings it: the same fields in protobuf's JSON.

    Args:
        text: the JSON.
        name: of the model, with which a name in it must agree.

    Raises:
        InvalidModelError: it is malformed.
        UnsupportedError: it asks for what isn't served here.
        MissingExtraError: protobuf is not installed.
    """
    try:
        from google.protobuf import json_format  # noqa: PLC0415 - few requests bring one
    except ImportError as error:
        msg = f"a configuration comes with the request for model {name!r}, which protobuf reads"
        raise MissingExtraError(msg, cure="pip install 'edgefleet-runtime[triton]'") from error
    where = f"the configuration given for model {name[:100]!r}"
    if len(text) > MAX_BYTES:
        msg = f"{where} has {len(text)} characters, {MAX_BYTES} are allowed"
        raise InvalidModelError(msg)
    data = text.encode(errors="replace")
    if not data.lstrip().startswith(b"{") or _depth(data) > _MAX_DEPTH:
        msg = f"{where} is malformed: no object, or one that nests deeper than {_MAX_DEPTH}"
        raise InvalidModelError(msg)
    message = message_type()()
    try:
        json_format.Parse(text, message, ignore_unknown_fields=True, max_recursion_depth=_MAX_DEPTH)
    except (json_format.ParseError, RecursionError, ValueError) as error:
        msg = f"{where} is malformed: {str(error)[:300]}"
        raise InvalidModelError(
            msg, cure="write Triton's ModelConfig in the JSON of protobuf"
        ) from error
    return _read(message, name)


def _read(message: Any, name: str) -> RepositoryModelConfig:  # noqa: ANN401 - made from tables
    _check(message, name)
    policy = message.version_policy
    wanted = tuple(policy.specific.versions) if policy.HasField("specific") else ()
    kinds = {group.kind for group in message.instance_group}
    inputs, outputs = _tensors(message.input, name), _tensors(message.output, name)
    return RepositoryModelConfig(
        max_batch_size=message.max_batch_size,
        inputs=inputs,
        outputs=outputs,
        filename=message.default_model_filename,
        versions=wanted,
        device=_KINDS.get(kinds.pop(), "") if len(kinds) == 1 else "",
        ensemble=read_ensemble(message, (inputs, outputs), name=name),
    )


def _parsed(data: bytes, name: str) -> Any:  # noqa: ANN401 - made from the tables above
    try:
        # Only where there is such a file.
        from google.protobuf import text_format  # noqa: PLC0415
    except ImportError as error:
        msg = f"model {name!r} has a config.pbtxt, which protobuf reads"
        raise MissingExtraError(msg, cure="pip install 'edgefleet-runtime[triton]'") from error
    where = f"config.pbtxt of model {name!r}"
    if len(data) > MAX_BYTES:
        msg = f"{where} has {len(data)} bytes, {MAX_BYTES} are allowed"
        raise InvalidModelError(msg)
    if _depth(data) > _MAX_DEPTH:
        msg = f"{where} nests deeper than {_MAX_DEPTH}"
        raise InvalidModelError(msg)
    message = message_type()()
    try:
        # Unknown fields are skipped, not kept: see the rules above.
        text_format.Parse(data.decode(), message, allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError, ValueError) as error:
        msg = f"{where} is malformed: {str(error)[:300]}"
        raise InvalidModelError(msg, cure="write it as Triton's model_config.proto says") from error
    return message


def _depth(data: bytes) -> int:
    """How deep brackets nest, at most; those in strings and comments count, which does no harm."""
    deepest = depth = 0
    for byte in data:
        if byte in b"{<[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}>]":
            depth -= 1
    return deepest


def _check(message: Any, name: str) -> None:  # noqa: ANN401 - as above
    where = f"model {name!r}"
    if message.name and message.name != name:
        msg = f"{where}: its config.pbtxt names it {message.name[:100]!r}"
        raise InvalidModelError(msg, cure="give folder and configuration the same name")
    if message.max_batch_size < 0:
        msg = f"{where}: max_batch_size is {message.max_batch_size}"
        raise InvalidModelError(msg, cure="write 0 or more")
    filename = message.default_model_filename
    if filename and (filename in {".", ".."} or "/" in filename or "\0" in filename):
        msg = f"{where}: default_model_filename leaves its folder: {filename[:100]!r}"
        raise InvalidModelError(msg, cure="name a file in the version's own folder")
    refused = {
        "sequence batching": message.HasField("sequence_batching"),
        "repository agents": bool(message.model_repository_agents.agents),
        "libraries of custom operators": bool(message.model_operations.op_library_filename),
        "decoupled answers": message.model_transaction_policy.decoupled,
    }
    for what, asked in refused.items():
        if asked:
            msg = f"{where} asks for {what}, which is not served from a repository here"
            raise UnsupportedError(msg, cure="leave the model out, or serve it with Triton")
    if message.platform not in {"", "onnxruntime_onnx", "ensemble"} or message.backend not in {
        "",
        "onnxruntime",
    }:
        kind = message.backend or message.platform
        msg = f"{where} is for Triton's {kind[:100]!r}; ONNX models are served here"
        raise UnsupportedError(msg, cure="export it to ONNX, or leave the model out")


def _tensors(described: Iterable[Any], name: str) -> tuple[tuple[str, str], ...]:
    found = []
    names = {number: text.removeprefix("TYPE_") for text, number in ENUMS["DataType"].items()}
    for tensor in described:
        datatype = names.get(tensor.data_type, "INVALID")
        if not tensor.name or datatype == "INVALID":
            msg = f"model {name!r}: its config.pbtxt has a tensor without name or data_type"
            raise InvalidModelError(msg)
        found.append((tensor.name, "BYTES" if datatype == "STRING" else datatype))
    return tuple(found)
