"""OpenVINO on the CPU, for real; GPUs and NPUs by what the library would answer of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests.engines.rules import ONES, EngineRules
from edgefleet.errors import (
    InvalidModelError,
    MissingExtraError,
    UnsupportedError,
)
from edgefleet_runtime.engines import openvino as engine
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.devices import providers_of
from edgefleet_runtime.engines.discovery import engine_for
from edgefleet_runtime.engines.installed import installed_engines
from edgefleet_runtime.engines.openvino import (
    ANY_DEVICE,
    CPU,
    GPU,
    NPU,
    OpenVinoEngine,
    OpenVinoModel,
)

openvino = pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")

if TYPE_CHECKING:
    from collections.abc import Callable


def affine(path: Path, addend: float = 2.0, *, kind: Any = np.float32) -> Path:
    """``x`` [-1, 4] to ``y`` = x + addend and ``z`` = -x, with the weights in a file beside it."""
    from openvino import opset13 as ops

    x = ops.parameter([-1, 4], dtype=kind, name="x")
    x.output(0).get_tensor().set_names({"x"})
    outputs = {"y": ops.add(x, np.full((1, 4), addend, kind)), "z": ops.negative(x)}
    for name, node in outputs.items():
        node.output(0).get_tensor().set_names({name})
    model = openvino.Model(list(outputs.values()), [x], "affine")
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return affine(tmp_path / "model.xml")


class TestRules(EngineRules):
    engine = OpenVinoEngine


def test_a_model_tells_its_interface_and_answers(path: Path) -> None:
    model = engine_for("openvino").load(path, EngineOptions(providers=(CPU,)))
    assert [(s.name, s.datatype, s.shape) for s in model.interface.inputs] == [
        ("x", "FP32", (-1, 4))
    ]
    assert [s.name for s in model.interface.outputs] == ["y", "z"]
    answer = model.infer(ONES)
    assert {name: array.tolist() for name, array in answer.items()} == {
        "y": [[3.0] * 4],
        "z": [[-1.0] * 4],
    }
    assert model.engine.startswith("openvino 20")
    assert (model.providers, model.platform) == ((CPU,), "openvino_ir")


def test_any_batch_and_only_the_outputs_asked_for(path: Path) -> None:
    model = OpenVinoEngine().load(path, EngineOptions(threads=1))
    for count in (1, 7, 3):
        answer = model.probe({"x": np.ones((count, 4), np.float32)}, ["z"])
        assert {name: array.shape for name, array in answer.items()} == {"z": (count, 4)}


def test_whole_numbers_keep_their_type(tmp_path: Path) -> None:
    model = OpenVinoEngine().load(affine(tmp_path / "m.xml", 2, kind=np.int64), EngineOptions())
    assert model.interface.inputs[0].datatype == "INT64"
    assert model.infer({"x": np.ones((1, 4), np.int64)})["y"].dtype == np.int64


def test_inputs_that_only_may_be_read_or_lie_scattered_are_taken(path: Path) -> None:
    model = OpenVinoEngine().load(path, EngineOptions())
    fixed = np.frombuffer(ONES["x"].tobytes(), np.float32).reshape(1, 4)
    assert not fixed.flags.writeable
    assert model.infer({"x": fixed})["y"].tolist() == [[3.0] * 4]
    scattered = np.arange(16, dtype=np.float32).reshape(4, 4).T
    assert model.infer({"x": scattered})["y"].tolist() == (scattered + 2).tolist()


@pytest.mark.parametrize("gone", ["model.xml", "model.bin"])
def test_a_missing_file_is_named(path: Path, gone: str) -> None:
    path.with_name(gone).unlink()
    with pytest.raises(InvalidModelError, match=f"no model file .*{gone}") as error:
        OpenVinoEngine().load(path, EngineOptions())
    assert "an .xml and a .bin" in str(error.value)


def test_broken_files_are_refused_in_plain_words(path: Path) -> None:
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(InvalidModelError, match=r"OpenVINO can't load model\.xml: ") as error:
        OpenVinoEngine().load(path, EngineOptions())
    path.write_text("<net>")
    with pytest.raises(InvalidModelError, match=r"model\.xml"):
        OpenVinoEngine().load(path, EngineOptions())
    assert "Exception from" not in str(error.value)


def test_without_the_library_there_is_no_engine_and_the_cure_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    assert OpenVinoEngine.available() == ()
    for open_it in (
        lambda: OpenVinoEngine().load(path, EngineOptions()),
        lambda: engine_for("openvino"),
    ):
        with pytest.raises(MissingExtraError, match=r"edgefleet-runtime\[openvino\]"):
            open_it()


def test_the_engine_is_listed_with_what_it_opens_and_runs_on() -> None:
    (found,) = (engine for engine in installed_engines() if engine.name == "openvino")
    assert found.formats == frozenset({"openvino"})
    assert found.providers == (ANY_DEVICE, CPU)
    assert found.problem is None


@pytest.mark.parametrize(
    "wanted,found,device",
    [
        ((), ("CPU",), "CPU"),
        ((), ("CPU", "GPU.0", "GPU.1"), "AUTO"),
        ((ANY_DEVICE, CPU), ("CPU",), "CPU"),
        ((ANY_DEVICE, CPU), ("CPU", "NPU"), "AUTO"),
        ((CPU,), ("CPU", "GPU"), "CPU"),
        ((GPU, CPU), ("CPU", "GPU.0"), "GPU"),
        ((NPU, CPU), ("CPU", "GPU"), "CPU"),
        (("CUDAExecutionProvider", GPU), ("CPU", "GPU"), "GPU"),
        (("CUDAExecutionProvider",), ("CPU",), "CPU"),
    ],
)
def test_a_device_is_chosen_of_those_that_are_here(
    wanted: tuple[str, ...], found: tuple[str, ...], device: str
) -> None:
    assert engine._device(EngineOptions(providers=wanted), found) == device


@pytest.mark.parametrize("wanted", [GPU, NPU, "CUDAExecutionProvider"])
def test_strict_refuses_what_is_not_there(path: Path, wanted: str) -> None:
    if wanted in {GPU, NPU} and set(openvino.Core().available_devices) != {"CPU"}:
        pytest.skip("this machine has more than a CPU")
    with pytest.raises(UnsupportedError, match=f"not {wanted}"):
        OpenVinoEngine().load(path, EngineOptions(providers=(wanted,), strict=True))


class Compiled:
    """What a model compiled for other hardware tells of itself."""

    inputs = outputs = ()

    def __init__(self, *devices: str) -> None:
        self.devices = devices

    def get_property(self, name: str) -> list[str]:
        assert name == "EXECUTION_DEVICES"
        return list(self.devices)


@pytest.mark.parametrize(
    "devices,providers",
    [
        (("CPU",), (CPU,)),
        (("GPU.0",), (GPU,)),
        (("GPU.0", "GPU.1", "CPU"), (GPU, CPU)),
        (("NPU",), (NPU,)),
        (("SOMETHING",), (ANY_DEVICE,)),
    ],
)
def test_what_runs_the_model_is_read_back(
    devices: tuple[str, ...], providers: tuple[str, ...]
) -> None:
    assert OpenVinoModel(Compiled(*devices), "openvino").providers == providers


def test_the_cpu_computes_in_the_files_precision_unless_told_otherwise(path: Path) -> None:
    def kept(**options: Any) -> Any:
        model = OpenVinoEngine().load(path, EngineOptions(**options))
        assert isinstance(model, OpenVinoModel)
        return model._compiled.get_property

    assert str(kept()("INFERENCE_PRECISION_HINT")) == "<Type: 'float32'>"
    assert kept(threads=1)("INFERENCE_NUM_THREADS") == 1
    told = kept(providers=(CPU,), provider_options=(("PERFORMANCE_HINT", "THROUGHPUT"),))
    assert "THROUGHPUT" in str(told("PERFORMANCE_HINT"))
    other = kept(providers=(NPU, CPU), provider_options=(("PERFORMANCE_HINT", "THROUGHPUT"),))
    assert "LATENCY" in str(other("PERFORMANCE_HINT"))


def test_an_option_that_it_does_not_know_is_named(path: Path) -> None:
    options = EngineOptions(providers=(CPU,), provider_options=(("NO_SUCH_OPTION", "1"),))
    with pytest.raises(InvalidModelError, match="NO_SUCH_OPTION"):
        OpenVinoEngine().load(path, options)


def test_what_takes_long_to_compile_is_kept(tmp_path: Path) -> None:
    options = EngineOptions(engine_cache=tmp_path)
    folder = str(tmp_path / "openvino")
    assert engine._properties("GPU", options)["CACHE_DIR"] == folder
    assert engine._properties("AUTO", options)["CACHE_DIR"] == folder
    assert "CACHE_DIR" not in engine._properties("CPU", options)


@pytest.mark.parametrize("name,provider", [("intel-gpu", GPU), ("intel-npu", NPU)])
def test_short_names_stand_for_its_devices(name: str, provider: str) -> None:
    assert providers_of(name) == (provider,)


def test_the_library_is_not_imported_before_a_model_is_opened(
    in_a_new_python: Callable[[str], str],
) -> None:
    said = in_a_new_python(
        "import sys\n"
        "from edgefleet_runtime.engines.installed import installed_engines\n"
        "names = [engine.name for engine in installed_engines()]\n"
        "print('openvino' in names, 'openvino' in sys.modules)\n"
    )
    assert said.split() == ["True", "False"]


@pytest.fixture
def in_a_new_python() -> Callable[[str], str]:
    import subprocess
    import sys

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
        )
        return done.stdout

    return run
