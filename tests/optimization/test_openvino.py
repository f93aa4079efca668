"""Candidates in OpenVINO's format: made by its library, judged by the same gate, shipped whole."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from edgefleet.errors import InvalidModelError
from edgefleet.optimization import optimize
from edgefleet.optimization.artifact import of_onnx
from edgefleet.optimization.makers import MAX_REASON, NotMade, Source
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.openvino import make_openvino
from edgefleet.optimization.recipes import RECIPES
from edgefleet.optimization.session import OnnxSession
from edgefleet.optimization.sessions import open_session
from edgefleet.protocol.bundle import files_of
from edgefleet.protocol.target import HardwareTarget, choose_variant
from tests.optimization import models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.optimization import Bundle
    from edgefleet.optimization.artifact import Artifact

pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")

BY_NAME = {recipe.name: recipe for recipe in RECIPES}
GATEWAY = HardwareTarget(
    name="gateway",
    about="an Intel gateway",
    arch="x86_64",
    precisions=("int8", "fp16", "fp32"),
    formats=("openvino", "onnx"),
    # Not the CPU first: whether a busy machine finds a candidate slow decides nothing here.
    providers=("OpenVINOExecutionProvider", "CPUExecutionProvider"),
)
LAYERS = (32, 256, 128, 10)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of random weights; right is what it answers itself."""

    path: Path
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]

    def accuracy(self, predict: Callable[[Any], Any]) -> float:
        return float((predict(self.inputs).argmax(1) == self.labels).mean())


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    nodes, constants, here = [], [], "x"
    for place, (rows, columns) in enumerate(itertools.pairwise(LAYERS)):
        last = place == len(LAYERS) - 2
        constants.append(models.weights(f"w{place}", rows, columns, seed=place))
        there = "y" if last else f"h{place}"
        nodes.append(helper.make_node("MatMul", [here, f"w{place}"], [there]))
        if not last:
            here = f"r{place}"
            nodes.append(helper.make_node("Relu", [there], [here]))
    model = models.model_of(
        nodes,
        [models.floats("x", "N", LAYERS[0])],
        [models.floats("y", "N", LAYERS[-1])],
        constants,
    )
    path = models.save(model, tmp_path_factory.mktemp("network") / "network.onnx")
    inputs = models.inputs_for(400, width=LAYERS[0])
    labels = OnnxSession(path, inspect(path).interface).predict(inputs).argmax(1)
    return Network(path=path, inputs=inputs, labels=labels)


