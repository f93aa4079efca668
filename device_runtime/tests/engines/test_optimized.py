"""The cache of optimized graphs: what is found again, and what is never taken for another's."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from device_runtime.tests import onnx_models
from edgefleet_runtime.engines import optimized
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.engines.optimized import GRAPH, WEIGHTS, OptimizedModels

X = {"x": np.ones((2, 64), np.float32)}


def dense(path: Path, seed: int = 0, *, external: bool = False) -> Path:
    """``x`` FP32[n, 64] to ``y`` FP32[n, 512], of over `MIN_MODEL_BYTES`."""
    weight = np.random.default_rng(seed).standard_normal((64, 512)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    return onnx_models.save(
        path,
        nodes,
        [onnx_models.tensor("x", 1, ["n", 64])],
        [onnx_models.tensor("y", 1, ["n", 512])],
        {"w": weight},
        external=external,
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(path: Path, cache: Path) -> Any:
    return OnnxRuntimeEngine().load(path, EngineOptions(engine_cache=cache))


def graphs(cache: Path) -> list[Path]:
    return sorted((cache / "optimized").glob(f"*/{GRAPH}"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that sessions are opened from."""
    import onnxruntime

    real, seen = onnxruntime.InferenceSession, []

    def session(path: str, *arguments: Any, **options: Any) -> Any:
        seen.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return seen


def test_the_next_start_opens_what_the_first_one_optimized(
    tmp_path: Path, cache: Path, opened: list[str]
) -> None:
    path = dense(tmp_path / "m.onnx")
    first = load(path, cache)
    (kept,) = graphs(cache)
    opened.clear()
    second = load(path, cache)
    assert set(opened) == {str(kept)}
    assert second.interface == first.interface
    assert second.nodes == first.nodes
    np.testing.assert_array_equal(second.infer(X)["y"], first.infer(X)["y"])


def test_weights_lie_in_a_file_that_is_mapped(tmp_path: Path, cache: Path) -> None:
    load(dense(tmp_path / "m.onnx"), cache)
    (kept,) = graphs(cache)
    assert (kept.parent / WEIGHTS).stat().st_size >= 64 * 512 * 4
    assert kept.stat().st_size < 10_000


def test_another_model_of_the_same_size_gets_a_graph_of_its_own(
    tmp_path: Path, cache: Path
) -> None:
    path = dense(tmp_path / "m.onnx", 0)
    before = load(path, cache).infer(X)["y"]
    stat = path.stat()
    dense(path, 1)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = load(path, cache).infer(X)["y"]
    assert not np.array_equal(before, after)
    assert len(graphs(cache)) == 2


