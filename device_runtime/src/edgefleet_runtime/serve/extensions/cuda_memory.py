"""CUDA shared memory: memory of a GPU that clients on this machine share by CUDA's handles.

Rules kept here:

- A handle is 64 bytes that only a process which owns the memory can make, for processes of this
  machine; the driver decides whether ours may open it. It serves under one name.
- The region is held against the allocation that the handle opens, and each offset and length
  against the region.
- Memory is let go when its region is unregistered and the last run that uses it has ended.
- A model gets an address only where it is aligned as CUDA's own allocations are: a kernel that
  meets another one takes the whole process's GPU down. The rest is copied.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgefleet.errors import (
    AlreadyExistsError,
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
)
from edgefleet.protocol.tensors import count_of, dtype_of
from edgefleet_runtime.engines.cuda import HANDLE_BYTES, find_cuda
from edgefleet_runtime.engines.device_memory import DeviceTensor
from edgefleet_runtime.serve.extensions.shared_memory import MAX_NAME, MAX_REGIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet_runtime.engines.cuda import CudaRuntime


class CudaRegion(msgspec.Struct, frozen=True, kw_only=True):
    """A registered part of a GPU's memory.

    Attributes:
        handle: a ``cudaIpcMemHandle_t``.
        device_id: number of the GPU that the memory is on.
    """

    name: str
    handle: bytes
    device_id: int
    byte_size: int


class _Mapped:
    """Memory that is open here as long as anybody holds this."""

    def __init__(self, runtime: CudaRuntime, region: CudaRegion) -> None:
        self.region = region
        self.pointer = runtime.open(region.device_id, region.handle)
        self._end = weakref.finalize(self, _let_go, runtime, region.device_id, self.pointer)
        self._end.atexit = False  # the driver lets go of all when the process ends

    def close(self) -> None:
        self._end()


class CudaRegions:
    """The regions of one server; may be used by several threads.

    Args:
        max_bytes: of one tensor that is copied to the host's memory or from it.
        find: gives the CUDA runtime, or None where there is none; asked once.
    """

    def __init__(
        self, *, max_bytes: int, find: Callable[[], CudaRuntime | None] = find_cuda
    ) -> None:
        self._max_bytes = max_bytes
        self._find = find
        self._asked = False
        self._runtime: CudaRuntime | None = None
        self._open: dict[str, _Mapped] = {}
        self._lock = threading.Lock()

    @property
    def supported(self) -> bool:
        """Whether this machine has a GPU and CUDA's runtime."""
        return self._cuda() is not None

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, name: str) -> bool:
        return name in self._open

    def register(self, region: CudaRegion) -> None:
        """Take a region in.

        Raises:
            AlreadyExistsError: the name is taken, or the handle serves under another one.
            InvalidInputError: no GPU, not its memory, or less of it than the region has.
            LimitExceededError: too many regions.
        """
        runtime = self._cuda()
        if runtime is None:
            raise InvalidInputError(
                f"failed to register CUDA shared memory region: {region.name[:MAX_NAME]!r}, GPUs "
                "not supported",
                cure="use system shared memory, or serve where there is an NVIDIA GPU",
            )
        if not 0 < len(region.name) <= MAX_NAME:
            raise InvalidInputError(f"a region's name has 1 to {MAX_NAME} characters")
        if region.byte_size <= 0 or len(region.handle) != HANDLE_BYTES:
            raise InvalidInputError(
                f"region {region.name!r} has no bytes, or its handle not {HANDLE_BYTES}"
            )
        count = runtime.device_count()
        if not 0 <= region.device_id < count:
            raise InvalidInputError(f"there is no GPU {region.device_id}, only {count}")
        with self._lock:
            if region.name in self._open:
                raise AlreadyExistsError(
                    f"shared memory region {region.name!r} is already registered",
                    cure="unregister it first",
                )
            for name, mapped in self._open.items():
                if mapped.region.handle == region.handle:
                    raise AlreadyExistsError(
                        f"the memory of region {region.name!r} is registered as {name!r}",
                        cure="use that name with an offset, or unregister it first",
                    )
            if len(self._open) >= MAX_REGIONS:
                raise LimitExceededError(f"{MAX_REGIONS} regions are registered, no more fit")
            self._open[region.name] = _checked(runtime, region)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all of them without a name; an unknown name is no error."""
        with self._lock:
            for gone in (name,) if name else tuple(self._open):
                self._open.pop(gone, None)

    def status(self, name: str = "") -> Mapping[str, CudaRegion]:
        """The regions by name, or the one of that name.

        Raises:
            NotFoundError: no region has that name.
        """
        with self._lock:
            if name and name not in self._open:
                raise _unknown(name)
            return {key: held.region for key, held in self._open.items() if name in {"", key}}

    def tensor(
        self, name: str, offset: int, byte_size: int, datatype: str, shape: Sequence[int]
    ) -> DeviceTensor:
        """The tensor that lies there, where it lies; it keeps the memory open.

        Raises:
            NotFoundError: no region has that name.
            InvalidInputError: it isn't inside the region, or ``byte_size`` isn't its size.
        """
        mapped = self._inside(name, offset, byte_size)
        dtype, lengths = dtype_of(datatype), tuple(shape)
        if dtype.hasobject:
            raise InvalidInputError("BYTES can't lie in CUDA shared memory", cure="send it plain")
        due = count_of(lengths, name=name) * dtype.itemsize
        if due != byte_size:
            raise InvalidInputError(
                f"a tensor {datatype}{list(lengths)} has {due} bytes, not {byte_size}"
            )
        return DeviceTensor(
            mapped.pointer + offset,
            device=mapped.region.device_id,
            dtype=dtype,
            shape=lengths,
            keeper=mapped,
            fetch=self._fetched,
        )

    def write(self, name: str, offset: int, byte_size: int, data: bytes | memoryview) -> None:
        """Put data of the host where a client wants it.

        Raises:
            NotFoundError: no region has that name.
            InvalidInputError: it isn't inside the region, or more than ``byte_size`` bytes.
            LimitExceededError: more than ``max_bytes``.
        """
        mapped = self._inside(name, offset, byte_size)
        self._check_copied(len(data))
        _check_fits(name, byte_size, len(data))
        runtime = self._cuda()
        if runtime is not None and data:
            runtime.to_device(mapped.region.device_id, mapped.pointer + offset, data)

    def move(self, name: str, offset: int, byte_size: int, tensor: DeviceTensor) -> None:
        """Put a tensor of the same GPU where a client wants it; errors as of `write`."""
        mapped = self._inside(name, offset, byte_size)
        _check_fits(name, byte_size, tensor.nbytes)
        device = mapped.region.device_id
        runtime = self._cuda()
        if tensor.device != device:
            raise InvalidInputError(f"region {name!r} is on GPU {device}, not {tensor.device}")
        if runtime is not None and tensor.nbytes:
            runtime.copy(device, mapped.pointer + offset, tensor.pointer, tensor.nbytes)

    def close(self) -> None:
        """Forget all regions."""
        self.unregister()

    def _cuda(self) -> CudaRuntime | None:
        if not self._asked:
            with self._lock:
                if not self._asked:
                    self._runtime = self._find()
                    self._asked = True
        return self._runtime

    def _inside(self, name: str, offset: int, byte_size: int) -> _Mapped:
        with self._lock:
            mapped = self._open.get(name)
        if mapped is None:
            raise _unknown(name)
        held = mapped.region.byte_size
        if offset < 0 or byte_size < 0 or offset + byte_size > held:
            raise InvalidInputError(
                f"bytes {offset} to {offset + byte_size} are not inside region {name!r}, which has "
                f"{held}"
            )
        return mapped

    def _fetched(self, tensor: DeviceTensor) -> NDArray[Any]:
        self._check_copied(tensor.nbytes)
        data = bytearray(tensor.nbytes)
        runtime = self._cuda()
        if runtime is not None and data:
            runtime.to_host(tensor.device, tensor.pointer, data)
        return np.frombuffer(data, tensor.dtype).reshape(tensor.shape)

    def _check_copied(self, size: int) -> None:
        if size > self._max_bytes:
            raise LimitExceededError(f"a tensor may have {self._max_bytes} bytes, not {size}")


def _checked(runtime: CudaRuntime, region: CudaRegion) -> _Mapped:
    mapped = _Mapped(runtime, region)
    try:
        size = runtime.size_of(region.device_id, mapped.pointer)
        if region.byte_size > size:
            raise InvalidInputError(
                f"region {region.name!r} of {region.byte_size} bytes is not inside the memory of "
                f"its handle, which has {size}"
            )
    except EdgeFleetError:
        mapped.close()
        raise
    return mapped


def _check_fits(name: str, given: int, needed: int) -> None:
    if needed > given:
        raise InvalidInputError(f"{needed} bytes don't fit the {given} given of region {name!r}")


def _let_go(runtime: CudaRuntime, device: int, pointer: int) -> None:
    runtime.close(device, pointer)


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        f"there is no CUDA shared memory region {name[:MAX_NAME]!r}", cure="register it first"
    )