@pytest.fixture(scope="session")
def bundle(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return optimize(
        network.path,
        targets=[GATEWAY],
        calibration=network.inputs[:100],
        evaluate=network.accuracy,
        max_accuracy_drop=0.05,
        candidates=["openvino*"],
        output=tmp_path_factory.mktemp("openvino") / "bundle",
        progress=False,
    )


def made(path: Path, to: Path, name: str = "openvino", *, base: Artifact | None = None) -> Artifact:
    to.mkdir()
    source = Source(file=inspect(path), base=base)
    return make_openvino(BY_NAME[name], source, to, lambda _: None)


def test_the_gateway_gets_the_int8_file_that_passed_the_gate(bundle: Bundle) -> None:
    bundle.verify()
    (row,) = bundle.report.targets
    assert row.variant == "openvino-int8"
    choice = choose_variant(bundle.variants, GATEWAY, formats={"openvino", "onnx"})
    assert choice.variant.name == "openvino-int8"
    assert set(files_of(bundle.manifest("openvino-int8"))) == {"model.xml", "model.bin"}


def test_int8_and_fp16_files_are_smaller_and_as_accurate_as_the_gate_allows(
    bundle: Bundle,
) -> None:
    rows = {
        name: bundle.report.row(name) for name in ("openvino", "openvino-fp16", "openvino-int8")
    }
    assert all(row.accuracy_drop is not None and row.accuracy_drop <= 0.05 for row in rows.values())
    weights = {name: row.size_bytes or 0 for name, row in rows.items()}
    assert weights["openvino-int8"] < weights["openvino-fp16"] < weights["openvino"]
    assert rows["openvino"].accuracy == bundle.report.row("fp32").accuracy


def test_self_test_vectors_are_what_its_own_engine_answers(bundle: Bundle) -> None:
    details = bundle.details("openvino-int8")
    assert details.self_test
    assert details.tolerance.absolute > 0
    assert details.lineage["openvino"]
    assert "per channel" in details.lineage["quantization"]
    assert details.interface == bundle.details("fp32").interface


@pytest.mark.parametrize("name", ["openvino", "openvino-fp16"])
def test_outputs_are_those_of_the_model_as_given(
    network: Network, tmp_path: Path, name: str
) -> None:
    artifact = made(network.path, tmp_path / "made", name)
    due = OnnxSession(network.path, artifact.interface).predict(network.inputs)
    seen = open_session(artifact).predict(network.inputs)
    np.testing.assert_allclose(seen, due, rtol=1e-3, atol=1e-3 if name == "openvino" else 0.5)


def test_several_inputs_and_outputs_keep_their_names_and_take_any_batch(tmp_path: Path) -> None:
    path = models.save(models.two_inputs(), tmp_path / "two.onnx")
    artifact = made(path, tmp_path / "made")
    assert artifact.interface == inspect(path).interface
    session = open_session(artifact)
    for count in (1, 5):
        feed = {"a": models.inputs_for(count), "b": models.inputs_for(count, width=4)}
        due = OnnxSession(path, artifact.interface).run(feed)
        seen = session.run(feed)
        assert list(seen) == ["total", "difference"]
        for name, value in due.items():
            np.testing.assert_allclose(seen[name], value, atol=1e-5)


def test_an_output_of_several_names_keeps_the_models(tmp_path: Path) -> None:
    model = models.model_of(
        [
            helper.make_node("Relu", ["x"], ["aaa"]),
            helper.make_node("Identity", ["aaa"], ["y"]),
        ],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 8)],
    )
    artifact = made(models.save(model, tmp_path / "m.onnx"), tmp_path / "made")
    assert 'names="y"' in artifact.path.read_text()
    assert list(open_session(artifact).run({"x": models.inputs_for(2)})) == ["y"]


def test_a_model_without_weights_still_has_both_files(tmp_path: Path) -> None:
    model = models.model_of(
        [helper.make_node("Relu", ["x"], ["y"])],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 8)],
    )
    artifact = made(models.save(model, tmp_path / "m.onnx"), tmp_path / "made")
    assert set(artifact.files) == {"model.xml", "model.bin"}
    assert all(path.is_file() for path in artifact.files.values())


def test_external_weights_are_read_from_beside_the_model(tmp_path: Path) -> None:
    path = models.with_external(tmp_path / "model")
    artifact = made(path, tmp_path / "made")
    x = models.inputs_for(3)
    due = OnnxSession(path, artifact.interface).predict(x)
    np.testing.assert_allclose(open_session(artifact).predict(x), due, atol=1e-5)


def test_the_candidate_it_starts_from_is_what_is_converted(tmp_path: Path) -> None:
    given = models.save(models.linear(), tmp_path / "given.onnx")
    other = models.model_of(
        [helper.make_node("Neg", ["x"], ["y"])],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 8)],
    )
    base = of_onnx(
        inspect(models.save(other, tmp_path / "base.onnx")), notes={"quantization": "base's"}
    )
    artifact = made(given, tmp_path / "made", "openvino-int8", base=base)
    x = models.inputs_for(2)
    np.testing.assert_array_equal(open_session(artifact).predict(x), -x)
    assert artifact.notes["quantization"] == "base's"


CHILD = """
import hashlib, json, os, sys
from pathlib import Path

seen = []
if sys.argv[3] == "watch":
    sys.modules["openvino_telemetry"] = None  # what would send anything can't even be imported
    watched = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen")
    sys.addaudithook(lambda event, _: seen.append(event) if event in watched else None)

from edgefleet.optimization.makers import Source
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.openvino import make_openvino
from edgefleet.optimization.recipes import RECIPES
from edgefleet.optimization.sessions import open_session

file, to = inspect(sys.argv[1]), Path(sys.argv[2])
digests = {}
for recipe in RECIPES:
    if recipe.kind == "openvino":
        (to / recipe.name).mkdir()
        artifact = make_openvino(recipe, Source(file=file), to / recipe.name, lambda _: None)
        open_session(artifact)
        digests[recipe.name] = artifact.digest()
home = sorted(os.listdir(os.environ["HOME"]))
print(json.dumps({"digests": digests, "seen": seen, "home": home}))
"""


