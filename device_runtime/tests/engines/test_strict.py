"""What the engine does when onnxruntime lists a provider and then doesn't use it.

A stand-in for the module tells what a build with CUDA tells on a machine without a working GPU; the
real thing needs such a build and machine.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import InvalidModelError, UnsupportedError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.devices import providers_of
from edgefleet_runtime.engines.onnxruntime import CPU, OnnxRuntimeEngine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgefleet_runtime.engines.base import LoadedModel

CUDA = "CUDAExecutionProvider"


class InvalidGraph(Exception):  # noqa: N818 - onnxruntime's name
    """What onnxruntime raises for a broken model."""


class FakeOnnxRuntime:
    """The part of onnxruntime that opens sessions."""

    __version__ = "1.31.1"

    def __init__(
        self,
        *,
        nodes: dict[str, int] | None,
        failure: Exception | None = None,
        operator: str = "Conv",
    ) -> None:
        self.nodes = nodes
        self.operator = operator
        self.failure = failure
        self.asked: list[list[Any]] = []

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def SessionOptions(self) -> Any:  # noqa: N802 - onnxruntime's name
        return SimpleNamespace(add_session_config_entry=lambda _key, _value: None)

    def RunOptions(self) -> Any:  # noqa: N802 - onnxruntime's name
        return SimpleNamespace(add_run_config_entry=lambda _key, _value: None)

    def InferenceSession(  # noqa: N802 - onnxruntime's name
        self, path: str, settings: Any, *, providers: Sequence[Any], enable_fallback: int
    ) -> Any:
        assert not enable_fallback
        names = [p if isinstance(p, str) else p[0] for p in providers]
        self.asked.append(list(providers))
        if self.failure is not None and CUDA in names:
            raise self.failure
        session = SimpleNamespace(
            get_inputs=list,
            get_outputs=list,
            get_providers=lambda: names,
        )
        if self.nodes is not None:
            session.get_provider_graph_assignment_info = lambda: [
                SimpleNamespace(ep_name=name, get_nodes=lambda count=count: self._nodes(count))
                for name, count in (self.nodes or {}).items()
            ]
        return session

    def _nodes(self, count: int) -> list[Any]:
        return [SimpleNamespace(op_type=self.operator)] * count


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def load(fake: FakeOnnxRuntime, *, strict: bool) -> LoadedModel:
        monkeypatch.setitem(__import__("sys").modules, "onnxruntime", fake)
        entry = tmp_path / "m.onnx"
        entry.touch()
        return OnnxRuntimeEngine().load(entry, EngineOptions(providers=(CUDA,), strict=strict))

    return load


def test_the_provider_that_runs_most_nodes_is_the_one_in_use(load: Any) -> None:
    model = load(FakeOnnxRuntime(nodes={CPU: 2, CUDA: 40}), strict=False)
    assert model.providers == (CUDA, CPU)
    assert model.nodes == {CPU: 2, CUDA: 40}


def test_strict_refuses_a_provider_that_is_registered_and_runs_next_to_nothing(load: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"40 on CPUExecutionProvider \(40 Conv\)"):
        load(FakeOnnxRuntime(nodes={CPU: 40, CUDA: 2}), strict=True)


def test_strict_refuses_a_single_node_that_computes_elsewhere(load: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"1 on CPUExecutionProvider \(1 Conv\)"):
        load(FakeOnnxRuntime(nodes={CPU: 1, CUDA: 400}), strict=True)


def test_strict_lets_shapes_be_computed_on_the_cpu(load: Any) -> None:
    model = load(FakeOnnxRuntime(nodes={CPU: 3, CUDA: 40}, operator="Shape"), strict=True)
    assert model.nodes == {CPU: 3, CUDA: 40}


def test_a_model_that_is_mostly_elsewhere_is_refused_whatever_its_operators(load: Any) -> None:
    with pytest.raises(UnsupportedError, match="30 Mul"):
        load(FakeOnnxRuntime(nodes={CPU: 30, CUDA: 2}, operator="Mul"), strict=True)


def test_without_strict_the_report_still_says_what_runs_it(load: Any) -> None:
    assert load(FakeOnnxRuntime(nodes={CPU: 40}), strict=False).providers == (CPU, CUDA)


def test_an_onnxruntime_that_does_not_tell_its_nodes_is_believed(load: Any) -> None:
    assert load(FakeOnnxRuntime(nodes=None), strict=True).providers == (CUDA, CPU)


def test_a_provider_that_fails_to_start_falls_back_and_is_reported(load: Any) -> None:
    fake = FakeOnnxRuntime(nodes={CPU: 3}, failure=RuntimeError("no CUDA device"))
    assert load(fake, strict=False).providers == (CPU,)
    assert fake.asked[0][0][0] == CUDA
    assert fake.asked[1] == [CPU]


def test_strict_refuses_a_provider_that_fails_to_start(load: Any) -> None:
    fake = FakeOnnxRuntime(nodes={CPU: 3}, failure=RuntimeError("no CUDA device"))
    with pytest.raises(UnsupportedError, match="no CUDA device"):
        load(fake, strict=True)


@pytest.mark.parametrize("device", ["tensorrt", "openvino", "qnn", "coreml"])
def test_every_device_is_counted_and_held_to_strict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str
) -> None:
    wanted = providers_of(device)
    options = EngineOptions(providers=wanted, strict=True)
    entry = tmp_path / "m.onnx"
    entry.touch()

    def opened(nodes: dict[str, int]) -> LoadedModel:
        fake = FakeOnnxRuntime(nodes=nodes)
        monkeypatch.setattr(fake, "get_available_providers", lambda: [*wanted, CPU])
        monkeypatch.setitem(__import__("sys").modules, "onnxruntime", fake)
        return OnnxRuntimeEngine().load(entry, options)

    model = opened({wanted[0]: 7})
    assert (model.providers[0], model.nodes) == (wanted[0], {wanted[0]: 7})
    with pytest.raises(UnsupportedError, match=r"1 on CPUExecutionProvider \(1 Conv\)"):
        opened({wanted[0]: 7, CPU: 1})


@pytest.mark.parametrize("strict", [True, False])
def test_a_broken_model_is_not_blamed_on_the_provider(load: Any, *, strict: bool) -> None:
    fake = FakeOnnxRuntime(nodes=None, failure=InvalidGraph("no such tensor"))
    with pytest.raises(InvalidModelError, match="no such tensor"):
        load(fake, strict=strict)
    assert len(fake.asked) == 1
