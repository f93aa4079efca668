"""CUDA's memory calls over the host's memory, and a model that takes its addresses for a GPU's.

Both stand in for what only a GPU has, so that each line above NVIDIA's own libraries runs anywhere;
`tests/gpu` does the same with these libraries.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.errors import InvalidInputError, UnavailableError
from edgefleet_runtime.engines import binding
from edgefleet_runtime.engines.cuda import HANDLE_BYTES
from edgefleet_runtime.engines.onnxruntime import OnnxModel

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_ALIGNED = 256


class SimulatedCuda:
    """Implements `edgefleet_runtime.engines.cuda.CudaRuntime`.

    Attributes:
        opened: addresses that are open now.
        copies: names of the calls that moved data, in order.
    """

    def __init__(self, devices: int = 1) -> None:
        self._devices = devices
        self._numbers = itertools.count()
        self._shared: dict[bytes, tuple[int, NDArray[np.uint8]]] = {}
        self._lock = threading.Lock()
        self.opened: list[int] = []
        self.copies: list[str] = []

    def share(self, size: int, device: int = 0) -> tuple[bytes, NDArray[np.uint8]]:
        """As cudaMalloc and cudaIpcGetMemHandle in a client: the handle, and the memory."""
        room = np.zeros(size + _ALIGNED, np.uint8)
        memory = room[-room.ctypes.data % _ALIGNED :][:size]
        handle = next(self._numbers).to_bytes(4) + bytes(HANDLE_BYTES - 4)
        self._shared[handle] = (device, memory)
        return handle, memory

    def device_count(self) -> int:
        return self._devices

    def open(self, device: int, handle: bytes) -> int:
        found = self._shared.get(handle)
        if found is None or found[0] != device:
            raise InvalidInputError(f"the handle can't be opened on GPU {device}: invalid value")
        pointer = int(found[1].ctypes.data)
        with self._lock:
            if pointer in self.opened:  # cudaErrorAlreadyMapped
                raise InvalidInputError("the handle is open already")
            self.opened.append(pointer)
        return pointer

    def close(self, device: int, pointer: int) -> None:
        assert 0 <= device < self._devices
        with self._lock:
            self.opened.remove(pointer)

    def size_of(self, device: int, pointer: int) -> int:
        for held, memory in self._shared.values():
            if held == device and memory.ctypes.data == pointer:
                return memory.size
        raise InvalidInputError(f"there is no memory at that address on GPU {device}")

    def to_host(self, device: int, pointer: int, into: bytearray) -> None:
        self._check(device, pointer, len(into))
        into[:] = ctypes.string_at(pointer, len(into))
        self.copies.append("to_host")

    def to_device(self, device: int, pointer: int, data: bytes | memoryview) -> None:
        self._check(device, pointer, len(data))
        ctypes.memmove(pointer, bytes(data), len(data))
        self.copies.append("to_device")

    def copy(self, device: int, target: int, source: int, size: int) -> None:
        self._check(device, target, size)
        ctypes.memmove(target, source, size)
        self.copies.append("copy")

    def _check(self, device: int, pointer: int, size: int) -> None:
        """Refuse, as a GPU would, what isn't inside open memory of it."""
        for held, memory in self._shared.values():
            start = memory.ctypes.data
            inside = start <= pointer and pointer + size <= start + memory.size
            if held == device and start in self.opened and inside:
                return
        raise UnavailableError("cudaMemcpy failed: an illegal memory access was encountered")


class HostAsGpu(OnnxModel):
    """Runs on the host and takes its addresses for those of a GPU."""

    _memory = binding.HOST


def host_as_gpu(path: Path, device: int = 0) -> Any:
    """The model of a file as if it ran on a GPU."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    model = HostAsGpu(session, "onnxruntime")
    model.device = device
    return model
