"""The part of Triton's ``model_config.proto`` (package ``inference``) that is read here, as tables.

Rules kept here:

- Names, numbers and types are Triton's; a test holds them against the published file. Declared are
  the fields that matter here, and those that hold lists of messages or maps: protobuf's text format
  skips every other unknown field, but not these.
- The messages live in a pool of their own: another library in the process may bring Triton's.
"""

from __future__ import annotations

from typing import Any

ENUMS: dict[str, dict[str, int]] = {
    "DataType": {
        "TYPE_INVALID": 0, "TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_UINT16": 3, "TYPE_UINT32": 4,
        "TYPE_UINT64": 5, "TYPE_INT8": 6, "TYPE_INT16": 7, "TYPE_INT32": 8, "TYPE_INT64": 9,
        "TYPE_FP16": 10, "TYPE_FP32": 11, "TYPE_FP64": 12, "TYPE_STRING": 13, "TYPE_BF16": 14,
    },
    "ModelInstanceGroup.Kind": {
        "KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3,
    },
}  # fmt: skip
_ACCELERATORS = "ModelOptimizationPolicy.ExecutionAccelerators"
# (name, type, number); "*" before the type where it is repeated, "%" before the type of a map's
# values, whose keys are strings.
MESSAGES: dict[str, tuple[tuple[str, str, int], ...]] = {
    "ModelInput": (("name", "string", 1), ("data_type", "DataType", 2), ("dims", "*int64", 4)),
    "ModelOutput": (("name", "string", 1), ("data_type", "DataType", 2), ("dims", "*int64", 3)),
    "BatchInput": (),
    "BatchOutput": (),
    "ModelInstanceGroup.SecondaryDevice": (),
    "ModelInstanceGroup": (
        ("kind", "ModelInstanceGroup.Kind", 4),
        ("count", "int32", 2),
        ("secondary_devices", "*ModelInstanceGroup.SecondaryDevice", 8),
    ),
    "ModelVersionPolicy.Latest": (("num_versions", "uint32", 1),),
    "ModelVersionPolicy.All": (),
    "ModelVersionPolicy.Specific": (("versions", "*int64", 1),),
    "ModelVersionPolicy": (
        ("latest", "ModelVersionPolicy.Latest", 1),
        ("all", "ModelVersionPolicy.All", 2),
        ("specific", "ModelVersionPolicy.Specific", 3),
    ),
    f"{_ACCELERATORS}.Accelerator": (("name", "string", 1), ("parameters", "%string", 2)),
    _ACCELERATORS: (
        ("gpu_execution_accelerator", f"*{_ACCELERATORS}.Accelerator", 1),
        ("cpu_execution_accelerator", f"*{_ACCELERATORS}.Accelerator", 2),
    ),
    "ModelOptimizationPolicy": (("execution_accelerators", _ACCELERATORS, 4),),
    "ModelSequenceBatching.Control": (),
    "ModelSequenceBatching.ControlInput": (("control", "*ModelSequenceBatching.Control", 2),),
    "ModelSequenceBatching.InitialState": (),
    "ModelSequenceBatching.State": (("initial_state", "*ModelSequenceBatching.InitialState", 5),),
    "ModelSequenceBatching": (
        ("control_input", "*ModelSequenceBatching.ControlInput", 2),
        ("state", "*ModelSequenceBatching.State", 5),
    ),
    "ModelEnsembling.Step": (
        ("model_name", "string", 1),
        ("model_version", "int64", 2),
        ("input_map", "%string", 3),
        ("output_map", "%string", 4),
    ),
    "ModelEnsembling": (("step", "*ModelEnsembling.Step", 1),),
    "ModelParameter": (("string_value", "string", 1),),
    "ModelWarmup.Input": (),
    "ModelWarmup": (("inputs", "%ModelWarmup.Input", 3),),
    "ModelOperations": (("op_library_filename", "*string", 1),),
    "ModelTransactionPolicy": (("decoupled", "bool", 1),),
    "ModelRepositoryAgents.Agent": (("name", "string", 1), ("parameters", "%string", 2)),
    "ModelRepositoryAgents": (("agents", "*ModelRepositoryAgents.Agent", 1),),
    "ModelConfig": (
        ("name", "string", 1),
        ("platform", "string", 2),
        ("version_policy", "ModelVersionPolicy", 3),
        ("max_batch_size", "int32", 4),
        ("input", "*ModelInput", 5),
        ("output", "*ModelOutput", 6),
        ("instance_group", "*ModelInstanceGroup", 7),
        ("default_model_filename", "string", 8),
        ("cc_model_filenames", "%string", 9),
        ("metric_tags", "%string", 10),
        ("optimization", "ModelOptimizationPolicy", 12),
        ("sequence_batching", "ModelSequenceBatching", 13),
        ("parameters", "%ModelParameter", 14),
        ("ensemble_scheduling", "ModelEnsembling", 15),
        ("model_warmup", "*ModelWarmup", 16),
        ("backend", "string", 17),
        ("model_operations", "ModelOperations", 18),
        ("model_transaction_policy", "ModelTransactionPolicy", 19),
        ("batch_input", "*BatchInput", 20),
        ("batch_output", "*BatchOutput", 21),
        ("model_repository_agents", "ModelRepositoryAgents", 23),
    ),
}
# https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto
_SCALARS = {"string": 9, "int64": 3, "int32": 5, "uint32": 13, "bool": 8}
_MESSAGE, _ENUM = 11, 14
_OPTIONAL, _REPEATED = 1, 3


def message_type() -> Any:  # noqa: ANN401 - made here
    """The class of ``inference.ModelConfig``, with the fields declared above."""
    from google.protobuf import (  # noqa: PLC0415
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )

    file = descriptor_pb2.FileDescriptorProto(
        name="edgefleet/model_config.proto", package="inference", syntax="proto3"
    )
    made: dict[str, Any] = {}
    # Outer messages first, so that the nested ones find their place.
    for path in sorted(MESSAGES, key=lambda name: name.count(".")):
        outer, _, own = path.rpartition(".")
        made[path] = (made[outer].nested_type if outer else file.message_type).add(name=own)
    for path, values in ENUMS.items():
        outer, _, own = path.rpartition(".")
        enum = (made[outer] if outer else file).enum_type.add(name=own)
        for text, number in values.items():
            enum.value.add(name=text, number=number)
    for path, fields in MESSAGES.items():
        for name, kind, number in fields:
            field = made[path].field.add(name=name, number=number, label=_OPTIONAL)
            if kind.startswith(("*", "%")):
                field.label = _REPEATED
            if kind.startswith("%"):
                _type(field, _entry(made[path], name, kind[1:], f"{path}."))
            else:
                _type(field, kind.removeprefix("*"))
    policy = made["ModelVersionPolicy"]
    policy.oneof_decl.add(name="policy_choice")
    for field in policy.field:
        field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


def _type(field: Any, kind: str) -> None:  # noqa: ANN401 - a FieldDescriptorProto
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _ENUM if kind in ENUMS else _MESSAGE
        field.type_name = f".inference.{kind}"


def _entry(outer: Any, name: str, kind: str, path: str) -> str:  # noqa: ANN401 - a DescriptorProto
    """The type of a map's entries, which protobuf names after its field."""
    own = "".join(map(str.capitalize, name.split("_"))) + "Entry"
    entry = outer.nested_type.add(name=own)
    entry.options.map_entry = True
    _type(entry.field.add(name="key", number=1, label=_OPTIONAL), "string")
    _type(entry.field.add(name="value", number=2, label=_OPTIONAL), kind)
    return path + own