def in_a_child(path: Path, to: Path, *, watch: bool) -> Any:
    (to / "made").mkdir(parents=True)
    (to / "home").mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, path, to / "made", "watch" if watch else "plain"],
        env={"HOME": str(to / "home"), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout)


def test_the_files_are_the_same_in_every_process(network: Network, tmp_path: Path) -> None:
    there = in_a_child(network.path, tmp_path / "child", watch=False)["digests"]
    for again in ("once", "twice"):
        here = {
            recipe.name: made(
                network.path, tmp_path / f"{again}-{recipe.name}", recipe.name
            ).digest()
            for recipe in RECIPES
            if recipe.kind == "openvino"
        }
        assert here == there


def test_nothing_is_reported_to_the_vendor(network: Network, tmp_path: Path) -> None:
    found = in_a_child(network.path, tmp_path / "child", watch=True)
    assert len(found["digests"]) == 3
    assert found["seen"] == []
    assert found["home"] == []  # the telemetry's consent file would lie here


def test_operators_that_it_lacks_are_named_in_a_short_row(tmp_path: Path) -> None:
    model = models.model_of(
        [helper.make_node("ArrayFeatureExtractor", ["x", "at"], ["y"], domain="ai.onnx.ml")],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 1)],
        [numpy_helper.from_array(np.array([3], np.int64), "at")],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
    )
    bundle = optimize(
        models.save(model, tmp_path / "picked.onnx"),
        targets=[GATEWAY],
        evaluate=lambda predict: float(predict(models.inputs_for()).shape == (32, 1)),
        candidates=["openvino"],
        progress=False,
    )
    row = bundle.report.row("openvino")
    assert row.outcome == "not made"
    assert row.why == "OpenVINO has no operator ai.onnx.ml.ArrayFeatureExtractor"


def test_a_file_that_it_cannot_read_is_a_short_reason_without_its_source_places(
    tmp_path: Path,
) -> None:
    path = models.save(models.linear(), tmp_path / "m.onnx")
    source = Source(file=inspect(path))
    path.write_bytes(b"\x00")
    (tmp_path / "made").mkdir()
    with pytest.raises(NotMade) as reason:
        make_openvino(BY_NAME["openvino"], source, tmp_path / "made", lambda _: None)
    text = str(reason.value)
    assert text.startswith("OpenVINO can't convert it: ")
    assert ".cpp" not in text
    assert len(text) <= MAX_REASON


def test_without_the_library_the_row_names_what_to_install(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    bundle = optimize(
        network.path,
        targets=[GATEWAY],
        evaluate=network.accuracy,
        candidates=["openvino"],
        progress=False,
    )
    row = bundle.report.row("openvino")
    assert (row.outcome, row.why) == (
        "not made",
        "needs OpenVINO: pip install 'edgefleet[openvino]'",
    )


def test_a_damaged_file_is_an_error_that_names_it(network: Network, tmp_path: Path) -> None:
    artifact = made(network.path, tmp_path / "made")
    artifact.path.write_text("<net/>")
    with pytest.raises(InvalidModelError, match=r"OpenVINO cannot load .*model\.xml"):
        open_session(artifact)


def test_an_input_that_is_only_read_stays_as_it_is(network: Network, tmp_path: Path) -> None:
    session = open_session(made(network.path, tmp_path / "made"))
    x = network.inputs[:4].copy()
    before = hashlib.sha256(x.tobytes()).hexdigest()
    x.flags.writeable = False
    first = session.run({"x": x})["y"]
    copy = first.copy()
    session.run({"x": np.zeros_like(x)})
    np.testing.assert_array_equal(first, copy)  # not overwritten by the next run
    assert hashlib.sha256(x.tobytes()).hexdigest() == before