# At its begin a record is no JSON any more, within the name of a file it is no text.
@pytest.mark.parametrize(
    "file,at", [(GRAPH, None), (WEIGHTS, None), ("record.json", 0), ("record.json", 12)]
)
def test_what_was_damaged_is_made_anew(
    tmp_path: Path, cache: Path, opened: list[str], file: str, at: int | None
) -> None:
    path = dense(tmp_path / "m.onnx")
    due = load(path, cache).infer(X)["y"]
    (kept,) = graphs(cache)
    content = bytearray((kept.parent / file).read_bytes())
    content[len(content) // 2 if at is None else at] ^= 0xFF
    (kept.parent / file).write_bytes(content)
    opened.clear()
    np.testing.assert_array_equal(load(path, cache).infer(X)["y"], due)
    assert opened[0] == str(path)
    opened.clear()
    load(path, cache)
    assert str(path) not in opened, "it is whole again"


def test_what_cannot_be_loaded_is_made_anew(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = dense(tmp_path / "m.onnx")
    made = []

    def refuse(graph: Path) -> Any:
        raise RuntimeError(f"no graph in {graph.name}")

    def make(graph: Path | None) -> Any:
        made.append(graph)
        assert graph is not None
        graph.write_bytes(b"graph")
        return "session"

    kept = OptimizedModels(cache)
    assert kept.open(path, "1", lambda _: "session", make, str.__eq__) == "session"
    with caplog.at_level(logging.WARNING):
        assert kept.open(path, "1", refuse, make, str.__eq__) == "session"
    assert len(made) == 2
    assert "can't be loaded" in caplog.text


def test_a_graph_is_for_one_processor_and_one_onnxruntime(tmp_path: Path, cache: Path) -> None:
    path = dense(tmp_path / "m.onnx")
    made: list[Any] = []

    def make(graph: Path | None) -> Any:
        made.append(graph)
        assert graph is not None
        graph.write_bytes(b"graph")
        return "session"

    for machine, version in (("a", "1"), ("a", "1"), ("b", "1"), ("a", "2")):
        kept = OptimizedModels(cache, machine=machine)
        kept.open(path, version, lambda _: "session", make, str.__eq__)
    assert len(made) == 3


def test_a_model_that_loses_its_inputs_in_writing_is_left_as_it_is(
    tmp_path: Path, cache: Path, opened: list[str]
) -> None:
    """Before IR version 4 weights are inputs as well; onnxruntime writes them back as these."""
    path = dense(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.ir_version = 3
    model.opset_import[0].version = 8
    model.graph.input.append(onnx_models.tensor("w", 1, [64, 512]))
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([64, 512], np.int64), "shape")
    )
    model.graph.input.append(onnx_models.tensor("shape", 7, [2]))
    model.graph.node[0].input[1] = "reshaped"
    model.graph.node.insert(0, helper.make_node("Reshape", ["w", "shape"], ["reshaped"]))
    onnx.save(model, path)
    due = load(path, cache).interface
    for _ in range(2):
        assert load(path, cache).interface == due
        assert load(path, cache).infer(X)["y"].shape == (2, 512)


def test_weights_in_other_files_are_not_kept_twice(tmp_path: Path, cache: Path) -> None:
    path = dense(tmp_path / "m.onnx", external=True)
    large = path.read_bytes() + bytes(0)
    assert b"location" in large
    model = onnx.load(path, load_external_data=False)
    model.doc_string = "x" * optimized.MIN_MODEL_BYTES
    path.write_bytes(model.SerializeToString())
    assert load(path, cache).infer(X)["y"].shape == (2, 512)
    assert graphs(cache) == []


def test_a_model_that_lies_still_is_read_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dense(tmp_path / "m.onnx")

    def make(graph: Path | None) -> Any:
        assert graph is not None
        graph.write_bytes(b"graph")
        return "session"

    later = OptimizedModels(cache, clock=lambda: time.time() + 60)
    later.open(path, "1", lambda _: "session", make, str.__eq__)
    monkeypatch.setattr("mmap.mmap", lambda *_, **__: pytest.fail("it was read"))
    assert later.open(path, "1", lambda _: "kept", make, str.__eq__) == "kept"


def test_a_model_that_was_just_written_is_read_again(tmp_path: Path, cache: Path) -> None:
    load(dense(tmp_path / "m.onnx"), cache)
    assert not (cache / "optimized" / "notes").exists()


def test_the_least_recently_used_go_first_and_the_cap_holds(tmp_path: Path, cache: Path) -> None:
    def make(graph: Path | None) -> Any:
        assert graph is not None
        graph.write_bytes(bytes(1000))
        return "session"

    kept = OptimizedModels(cache, max_bytes=2600)

    def use(seed: int) -> None:
        path = dense(tmp_path / f"{seed}.onnx", seed)
        kept.open(path, "1", lambda _: "session", make, str.__eq__)

    use(0)
    (oldest,) = graphs(cache)
    use(1)
    (second,) = set(graphs(cache)) - {oldest}
    os.utime(second.parent, (1, 1))
    use(0)
    use(2)
    left = graphs(cache)
    assert oldest in left
    assert second not in left
    assert len(left) == 2


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    model = load(dense(tmp_path / "m.onnx"), blocked)
    assert model.infer(X)["y"].shape == (2, 512)


def test_what_a_crash_left_is_removed(tmp_path: Path, cache: Path) -> None:
    left = cache / "optimized" / ".new-crashed"
    left.mkdir(parents=True)
    os.utime(left, (1, 1))
    load(dense(tmp_path / "m.onnx"), cache)
    assert not left.exists()


def test_a_small_model_is_not_kept(tmp_path: Path, cache: Path) -> None:
    load(onnx_models.mlp(tmp_path / "m.onnx"), cache)
    assert graphs(cache) == []


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_write_is_neither_read_nor_written(
    tmp_path: Path, cache: Path, opened: list[str], mode: int
) -> None:
    path = dense(tmp_path / "m.onnx")
    load(path, cache)
    (cache / "optimized").chmod(mode)
    opened.clear()
    load(path, cache)
    assert set(opened) == {str(path)}
