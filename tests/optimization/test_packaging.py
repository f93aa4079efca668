from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema
import numpy as np
import pytest
from onnx import TensorProto, helper

from edgefleet.errors import (
    InvalidInputError,
    InvalidModelError,
    MissingExtraError,
    StorageFullError,
)
from edgefleet.optimization import bundle_from_onnx, self_test
from edgefleet.protocol import bundle as b
from edgefleet.protocol.steps import FEATURE, Rescale, Softmax
from tests.optimization import models
from tests.optimization.device import arrays, repeat_self_test, session_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.optimization.conftest import Digits


def test_a_file_becomes_one_variant_that_verifies(digits: Digits, tmp_path: Path) -> None:
    steps: list[int] = []
    bundle = bundle_from_onnx(
        digits.path,
        tmp_path / "bundle",
        name="digits",
        labels=tuple("0123456789"),
        metrics={"accuracy": 0.9},
        lineage={"run": "42"},
        targets=("x86-cpu",),
        progress=steps.append,
    )
    bundle.verify()
    (variant,) = bundle.variants
    assert (variant.name, variant.format, variant.precision) == ("fp32", "onnx", "fp32")
    assert (variant.targets, variant.opset) == (("x86-cpu",), 17)
    assert variant.bytes == digits.path.stat().st_size == sum(steps)
    details = bundle.details("fp32")
    assert details.entry == "model.onnx"
    assert details.labels == tuple("0123456789")
    assert (details.metrics, details.lineage) == ({"accuracy": 0.9}, {"run": "42"})


