"""The few calls of NVIDIA's CUDA runtime that shared memory needs, without any package for them.

Rules kept here:

- Nothing is loaded where the machine has no NVIDIA driver, nor before somebody asks.
- Libraries come from NVIDIA's own wheels or from the system's loader, by exact names; the current
  folder and the environment's paths of Python play no part.
- Every call names its GPU: which one is current is the business of each thread.
"""

from __future__ import annotations

import ctypes
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgefleet.errors import InvalidInputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)

HANDLE_BYTES = 64  # driver_types.h: CUDA_IPC_HANDLE_SIZE
_DRIVER = "libcuda.so.1"
_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")
_WHEELS = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")
_LAZY_PEER_ACCESS = 1  # driver_types.h: cudaIpcMemLazyEnablePeerAccess
_TO_DEVICE, _TO_HOST, _ON_DEVICE = 1, 2, 3  # driver_types.h: cudaMemcpyKind


class CudaRuntime(Protocol):
    """Memory of this machine's GPUs; may be used by several threads.

    Calls raise InvalidInputError where a handle or an address is wrong, UnavailableError where the
    GPU is.
    """

    def device_count(self) -> int:
        """How many GPUs there are."""

    def open(self, device: int, handle: bytes) -> int:
        """The address here of memory that another process shares by this handle."""

    def close(self, device: int, pointer: int) -> None:
        """Let go of what `open` gave."""

    def size_of(self, device: int, pointer: int) -> int:
        """How many bytes lie between this address and the end of its allocation."""

    def to_host(self, device: int, pointer: int, into: bytearray) -> None:
        """Fill ``into`` from the GPU's memory."""

    def to_device(self, device: int, pointer: int, data: bytes | memoryview) -> None:
        """Copy data to the GPU's memory."""

    def copy(self, device: int, target: int, source: int, size: int) -> None:
        """Copy within the GPU's memory."""


def find_cuda(root: Path = Path("/")) -> LoadedCuda | None:
    """The CUDA runtime of this machine; None where there is none, or no GPU.

    Args:
        root: where ``/dev`` lies.
    """
    if not (root / "dev/nvidiactl").exists():
        return None
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError as error:
        _log.info("CUDA's driver can't be loaded: %s", error)
        return None
    for name in (*_RUNTIMES, *map(str, _in_wheels())):
        try:
            found = LoadedCuda(ctypes.CDLL(name), driver)
            return found if found.device_count() else None
        except (OSError, AttributeError, UnavailableError) as error:
            _log.info("%s can't be used: %s", name, error)
    return None


def _in_wheels() -> Iterator[Path]:
    from importlib.metadata import (  # noqa: PLC0415 - slow, and only where a GPU is
        PackageNotFoundError,
        distribution,
    )

    for wheel in _WHEELS:
        try:
            files = distribution(wheel).files or ()
        except PackageNotFoundError:
            continue
        for file in files:
            if re.fullmatch(r"libcudart\.so\.\d+", file.name):
                yield Path(str(file.locate()))


class _Handle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_char * HANDLE_BYTES),)


class LoadedCuda:
    """`CudaRuntime` by NVIDIA's libraries.

    https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__DEVICE.html (IPC) and
    https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html (cuMemGetAddressRange).

    Args:
        runtime: libcudart; stays to be had as `runtime`.
        driver: libcuda.
    """

    def __init__(self, runtime: Any, driver: Any) -> None:  # noqa: ANN401 - ctypes has no types
        self.runtime = runtime
        self._driver = driver
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        runtime.cudaGetErrorString.restype = ctypes.c_char_p
        runtime.cudaIpcOpenMemHandle.argtypes = (ctypes.POINTER(pointer), _Handle, ctypes.c_uint)
        runtime.cudaIpcCloseMemHandle.argtypes = (pointer,)
        runtime.cudaMemcpy.argtypes = (pointer, pointer, size, ctypes.c_int)
        driver.cuMemGetAddressRange_v2.argtypes = (
            ctypes.POINTER(ctypes.c_uint64),
            ctypes.POINTER(size),
            ctypes.c_uint64,
        )

    def device_count(self) -> int:
        count = ctypes.c_int()
        self._check("cudaGetDeviceCount", self.runtime.cudaGetDeviceCount(ctypes.byref(count)))
        return count.value

    def open(self, device: int, handle: bytes) -> int:
        self._use(device)
        pointer = ctypes.c_void_p()
        given = _Handle.from_buffer_copy(handle)
        code = self.runtime.cudaIpcOpenMemHandle(ctypes.byref(pointer), given, _LAZY_PEER_ACCESS)
        if code:
            raise InvalidInputError(
                f"the handle can't be opened on GPU {device}: {self._said(code)}",
                cure="make it with cudaIpcGetMemHandle in another process that still runs",
            )
        return int(pointer.value or 0)

    def close(self, device: int, pointer: int) -> None:
        self._use(device)
        self._check("cudaIpcCloseMemHandle", self.runtime.cudaIpcCloseMemHandle(pointer))

    def size_of(self, device: int, pointer: int) -> int:
        self._use(device)
        base, size = ctypes.c_uint64(), ctypes.c_size_t()
        code = self._driver.cuMemGetAddressRange_v2(ctypes.byref(base), ctypes.byref(size), pointer)
        if code:
            raise InvalidInputError(f"there is no memory at that address on GPU {device}: {code}")
        return base.value + size.value - pointer

    def to_host(self, device: int, pointer: int, into: bytearray) -> None:
        self._use(device)
        target = (ctypes.c_char * len(into)).from_buffer(into)
        self._memcpy(ctypes.addressof(target), pointer, len(into), _TO_HOST)

    def to_device(self, device: int, pointer: int, data: bytes | memoryview) -> None:
        self._use(device)
        source = bytes(data)
        self._memcpy(pointer, source, len(source), _TO_DEVICE)

    def copy(self, device: int, target: int, source: int, size: int) -> None:
        self._use(device)
        self._memcpy(target, source, size, _ON_DEVICE)
        # Copies within a GPU don't wait; whoever is told of an answer reads it on another stream.
        self._check("cudaDeviceSynchronize", self.runtime.cudaDeviceSynchronize())

    def _memcpy(self, target: int, source: int | bytes, size: int, kind: int) -> None:
        self._check("cudaMemcpy", self.runtime.cudaMemcpy(target, source, size, kind))

    def _use(self, device: int) -> None:
        self._check("cudaSetDevice", self.runtime.cudaSetDevice(device))

    def _check(self, call: str, code: int) -> None:
        if code:
            raise UnavailableError(f"{call} failed: {self._said(code)}")

    def _said(self, code: int) -> str:
        text = self.runtime.cudaGetErrorString(code)
        self.runtime.cudaGetLastError()  # or the next call would report it again
        return text.decode(errors="replace") if text else str(code)
