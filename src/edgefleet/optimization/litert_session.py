"""Running a LiteRT file on this machine's CPU, as the device's engine does.

A device serves a file's tensors as the file has them. So a file whose inputs or outputs have other
names, datatypes or lengths than the model's is refused here rather than translated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidModelError
from edgefleet.optimization.libraries import available
from edgefleet.optimization.session import Session
from edgefleet.protocol.tensors import dtype_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.optimization.samples import Feed
    from edgefleet.protocol.bundle import Interface, TensorSpec

MISSING = "needs LiteRT: pip install ai-edge-litert"
COMPILED = b"edgetpu-custom-op"
"""What a file from edgetpu_compiler holds; only an Edge TPU runs it."""
_CURE = "convert it so that names, datatypes and layout stay: onnx2tf -coion -kat INPUT"


class LiteRtSession(Session):
    """A model in LiteRT.

    Args:
        path: the ``.tflite`` file.
        interface: of the model that it was made of.

    Raises:
        InvalidModelError: LiteRT isn't installed, can't load it, or it takes or gives other
            tensors.
    """

    def __init__(self, path: Path, interface: Interface) -> None:
        super().__init__(interface)
        if not available("ai_edge_litert.interpreter"):
            raise InvalidModelError(f"nothing here runs {path.name}", cure=MISSING)
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._model = Interpreter(model_path=str(path))
            self._model.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InvalidModelError(
                f"LiteRT cannot load {path}: {' '.join(str(error).split())[:300]}",
                cure="an engine that runs its operators must judge it: the device's",
            ) from error
        self._inputs = self._tensors("input", interface.inputs)
        self._results = self._tensors("output", interface.outputs)

    def _tensors(self, kind: str, specs: Sequence[TensorSpec]) -> dict[str, Any]:
        """Index and lengths of the file's inputs or outputs, held against the model's."""
        found = _by_name(self._model, kind)
        if set(found) != {spec.name for spec in specs}:
            raise InvalidModelError(
                f"its {kind}s are {', '.join(sorted(found))}, the model's "
                f"{', '.join(spec.name for spec in specs)}",
                cure=_CURE,
            )
        for spec in specs:
            about = found[spec.name]
            if about["dtype"] is not dtype_of(spec.datatype).type:
                raise InvalidModelError(
                    f"its {kind} {spec.name!r} holds {about['dtype'].__name__}, "
                    f"the model's {spec.datatype}",
                    cure=_CURE,
                )
            lengths = tuple(int(length) for length in about["shape_signature"])
            if not _fits(lengths, spec.shape):
                raise InvalidModelError(
                    f"its {kind} {spec.name!r} has lengths {list(lengths)}, "
                    f"the model's {list(spec.shape)}",
                    cure=_CURE,
                )
        return found

    def _run(self, feed: Feed) -> Sequence[NDArray[Any]]:
        import numpy as np

        count = self._calls(feed)
        if count == 1:
            return self._once(feed)
        rows = [
            self._once({name: array[row : row + 1] for name, array in feed.items()})
            for row in range(count)
        ]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def _calls(self, feed: Feed) -> int:
        """How many calls it takes: one a sample where the file is made for one sample a call."""
        single = [
            len(feed[spec.name])
            for spec in self.interface.inputs
            if spec.shape[:1] == (-1,) and self._inputs[spec.name]["shape_signature"][0] == 1
        ]
        return single[0] if single else 1

    def _once(self, feed: Feed) -> list[NDArray[Any]]:
        changed = False
        for name, array in feed.items():
            about = self._inputs[name]
            if tuple(about["shape"]) != array.shape:
                self._model.resize_tensor_input(about["index"], array.shape, strict=True)
                about["shape"] = array.shape
                changed = True
        if changed:
            self._model.allocate_tensors()
        for name, array in feed.items():
            self._model.set_tensor(self._inputs[name]["index"], array)
        self._model.invoke()
        return [self._model.get_tensor(self._results[name]["index"]) for name in self.outputs]


def _by_name(model: Any, kind: str) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - it has no types
    """As the device's engine has them: by the only signature's names, else by the tensors' own."""
    signatures: Mapping[str, Any] = model.get_signature_list()
    if len(signatures) == 1:
        runner = model.get_signature_runner(next(iter(signatures)))
        return dict(getattr(runner, f"get_{kind}_details")())
    return {about["name"]: about for about in getattr(model, f"get_{kind}_details")()}


def _fits(lengths: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a file's lengths are the model's; one sample a call may stand for any number."""
    if len(lengths) != len(shape):
        return False
    return all(
        seen in {-1, due} or (due == -1 and (seen == 1 or place > 0))
        for place, (seen, due) in enumerate(zip(lengths, shape, strict=True))
    )
