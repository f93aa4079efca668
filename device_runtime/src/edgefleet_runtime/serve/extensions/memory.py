"""All shared memory of a server: the system's and the GPUs', whose regions share one set of names.

Requests name a region and don't tell its kind, so a name stands for one region of either.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from edgefleet.errors import AlreadyExistsError, InvalidInputError
from edgefleet.protocol.tensors import from_bytes, to_bytes
from edgefleet_runtime.engines.device_memory import DeviceTensor
from edgefleet_runtime.serve.extensions.shared_memory import Region

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.extensions.cuda_memory import CudaRegion, CudaRegions
    from edgefleet_runtime.serve.extensions.shared_memory import SystemRegions


class SharedMemory:
    """The regions of one server; may be used by several threads.

    Args:
        system: of the host's memory.
        cuda: of GPUs' memory; None for none.
    """

    def __init__(self, system: SystemRegions, cuda: CudaRegions | None = None) -> None:
        self.system = system
        self.cuda = cuda
        self._lock = threading.Lock()

    @property
    def has_cuda(self) -> bool:
        """Whether regions on GPUs can be registered here."""
        return self.cuda is not None and self.cuda.supported

    @property
    def uses_gpu(self) -> bool:
        """Whether a region on a GPU is registered."""
        return self.cuda is not None and len(self.cuda) > 0

    def register(self, region: Region | CudaRegion) -> None:
        """Take a region in; errors as of the kind's own `register`.

        Raises:
            AlreadyExistsError: a region of either kind has that name.
        """
        with self._lock:
            others = self.cuda if isinstance(region, Region) else self.system
            if others is not None and region.name in others:
                raise AlreadyExistsError(
                    f"shared memory region {region.name!r} is already registered",
                    cure="unregister it first",
                )
            if isinstance(region, Region):
                self.system.register(region)
            elif self.cuda is not None:
                self.cuda.register(region)

    def unregister(self, name: str = "") -> None:
        """As of `SystemRegions`."""
        self.system.unregister(name)

    def status(self, name: str = "") -> Mapping[str, Region]:
        """As of `SystemRegions`."""
        return self.system.status(name)

    def take(
        self,
        name: str,
        offset: int,
        byte_size: int,
        datatype: str,
        shape: Sequence[int],
        *,
        of: str,
    ) -> NDArray[Any] | DeviceTensor:
        """The tensor that lies there: a copy of the system's memory, the place itself on a GPU.

        Args:
            name: of the region.
            offset: in it, in bytes.
            byte_size: of the tensor.
            datatype: as Open Inference Protocol v2 names it.
            shape: its lengths.
            of: the tensor's name, for errors.
        """
        if self.cuda is not None and name in self.cuda:
            return self.cuda.tensor(name, offset, byte_size, datatype, shape)
        data = self.system.read(name, offset, byte_size)
        return from_bytes(data, datatype, shape, name=of)

    def put(
        self,
        name: str,
        offset: int,
        byte_size: int,
        tensor: NDArray[Any] | DeviceTensor,
        *,
        of: str,
    ) -> int:
        """Lay an output there; returns its bytes. Arguments as of `take`."""
        if isinstance(tensor, DeviceTensor):
            if self.cuda is None:
                raise InvalidInputError(f"output {of!r} is on a GPU, region {name!r} isn't")
            self.cuda.move(name, offset, byte_size, tensor)
            return tensor.nbytes
        data = to_bytes(tensor, name=of)
        if self.cuda is not None and name in self.cuda:
            self.cuda.write(name, offset, byte_size, data)
        else:
            self.system.write(name, offset, byte_size, data)
        return len(data)

    def device_of(self, name: str) -> int | None:
        """The GPU of a region; None for one of the host's memory, and for unknown ones."""
        if self.cuda is None or name not in self.cuda:
            return None
        return self.cuda.status(name)[name].device_id

    def close(self) -> None:
        """Forget all regions."""
        self.system.close()
        if self.cuda is not None:
            self.cuda.close()
