"""Running a model in OpenVINO's format on this machine's CPU, in the precision that it has.

On CPUs with AMX the library would compute float32 in bfloat16: another accuracy than on the next
machine. The device's engine asks for float32 too, so what is judged here is what serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidModelError
from edgefleet.optimization.libraries import available
from edgefleet.optimization.openvino import MISSING
from edgefleet.optimization.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.optimization.samples import Feed
    from edgefleet.protocol.bundle import Interface


PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


class OpenVinoSession(Session):
    """A model in OpenVINO.

    Args:
        path: the ``.xml`` file, its weights beside it.
        interface: of the model that it was made of.

    Raises:
        InvalidModelError: OpenVINO isn't installed or can't load it.
    """

    def __init__(self, path: Path, interface: Interface) -> None:
        super().__init__(interface)
        if not available("openvino"):
            raise InvalidModelError(f"nothing here runs {path.name}", cure=MISSING)
        import openvino

        try:
            self._model = openvino.Core().compile_model(path, "CPU", PROPERTIES)
            for spec in interface.inputs:
                self._model.input(spec.name)  # raises where it has no such input
            self._ports = [self._model.output(name) for name in self.outputs]
        except Exception as error:  # its errors share no base class but Exception
            raise InvalidModelError(
                f"OpenVINO cannot load {path}: {error}",
                cure="make it again with the installed version of OpenVINO",
            ) from error

    def _run(self, feed: Feed) -> Sequence[NDArray[Any]]:
        results = self._model(feed)
        return [results[port] for port in self._ports]
