"""A client process that owns memory on GPU 0: shares it, and shows what others wrote there.

    python tests/gpu/owner.py BYTES

Prints the handle in base64. Then takes lines: ``put OFFSET BASE64``, ``get OFFSET SIZE``; answers
each with a line, ``get`` with base64. Ends with its input.
"""

from __future__ import annotations

import base64
import ctypes
import sys

from edgefleet_runtime.engines.cuda import HANDLE_BYTES, find_cuda


def main() -> None:
    """Share, and do as told."""
    cuda = find_cuda()
    if cuda is None:
        raise SystemExit("there is no GPU")
    library = cuda.runtime
    pointer, handle = ctypes.c_void_p(), ctypes.create_string_buffer(HANDLE_BYTES)
    library.cudaMalloc.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t)
    library.cudaIpcGetMemHandle.argtypes = (ctypes.c_char_p, ctypes.c_void_p)
    for code in (
        library.cudaSetDevice(0),
        library.cudaMalloc(ctypes.byref(pointer), int(sys.argv[1])),
        library.cudaIpcGetMemHandle(handle, pointer),
    ):
        if code:
            raise SystemExit(f"CUDA failed with {code}")
    start = int(pointer.value or 0)
    _say(base64.b64encode(handle.raw).decode())
    for line in sys.stdin:
        verb, offset, rest = line.split()
        if verb == "put":
            cuda.to_device(0, start + int(offset), base64.b64decode(rest))
            _say("ok")
        else:
            seen = bytearray(int(rest))
            cuda.to_host(0, start + int(offset), seen)
            _say(base64.b64encode(seen).decode())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
