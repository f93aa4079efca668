"""Models in the caller's own process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgefleet_runtime
from device_runtime.tests import onnx_models
from edgefleet.errors import InvalidInputError, InvalidModelError, NotFoundError
from edgefleet.protocol import bundle as b
from edgefleet.protocol.layout import BundleWriter
from edgefleet_runtime import Ensemble, ModelStep, Runtime

if TYPE_CHECKING:
    from pathlib import Path

X = np.array([1, 2, 3], np.float32)


@pytest.fixture
def plus(tmp_path: Path) -> Path:
    return onnx_models.plus(tmp_path / "plus.onnx", 1)


def test_a_model_runs_by_its_name(plus: Path) -> None:
    with Runtime({"plus": plus}) as runtime:
        assert runtime.models == ("plus",)
        assert runtime.model("plus").providers == ("CPUExecutionProvider",)
        np.testing.assert_array_equal(runtime.infer("plus", {"x": X})["y"], X + 1)


def test_what_is_given_without_a_name_is_told_how_to_write_it(plus: Path) -> None:
    for bare in (str(plus), plus, [plus]):
        with pytest.raises(InvalidInputError, match="is no mapping of names") as caught:
            Runtime(bare)  # type: ignore[arg-type]
        assert 'give a path by name: {"detector": "detector.onnx"}' in str(caught.value)
    for wrong, said in (
        ({"ensembles": "both"}, "give an Ensemble by name"),
        ({"providers": "CPUExecutionProvider"}, "give a list"),
        ({"custom_ops": "sha256:00"}, "give a list"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            Runtime({"plus": plus}, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="model 'plus': None is no path"):
        Runtime({"plus": None})  # type: ignore[dict-item]
    with (
        Runtime({"plus": plus}) as runtime,
        pytest.raises(InvalidInputError, match="give a tensor by name"),
    ):
        runtime.bind("plus", X)  # type: ignore[arg-type]


def test_outputs_can_be_chosen(tmp_path: Path) -> None:
    path = onnx_models.scalar_and_two_outputs(tmp_path / "two.onnx")
    with Runtime({"two": str(path)}, threads=1, providers=["CPUExecutionProvider"]) as runtime:
        x = np.array(-2, np.float32)
        assert runtime.infer("two", {"x": x}, ["plus"]) == {"plus": 2.0}


def test_one_text_for_the_outputs_is_told_how_to_write_it(plus: Path) -> None:
    with Runtime({"plus": plus}) as runtime:
        for ask in (runtime.infer, runtime.bind):  # its output is y, a name that a text may be
            with pytest.raises(InvalidInputError, match="outputs: 'y' is one text") as caught:
                ask("plus", {"x": X}, "y")
            assert caught.value.cure == 'give a list: ["scores"]'


def test_async_runs_do_not_hold_up_the_loop(plus: Path) -> None:
    async def main() -> list[Any]:
        with Runtime({"plus": plus}) as runtime:
            runs = [runtime.infer_async("plus", {"x": X + n}) for n in range(20)]
            answers = [answer["y"] for answer in await asyncio.gather(*runs)]
            answers.append((await runtime.infer_async("plus", {"x": X}))["y"])
            return answers

    *answers, last = asyncio.run(main())
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, X + number + 1)
    np.testing.assert_array_equal(last, X + 1)


def test_threads_may_share_a_runtime(plus: Path) -> None:
    wrong: list[object] = []

    def use(number: int) -> None:
        for _ in range(50):
            answer = runtime.infer("plus", {"x": X + number})["y"]
            if not (answer == X + number + 1).all():
                wrong.append(answer)

    with Runtime({"plus": plus}) as runtime:
        threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_what_is_fed_wrongly_is_said(plus: Path) -> None:
    with (
        Runtime({"plus": plus}) as runtime,
        pytest.raises(InvalidInputError, match="takes FP32, not FP64"),
    ):
        runtime.infer("plus", {"x": X.astype(np.float64)})


@pytest.mark.parametrize("inputs", [X, X.tolist(), {"x": X.tolist()}])
def test_what_is_no_mapping_to_arrays_is_told_with_what_is(plus: Path, inputs: Any) -> None:
    with (
        Runtime({"plus": plus}) as runtime,
        pytest.raises(InvalidInputError, match="no mapping of names to NumPy arrays") as refusal,
    ):
        runtime.infer("plus", inputs)
    assert refusal.value.cure == "it takes x (FP32)"


def test_a_runtime_shows_its_models(plus: Path) -> None:
    with Runtime({"plus": plus, "more": plus}) as runtime:
        assert repr(runtime) == "<runtime of plus, more>"
    assert repr(runtime) == "<runtime of no models>"


def test_a_closed_runtime_has_no_models(plus: Path) -> None:
    runtime = Runtime({"plus": plus})
    runtime.close()
    runtime.close()
    with pytest.raises(NotFoundError, match="closed"):
        runtime.infer("plus", {"x": X})
    with pytest.raises(NotFoundError, match="closed"):
        asyncio.run(runtime.infer_async("plus", {"x": X}))


def test_what_can_not_be_opened_is_named(tmp_path: Path, plus: Path) -> None:
    with pytest.raises(NotFoundError, match="'gone': there is no file"):
        Runtime({"plus": plus, "gone": tmp_path / "gone.onnx"})
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(InvalidModelError, match="broken"):
        Runtime({"broken": broken})


def bundle(folder: Path, recorded: float) -> Path:
    """A bundle of a model that adds 1, with a recorded case."""
    folder.mkdir()
    model = onnx_models.plus(folder / "plus.onnx", 1)
    spec = b.TensorSpec(name="x", datatype="FP32", shape=(-1,))
    result = b.TensorSpec(name="y", datatype="FP32", shape=(-1,))
    given, due = (
        b.Tensor(name=name, datatype="FP32", shape=(1,), data=np.float32(value).tobytes())
        for name, value in (("x", 1.0), ("y", recorded))
    )
    about = b.Details(
        variant="fp32",
        entry="plus.onnx",
        interface=b.Interface(inputs=(spec,), outputs=(result,)),
        self_test=(b.Vector(inputs=(given,), outputs=(due,)),),
    )
    with BundleWriter(folder / "bundle") as writer:
        writer.add_variant(
            about, {"plus.onnx": model}, model_name="plus", model_format="onnx", precision="fp32"
        )
        return writer.finish().root


def test_the_variant_of_a_bundle_that_fits_runs(tmp_path: Path) -> None:
    with Runtime({"plus": bundle(tmp_path / "b", 2.0)}) as runtime:
        np.testing.assert_array_equal(runtime.infer("plus", {"x": X})["y"], X + 1)


def test_a_bundle_that_fails_its_self_test_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="'plus': variant fp32: self-test case 1 failed"):
        Runtime({"plus": bundle(tmp_path / "b", 9.0)})


def test_importing_the_package_stays_light() -> None:
    code = (
        "import sys, edgefleet_runtime as r; "
        "assert not {'numpy', 'onnxruntime', 'asyncio', 'msgspec'} & set(sys.modules); "
        "assert r.Runtime.__name__ == 'Runtime'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_ensemble_runs_by_its_name(plus: Path) -> None:
    step = ModelStep(model="plus", inputs={"x": "x"}, outputs={"y": "z"})
    twice = Ensemble(
        inputs=("x",),
        steps=(step, ModelStep(model="plus", inputs={"x": "z"}, outputs={"y": "y"})),
        outputs=("y",),
    )
    with Runtime({"plus": plus}, ensembles={"twice": twice}) as runtime:
        assert runtime.models == ("plus", "twice")
        np.testing.assert_array_equal(runtime.infer("twice", {"x": X})["y"], X + 2)
        answer = asyncio.run(runtime.infer_async("twice", {"x": X}))
        np.testing.assert_array_equal(answer["y"], X + 2)
        assert runtime.model("twice").providers == ("CPUExecutionProvider",)


def test_an_ensemble_that_does_not_fit_or_has_a_models_name_is_refused(plus: Path) -> None:
    step = ModelStep(model="gone", inputs={"x": "x"}, outputs={"y": "y"})
    ensemble = Ensemble(inputs=("x",), steps=(step,), outputs=("y",))
    with pytest.raises(InvalidModelError, match=r"ensemble 'e': step 1 .* no such model"):
        Runtime({"plus": plus}, ensembles={"e": ensemble})
    with pytest.raises(InvalidModelError, match="both called 'plus'"):
        Runtime({"plus": plus}, ensembles={"plus": ensemble})


def test_the_package_has_nothing_else() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = edgefleet_runtime.nothing
