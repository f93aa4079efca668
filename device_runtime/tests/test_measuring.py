from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests.onnx_models import mlp, plus
from device_runtime.tests.serving import FakeModel
from edgefleet.errors import InvalidInputError
from edgefleet.protocol.bundle import Interface, TensorSpec
from edgefleet_runtime.cli import main
from edgefleet_runtime.engines.samples import sample_inputs
from edgefleet_runtime.measuring import (
    MIN_RUNS,
    Figure,
    advise,
    can_batch,
    measure,
    thread_counts,
)

if TYPE_CHECKING:
    from pathlib import Path


def figure(threads: int, p50_us: float, *, callers: int = 1, batch: int = 1) -> Figure:
    return Figure(
        threads=threads,
        callers=callers,
        batch=batch,
        runs=100,
        p50_us=p50_us,
        p99_us=p50_us * 2,
        items_per_s=callers * batch * 1e6 / p50_us,
    )


def interface(*specs: tuple[str, Any, tuple[int, ...]]) -> Interface:
    inputs = tuple(TensorSpec(name=n, datatype=d, shape=s) for n, d, s in specs)
    return Interface(inputs=inputs, outputs=inputs)


def test_powers_of_two_and_all_cores_are_tried() -> None:
    assert [thread_counts(cores) for cores in (1, 2, 6)] == [(1,), (1, 2), (1, 2, 4, 6)]


def test_more_threads_are_advised_only_where_they_pay() -> None:
    assert advise([figure(1, 10), figure(2, 9.5), figure(4, 25)]).threads == 1
    assert advise([figure(1, 1000), figure(2, 520), figure(4, 500)]).threads == 2


def test_batches_are_advised_only_where_they_pay() -> None:
    pays = [figure(1, 100), figure(1, 110, batch=2), figure(1, 130, batch=4)]
    assert advise(pays).batch == 4
    assert advise([figure(1, 100), figure(1, 200, batch=2)]).batch == 1


def test_several_callers_are_advised_for_throughput() -> None:
    advice = advise([figure(1, 100), figure(2, 60), figure(1, 100, callers=4)])
    assert advice.threads == 2
    assert any("4 requests at a time" in line for line in advice.lines)


def test_advice_needs_a_plain_figure() -> None:
    with pytest.raises(InvalidInputError):
        advise([figure(1, 10, batch=2)])


def test_time_is_measured_for_as_long_as_asked() -> None:
    ticks = itertools.count(0.0, 0.25)
    measured = measure(
        FakeModel(), {"x": np.ones(1, np.float32)}, threads=1, seconds=5, clock=lambda: next(ticks)
    )
    assert measured.p50_us == pytest.approx(250_000)
    assert 19 <= measured.runs <= 21


def test_a_slow_model_runs_a_few_times_all_the_same() -> None:
    ticks = itertools.count(0.0, 100.0)
    measured = measure(
        FakeModel(), {"x": np.ones(1, np.float32)}, threads=1, seconds=1, clock=lambda: next(ticks)
    )
    assert measured.runs == MIN_RUNS


def test_samples_fill_every_datatype_and_free_length() -> None:
    about = interface(
        ("a", "FP16", (-1, 3)), ("b", "INT64", (-1,)), ("c", "BYTES", (-1, 2)), ("d", "BOOL", ())
    )
    samples = sample_inputs(about, batch=4, shapes={"b": (7,)})
    assert {name: (str(a.dtype), a.shape) for name, a in samples.items()} == {
        "a": ("float16", (4, 3)),
        "b": ("int64", (7,)),
        "c": ("object", (4, 2)),
        "d": ("bool", ()),
    }


def test_a_shape_that_would_fill_the_memory_is_refused() -> None:
    about = interface(("x", "FP32", (-1,)))
    with pytest.raises(InvalidInputError, match="too large"):
        sample_inputs(about, shapes={"x": (10**9,)})
    with pytest.raises(InvalidInputError, match="no input 'z'"):
        sample_inputs(about, shapes={"z": (1,)})


def test_only_tensors_with_a_free_first_length_are_batched() -> None:
    assert can_batch(interface(("x", "FP32", (-1, 4))))
    assert not can_batch(interface(("x", "FP32", (-1, 4)), ("k", "FP32", (1,))))


def test_bench_prints_figures_and_what_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = mlp(tmp_path / "m.onnx")
    assert main(["bench", str(path), "--seconds", "0.01", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["providers"] == "CPUExecutionProvider"
    assert sum(found["nodes"].values()) == 2
    assert {1, 2, 16} <= {f["batch"] for f in found["figures"]}
    assert all(f["runs"] >= MIN_RUNS and f["p99_us"] >= f["p50_us"] for f in found["figures"])
    assert main(["bench", str(path), "--seconds", "0.01", "--shape", "x=3,4"]) == 0
    assert "what to set\n  --threads " in capsys.readouterr().out


def test_bench_finds_a_name_in_a_repository(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    plus(tmp_path / "m" / "1" / "model.onnx", 1)
    arguments = ["--model-repository", str(tmp_path), "--seconds", "0.01"]
    assert main(["bench", "m", *arguments]) == 0
    assert main(["bench", "absent", *arguments]) == 1
    assert main(["bench", "absent.onnx"]) == 1
    assert main(["bench", "m", *arguments, "--shape", "x=a"]) == 1
    assert "not a shape" in capsys.readouterr().err
