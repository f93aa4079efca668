"""The model cases that onnx ships for testing backends, served and held against plain onnxruntime.

What is compared is raw bytes, so NaN and signed zero count. Operators that draw random numbers
differ from run to run of onnxruntime itself and are left out by comparing two plain runs first.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from edgefleet.errors import EdgeFleetError, InvalidModelError
from edgefleet.protocol.inference import HEADER_LENGTH, decode_response, encode_request
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.serve.table import ServedModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from device_runtime.tests.serving import Running
    from edgefleet_runtime.serve.table import ModelTable

OPTIONS = EngineOptions(providers=("CPUExecutionProvider",), threads=1)

NO_TENSORS = "no tensors that the protocol has"
BFLOAT16 = "bfloat16, which numpy lacks"
OURS = {NO_TENSORS, BFLOAT16}  # reasons of this protocol; for all others onnxruntime refuses too


class Case(NamedTuple):
    name: str
    model: bytes
    inputs: tuple[tuple[Any, ...], ...]  # of each data set, in the order of the model's inputs


class Tally(NamedTuple):
    ran: list[str]
    skipped: Counter[str]
    different: list[str]

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {why}" for why, count in self.skipped.most_common())
        return f"{len(self.ran)} equal, {len(self.different)} different; skipped: {reasons}"


def cases() -> list[Case]:
    """All cases of the kinds node and simple, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose
        from onnx.backend.test.loader import load_model_tests

        found = [*load_model_tests(kind="node"), *load_model_tests(kind="simple")]
        return sorted(
            (_on_disk(case) if case.model is None else _in_memory(case) for case in found),
            key=lambda case: case.name,
        )


def _in_memory(case: Any) -> Case:
    sets = tuple(tuple(inputs) for inputs, _ in case.data_sets)
    return Case(case.name, case.model.SerializeToString(), sets)


def _on_disk(case: Any) -> Case:
    folder = Path(case.model_dir)
    sets = []
    for data in sorted(folder.glob("test_data_set_*")):
        paths = sorted(data.glob("input_*.pb"), key=lambda path: int(path.stem[6:]))
        sets.append(tuple(_tensor(path) for path in paths))
    return Case(f"simple_{case.name}", (folder / "model.onnx").read_bytes(), tuple(sets))


def _tensor(path: Path) -> Any:
    value = onnx.TensorProto()
    value.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(value)


def compare(table: ModelTable, server: Running, chosen: Iterable[Case], folder: Path) -> Tally:
    """Serve each case in turn and hold its answers against plain runs of the same file."""
    tally = Tally([], Counter(), [])
    path = folder / "model.onnx"
    for case in chosen:
        path.write_bytes(case.model)
        try:
            model = OnnxRuntimeEngine().load(path, OPTIONS)
        except InvalidModelError as error:
            why = _why(error)
            tally.skipped[why] += 1
            if why not in OURS and _loads(path):
                tally.different.append(f"{case.name}, which onnxruntime loads: {error.message}")
            continue
        served = ServedModel(model, name="case", version="1", bundle="", variant="")
        for gone in table.swap({"case": served}):
            gone.retire()
        _compare(server, case, _plain(path), tally)
    return tally


def _why(error: InvalidModelError) -> str:
    for sign, why in (
        ("is tensor(bfloat16), which can't be served", BFLOAT16),
        ("can't be served", NO_TENSORS),
        ("too new", "opset, IR or operator too new"),
    ):
        if sign in error.message:
            return why
    return "not loaded by onnxruntime"


def _loads(path: Path) -> bool:
    try:
        _plain(path)
    except Exception:  # noqa: BLE001 - its exceptions have no common base
        return False
    return True


def _plain(path: Path) -> Any:
    """A session as a user of onnxruntime would make it, with the settings that change results."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    settings.use_deterministic_compute = True
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def _compare(server: Running, case: Case, session: Any, tally: Tally) -> None:
    names = [node.name for node in session.get_inputs()]
    if not case.inputs:
        tally.skipped["no data"] += 1
        return
    for number, values in enumerate(case.inputs):
        if any(not isinstance(value, np.ndarray | np.generic) for value in values):
            tally.skipped["inputs that are no tensors"] += 1
            return
        feed = dict(zip(names, map(np.asarray, values), strict=False))
        try:
            plain = session.run(None, feed)
            again = session.run(None, feed)
        except Exception:  # noqa: BLE001 - its exceptions have no common base
            tally.skipped["not run by onnxruntime"] += 1
            return
        if _raw(plain) != _raw(again):
            tally.skipped["random"] += 1
            return
        answer = _served(server, feed)
        if answer is None or _raw(answer) != _raw(plain):
            tally.different.append(f"{case.name}, data set {number}")
            return
    tally.ran.append(case.name)


def _served(server: Running, feed: dict[str, Any]) -> list[Any] | None:
    try:
        body, headers = encode_request(feed)
        reply = server.ask("POST", "/v2/models/case/infer", body, headers)
        if reply.status != 200:
            return None
        length = reply.headers[HEADER_LENGTH]
        header_length = None if length is None else int(length)
        return [*decode_response(reply.body, header_length).outputs.values()]
    except EdgeFleetError:
        return None


def _raw(arrays: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [
        (a.shape, [e.encode() if isinstance(e, str) else e for e in a.reshape(-1).tolist()])
        if a.dtype.kind in "OSU"
        else (a.shape, a.dtype.str, a.tobytes())
        for a in map(np.asarray, arrays)
    ]
