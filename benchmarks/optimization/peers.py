"""What others make of the same model and calibration data, by plain calls.

Each is called as its documentation's first example does, with no option that helps or hurts it.
"""

from __future__ import annotations

import contextlib
import io
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.optimization.libraries import available

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.optimization.models import Subject

ONNX = "onnx"
OPENVINO = "openvino"


class Peer(NamedTuple):
    """A file that somebody else's tool made, or why there is none.

    Attributes:
        name: of the tool and the call.
        engine: what runs the file.
        path: of the file; None where there is none.
        why: there is none.
    """

    name: str
    engine: str
    path: Path | None
    why: str = ""


def made(subject: Subject, folder: Path) -> list[Peer]:
    """What each installed tool makes of the model."""
    found = []
    for name, (engine, make) in TOOLS.items():
        path = folder / f"{subject.name}.{name.replace(' ', '-')}.{_SUFFIX[engine]}"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                make(subject, path)
        except Exception as error:  # noqa: BLE001 - tools raise anything, and the row tells it
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"[:120]
            found.append(Peer(name, engine, None, why))
        else:
            found.append(Peer(name, engine, path))
    return found


def size(path: Path) -> int:
    """Bytes of a model's files together."""
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if weights.exists() else 0)


def _feeds(subject: Subject) -> Iterator[dict[str, Any]]:
    name = _input(subject)
    return ({name: image[None]} for image in subject.calibration)


def _input(subject: Subject) -> str:
    import onnx

    name: str = onnx.load(subject.path).graph.input[0].name
    return name


def _static(subject: Subject, to: Path) -> None:
    """https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html ."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime ships no types
        def __init__(self) -> None:
            self._feeds = _feeds(subject)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    quantize_static(str(subject.path), str(to), Reader())


def _dynamic(subject: Subject, to: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(subject.path), str(to))


def _nncf(subject: Subject) -> Callable[[Any], Any]:
    """https://github.com/openvinotoolkit/nncf#post-training-quantization ."""
    if not available("nncf"):
        raise RuntimeError("not installed")
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    feeds = list(_feeds(subject))
    return lambda model: nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds))


def _nncf_onnx(subject: Subject, to: Path) -> None:
    import onnx

    quantize = _nncf(subject)
    model = onnx.version_converter.convert_version(onnx.load(subject.path), 17)
    onnx.save(quantize(model), to)


def _nncf_openvino(subject: Subject, to: Path) -> None:
    quantize = _nncf(subject)
    import openvino

    openvino.save_model(quantize(openvino.Core().read_model(subject.path)), to)


def _openvino(subject: Subject, to: Path) -> None:
    if not available("openvino"):
        raise RuntimeError("not installed")
    import openvino

    model = openvino.Core().read_model(subject.path)
    openvino.save_model(model, to, compress_to_fp16=False)


_SUFFIX = {ONNX: "onnx", OPENVINO: "xml"}
TOOLS: dict[str, tuple[str, Callable[[Subject, Path], None]]] = {
    "onnxruntime quantize_static": (ONNX, _static),
    "onnxruntime quantize_dynamic": (ONNX, _dynamic),
    "NNCF on ONNX": (ONNX, _nncf_onnx),
    "OpenVINO fp32": (OPENVINO, _openvino),
    "NNCF on OpenVINO": (OPENVINO, _nncf_openvino),
}
"""Name of a call -> what runs its file, and the call."""
