"""Pruning: what is removed is what was zero, what can't be followed stays whole, and is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgefleet.optimization import optimize
from edgefleet.optimization.artifact import of_onnx
from edgefleet.optimization.makers import NotMade
from edgefleet.optimization.onnx_file import inspect
from tests.optimization import models
from tests.optimization.making import (
    branching,
    digit_images,
    make,
    operators,
    outputs,
    small_cnn,
    source_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.optimization.artifact import Artifact

    Arrays = dict[str, NDArray[Any]]

node = helper.make_node


def net(
    nodes: Sequence[onnx.NodeProto], shape: tuple[int | str, ...], *constants: onnx.TensorProto
) -> onnx.ModelProto:
    """From "x" of a shape to "y" of shape [N, 5]."""
    return models.model_of(
        nodes, [models.floats("x", "N", *shape)], [models.floats("y", "N", 5)], constants
    )


def arrays(path: Path) -> Arrays:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def shapes(artifact: Artifact) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays(artifact.path).items()}


def of(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    return models.weights(name, *shape, seed=seed)


def positive(name: str, length: int) -> onnx.TensorProto:
    values = np.random.default_rng(3).uniform(0.5, 2, length).astype(np.float32)
    return numpy_helper.from_array(values, name)


def with_changes(model: onnx.ModelProto, changes: Arrays, path: Path) -> Artifact:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name in changes:
            tensor.CopyFrom(numpy_helper.from_array(changes[tensor.name], tensor.name))
    return of_onnx(inspect(models.save(changed, path)))


def least(weights: NDArray[Any], share: float, axis: int = 0) -> NDArray[np.intp]:
    flat = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    return np.sort(np.argsort(np.linalg.norm(flat, axis=1))[: int(len(flat) * share)])


CHAIN = [
    node("Conv", ["x", "w0", "b0"], ["c0"], name="conv0", pads=[1, 1, 1, 1]),
    node("Relu", ["c0"], ["r0"], name="relu0"),
    node("BatchNormalization", ["r0", "s", "o", "m", "v"], ["n0"], name="norm0"),
    node("Clip", ["n0", "low", "high"], ["k0"], name="clip0"),
    node("Conv", ["k0", "d0", "e0"], ["g0"], name="depth0", group=8),
    node("Conv", ["g0", "w1", "b1"], ["c1"], name="conv1"),
    node("LeakyRelu", ["c1"], ["r1"], name="relu1"),
    node("MaxPool", ["r1"], ["p1"], name="pool1", kernel_shape=[2, 2], strides=[2, 2]),
    node("Flatten", ["p1"], ["f1"], name="flat1"),
    node("Gemm", ["f1", "w2", "b2"], ["h2"], name="gemm2", transB=1),
    node("Relu", ["h2"], ["r2"], name="relu2"),
    node("MatMul", ["r2", "w3"], ["m3"], name="mat3"),
    node("Add", ["m3", "b3"], ["a3"], name="add3"),
    node("Tanh", ["a3"], ["t3"], name="tanh3"),
    node("MatMul", ["t3", "w4"], ["y"], name="mat4"),
]


def chain() -> onnx.ModelProto:
    """Every operator that channels are followed through one after the other."""
    return net(
        CHAIN,
        (3, 8, 8),
        of("w0", 8, 3, 3, 3), of("b0", 8),
        positive("s", 8), of("o", 8), of("m", 8, seed=4), positive("v", 8),
        numpy_helper.from_array(np.array(0, np.float32), "low"),
        numpy_helper.from_array(np.array(6, np.float32), "high"),
        of("d0", 8, 1, 3, 3), of("e0", 8, seed=5),
        of("w1", 12, 8, 3, 3), of("b1", 12),
        of("w2", 16, 48), of("b2", 16),
        of("w3", 16, 20), of("b3", 20),
        of("w4", 20, 5),
    )  # fmt: skip


def test_a_pruned_model_computes_what_the_whole_one_does_with_those_channels_at_zero(
    tmp_path: Path,
) -> None:
    model = chain()
    source = source_of(model, tmp_path)
    made = make("channels-25", source, tmp_path)
    given = arrays(source.file.path)
    zero = {name: array.copy() for name, array in given.items()}
    first, second = least(given["w0"], 0.25), least(given["w1"], 0.25)
    third, fourth = least(given["w2"], 0.25), least(given["w3"], 0.25, axis=1)
    for names, channels in (
        (("w0", "b0", "s", "o", "m", "d0", "e0"), first),
        (("w1", "b1"), second),
        (("w2", "b2"), third),
        (("b3",), fourth),
    ):
        for name in names:
            zero[name][channels] = 0
    zero["w3"][:, fourth] = 0
    due = outputs(with_changes(model, zero, tmp_path / "zero.onnx"), pixels := samples(3, 8, 8))
    assert np.abs(outputs(made, pixels) - due).max() <= 1e-4 * np.abs(due).max()
    whole = outputs(of_onnx(source.file), pixels)
    assert np.abs(outputs(made, pixels) - whole).max() > 1e-2 * np.abs(whole).max()
    assert shapes(made)["w4"] == (15, 5)
    assert made.size_bytes < 0.75 * source.file.size_bytes
    assert made.notes["remark"].startswith("14 of 56 channels of conv0, conv1, gemm2, mat3")
    onnx.checker.check_model(onnx.load(made.path), full_check=True)


def test_equal_biases_of_two_layers_are_cut_each_by_itself(tmp_path: Path) -> None:
    zeros = [numpy_helper.from_array(np.zeros(8, np.float32), name) for name in ("b0", "b1")]
    model = net(
        [
            node("Conv", ["x", "w0", "b0"], ["c0"], name="one"),
            node("Conv", ["c0", "w1", "b1"], ["c1"], name="two"),
            node("GlobalAveragePool", ["c1"], ["p"]),
            node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", "w2"], ["y"], name="three"),
        ],
        (3, 6, 6),
        *zeros,
        of("w0", 8, 3, 3, 3),
        of("w1", 8, 8, 3, 3),
        of("w2", 8, 5),
    )
    made = make("channels-25", source_of(model, tmp_path), tmp_path)
    assert shapes(made)["w1"] == (6, 6, 3, 3)
    assert outputs(made, samples(3, 6, 6)).shape == (6, 5)


def samples(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal((6, *shape)).astype(np.float32)


def test_channels_are_followed_through_a_join_of_two_branches(tmp_path: Path) -> None:
    model = net(
        [
            node("Conv", ["x", "w0"], ["c0"], name="squeeze"),
            node("Relu", ["c0"], ["r0"]),
            node("Conv", ["r0", "w1", "b1"], ["c1"], name="one"),
            node("Conv", ["r0", "w2", "b2"], ["c2"], name="three", pads=[1, 1, 1, 1]),
            node("Concat", ["c1", "c2"], ["j"], axis=1),
            node("Relu", ["j"], ["r"]),
            node("Conv", ["r", "w3"], ["c3"], name="last"),
            node("GlobalAveragePool", ["c3"], ["p"]),
            node("Flatten", ["p"], ["y"]),
        ],
        (3, 6, 6),
        of("w0", 4, 3, 1, 1), of("w1", 8, 4, 1, 1), of("b1", 8), of("w2", 12, 4, 3, 3),
        of("b2", 12), of("w3", 5, 20, 1, 1),
    )  # fmt: skip
    source = source_of(model, tmp_path)
    made = make("channels-25", source, tmp_path)
    given = arrays(source.file.path)
    zero = {name: array.copy() for name, array in given.items()}
    zero["w0"][least(given["w0"], 0.25)] = 0
    for weights, bias in (("w1", "b1"), ("w2", "b2")):
        channels = least(given[weights], 0.25)
        zero[weights][channels] = zero[bias][channels] = 0
    due = outputs(with_changes(model, zero, tmp_path / "zero.onnx"), samples(3, 6, 6))
    assert np.abs(outputs(made, samples(3, 6, 6)) - due).max() <= 1e-4 * np.abs(due).max()
    assert shapes(made)["w3"] == (5, 15, 1, 1)
    assert "left whole: last (its output leaves the graph)" in made.notes["remark"]


def test_layers_that_a_sum_joins_stay_whole_and_the_others_shrink(tmp_path: Path) -> None:
    model = net(
        [
            node("Conv", ["x", "w0"], ["c0"], name="stem", pads=[1, 1, 1, 1]),
            node("Conv", ["c0", "w1"], ["c1"], name="inner", pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"]),
            node("Conv", ["r1", "w2"], ["c2"], name="outer", pads=[1, 1, 1, 1]),
            node("Add", ["c0", "c2"], ["a"], name="sum"),
            node("GlobalAveragePool", ["a"], ["p"]),
            node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", "w3"], ["y"], name="head"),
        ],
        (3, 6, 6),
        of("w0", 8, 3, 3, 3), of("w1", 8, 8, 3, 3), of("w2", 8, 8, 3, 3), of("w3", 8, 5),
    )  # fmt: skip
    made = make("channels-25", source_of(model, tmp_path), tmp_path)
    assert shapes(made) == {
        "w0": (8, 3, 3, 3),
        "w1": (6, 8, 3, 3),
        "w2": (8, 6, 3, 3),
        "w3": (8, 5),
    }
    assert "stem (sum joins it with another branch)" in made.notes["remark"]
    assert outputs(made, samples(3, 6, 6)).shape == (6, 5)


@pytest.mark.parametrize(
    "between, constants, says",
    [
        ([node("Sigmoid", ["h"], ["k"], name="sig")], [], "through Sigmoid sig"),
        ([node("Softmax", ["h"], ["k"], name="soft")], [], "through Softmax soft"),
        ([node("Add", ["h", "one"], ["k"], name="up")], [("one", ())], "through Add up"),
        ([node("Transpose", ["h"], ["k"], name="turn")], [], "through Transpose turn"),
        ([node("Mul", ["h", "h"], ["k"], name="square")], [], "through Mul square"),
    ],
    ids=["not zero at zero", "mixes channels", "one for all", "moves axes", "twice"],
)
def test_what_cannot_be_followed_leaves_the_layer_whole_with_the_reason(
    between: list[onnx.NodeProto],
    constants: list[tuple[str, tuple[int, ...]]],
    says: str,
    tmp_path: Path,
) -> None:
    nodes = [
        node("MatMul", ["x", "w0"], ["h"], name="first"),
        *between,
        node("MatMul", ["k", "w1"], ["y"], name="second"),
    ]
    extra = [numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in constants]
    model = net(nodes, (8,), of("w0", 8, 8), of("w1", 8, 5), *extra)
    if "Transpose" in says:
        model.graph.node[1].attribute.append(helper.make_attribute("perm", [0, 1]))
    with pytest.raises(NotMade, match="no layer whose channels can be removed") as caught:
        make("channels-25", source_of(model, tmp_path), tmp_path)
    if "Transpose" not in says:  # one that moves nothing is dropped while preparing
        assert says in str(caught.value)


def test_a_constant_that_two_nodes_share_is_not_cut(tmp_path: Path) -> None:
    model = net(
        [
            node("MatMul", ["x", "w"], ["h0"], name="first"),
            node("Relu", ["h0"], ["r0"]),
            node("MatMul", ["r0", "w"], ["h1"], name="second"),
            node("MatMul", ["h1", "w2"], ["y"], name="third"),
        ],
        (8,),
        of("w", 8, 8),
        of("w2", 8, 5),
    )
    with pytest.raises(NotMade, match=r"first \(w is shared\), second \(w is shared\)"):
        make("channels-25", source_of(model, tmp_path), tmp_path)


def test_what_a_branch_of_control_flow_reads_stays_whole(tmp_path: Path) -> None:
    branches = [
        helper.make_graph(
            [node(op, ["h"], [f"{op}_y"])], op, [], [models.floats(f"{op}_y", None, 8)]
        )
        for op in ("Relu", "Abs")
    ]
    model = net(
        [
            node("MatMul", ["x", "w0"], ["h"], name="first"),
            node("ReduceSum", ["x"], ["s"], keepdims=0),
            node("Greater", ["s", "zero"], ["c"]),
            node("If", ["c"], ["k"], name="if", then_branch=branches[0], else_branch=branches[1]),
            node("MatMul", ["k", "w1"], ["y"], name="second"),
        ],
        (8,),
        of("w0", 8, 8),
        of("w1", 8, 5),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
    )
    with pytest.raises(NotMade, match=r"first \(its output leaves the graph\)"):
        make("channels-25", source_of(model, tmp_path), tmp_path)


@pytest.mark.parametrize("axes, lost", [([2, 3], ""), ([-1, -2], ""), ([1, 2], "mean")])
def test_a_mean_over_the_picture_is_followed_through_one_over_channels_is_not(
    axes: list[int],
    lost: str,
    tmp_path: Path,
) -> None:
    model = net(
        [
            node("Conv", ["x", "w0"], ["c"], name="first"),
            node("ReduceMean", ["c"], ["m"], name="mean", axes=axes, keepdims=0),
            node("MatMul", ["m", "w1"], ["y"], name="second"),
        ],
        (3, 10, 10),
        of("w0", 8, 3, 3, 3),
        of("w1", 8, 5),
    )
    source = source_of(model, tmp_path)
    if lost:
        with pytest.raises(NotMade, match=f"through ReduceMean {lost}"):
            make("channels-25", source, tmp_path)
        return
    made = make("channels-25", source, tmp_path)
    given = arrays(source.file.path)["w0"].copy()
    given[least(given, 0.25)] = 0
    due = outputs(with_changes(model, {"w0": given}, tmp_path / "z.onnx"), samples(3, 10, 10))
    assert np.abs(outputs(made, samples(3, 10, 10)) - due).max() <= 1e-4 * np.abs(due).max()


def test_a_pool_whose_indices_are_read_cannot_be_followed_through(tmp_path: Path) -> None:
    pool: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    model = models.model_of(
        [
            node("Conv", ["x", "w0"], ["c"], name="first"),
            node("MaxPool", ["c"], ["p", "at"], name="pool", **pool),
            node("MaxUnpool", ["p", "at"], ["u"], name="unpool", **pool),
            node("Conv", ["u", "w1"], ["y"], name="second"),
        ],
        [models.floats("x", "N", 3, 6, 6)],
        [models.floats("y", "N", 5, 4, 4)],
        [of("w0", 8, 3, 3, 3), of("w1", 5, 8, 1, 1)],
    )
    with pytest.raises(NotMade, match=r"first \(it can't be followed through MaxPool pool\)"):
        make("channels-25", source_of(model, tmp_path), tmp_path)


def test_a_model_without_layers_has_no_channels(tmp_path: Path) -> None:
    model = models.model_of(
        [node("Sin", ["x"], ["y"])], [models.floats("x", "N", 8)], [models.floats("y", "N", 8)]
    )
    with pytest.raises(NotMade, match=r"^it has no layer whose channels can be removed$"):
        make("channels-25", source_of(model, tmp_path), tmp_path)


def test_a_layer_keeps_at_least_one_channel(tmp_path: Path) -> None:
    made = make("channels-25", source_of(chain(), tmp_path), tmp_path, share=1.0)
    assert shapes(made)["w0"] == (1, 3, 3, 3)
    assert outputs(made, samples(3, 8, 8)).shape == (6, 5)


def test_half_of_each_tensors_weights_become_zero_the_smallest_ones(tmp_path: Path) -> None:
    source = source_of(chain(), tmp_path)
    made = make("weights-50", source, tmp_path)
    given, pruned = arrays(source.file.path), arrays(made.path)
    for name in ("w0", "d0", "w1", "w2", "w3", "w4"):
        gone = pruned[name] == 0
        assert gone.sum() == gone.size // 2
        assert np.abs(given[name][gone]).max() <= np.abs(given[name][~gone]).min()
        assert np.array_equal(pruned[name][~gone], given[name][~gone])
    for name in ("b0", "s", "o", "b2", "b3"):
        assert np.array_equal(pruned[name], given[name])
    assert operators(made) == [n.op_type for n in CHAIN]


def test_zeros_are_told_to_save_no_bytes_but_compressed_ones_and_no_time(tmp_path: Path) -> None:
    source = source_of(small_cnn(samples(1, 8, 8), np.arange(6)), tmp_path)
    made = make("weights-50", source, tmp_path)
    assert made.size_bytes == source.file.size_bytes
    said = made.notes["remark"]
    assert "as many bytes on the device" in said
    assert "no faster on a dense engine" in said
    share = int(said.split("device, ")[1].split("%")[0])
    assert 30 < share < 80


def test_a_model_without_weights_has_none_to_set_to_zero(tmp_path: Path) -> None:
    model = models.model_of(
        [node("Sin", ["x"], ["y"])], [models.floats("x", "N", 8)], [models.floats("y", "N", 8)]
    )
    with pytest.raises(NotMade, match="no weights to set to zero"):
        make("weights-50", source_of(model, tmp_path), tmp_path)


def test_weights_that_branches_of_control_flow_read_become_zero_too(tmp_path: Path) -> None:
    made = make("weights-50", source_of(branching(), tmp_path), tmp_path)
    assert (arrays(made.path)["w"] == 0).sum() == 32


@pytest.mark.parametrize("name", ["channels-25", "weights-50"])
def test_external_data_is_pruned_into_one_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "given" / "net.onnx"
    path.parent.mkdir()
    onnx.save(chain(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    made = make(name, source_of(path, tmp_path), tmp_path)
    assert [*made.files] == ["model.onnx"]
    assert outputs(made, samples(3, 8, 8)).shape == (6, 5)


def test_pruned_candidates_are_tried_when_asked_judged_and_told_of(tmp_path: Path) -> None:
    images, labels = digit_images()
    path = models.save(small_cnn(images[:1200], labels[:1200]), tmp_path / "cnn.onnx")
    bundle = optimize(
        path,
        targets=["raspberry-pi-5"],  # nothing is measured here for it
        calibration=images[:50],
        evaluate=lambda p: float((p(images[1200:]).argmax(1) == labels[1200:]).mean()),
        max_accuracy_drop=1.0,  # what it costs is the gate's to judge, not this test's
        candidates=["channels-25", "weights-50"],
    )
    channels, weights = bundle.report.row("channels-25"), bundle.report.row("weights-50")
    assert channels.accuracy_drop is not None
    assert weights.accuracy_drop is not None
    assert (channels.outcome, weights.outcome) == ("shipped", "passed")
    assert "channels of conv0, conv1 removed; left whole: gemm" in channels.why
    assert "no faster on a dense engine" in weights.why
    assert channels.size_bytes is not None
    assert channels.size_bytes < 0.8 * path.stat().st_size
