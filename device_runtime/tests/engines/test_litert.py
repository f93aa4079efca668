"""LiteRT on the CPU, for real; the Edge TPU by a stand-in for its library's answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from device_runtime.tests.engines.rules import ONES, EngineRules
from edgefleet.errors import (
    InvalidModelError,
    UnsupportedError,
)
from edgefleet_runtime.engines import litert
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.discovery import engine_for
from edgefleet_runtime.engines.litert import CPU, EDGE_TPU, LiteRtEngine, LiteRtModel

pytest.importorskip("ai_edge_litert.interpreter", reason="the extra 'litert' is not installed")
tflite_models = pytest.importorskip(
    "device_runtime.tests.tflite_models", reason="tflite writes the models", exc_type=ImportError
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made: Path = tflite_models.add(tmp_path / "m.tflite", 2.0)
    return made


class TestRules(EngineRules):
    engine = LiteRtEngine


def test_a_model_tells_its_interface_and_answers(path: Path) -> None:
    model = engine_for("tflite").load(path, EngineOptions(threads=1))
    assert [(s.name, s.datatype, s.shape) for s in model.interface.inputs] == [
        ("x", "FP32", (1, 4))
    ]
    assert model.infer(ONES)["y"].tolist() == [[3.0] * 4]
    assert model.engine.startswith("litert ")
    assert model.providers == (CPU,)
    assert model.nodes == {CPU: 1}


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="no model file"):
        LiteRtEngine().load(tmp_path / "absent.tflite", EngineOptions())


@pytest.mark.parametrize("content", [b"", b"broken" * 10, b"\0\0\0\0TFL3" + bytes(200), None])
def test_a_broken_file_is_to_be_copied_again(path: Path, content: bytes | None) -> None:
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    with pytest.raises(InvalidModelError, match=r"can't load m\.tflite(.|\n)*cure: copy it again"):
        LiteRtEngine().load(path, EngineOptions())


@pytest.mark.parametrize(
    "made,cure",
    [
        ({"version": 99}, "upgrade ai-edge-litert"),
        ({"custom": "edgetpu-custom-op"}, "compiled for the Edge TPU"),
        ({"custom": "Mine"}, "without that operator"),
    ],
)
def test_operators_that_are_not_here_are_told_with_a_cure(
    tmp_path: Path, made: dict[str, Any], cure: str
) -> None:
    path = tflite_models.add(tmp_path / "m.tflite", 2.0, **made)
    with pytest.raises(InvalidModelError, match=f"cure: .*{cure}"):
        LiteRtEngine().load(path, EngineOptions())


@pytest.mark.parametrize("provider", [EDGE_TPU, "CUDAExecutionProvider"])
def test_strict_refuses_what_is_not_there(path: Path, provider: str) -> None:
    with pytest.raises(UnsupportedError):
        LiteRtEngine().load(path, EngineOptions(providers=(provider,), strict=True))


def test_without_an_edge_tpu_it_falls_back_and_says_so(path: Path) -> None:
    model = LiteRtEngine().load(path, EngineOptions(providers=(EDGE_TPU, CPU)))
    assert model.providers == (CPU,)
    assert LiteRtEngine.available() == (CPU,)


class CompiledSession:
    """What the interpreter tells of a model from edgetpu_compiler; needs a Coral to be real."""

    def __init__(self, *operators: str) -> None:
        self.operators = operators

    def get_signature_list(self) -> dict[str, Any]:
        return {}

    def get_input_details(self) -> list[dict[str, Any]]:
        return []

    get_output_details = get_input_details

    def allocate_tensors(self) -> None:
        pass

    def _get_ops_details(self) -> list[dict[str, Any]]:
        return [{"op_name": name} for name in self.operators]


def test_what_the_edge_tpu_runs_is_counted() -> None:
    session = CompiledSession("edgetpu-custom-op", "SOFTMAX", "DELEGATE")
    model = LiteRtModel(session, "litert", tpu=True)
    assert model.nodes == {EDGE_TPU: 1, CPU: 1}
    assert model.providers == (EDGE_TPU, CPU)


@pytest.mark.parametrize("operators,refused", [(("SOFTMAX",), True), ((), False)])
def test_strict_refuses_a_rest_on_the_cpu(
    path: Path, monkeypatch: pytest.MonkeyPatch, operators: tuple[str, ...], *, refused: bool
) -> None:
    session = CompiledSession("edgetpu-custom-op", *operators)
    fake = SimpleNamespace(Interpreter=lambda **_: session, load_delegate=lambda _: object())
    monkeypatch.setattr("ai_edge_litert.interpreter", fake)
    monkeypatch.setattr(litert, "_has_edge_tpu_library", lambda: True)
    options = EngineOptions(providers=(EDGE_TPU,), strict=True)
    if refused:
        with pytest.raises(UnsupportedError, match="1 operators on the CPU"):
            LiteRtEngine().load(path, options)
    else:
        assert LiteRtEngine().load(path, options).providers == (EDGE_TPU, CPU)
