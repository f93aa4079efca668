"""Makes each ``NAME_pb2.py`` and its types of ``NAME.proto``: run it after editing one of those.

What protoc writes would register these messages in the process's one pool of descriptors, where
clients of the same protocols register their own of the same names, and refuse any older protobuf
than its own. So the module is written here: the same descriptor in a pool of its own, and nothing
that old ones lack.
"""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

_SERVE = Path(__file__).parents[1] / "src" / "edgefleet_runtime" / "serve"
INFERENCE = _SERVE / "grpc" / "inference.proto"
AGENT = _SERVE / "edgemanager" / "agent.proto"
SOURCES = (INFERENCE, AGENT)
_LINE = 80  # characters of the descriptor on a line

_HEAD = '''\
"""Messages of {name}.proto. Made by device_runtime/tools/generate_pb2.py; edit the proto."""

from google.protobuf import descriptor_pool, message_factory

# Clients have the same names in the default pool, and both may be in one process.
_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(
{descriptor}
)
DESCRIPTOR = _pool.FindFileByName("{name}.proto")
'''
_MESSAGE = """\
{message} = message_factory.GetMessageClass(_pool.FindMessageTypeByName("{package}.{message}"))
"""


def described(source: Path) -> descriptor_pb2.FileDescriptorSet:
    """The descriptors of a proto file and of what it imports, as protoc has them."""
    with tempfile.TemporaryDirectory() as out:
        _protoc(source, f"--descriptor_set_out={out}/set", "--include_imports")
        return descriptor_pb2.FileDescriptorSet.FromString((Path(out) / "set").read_bytes())


def generated(source: Path) -> dict[Path, str]:
    """The files that belong beside a proto file, with their content."""
    (file,) = described(source).file
    data = file.SerializeToString(deterministic=True)
    pieces = (data[start : start + _LINE] for start in range(0, len(data), _LINE))
    descriptor = "\n".join(f"    {piece!r}" for piece in pieces)
    module = _HEAD.format(name=source.stem, descriptor=descriptor)
    for message in file.message_type:
        module += _MESSAGE.format(package=file.package, message=message.name)
    for enum in file.enum_type:
        module += "".join(f"{value.name} = {value.number}\n" for value in enum.value)
    with tempfile.TemporaryDirectory() as out:
        _protoc(source, f"--pyi_out={out}")
        types = (Path(out) / f"{source.stem}_pb2.pyi").read_text(encoding="utf-8")
    beside = source.with_name
    return {beside(f"{source.stem}_pb2.py"): module, beside(f"{source.stem}_pb2.pyi"): types}


def _protoc(source: Path, *arguments: str) -> None:
    well_known = resources.files("grpc_tools") / "_proto"
    code = protoc.main(
        ["protoc", f"-I{source.parent}", f"-I{well_known}", *arguments, source.name]
    )
    if code:
        raise SystemExit(f"protoc failed with {code}")


def main() -> None:
    """Write the files."""
    for source in SOURCES:
        for path, text in generated(source).items():
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