def test_its_config_is_valid_by_modelpacks_own_schema(
    digits: Digits, tmp_path: Path, contracts: Path
) -> None:
    bundle = bundle_from_onnx(digits.path, tmp_path / "bundle", name="digits")
    config = json.loads(bundle.read(bundle.manifest("fp32").config, b.MAX_CONFIG_BYTES))
    schema = json.loads((contracts / "modelpack" / "config-schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(config)


def test_a_device_gets_the_same_outputs_from_the_bundle_as_from_the_file(
    digits: Digits, tmp_path: Path
) -> None:
    bundle = bundle_from_onnx(digits.path, tmp_path / "bundle", name="digits")
    entry = bundle.materialize("fp32", tmp_path / "device")
    feed = {"X": digits.images}
    for ours, theirs in zip(
        session_for(entry).run(None, feed), session_for(digits.path).run(None, feed), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_steps_around_a_model_are_packed_and_required(digits: Digits, tmp_path: Path) -> None:
    bundle = bundle_from_onnx(
        digits.path,
        tmp_path / "bundle",
        name="digits",
        preprocessing=[Rescale(scale=0.5)],
        postprocessing=[Softmax()],
    )
    details = bundle.details("fp32")
    assert details.preprocessing == ({"step": "rescale", "scale": 0.5},)
    assert details.postprocessing == ({"step": "softmax"},)
    assert details.requires == (FEATURE,)
    assert bundle.variant("fp32").requires == (FEATURE,)
    assert details.self_test


def test_external_data_travels_at_its_own_path(tmp_path: Path) -> None:
    path = models.with_external(tmp_path / "model", location="parts/weights.bin")
    bundle = bundle_from_onnx(path, tmp_path / "bundle", name="net")
    bundle.verify()
    assert set(b.files_of(bundle.manifest("fp32"))) == {"model.onnx", "parts/weights.bin"}
    entry = bundle.materialize("fp32", tmp_path / "device")
    x = models.inputs_for()
    (ours,) = session_for(entry).run(None, {"x": x})
    (theirs,) = session_for(path).run(None, {"x": x})
    np.testing.assert_array_equal(ours, theirs)
    assert repeat_self_test(bundle, "fp32", tmp_path / "again") == self_test.MAX_VECTORS


def test_a_model_whose_data_is_called_like_an_entry_keeps_its_own_name(tmp_path: Path) -> None:
    path = models.with_external(tmp_path / "model", location="Model.ONNX")
    bundle = bundle_from_onnx(path, tmp_path / "bundle", name="net")
    assert bundle.details("fp32").entry == "net.onnx"
    assert repeat_self_test(bundle, "fp32", tmp_path / "device")


def test_the_digest_is_of_content_whatever_the_file_was_called(
    digits: Digits, tmp_path: Path
) -> None:
    other = tmp_path / "renamed.onnx"
    other.write_bytes(digits.path.read_bytes())
    one = bundle_from_onnx(digits.path, tmp_path / "one", name="digits")
    two = bundle_from_onnx(other, tmp_path / "two", name="digits")
    assert one.digest == two.digest


def test_self_test_vectors_of_given_inputs_are_repeated_by_a_device(
    digits: Digits, tmp_path: Path
) -> None:
    bundle = bundle_from_onnx(
        digits.path, tmp_path / "bundle", name="digits", self_test_inputs=digits.images[:6]
    )
    assert repeat_self_test(bundle, "fp32", tmp_path / "device") == self_test.MAX_VECTORS
    recorded = arrays(bundle.details("fp32").self_test[0].inputs)["X"]
    assert any(np.array_equal(recorded[0], image) for image in digits.images[:6])


def test_inputs_are_made_up_where_none_are_given(digits: Digits, tmp_path: Path) -> None:
    bundle = bundle_from_onnx(digits.path, tmp_path / "bundle", name="digits")
    assert repeat_self_test(bundle, "fp32", tmp_path / "device") == self_test.MAX_VECTORS


def test_lineage_says_why_there_are_no_vectors(tmp_path: Path) -> None:
    variable = models.linear()
    variable.graph.input[0].type.tensor_type.shape.dim[1].ClearField("dim_value")
    text = models.model_of(
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.STRING, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, ["N", 1])],
    )
    custom = models.model_of(
        [helper.make_node("Fancy", ["x"], ["y"], domain="acme")],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 8)],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)],
    )
    large = models.model_of(
        [helper.make_node("Neg", ["x"], ["y"])],
        [models.floats("x", "N", 1024, 512)],
        [models.floats("y", "N", 1024, 512)],
    )
    choosy = models.model_of(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        [models.floats("x", "N", 8), helper.make_tensor_value_info("s", TensorProto.INT64, [2])],
        [models.floats("y", "N", "M")],
    )
    cases = {
        "variable lengths": variable,
        "BYTES": text,
        "acme": custom,
        "one vector takes": large,
        "made-up inputs": choosy,
    }
    for number, (says, model) in enumerate(cases.items()):
        path = models.save(model, tmp_path / f"{number}.onnx")
        details = bundle_from_onnx(path, tmp_path / f"b{number}", name="m").details("fp32")
        assert details.self_test == ()
        assert details.lineage["self_test"].startswith("skipped: ")
        assert says in details.lineage["self_test"]


def test_without_onnxruntime_a_bundle_is_made_and_says_what_it_lacks(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    details = bundle_from_onnx(digits.path, tmp_path / "bundle", name="m").details("fp32")
    assert details.self_test == ()
    assert "onnxruntime is not installed" in details.lineage["self_test"]
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        bundle_from_onnx(
            digits.path, tmp_path / "other", name="m", self_test_inputs=digits.images[:1]
        )


def test_vectors_stay_small(tmp_path: Path) -> None:
    model = models.model_of(
        [helper.make_node("Neg", ["x"], ["y"])],
        [models.floats("x", "N", 12000)],
        [models.floats("y", "N", 12000)],
    )
    path = models.save(model, tmp_path / "m.onnx")
    details = bundle_from_onnx(path, tmp_path / "bundle", name="m").details("fp32")
    size = sum(len(t.data) for v in details.self_test for t in (*v.inputs, *v.outputs))
    assert 0 < size <= self_test.MAX_TOTAL_BYTES
    assert 1 <= len(details.self_test) < self_test.MAX_VECTORS


def test_a_lone_large_vector_is_kept(tmp_path: Path) -> None:
    model = models.model_of(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2, 3], keepdims=0)],
        [models.floats("x", 1, 3, 224, 224)],
        [models.floats("y", 1)],
    )
    path = models.save(model, tmp_path / "m.onnx")
    assert len(bundle_from_onnx(path, tmp_path / "bundle", name="m").details("fp32").self_test) == 1


