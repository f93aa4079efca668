"""Tensors in a GPU's memory: a pointer, and what is known of what it points to.

Rules kept here:

- Only whole, C-contiguous tensors: an engine takes a pointer and a shape, no strides.
- Whoever gives a pointer keeps the memory alive through `DeviceTensor.keeper`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ALIGNMENT = 256  # bytes; CUDA C++ Programming Guide, 5.3.2: of any address that cudaMalloc returns
_DLPACK_CUDA = 2  # dlpack.h, DLDeviceType: kDLCUDA


class DeviceTensor:
    """A tensor in a GPU's memory.

    Args:
        pointer: address of its first element there.
        device: number of the GPU.
        dtype: of its elements.
        shape: its lengths; the elements lie in C order without gaps.
        writable: whether a run may write it.
        keeper: what must live as long as the memory is used.
        fetch: gives its content as an array of the host; None where nobody needs it.
    """

    __slots__ = ("_fetch", "device", "dtype", "keeper", "pointer", "shape", "writable")

    def __init__(
        self,
        pointer: int,
        *,
        device: int = 0,
        dtype: Any,  # noqa: ANN401 - whatever numpy takes for a dtype
        shape: tuple[int, ...],
        writable: bool = True,
        keeper: object = None,
        fetch: Callable[[DeviceTensor], NDArray[Any]] | None = None,
    ) -> None:
        self.pointer = pointer
        self.device = device
        self.dtype = np.dtype(dtype)
        self.shape = tuple(shape)
        self.writable = writable
        self.keeper = keeper
        self._fetch = fetch
        if pointer <= 0 or self.dtype.hasobject or any(length < 0 for length in self.shape):
            raise InvalidInputError(
                f"there can't be a tensor {self.dtype}{list(self.shape)} at address {pointer:#x}",
                cure="give an address on the GPU, plain numbers and whole lengths",
            )

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return int(math.prod(self.shape) * self.dtype.itemsize)

    def to_host(self) -> NDArray[Any]:
        """A copy in the host's memory.

        Raises:
            InvalidInputError: whoever made this tensor gave no way to copy it.
        """
        if self._fetch is None:
            raise InvalidInputError(
                "a tensor on a GPU was given to a model that isn't there",
                cure="copy it to the host, or ask for the device 'cuda'",
            )
        return self._fetch(self)

    @classmethod
    def of(cls, owner: Any) -> DeviceTensor:  # noqa: ANN401 - cupy, torch, numba, jax: anybody's
        """The memory of an array of another library, which stays its own.

        Args:
            owner: has ``__cuda_array_interface__``
                (https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html); what it
                does on other streams must be done before a run.

        Raises:
            InvalidInputError: it has none, or isn't contiguous.
        """
        about = getattr(owner, "__cuda_array_interface__", None)
        if not isinstance(about, dict):
            raise InvalidInputError(
                f"{type(owner).__name__} tells no address on a GPU",
                cure="give a numpy array, an array with __cuda_array_interface__, or DeviceTensor",
            )
        dtype, shape = np.dtype(about["typestr"]), tuple(about["shape"])
        strides = about.get("strides")
        if strides is not None and tuple(strides) != _strides(shape, dtype.itemsize):
            raise InvalidInputError(
                "the tensor on the GPU has gaps, or isn't in C order", cure="make it contiguous"
            )
        if about.get("mask") is not None:
            raise InvalidInputError("a masked tensor can't be bound", cure="fill it first")
        pointer, read_only = about["data"]
        device = _device_of(owner)
        return cls(
            int(pointer),
            device=device,
            dtype=dtype,
            shape=shape,
            writable=not read_only,
            keeper=owner,
        )


def is_aligned(tensor: DeviceTensor) -> bool:
    """Whether a stranger's address may be given to a kernel, which might die of another one."""
    return tensor.pointer % ALIGNMENT == 0


def tensor_of(given: Any) -> NDArray[Any] | DeviceTensor:  # noqa: ANN401 - anybody's arrays
    """A caller's tensor, without a copy: on the host as an array, on a GPU as a `DeviceTensor`.

    Args:
        given: a numpy array, a `DeviceTensor`, or what has ``__cuda_array_interface__`` or, on the
            host, ``__dlpack__``.

    Raises:
        InvalidInputError: it is nothing of that kind.
    """
    if isinstance(given, (np.ndarray, DeviceTensor)):
        return given
    # torch has the attribute on its CPU tensors too, and raises AttributeError when it is read.
    if hasattr(given, "__cuda_array_interface__"):
        return DeviceTensor.of(given)
    if hasattr(given, "__dlpack__"):
        try:
            return np.from_dlpack(given)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"{type(given).__name__} can't be bound: {error}",
                cure="give an array with __cuda_array_interface__, or DeviceTensor",
            ) from error
    return DeviceTensor.of(given)


def _device_of(owner: Any) -> int:  # noqa: ANN401
    """The GPU's number, which the interface doesn't tell and DLPack does; 0 where neither does."""
    ask = getattr(owner, "__dlpack_device__", None)
    if ask is None:
        return 0
    kind, number = ask()
    return int(number) if int(kind) == _DLPACK_CUDA else 0


def _strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides, step = [], itemsize
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))
