"""Makes ``inference_pb2.py`` and its types of ``inference.proto``: run it after editing that file.

What protoc writes would register these messages in the process's one pool of descriptors, where
tritonclient registers its own of the same names, and refuse any older protobuf than its own. So the
module is written here: the same descriptor in a pool of its own, and nothing that old ones lack.
"""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

FOLDER = Path(__file__).parents[1] / "src" / "edgefleet_runtime" / "serve" / "grpc"
NAME = "inference"
_LINE = 80  # characters of the descriptor on a line

_HEAD = '''\
"""Messages of {name}.proto. Made by device_runtime/tools/generate_{name}_pb2.py; edit the proto."""

from google.protobuf import descriptor_pool, message_factory

# tritonclient has the same names in the default pool, and both may be in one process.
_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(
{descriptor}
)
DESCRIPTOR = _pool.FindFileByName("{name}.proto")
'''
_MESSAGE = """\
{message} = message_factory.GetMessageClass(_pool.FindMessageTypeByName("{package}.{message}"))
"""


def described(folder: Path, name: str) -> descriptor_pb2.FileDescriptorSet:
    """The descriptors of a proto file and of what it imports, as protoc has them."""
    with tempfile.TemporaryDirectory() as out:
        _protoc(folder, f"--descriptor_set_out={out}/set", "--include_imports", f"{name}.proto")
        return descriptor_pb2.FileDescriptorSet.FromString((Path(out) / "set").read_bytes())


def generated() -> dict[str, str]:
    """The files by name."""
    (file,) = described(FOLDER, NAME).file
    data = file.SerializeToString(deterministic=True)
    pieces = (data[start : start + _LINE] for start in range(0, len(data), _LINE))
    module = _HEAD.format(name=NAME, descriptor="\n".join(f"    {piece!r}" for piece in pieces))
    for message in file.message_type:
        module += _MESSAGE.format(package=file.package, message=message.name)
    with tempfile.TemporaryDirectory() as out:
        _protoc(FOLDER, f"--pyi_out={out}", f"{NAME}.proto")
        types = (Path(out) / f"{NAME}_pb2.pyi").read_text(encoding="utf-8")
    return {f"{NAME}_pb2.py": module, f"{NAME}_pb2.pyi": types}


def _protoc(folder: Path, *arguments: str) -> None:
    well_known = resources.files("grpc_tools") / "_proto"
    code = protoc.main(["protoc", f"-I{folder}", f"-I{well_known}", *arguments])
    if code:
        raise SystemExit(f"protoc failed with {code}")


def main() -> None:
    """Write the files."""
    for name, text in generated().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