def test_outputs_without_numbers_are_not_recorded(tmp_path: Path) -> None:
    model = models.model_of(
        [helper.make_node("Log", ["x"], ["y"])],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 8)],
    )
    path = models.save(model, tmp_path / "m.onnx")
    x = models.inputs_for(4)
    x[0] = np.abs(x[0])
    x[1:, 0] = -1
    bundle = bundle_from_onnx(path, tmp_path / "bundle", name="m", self_test_inputs=x)
    (vector,) = bundle.details("fp32").self_test
    assert np.isfinite(arrays(vector.outputs)["y"]).all()


def test_self_test_inputs_that_do_not_suit_are_refused(digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="self_test_inputs"):
        bundle_from_onnx(
            digits.path, tmp_path / "bundle", name="d", self_test_inputs=np.zeros((3, 63))
        )
    assert not list(tmp_path.glob("*b*"))


def test_a_model_that_onnxruntime_cannot_load_is_refused(tmp_path: Path) -> None:
    model = models.linear()
    model.graph.node[0].op_type = "NoSuchOperator"
    path = models.save(model, tmp_path / "m.onnx")
    with pytest.raises(InvalidModelError, match="cannot load"):
        bundle_from_onnx(path, tmp_path / "bundle", name="m")


def test_a_precision_that_no_target_asks_for_is_refused_unless_named(tmp_path: Path) -> None:
    model = models.linear()
    model.graph.initializer.append(models.weights("more", 32, 32, dtype="float64"))
    path = models.save(model, tmp_path / "m.onnx")
    with pytest.raises(InvalidModelError, match="fp64"):
        bundle_from_onnx(path, tmp_path / "bundle", name="m")
    bundle = bundle_from_onnx(path, tmp_path / "bundle", name="m", precision="fp32")
    assert bundle.variants[0].precision == "fp32"


def test_an_illegal_name_or_an_existing_folder_is_refused(digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="model name"):
        bundle_from_onnx(digits.path, tmp_path / "bundle", name="Digits!")
    with pytest.raises(InvalidInputError, match="exists"):
        bundle_from_onnx(digits.path, tmp_path, name="digits")


def test_a_full_disk_and_ctrl_c_leave_nothing_behind(digits: Digits, tmp_path: Path) -> None:
    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(StorageFullError):
        bundle_from_onnx(digits.path, tmp_path / "b", name="digits", progress=no_room)
    with pytest.raises(KeyboardInterrupt):
        bundle_from_onnx(digits.path, tmp_path / "b", name="digits", progress=interrupt)
    assert not list(tmp_path.glob("*b*"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_memory_stays_flat_for_large_external_data(tmp_path: Path) -> None:
    rows = 1 << 22
    model = models.linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [8, rows]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = rows
    path = models.save(model, tmp_path / "m.onnx")
    size = math.prod(tensor.dims) * 4
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(size)  # a sparse file: zeros that take no room
    script = (
        "import re, sys\n"
        "from edgefleet.optimization import bundle_from_onnx, self_test\n"
        "self_test.MAX_UNASKED_BYTES = 1 << 20\n"
        "bundle_from_onnx(sys.argv[1], sys.argv[2], name='large').verify()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(tmp_path / "bundle")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert size == 1 << 27
    assert int(done.stdout) * 1024 < size
